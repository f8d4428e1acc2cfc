#pragma once

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace crosvm {

/// Sockets of this thread's network that listen, or are bound to hear from anybody: "tcp
/// 0100007F:1F90".
inline std::vector<std::string> listening_sockets() {
  std::vector<std::string> found;
  for (const std::string table : {"tcp", "tcp6", "udp", "udp6"}) {
    std::ifstream lines("/proc/thread-self/net/" + table);
    std::string line;
    std::getline(lines, line);  // the titles
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string number, local, remote, state;
      words >> number >> local >> remote >> state;
      if (state == (table[0] == 't' ? "0A" : "07")) found.push_back(table + " " + local);
    }
  }
  return found;
}

}  // namespace crosvm

#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

/// What /proc says of processes, for tests.
namespace crosvm::test {

inline std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::istringstream list(text_of("/proc/" + id + "/task/" + id + "/children"));
  std::vector<pid_t> children;
  for (pid_t child; list >> child;) children.push_back(child);
  return children;
}

/// "name: value" lines of a status file.
inline std::map<std::string, std::string> status_in(const std::string& path) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(text_of(path));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    const size_t value = line.find_first_not_of("\t ", colon + 1);
    if (value != std::string::npos) fields[line.substr(0, colon)] = line.substr(value);
  }
  return fields;
}

inline std::map<std::string, std::string> status_of(pid_t pid) {
  return status_in("/proc/" + std::to_string(pid) + "/status");
}

inline std::string name_of(pid_t pid) { return status_of(pid)["Name"]; }

inline std::string namespace_of(pid_t pid, const char* kind) {
  return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/" + kind).string();
}

/// Whether a process is there that has not ended; one that is still to be reaped has.
inline bool lives(pid_t pid) {
  const std::string state = status_of(pid)["State"];
  return !state.empty() && state[0] != 'Z' && state[0] != 'X';
}

inline bool ends_soon(const std::vector<pid_t>& pids) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (std::ranges::none_of(pids, lives)) return true;
    ::usleep(10'000);
  }
  return false;
}

}  // namespace crosvm::test

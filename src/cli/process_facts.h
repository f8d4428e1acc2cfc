#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// What /proc and the kernel's socket tables say of a VM's processes.
namespace crosvm::doctor {

/// One descriptor of a process.
struct DescriptorFacts {
  int number = -1;
  std::string object;  ///< "/dev/kvm", "anon_inode:[eventfd]", "socket:[1234]"
  /// What tells this object from others of its kind: the inode of a socket or pipe, the id of an
  /// eventfd, the process of a pidfd; 0 where there is none.
  uint64_t identity = 0;
  std::vector<int> watches{};  ///< of an epoll instance: the descriptors it waits for
};

struct ThreadFacts {
  pid_t tid = 0;
  std::string name;
  bool has_filter = false;            ///< seccomp mode 2
  std::optional<uint64_t> filters{};  ///< how many; kernels before 5.9 do not say
};

struct LimitFacts {
  std::string name;  ///< "Max open files"
  std::string soft;
  std::string hard;
};

/// Of what may not be seen by everybody, nothing is told apart from none.
struct ProcessFacts {
  pid_t pid = 0;
  pid_t parent = 0;
  std::string name;
  uint32_t user = 0;  ///< effective, as our user namespace calls it
  bool no_new_privs = false;
  /// By name, as in /proc/PID/status, "CapEff": a bit for each.
  std::map<std::string, uint64_t> capabilities;
  std::vector<ThreadFacts> threads;
  std::vector<LimitFacts> limits;
  std::optional<std::map<std::string, std::string>> namespaces;  ///< kind to identity
  std::optional<std::vector<DescriptorFacts>> descriptors;       ///< by number
};

/// `root` and all below it, parents first, those of one parent by pid. What has ended meanwhile is
/// left out.
std::vector<ProcessFacts> process_tree(pid_t root);

/// The inode of each local socket and that of its peer, or nothing when the kernel does not tell.
std::map<uint64_t, uint64_t> socket_peers();

}  // namespace crosvm::doctor

#include "tools/seccomp/recorded_calls.h"

#include <linux/seccomp.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <regex>
#include <string_view>
#include <utility>
#include <vector>

#include "jail/seccomp_constants.h"

namespace crosvm {
namespace {

struct Role {
  std::string_view thread;  // how its name begins
  std::string_view policy;
};
// With a hyphen: processes of `crosvm devices`.
constexpr Role kRoles[] = {{"block-", "block_device_vhost_user"},
                           {"serial-", "serial_device_vhost_user"},
                           {"vsock-", "vsock_device_vhost_user"},
                           {"block", "block_device"},
                           {"console", "serial_device"},
                           {"rng", "rng_device"},
                           {"vsock", "vsock_device"},
                           {"irq_relay", "vmm_relay"},
                           {"crosvm_vcpu", "vmm_vcpu"},
                           {"crosvm", "vmm_control"}};

/// The first that fits: a vCPU thread's name begins like the main one's.
const Role* role_of(std::string_view thread) {
  for (const Role& role : kRoles) {
    if (thread.starts_with(role.thread)) return &role;
  }
  return nullptr;
}

struct Service {
  std::string_view argument;
  Role role;
};
constexpr Service kServices[] = {
    {"\"block\"", {"crosvm", "block_device_vhost_user"}},
    {"\"console\"", {"crosvm", "serial_device_vhost_user"}},
    {"\"rng\"", {"crosvm", "rng_device_vhost_user"}},
    {"\"vsock\"", {"crosvm", "vsock_device_vhost_user"}},
};

/// The role of the main thread of `crosvm device KIND …`, whose name tells nothing; null: the
/// program that is executed is another.
const Role* role_of_service(std::string_view execution) {
  const size_t command = execution.find("\"device\"");
  if (command == std::string_view::npos) return nullptr;
  for (const Service& service : kServices) {
    if (execution.find(service.argument, command) != std::string_view::npos) return &service.role;
  }
  return nullptr;
}

RecordedCall parse_call(const std::string& name, std::string_view arguments) {
  RecordedCall call{.name = name, .arguments = {}};
  for (uint64_t& argument : call.arguments) {
    const size_t end = std::min(arguments.find(", "), arguments.size());
    std::string_view text = arguments.substr(0, end);
    const bool hex = text.starts_with("0x");
    if (hex) text.remove_prefix(2);
    std::from_chars(text.data(), text.data() + text.size(), argument, hex ? 16 : 10);
    if (end == arguments.size()) break;
    arguments.remove_prefix(end + 2);
  }
  return call;
}

bool makes_thread(std::string_view call) {
  return call == "clone" || call == "clone3" || call == "fork" || call == "vfork";
}

/// A call that makes a thread is written with its flags by name, and not as numbers. What else it
/// has are addresses, but that of clone3 to look at.
RecordedCall parse_clone(const std::string& name, std::string_view arguments) {
  RecordedCall call{.name = name, .arguments = {}};
  constexpr std::string_view kFlags = "flags=";
  size_t begin = arguments.find(kFlags);
  if (name != "clone" || begin == std::string_view::npos) return call;
  begin += kFlags.size();
  std::string_view flags = arguments.substr(begin);
  flags = flags.substr(0, flags.find_first_of(", )"));
  while (!flags.empty()) {
    const size_t end = std::min(flags.find('|'), flags.size());
    const std::string_view flag = flags.substr(0, end);
    uint64_t value = flag == "SIGCHLD" ? SIGCHLD : 0;
    if (flag.starts_with("0x")) {
      std::from_chars(flag.data() + 2, flag.data() + flag.size(), value, 16);
    }
    call.arguments[0] |= seccomp_constant(flag, host_policy_arch()).value_or(value);
    flags.remove_prefix(std::min(end + 1, flags.size()));
  }
  return call;
}

/// Reads a recording line by line. A thread has the filters that whoever made it had then, and
/// those that it installs. Who made it may be told only after its first calls: these are kept until
/// then.
class Reader {
 public:
  void take(const std::string& line) {
    const size_t name = line.find('<');
    if (name == std::string::npos) return;
    const std::string id = line.substr(0, name);
    if (line.find(" +++ ") != std::string::npos) {
      const auto found = threads_.find(id);
      if (found == threads_.end()) return;
      found->second.ended = true;
      if (found->second.origin_known) threads_.erase(found);
      return;
    }
    std::smatch parts;
    if (std::regex_match(line, parts, kCall)) {
      begin(id, parts[2], parts[3], parts[4], line);
    } else if (!std::regex_match(line, parts, kResumed)) {
      return;
    }
    if (line.find("<unfinished ...>") == std::string::npos) end(id, parts[3], line);
  }

  RecordedCalls calls() && { return std::move(calls_); }

 private:
  struct Thread {
    bool origin_known = false;
    bool filtered = false;
    bool installs = false;  ///< is in a call that installs a filter
    bool for_all = false;   ///< and does so for all threads of its process
    bool joins = false;     ///< what it makes is a thread of its process
    std::string process;    ///< id of its first thread
    bool ended = false;
    const Role* service = nullptr;  ///< in place of the one that its name tells
    std::string maker;              ///< who is not known either
    std::vector<std::pair<std::string_view, RecordedCall>> undecided;  ///< by policy
  };

  // "12<block0> lseek(0x3, 0, 0x2) = 0" or, while others went on, "12<block0> lseek(0x3, 0
  // <unfinished ...>" and later "12<block0> <... lseek resumed>) = 0".
  inline static const std::regex kCall{R"((\d+)<([^>]*)> (\w+)\((.*))"};
  inline static const std::regex kResumed{R"((\d+)<([^>]*)> <\.\.\. (\w+) resumed>.*)"};
  // Of a process with numbers of its own: "= 2<block0> /* 12 in strace's PID NS */".
  inline static const std::regex kMade{
      R"(.* = (\d+)(?:<[^>]*>)?(?: /\* (\d+) in strace's PID NS \*/)?)"};

  void begin(const std::string& id, const std::string& name, const std::string& call,
             const std::string& arguments, const std::string& line) {
    const bool executes = call == "execve" || call == "execveat";
    const bool is_new = !threads_.contains(id);
    Thread& thread = threads_[id];
    if (is_new) thread.process = id;
    // The first of a recording begins with its execution, and nobody made it.
    if (is_new && executes) thread.origin_known = true;
    if (executes) thread.service = role_of_service(line);
    if (const Role* role = thread.service ? thread.service : role_of(name)) {
      RecordedCall recorded =
          makes_thread(call) ? parse_clone(call, arguments) : parse_call(call, arguments);
      if (thread.filtered) {
        calls_[std::string(role->policy)].insert(std::move(recorded));
      } else if (!thread.origin_known) {
        thread.undecided.emplace_back(role->policy, std::move(recorded));
      }
    }
    if (makes_thread(call)) thread.joins = arguments.find("CLONE_THREAD") != std::string::npos;
    const RecordedCall numbers = parse_call(call, arguments);
    thread.installs = call == "seccomp" && numbers.arguments[0] == SECCOMP_SET_MODE_FILTER;
    thread.for_all = thread.installs && (numbers.arguments[1] & SECCOMP_FILTER_FLAG_TSYNC) != 0;
  }

  void end(const std::string& id, const std::string& call, const std::string& line) {
    Thread& thread = threads_[id];
    const bool failed = line.find(" = -1 ") != std::string::npos;
    if (thread.installs && call == "seccomp" && !failed) {
      thread.filtered = true;  // whoever made it
      decide(id, false);
      for (auto& [other, facts] : threads_) {
        facts.filtered |= thread.for_all && facts.process == thread.process;
      }
    }
    thread.installs = false;
    std::smatch parts;
    if (!makes_thread(call) || failed || !std::regex_match(line, parts, kMade)) return;
    made(id, parts[2].matched ? parts[2] : parts[1]);
  }

  void made(const std::string& maker_id, const std::string& id) {
    const Thread maker = threads_[maker_id];
    Thread& thread = threads_[id];
    if (!thread.service) thread.service = maker.service;
    thread.process = maker.joins ? maker.process : id;
    if (maker.origin_known) {
      decide(id, maker.filtered);
    } else {
      thread.maker = maker_id;
    }
  }

  /// Now it is known whether a thread was filtered when it was made.
  void decide(const std::string& id, bool filtered) {
    Thread& thread = threads_[id];
    if (thread.origin_known && !filtered) return;
    thread.origin_known = true;
    thread.filtered |= filtered;
    for (auto& [policy, call] : std::exchange(thread.undecided, {})) {
      if (filtered) calls_[std::string(policy)].insert(std::move(call));
    }
    std::vector<std::string> made;
    for (auto& [other, facts] : threads_) {
      if (facts.maker != id) continue;
      facts.maker.clear();
      made.push_back(other);
    }
    for (const std::string& each : made) decide(each, filtered);
    if (threads_[id].ended) threads_.erase(id);
  }

  std::map<std::string, Thread> threads_;  // by thread id
  RecordedCalls calls_;
};

}  // namespace

RecordedCalls read_recorded_calls(std::istream& trace) {
  Reader reader;
  for (std::string line; std::getline(trace, line);) reader.take(line);
  return std::move(reader).calls();
}

}  // namespace crosvm

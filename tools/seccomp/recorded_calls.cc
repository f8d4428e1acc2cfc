#include "tools/seccomp/recorded_calls.h"

#include <algorithm>
#include <charconv>
#include <regex>
#include <string_view>

namespace crosvm {
namespace {

struct Role {
  std::string_view thread;  // how its name begins
  std::string_view policy;
  bool starts_threads;  // which are under its filter from their first call on
};
// With a hyphen: processes of `crosvm devices`.
constexpr Role kRoles[] = {{"block-", "block_device_vhost_user", true},
                           {"serial-", "serial_device_vhost_user", false},
                           {"block", "block_device", true},
                           {"console", "serial_device", false},
                           {"rng", "rng_device", false},
                           {"irq_relay", "vmm_relay", false},
                           {"crosvm_vcpu", "vmm_vcpu", false},
                           {"crosvm", "vmm_control", false}};

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
    {"\"block\"", {"crosvm", "block_device_vhost_user", false}},
    {"\"console\"", {"crosvm", "serial_device_vhost_user", false}},
    {"\"rng\"", {"crosvm", "rng_device_vhost_user", false}},
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

/// What is known of a thread that lives.
struct Thread {
  bool filtered = false;
  const Role* service = nullptr;  ///< in place of the one that its name tells
};

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

}  // namespace

RecordedCalls read_recorded_calls(std::istream& trace) {
  // "12<block0> lseek(0x3, 0, 0x2) = 0" or, while others went on, "12<block0> lseek(0x3, 0
  // <unfinished"
  const std::regex line_of_call(R"((\d+)<([^>]*)> (\w+)\(([^)<]*).*)");
  RecordedCalls calls;
  std::map<std::string, Thread> threads;  // by thread id
  std::smatch parts;
  for (std::string line; std::getline(trace, line);) {
    if (line.find(" +++ ") != std::string::npos) {
      threads.erase(line.substr(0, line.find('<')));
      continue;
    }
    if (!std::regex_match(line, parts, line_of_call)) continue;
    const std::string name = parts[3];
    const bool executes = name == "execve" || name == "execveat";
    const bool is_new = !threads.contains(parts[1]);
    Thread& thread = threads[parts[1]];
    if (executes) thread.service = role_of_service(line);
    const Role* role = thread.service ? thread.service : role_of(parts[2].str());
    if (is_new && role && role->starts_threads && !executes) thread.filtered = true;
    if (thread.filtered && role) {
      calls[std::string(role->policy)].insert(parse_call(name, parts[4].str()));
    }
    if (name == "seccomp" && parse_call(name, parts[4].str()).arguments[0] == 1) {
      thread.filtered = true;
    }
  }
  return calls;
}

}  // namespace crosvm

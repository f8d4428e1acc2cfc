#include "cli/process_facts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "base/fd.h"
#include "base/format.h"
#include "cli/text_fields.h"

namespace crosvm::doctor {
namespace {

using Fields = std::map<std::string, std::string>;

/// A whole file of /proc; "" when it cannot be read.
std::string contents_of(const std::string& path) {
  constexpr size_t kStep = 4096;
  auto file = open_path(path, O_RDONLY);
  std::string text;
  for (size_t got = kStep; file && got == kStep;) {
    const size_t before = text.size();
    text.resize(before + kStep);
    got =
        read_full(*file, std::as_writable_bytes(std::span(text).subspan(before)), path).value_or(0);
    text.resize(before + got);
  }
  return text;
}

std::string without_space(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

/// "name: value" lines.
Fields fields_of(const std::string& path) {
  Fields fields;
  const std::string text = contents_of(path);
  for (std::string_view line : lines_of(text)) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    fields[std::string(line.substr(0, colon))] = without_space(line.substr(colon + 1));
  }
  return fields;
}

/// The numbers that name entries of a directory; nothing when it cannot be listed.
std::optional<std::vector<int>> numbers_in(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), ::closedir);
  if (!folder) return std::nullopt;
  std::vector<int> numbers;
  errno = 0;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    if (std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) {
      numbers.push_back(number<int>(name));
    }
  }
  if (errno != 0) return std::nullopt;
  std::ranges::sort(numbers);
  return numbers;
}

std::optional<std::string> link_target(const std::string& path) {
  std::string target(PATH_MAX, '\0');
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  target.resize(static_cast<size_t>(length));
  return target;
}

std::optional<std::map<std::string, std::string>> namespaces_of(const std::string& proc) {
  std::map<std::string, std::string> all;
  for (const char* kind : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
    auto target = link_target(format_text("{}/ns/{}", proc, kind));
    if (!target) return std::nullopt;
    all[kind] = *target;
  }
  return all;
}

DescriptorFacts describe(const std::string& proc, int fd, const std::string& object) {
  DescriptorFacts facts{.number = fd, .object = object};
  if (const size_t open = object.find(":[");
      object.starts_with("socket") || object.starts_with("pipe")) {
    facts.identity = number<uint64_t>(std::string_view(object).substr(open + 2));
    return facts;
  }
  const std::string info = contents_of(format_text("{}/fdinfo/{}", proc, fd));
  for (std::string_view line : lines_of(info)) {
    const std::vector<std::string_view> words = words_of(line);
    if (words.size() < 2) continue;
    const std::string_view key = words[0];
    const auto value = number<uint64_t>(words[1]);
    if (key == "eventfd-id:" || key == "Pid:") facts.identity = value;
    if (key == "tfd:") facts.watches.push_back(static_cast<int>(value));
  }
  return facts;
}

std::optional<std::vector<DescriptorFacts>> descriptors_of(const std::string& proc) {
  auto numbers = numbers_in(proc + "/fd");
  if (!numbers) return std::nullopt;
  std::vector<DescriptorFacts> all;
  for (int fd : *numbers) {
    auto object = link_target(format_text("{}/fd/{}", proc, fd));
    if (object) all.push_back(describe(proc, fd, *object));
  }
  return all;
}

std::vector<ThreadFacts> threads_of(const std::string& proc) {
  std::vector<ThreadFacts> threads;
  for (int tid : numbers_in(proc + "/task").value_or(std::vector<int>())) {
    Fields status = fields_of(format_text("{}/task/{}/status", proc, tid));
    if (status.empty()) continue;
    ThreadFacts thread{.tid = tid, .name = status["Name"], .has_filter = status["Seccomp"] == "2"};
    if (status.contains("Seccomp_filters")) {
      thread.filters = number<uint64_t>(status["Seccomp_filters"]);
    }
    threads.push_back(std::move(thread));
  }
  return threads;
}

/// Columns of fixed width: the name has spaces.
std::vector<LimitFacts> limits_of(const std::string& proc) {
  constexpr size_t kSoft = 26;
  constexpr size_t kHard = 47;
  constexpr size_t kUnits = 68;
  std::vector<LimitFacts> limits;
  const std::string text = contents_of(proc + "/limits");
  bool heading = true;  // says what the columns are
  for (std::string_view line : lines_of(text)) {
    if (std::exchange(heading, false) || line.size() < kHard) continue;
    limits.push_back({.name = without_space(line.substr(0, kSoft)),
                      .soft = without_space(line.substr(kSoft, kHard - kSoft)),
                      .hard = without_space(line.substr(kHard, kUnits - kHard))});
  }
  return limits;
}

std::optional<ProcessFacts> facts_of(pid_t pid) {
  const std::string proc = format_text("/proc/{}", pid);
  Fields status = fields_of(proc + "/status");
  if (status.empty() || status["State"].starts_with("Z")) return std::nullopt;
  ProcessFacts facts{.pid = pid,
                     .parent = number<pid_t>(status["PPid"]),
                     .name = status["Name"],
                     .no_new_privs = status["NoNewPrivs"] == "1",
                     .capabilities = {},
                     .threads = threads_of(proc),
                     .limits = limits_of(proc),
                     .namespaces = namespaces_of(proc),
                     .descriptors = descriptors_of(proc)};
  const std::string uids = status["Uid"];  // the real one, then the one in force
  if (const auto ids = words_of(uids); ids.size() > 1) facts.user = number<uint32_t>(ids[1]);
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    facts.capabilities[set] = number<uint64_t>(status[set], 16);
  }
  return facts;
}

/// Adds `pid` and its descendants.
void add_tree(pid_t pid, const std::multimap<pid_t, pid_t>& children,
              std::vector<ProcessFacts>& tree) {
  auto facts = facts_of(pid);
  if (!facts) return;
  tree.push_back(std::move(*facts));
  const auto [first, last] = children.equal_range(pid);
  for (auto child = first; child != last; ++child) add_tree(child->second, children, tree);
}

struct PeerRequest {
  nlmsghdr header;
  unix_diag_req request;
};

/// Takes in one answer; whether more are to come.
bool take_peers(std::span<std::byte> answer, std::map<uint64_t, uint64_t>& peers) {
  while (answer.size() >= sizeof(nlmsghdr)) {
    auto* const message = reinterpret_cast<nlmsghdr*>(answer.data());
    const size_t length = message->nlmsg_len;
    if (length < sizeof(nlmsghdr) || length > answer.size()) break;
    answer = answer.subspan(std::min<size_t>(NLMSG_ALIGN(length), answer.size()));
    if (message->nlmsg_type != SOCK_DIAG_BY_FAMILY) return false;  // done, or an error
    if (message->nlmsg_len < NLMSG_LENGTH(sizeof(unix_diag_msg))) return false;
    const auto* socket = static_cast<const unix_diag_msg*>(NLMSG_DATA(message));
    const auto* attribute = reinterpret_cast<const nlattr*>(socket + 1);
    size_t bytes = message->nlmsg_len - NLMSG_LENGTH(sizeof(unix_diag_msg));
    while (bytes >= sizeof(nlattr) && attribute->nla_len >= sizeof(nlattr) &&
           attribute->nla_len <= bytes) {
      if (attribute->nla_type == UNIX_DIAG_PEER) {
        uint32_t peer = 0;
        std::memcpy(&peer, attribute + 1, sizeof(peer));
        peers[socket->udiag_ino] = peer;
      }
      const size_t step = NLA_ALIGN(attribute->nla_len);
      if (step >= bytes) break;
      bytes -= step;
      attribute =
          reinterpret_cast<const nlattr*>(reinterpret_cast<const std::byte*>(attribute) + step);
    }
  }
  return true;
}

}  // namespace

std::vector<ProcessFacts> process_tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  for (int pid : numbers_in("/proc").value_or(std::vector<int>())) {
    Fields status = fields_of(format_text("/proc/{}/status", pid));
    children.emplace(number<pid_t>(status["PPid"]), pid);
  }
  std::vector<ProcessFacts> tree;
  add_tree(root, children, tree);
  return tree;
}

std::map<uint64_t, uint64_t> socket_peers() {
  std::map<uint64_t, uint64_t> peers;
  const Fd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  PeerRequest request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.request.sdiag_family = AF_UNIX;
  request.request.udiag_states = ~0U;
  request.request.udiag_show = UDIAG_SHOW_PEER;
  if (!netlink || ::send(netlink.get(), &request, sizeof(request), 0) < 0) return peers;
  alignas(nlmsghdr) std::array<std::byte, 32768> answer{};
  while (true) {
    const ssize_t got = ::recv(netlink.get(), answer.data(), answer.size(), 0);
    if (got <= 0 || !take_peers(std::span(answer).first(static_cast<size_t>(got)), peers)) break;
  }
  return peers;
}

}  // namespace crosvm::doctor

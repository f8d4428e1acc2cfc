#include "jail/seccomp_policy.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "base/fd.h"
#include "base/format.h"
#include "jail/seccomp_expression.h"

namespace crosvm {
namespace {

constexpr std::string_view kInstalledFolder = "/usr/share/policy/crosvm/";
constexpr size_t kMostFileBytes = 1 << 20;
constexpr std::array<std::string_view, 3> kArchNames = {"x86_64", "aarch64", "riscv64"};
/// What denies. The default action is ours to choose, so a file may only say what it is anyway.
constexpr std::array<std::string_view, 5> kDenyingDefaults = {"kill", "kill-process", "kill-thread",
                                                              "trap", "user-notify"};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  size_t start = text.find_first_not_of(kBlank);
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(kBlank) - start + 1);
}

std::string folder_of(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

bool is_call_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

class PolicyParser {
 public:
  PolicyParser(std::string folder, PolicyArch arch, const PolicyReader& read)
      : folder_(std::move(folder)), arch_(arch), read_(read) {}

  Result<void> parse_file(const std::string& path, bool included) {
    const std::string text = TRY(read_(path));
    std::string_view left = text;
    std::string whole;  // a line with those that continue it
    size_t number = 0;
    size_t first = 1;
    while (!left.empty()) {
      size_t end = std::min(left.find('\n'), left.size());
      std::string_view line = left.substr(0, end);
      left.remove_prefix(std::min(end + 1, left.size()));
      ++number;
      line = trimmed(line.substr(0, line.find('#')));
      const bool goes_on = line.ends_with('\\');
      if (goes_on) line.remove_suffix(1);
      whole.append(line).push_back(' ');
      if (goes_on && !left.empty()) continue;
      std::string where = format_text("{}:{}", path, first);
      TRY(with_context(parse_line(trimmed(whole), where, included), where));
      whole.clear();
      first = number + 1;
    }
    return {};
  }

  SeccompPolicy take() { return std::move(policy_); }

 private:
  Result<void> parse_line(std::string_view line, const std::string& where, bool included) {
    if (line.empty()) return {};
    if (line[0] == '@') return parse_directive(line, included);
    size_t colon = line.find(':');
    std::string_view name = trimmed(line.substr(0, colon));
    if (colon == std::string_view::npos || !is_call_name(name)) {
      return fail(Error::invalid(
          format_text("'{}' is no rule; write 'call: expression', such as 'read: 1'", line)));
    }
    return add(name, TRY(parse_policy_expression(line.substr(colon + 1), arch_)), where);
  }

  Result<void> parse_directive(std::string_view line, bool included) {
    size_t space = std::min(line.find_first_of(" \t"), line.size());
    std::string_view name = line.substr(0, space);
    std::string_view argument = trimmed(line.substr(space));
    if (name == "@include") return parse_include(argument, included);
    if (name == "@frequency" && !argument.empty()) return {};  // the filter is a balanced tree
    if (name == "@default" && std::ranges::count(kDenyingDefaults, argument) > 0) return {};
    if (name == "@default") {
      return fail(Error::invalid(format_text(
          "@default {} would allow calls that are not listed; leave the line out", argument)));
    }
    return fail(Error::invalid(format_text(
        "'{}' is no directive; there are @include PATH, @frequency PATH and @default", line)));
  }

  Result<void> parse_include(std::string_view argument, bool included) {
    if (included) {
      return fail(Error::invalid(
          "an included file includes another; include that one from the policy itself"));
    }
    if (argument.empty()) return fail(Error::invalid("@include needs the path of a file"));
    return with_context(parse_file(resolve(argument), true), "included");
  }

  std::string resolve(std::string_view path) const {
    if (path.starts_with(kInstalledFolder)) {
      return folder_ + std::string(path.substr(kInstalledFolder.size()));
    }
    return path.starts_with('/') ? std::string(path) : folder_ + std::string(path);
  }

  Result<void> add(std::string_view call, PolicyExpression expression, const std::string& where) {
    auto [found, is_new] = place_.try_emplace(std::string(call), policy_.rules.size());
    if (is_new) policy_.rules.push_back({std::string(call), {}, {}, where});
    PolicyRule& rule = policy_.rules[found->second];
    if (rule.error && expression.error && *rule.error != *expression.error) {
      return fail(Error::invalid(format_text("{} returns {} here but {} at {}; keep one of them",
                                             call, *expression.error, *rule.error, rule.where)));
    }
    if (expression.error) rule.error = expression.error;
    std::ranges::move(expression.allowed, std::back_inserter(rule.allowed));
    return {};
  }

  const std::string folder_;
  const PolicyArch arch_;
  const PolicyReader& read_;
  SeccompPolicy policy_;
  std::map<std::string, size_t, std::less<>> place_;
};

}  // namespace

std::string_view name_of(PolicyArch arch) { return kArchNames[static_cast<size_t>(arch)]; }

std::optional<PolicyArch> policy_arch_of(std::string_view name) {
  auto found = std::ranges::find(kArchNames, name);
  if (found == kArchNames.end()) return std::nullopt;
  return static_cast<PolicyArch>(found - kArchNames.begin());
}

Result<std::string> read_policy_file(const std::string& path) {
  // Not blocking: a FIFO would wait for its other end.
  Fd file = TRY(open_path(path, O_RDONLY | O_NONBLOCK));
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("looking at", path));
  if (!S_ISREG(status.st_mode)) {
    return fail(Error::invalid(
        format_text("{} is no regular file; give a file with a system call policy", path)));
  }
  std::string text(kMostFileBytes + 1, '\0');
  size_t size = TRY(read_full(file, std::as_writable_bytes(std::span(text)), path));
  if (size > kMostFileBytes) {
    return fail(Error::invalid(format_text("{} is larger than a megabyte; is it a policy?", path)));
  }
  text.resize(size);
  return text;
}

Result<SeccompPolicy> parse_seccomp_policy(const std::string& path, PolicyArch arch,
                                           const PolicyReader& read) {
  PolicyParser parser(folder_of(path), arch, read);
  TRY(parser.parse_file(path, false));
  return parser.take();
}

void add_to_policy(SeccompPolicy& policy, SeccompPolicy more) {
  for (PolicyRule& added : more.rules) {
    auto found = std::ranges::find(policy.rules, added.call, &PolicyRule::call);
    if (found == policy.rules.end()) {
      policy.rules.push_back(std::move(added));
      continue;
    }
    std::ranges::move(added.allowed, std::back_inserter(found->allowed));
    if (!found->allowed.empty()) found->error.reset();
  }
}

}  // namespace crosvm

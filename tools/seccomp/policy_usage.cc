// What the policies would have said of recorded system calls, and what they allow that nobody asked
// for.
//   policy_usage POLICY_DIRECTORY <TRACE
// Ends with status 1 when a call was made that its policy does not allow.

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "base/format.h"
#include "jail/seccomp_policy.h"
#include "tools/seccomp/recorded_calls.h"

namespace crosvm {
namespace {

bool holds(const ArgumentTest& test, const RecordedCall& call) {
  const uint64_t value = call.arguments.at(test.argument);
  switch (test.op) {
    case ArgumentTest::Operator::kEqual:
      return value == test.value;
    case ArgumentTest::Operator::kNotEqual:
      return value != test.value;
    case ArgumentTest::Operator::kLess:
      return value < test.value;
    case ArgumentTest::Operator::kLessOrEqual:
      return value <= test.value;
    case ArgumentTest::Operator::kGreater:
      return value > test.value;
    case ArgumentTest::Operator::kGreaterOrEqual:
      return value >= test.value;
    case ArgumentTest::Operator::kAnyBit:
      return (value & test.value) != 0;
    case ArgumentTest::Operator::kOnlyBits:
      return (value & ~test.value) == 0;
  }
  return false;
}

bool holds(const Conjunction& tests, const RecordedCall& call) {
  return std::ranges::all_of(tests,
                             [&call](const ArgumentTest& test) { return holds(test, call); });
}

std::string text_of(const RecordedCall& call) {
  std::string text;
  for (uint64_t argument : call.arguments) {
    text += format_text("{}{:#x}", text.empty() ? "" : ", ", argument);
  }
  return format_text("{}({})", call.name, text);
}

/// One rule, and whether something needed each of the things that it allows.
struct RuleUsage {
  const PolicyRule* rule;
  std::vector<bool> used;
  bool error_used = false;

  /// Whether the rule has an answer to the call.
  bool take(const RecordedCall& call) {
    for (size_t i = 0; i < used.size(); ++i) {
      if (!holds(rule->allowed[i], call)) continue;
      used[i] = true;
      return true;
    }
    error_used = rule->error.has_value();
    return error_used;
  }
  bool unused() const {
    return !error_used && std::ranges::none_of(used, [](bool each) { return each; });
  }
};

std::string text_of(const Conjunction& tests) {
  std::string text;
  for (const ArgumentTest& test : tests) {
    text += format_text("{}arg{} {:#x}", text.empty() ? "" : " and ", test.argument, test.value);
  }
  return text;
}

/// Whether all calls are allowed.
bool report(const std::string& name, const SeccompPolicy& policy,
            const std::set<RecordedCall>& calls) {
  std::vector<RuleUsage> rules;
  for (const PolicyRule& rule : policy.rules) {
    rules.push_back({.rule = &rule, .used = std::vector<bool>(rule.allowed.size())});
  }
  bool all_allowed = true;
  std::cout << format_text("{}: {} different calls\n", name, calls.size());
  for (const RecordedCall& call : calls) {
    const auto found = std::ranges::find(
        rules, call.name,
        [](const RuleUsage& usage) -> const std::string& { return usage.rule->call; });
    if (found != rules.end() && found->take(call)) continue;
    all_allowed = false;
    std::cout << format_text("  not allowed: {}\n", text_of(call));
  }
  for (const RuleUsage& usage : rules) {
    if (usage.unused()) {
      std::cout << format_text("  not used: {} ({})\n", usage.rule->call, usage.rule->where);
      continue;
    }
    for (size_t i = 0; i < usage.used.size(); ++i) {
      if (usage.used[i]) continue;
      std::cout << format_text("  not used: {} with {} ({})\n", usage.rule->call,
                               text_of(usage.rule->allowed[i]), usage.rule->where);
    }
  }
  return all_allowed;
}

Result<bool> report_all(const std::string& directory) {
  const RecordedCalls recorded = read_recorded_calls(std::cin);
  bool all_allowed = true;
  for (const auto& [name, calls] : recorded) {
    const SeccompPolicy policy =
        TRY(parse_seccomp_policy(format_text("{}/{}.policy", directory, name), host_policy_arch()));
    all_allowed &= report(name, policy, calls);
  }
  if (recorded.empty()) return fail(Error::invalid("nothing was recorded under any policy"));
  return all_allowed;
}

}  // namespace
}  // namespace crosvm

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: policy_usage POLICY_DIRECTORY <TRACE\n";
    return 2;
  }
  auto all_allowed = crosvm::report_all(argv[1]);
  if (!all_allowed) {
    std::cerr << "policy_usage: " << all_allowed.error().what() << "\n";
    return 2;
  }
  return *all_allowed ? 0 : 1;
}

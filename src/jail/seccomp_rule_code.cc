#include "jail/seccomp_rule_code.h"

#include <linux/seccomp.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/format.h"

namespace crosvm {
namespace {

using Operator = ArgumentTest::Operator;

// A conditional jump reaches 255 instructions, and a test has 5 at most.
constexpr size_t kMostTests = 50;

// Where jumps of one test lead, before the distances are known.
constexpr uint8_t kGoOn = 0;   // the next instruction
constexpr uint8_t kHolds = 1;  // behind this test
constexpr uint8_t kFails = 2;  // behind all tests of the conjunction

constexpr uint16_t kIfEqual = BPF_JMP | BPF_JEQ | BPF_K;
constexpr uint16_t kIfGreater = BPF_JMP | BPF_JGT | BPF_K;
constexpr uint16_t kIfAtLeast = BPF_JMP | BPF_JGE | BPF_K;
constexpr uint16_t kIfAnyBit = BPF_JMP | BPF_JSET | BPF_K;

sock_filter give_back(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }

/// One test. The machine has words of 32 bits: the upper half is looked at first.
class TestCode {
 public:
  explicit TestCode(const ArgumentTest& test)
      : place_(
            static_cast<uint32_t>(offsetof(seccomp_data, args) + test.argument * sizeof(uint64_t))),
        upper_(static_cast<uint32_t>(test.value >> 32)),
        lower_(static_cast<uint32_t>(test.value)) {
    add(test.op);
  }

  const BpfCode& code() const { return code_; }

 private:
  void add(Operator op) {
    load_upper();
    switch (op) {
      case Operator::kEqual:
        jump(kIfEqual, upper_, kGoOn, kFails);
        load_lower();
        return jump(kIfEqual, lower_, kHolds, kFails);
      case Operator::kNotEqual:
        jump(kIfEqual, upper_, kGoOn, kHolds);
        load_lower();
        return jump(kIfEqual, lower_, kFails, kHolds);
      case Operator::kLess:
        return add_below(kIfAtLeast);
      case Operator::kLessOrEqual:
        return add_below(kIfGreater);
      case Operator::kGreater:
        return add_above(kIfGreater);
      case Operator::kGreaterOrEqual:
        return add_above(kIfAtLeast);
      case Operator::kAnyBit:
        jump(kIfAnyBit, upper_, kHolds, kGoOn);
        load_lower();
        return jump(kIfAnyBit, lower_, kHolds, kFails);
      case Operator::kOnlyBits:
        jump(kIfAnyBit, ~upper_, kFails, kGoOn);
        load_lower();
        return jump(kIfAnyBit, ~lower_, kFails, kHolds);
    }
  }

  void add_below(uint16_t lower_is_not) {
    jump(kIfGreater, upper_, kFails, kGoOn);
    jump(kIfEqual, upper_, kGoOn, kHolds);
    load_lower();
    jump(lower_is_not, lower_, kFails, kHolds);
  }

  void add_above(uint16_t lower_is) {
    jump(kIfGreater, upper_, kHolds, kGoOn);
    jump(kIfEqual, upper_, kGoOn, kFails);
    load_lower();
    jump(lower_is, lower_, kHolds, kFails);
  }

  // Our architectures are all little-endian.
  void load_upper() { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place_ + 4)); }
  void load_lower() { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place_)); }
  void jump(uint16_t what, uint32_t value, uint8_t if_so, uint8_t if_not) {
    code_.push_back(BPF_JUMP(what, value, if_so, if_not));
  }

  const uint32_t place_;
  const uint32_t upper_;
  const uint32_t lower_;
  BpfCode code_;
};

bool is_jump(const sock_filter& instruction) { return BPF_CLASS(instruction.code) == BPF_JMP; }

/// Returns ALLOW when every test holds; else goes on behind itself.
Result<BpfCode> conjunction_code(const Conjunction& tests) {
  if (tests.size() > kMostTests) {
    return fail(Error::invalid(format_text(
        "more than {} tests joined by &&; compare several bits at once with 'in'", kMostTests)));
  }
  BpfCode code;
  std::vector<size_t> ends;  // of the test that each instruction belongs to
  for (const ArgumentTest& test : tests) {
    const TestCode one(test);
    code.insert(code.end(), one.code().begin(), one.code().end());
    ends.resize(code.size(), code.size());
  }
  const size_t failed = code.size() + 1;
  for (size_t i = 0; i < code.size(); ++i) {
    if (!is_jump(code[i])) continue;
    const size_t distances[] = {0, ends[i] - i - 1, failed - i - 1};
    code[i].jt = static_cast<uint8_t>(distances[code[i].jt]);
    code[i].jf = static_cast<uint8_t>(distances[code[i].jf]);
  }
  code.push_back(give_back(SECCOMP_RET_ALLOW));
  return code;
}

/// How many alternatives, from the first on, compare one argument with values that have the same
/// upper half.
size_t count_choices(std::span<const Conjunction> alternatives) {
  constexpr size_t kMostChoices = 200;  // a conditional jump reaches 255 instructions
  auto is_choice = [&](const Conjunction& tests) {
    const ArgumentTest& first = alternatives.front().front();
    return tests.size() == 1 && tests.front().op == Operator::kEqual &&
           tests.front().argument == first.argument &&
           tests.front().value >> 32 == first.value >> 32;
  };
  const auto other = std::ranges::find_if_not(alternatives, is_choice);
  return std::min(static_cast<size_t>(other - alternatives.begin()), kMostChoices);
}

/// As conjunction_code for each of them, with one look at the argument.
BpfCode choice_code(std::span<const Conjunction> choices) {
  const ArgumentTest& first = choices.front().front();
  const auto place =
      static_cast<uint32_t>(offsetof(seccomp_data, args) + first.argument * sizeof(uint64_t));
  const auto count = static_cast<uint8_t>(choices.size());
  BpfCode code = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place + 4),
      BPF_JUMP(kIfEqual, static_cast<uint32_t>(first.value >> 32), 0,
               static_cast<uint8_t>(count + 2)),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place),
  };
  for (uint8_t left = count; const Conjunction& choice : choices) {
    --left;
    code.push_back(BPF_JUMP(kIfEqual, static_cast<uint32_t>(choice.front().value), left,
                            static_cast<uint8_t>(left == 0 ? 1 : 0)));
  }
  code.push_back(give_back(SECCOMP_RET_ALLOW));
  return code;
}

}  // namespace

Result<BpfCode> seccomp_rule_code(const PolicyRule& rule, uint32_t otherwise) {
  BpfCode code;
  for (const Conjunction& tests : rule.allowed) {
    if (tests.empty()) return BpfCode{give_back(SECCOMP_RET_ALLOW)};  // nothing can add to it
  }
  for (std::span<const Conjunction> rest = rule.allowed; !rest.empty();) {
    const size_t choices = std::max<size_t>(count_choices(rest), 1);
    BpfCode more =
        choices > 1 ? choice_code(rest.first(choices)) : TRY(conjunction_code(rest.front()));
    code.insert(code.end(), more.begin(), more.end());
    rest = rest.subspan(choices);
  }
  code.push_back(give_back(rule.error ? SECCOMP_RET_ERRNO | *rule.error : otherwise));
  return code;
}

}  // namespace crosvm

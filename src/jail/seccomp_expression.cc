#include "jail/seccomp_expression.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/format.h"
#include "jail/seccomp_constants.h"

namespace crosvm {
namespace {

using Operator = ArgumentTest::Operator;

constexpr size_t kMostAlternatives = 512;
constexpr size_t kMostNesting = 8;
constexpr uint64_t kMostErrno = 4095;

// Longer ones first.
constexpr std::array<std::string_view, 16> kSymbols = {
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "&", "|", "~", "(", ")", "-", ";", ","};

struct NamedOperator {
  std::string_view text;
  Operator op;
};
constexpr NamedOperator kOperators[] = {
    {"==", Operator::kEqual},       {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
    {"<=", Operator::kLessOrEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterOrEqual},
    {"&", Operator::kAnyBit},       {"in", Operator::kOnlyBits},
};

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// Reads words and symbols of one expression.
class Tokens {
 public:
  explicit Tokens(std::string_view text) : text_(text) { next(); }

  /// Empty at the end.
  std::string_view peek() const { return token_; }
  std::string_view take() {
    std::string_view taken = token_;
    next();
    return taken;
  }
  bool take_if(std::string_view wanted) {
    if (token_ != wanted) return false;
    next();
    return true;
  }

 private:
  void next() {
    size_t start = text_.find_first_not_of(" \t\r");
    text_.remove_prefix(std::min(start, text_.size()));
    size_t length = 0;
    while (length < text_.size() && is_word_char(text_[length])) ++length;
    if (length == 0 && !text_.empty()) {
      auto symbol =
          std::ranges::find_if(kSymbols, [this](auto each) { return text_.starts_with(each); });
      length = symbol == kSymbols.end() ? 1 : symbol->size();
    }
    token_ = text_.substr(0, length);
    text_.remove_prefix(length);
  }

  std::string_view text_;
  std::string_view token_;
};

std::string seen(std::string_view token) {
  return token.empty() ? "the end of the line" : format_text("'{}'", token);
}

class Parser {
 public:
  Parser(std::string_view text, PolicyArch arch) : tokens_(text), arch_(arch) {}

  Result<PolicyExpression> parse() {
    PolicyExpression expression = TRY(parse_whole());
    if (tokens_.peek().empty()) return expression;
    if (tokens_.peek() == ";") {
      return fail(Error::invalid(
          "a return value stands in a line of its own: 'call: TESTS', then 'call: return ERRNO'"));
    }
    return fail(Error::invalid(
        format_text("{} is not understood here; join tests with && and ||", seen(tokens_.peek()))));
  }

 private:
  Result<PolicyExpression> parse_whole() {
    if (tokens_.take_if("1") || tokens_.take_if("allow")) {
      return PolicyExpression{.allowed = {{}}, .error = {}};
    }
    if (tokens_.take_if("return")) {
      uint64_t error = TRY(parse_value(0));
      if (error <= kMostErrno) {
        return PolicyExpression{.allowed = {}, .error = static_cast<uint16_t>(error)};
      }
      return fail(Error::invalid(format_text(
          "{} is no error number; give one up to {}, or a name such as EPERM", error, kMostErrno)));
    }
    PolicyExpression expression;
    do {
      expression.allowed.push_back(TRY(parse_conjunction()));
      if (expression.allowed.size() > kMostAlternatives) {
        return fail(Error::invalid(format_text(
            "more than {} alternatives; compare bits with 'in' instead", kMostAlternatives)));
      }
    } while (tokens_.take_if("||"));
    return expression;
  }

  Result<Conjunction> parse_conjunction() {
    Conjunction tests;
    do {
      tests.push_back(TRY(parse_test()));
      if (tests.size() > kMostAlternatives) {
        return fail(Error::invalid(format_text("more than {} tests in a row", kMostAlternatives)));
      }
    } while (tokens_.take_if("&&"));
    return tests;
  }

  Result<ArgumentTest> parse_test() {
    std::string_view argument = tokens_.take();
    if (argument.size() != 4 || !argument.starts_with("arg") || argument[3] < '0' ||
        argument[3] > '5') {
      return fail(Error::invalid(
          format_text("{} is no argument; write 1, return ERRNO, or a test of arg0 to arg5 such "
                      "as 'arg1 == FIONBIO'",
                      seen(argument))));
    }
    std::string_view op = tokens_.take();
    auto found = std::ranges::find(kOperators, op, &NamedOperator::text);
    if (found == std::end(kOperators)) {
      return fail(Error::invalid(
          format_text("{} is no operator; use ==, !=, <, <=, >, >=, & or in", seen(op))));
    }
    uint64_t value = TRY(parse_value(0));
    return ArgumentTest{
        .argument = static_cast<uint8_t>(argument[3] - '0'), .op = found->op, .value = value};
  }

  /// ATOM or ATOM|ATOM…
  Result<uint64_t> parse_value(size_t depth) {
    if (depth > kMostNesting) return fail(Error::invalid("too many parentheses; leave some out"));
    uint64_t value = 0;
    do {
      value |= TRY(parse_atom(depth));
    } while (tokens_.take_if("|"));
    return value;
  }

  Result<uint64_t> parse_atom(size_t depth) {
    bool inverted = false;
    while (tokens_.take_if("~")) inverted = !inverted;
    uint64_t value = 0;
    if (tokens_.take_if("(")) {
      value = TRY(parse_value(depth + 1));
      if (!tokens_.take_if(")")) {
        return fail(Error::invalid(format_text("{} where ')' should be", seen(tokens_.peek()))));
      }
    } else {
      bool negative = tokens_.take_if("-");
      value = TRY(parse_number_or_name(tokens_.take()));
      if (negative) value = 0 - value;
    }
    return inverted ? ~value : value;
  }

  Result<uint64_t> parse_number_or_name(std::string_view token) const {
    if (token.empty() || !is_word_char(token[0])) {
      return fail(Error::invalid(
          format_text("{} where a value should be; give a number or a constant", seen(token))));
    }
    if (token[0] >= '0' && token[0] <= '9') return parse_number(token);
    if (auto value = seccomp_constant(token, arch_)) return *value;
    return fail(Error::invalid(format_text("the constant '{}' is unknown on {}; write its number",
                                           token, name_of(arch_))));
  }

  /// Decimal, 0x hexadecimal, or octal with a leading 0.
  static Result<uint64_t> parse_number(std::string_view token) {
    std::string_view digits = token;
    int base = 10;
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
      base = 16;
      digits.remove_prefix(2);
    } else if (digits.size() > 1 && digits[0] == '0') {
      base = 8;
    }
    uint64_t value = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error == std::errc() && end == digits.data() + digits.size()) return value;
    return fail(Error::invalid(
        format_text("'{}' is no number of at most 64 bits; write it in decimal or as 0x…", token)));
  }

  Tokens tokens_;
  PolicyArch arch_;
};

}  // namespace

Result<PolicyExpression> parse_policy_expression(std::string_view text, PolicyArch arch) {
  return Parser(text, arch).parse();
}

}  // namespace crosvm

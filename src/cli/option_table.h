#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

/// The one table of subcommands and options: the parser, `--help`, docs/options.md, the man page
/// and the shell completion are all made from it. It is constant data; nothing runs at start-up.
namespace crosvm {

/// What an option's value is, for messages and documents.
enum class ValueKind : uint8_t {
  kSwitch,  ///< takes no value
  kPath,
  kString,
  kNumber,  ///< decimal
  kBoolean,
  kKeyValues,  ///< the grammar of base/key_value.h
  kCpuSet,
  kOther,  ///< a syntax of its own, told by `value_name`
};

/// What this build does with an option or subcommand.
enum class Support : uint8_t {
  kNotBuilt,   ///< known; refused by name until it is built
  kBuilt,      ///< works
  kIgnored,    ///< accepted: what it asks for is always so
  kElsewhere,  ///< exists on other systems or architectures only, see `availability`
  kRemoved,    ///< existed once; refused with what to use instead
};

/// One option. Written as `Option("initrd", ValueKind::kPath, "…").letter('i').built()`.
struct Option {
  std::string_view name;  ///< without dashes; one that ends in '*' stands for all names it begins
  ValueKind kind = ValueKind::kSwitch;
  std::string_view help;
  char short_name = 0;
  Support support = Support::kNotBuilt;
  bool repeatable = false;
  bool required = false;
  bool hidden = false;          ///< not in `--help`: an old spelling or a tool's
  bool optional_value = false;  ///< an old spelling without a value is accepted (cli.md 2.2)
  std::string_view value_name;
  std::string_view availability;  ///< "Windows", "aarch64", …; empty for everywhere
  std::string_view instead;       ///< what replaces a deprecated or removed option

  constexpr Option(std::string_view name, ValueKind kind, std::string_view help)
      : name(name), kind(kind), help(help) {}
  constexpr Option& letter(char letter) { return short_name = letter, *this; }
  constexpr Option& built() { return support = Support::kBuilt, *this; }
  constexpr Option& ignored() { return support = Support::kIgnored, *this; }
  constexpr Option& many() { return repeatable = true, *this; }
  constexpr Option& require() { return required = true, *this; }
  constexpr Option& hide() { return hidden = true, *this; }
  constexpr Option& value_optional() { return optional_value = true, *this; }
  constexpr Option& value(std::string_view name) { return value_name = name, *this; }
  constexpr Option& use(std::string_view other) { return instead = other, *this; }
  constexpr Option& only(std::string_view where) {
    availability = where;
    support = Support::kElsewhere;
    return *this;
  }
  constexpr Option& removed(std::string_view use_instead) {
    instead = use_instead;
    support = Support::kRemoved;
    hidden = true;
    return *this;
  }

  bool takes_value() const { return kind != ValueKind::kSwitch; }
  bool deprecated() const { return !instead.empty() && support != Support::kRemoved; }
  /// "PATH", "KEY=VALUE,…"; empty for a switch.
  std::string_view placeholder() const;
  /// Why this build refuses the option, which was spelled so, as a sentence; empty when it does
  /// not.
  std::string refusal(std::string_view spelling) const;
};

struct OptionGroup {
  std::string_view title;
  std::span<const Option> options;
};

struct Positional {
  std::string_view name;
  std::string_view help;
  bool required = true;
  bool repeatable = false;
};

/// `crosvm` itself, or a subcommand at any depth.
struct Command {
  std::string_view name;
  std::string_view help;
  std::span<const Positional> positionals = {};
  std::span<const OptionGroup> groups = {};
  std::span<const Command> subcommands = {};
  Support support = Support::kNotBuilt;
  std::string_view availability = {};

  /// The option of this name or letter (without dashes), or null.
  const Option* find_option(std::string_view name) const;
  const Option* find_option(char letter) const;
  const Command* find_subcommand(std::string_view name) const;
  /// As Option::refusal, for the subcommand called `full_name` ("gpu add-displays").
  std::string refusal(std::string_view full_name) const;
};

/// `crosvm`: the global options and all subcommands.
const Command& root_command();

/// The parts of the table (run_options_*.h), included by subcommands.cc alone.
namespace option_table {
using enum ValueKind;
}

}  // namespace crosvm

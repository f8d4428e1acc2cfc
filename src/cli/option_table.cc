#include "cli/option_table.h"

#include "base/format.h"

namespace crosvm {
namespace {

std::string refusal_of(std::string_view what, Support support, std::string_view availability,
                       std::string_view instead) {
  switch (support) {
    case Support::kBuilt:
    case Support::kIgnored:
      return {};
    case Support::kNotBuilt:
      return format_text("{} is not supported by this build yet", what);
    case Support::kElsewhere:
      return format_text("{} is for {} only", what, availability);
    case Support::kRemoved:
      return instead.empty() ? format_text("{} no longer exists and nothing replaces it", what)
                             : format_text("{} no longer exists; use {}", what, instead);
  }
  return {};
}

bool matches(const Option& option, std::string_view name) {
  if (option.name == name) return true;
  return option.name.ends_with('*') &&
         name.starts_with(option.name.substr(0, option.name.size() - 1));
}

}  // namespace

std::string_view Option::placeholder() const {
  if (!value_name.empty()) return value_name;
  switch (kind) {
    case ValueKind::kSwitch:
      return "";
    case ValueKind::kPath:
      return "PATH";
    case ValueKind::kNumber:
      return "N";
    case ValueKind::kBoolean:
      return "true|false";
    case ValueKind::kKeyValues:
      return "KEY=VALUE,…";
    case ValueKind::kCpuSet:
      return "CPUS";
    case ValueKind::kString:
    case ValueKind::kOther:
      break;
  }
  return "TEXT";
}

std::string Option::refusal(std::string_view spelling) const {
  return refusal_of(spelling, support, availability, instead);
}

const Option* Command::find_option(std::string_view name) const {
  for (const OptionGroup& group : groups) {
    for (const Option& option : group.options) {
      if (matches(option, name)) return &option;
    }
  }
  return nullptr;
}

const Option* Command::find_option(char letter) const {
  for (const OptionGroup& group : groups) {
    for (const Option& option : group.options) {
      if (option.short_name == letter) return &option;
    }
  }
  return nullptr;
}

const Command* Command::find_subcommand(std::string_view name) const {
  for (const Command& command : subcommands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

std::string Command::refusal(std::string_view full_name) const {
  return refusal_of(format_text("`crosvm {}`", full_name), support, availability, {});
}

}  // namespace crosvm

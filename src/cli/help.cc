#include "cli/help.h"

#include <algorithm>

#include "base/format.h"

namespace crosvm {
namespace {

bool works(Support support) { return support == Support::kBuilt || support == Support::kIgnored; }

std::string positional_usage(const Positional& positional) {
  std::string usage(positional.name);
  if (positional.repeatable) usage += "…";
  if (!positional.required) usage = format_text("[{}]", usage);
  return usage;
}

std::string usage_line(std::string_view program, const CommandLine& line) {
  const Command& command = line.command();
  std::string usage = format_text("Usage: {}", program);
  if (line.levels.size() == 1) return usage + " [<options>] <command> [<args>]\n";
  usage += " " + line.command_name();
  if (command.name == "run") return usage + " <options> KERNEL\n";
  if (!command.groups.empty()) usage += " [<options>]";
  if (!command.subcommands.empty()) usage += " <command> [<args>]";
  for (const Positional& positional : command.positionals) {
    usage += " " + positional_usage(positional);
  }
  return usage + "\n";
}

void add_positionals(std::string& text, const Command& command) {
  if (command.positionals.empty()) return;
  text += "\nArguments:\n";
  for (const Positional& positional : command.positionals) {
    text += format_text("  {}\n{}", positional.name, wrap_text(positional.help, 10));
  }
}

void add_options(std::string& text, const Command& command, std::string& not_built) {
  for (const OptionGroup& group : command.groups) {
    std::string listed;
    for (const Option& option : group.options) {
      if (option.hidden) continue;
      if (option.support == Support::kNotBuilt) not_built += format_text("--{} ", option.name);
      if (!works(option.support)) continue;
      listed += format_text("  {}\n{}", synopsis(option), wrap_text(option.help, 10));
      if (option.deprecated()) {
        listed += wrap_text(format_text("Deprecated; use {}", option.instead), 10);
      }
    }
    if (!listed.empty()) text += format_text("\n{}:\n{}", group.title, listed);
  }
  if (command.groups.empty()) text += "\nOptions:\n";
  text += format_text("  -h, --help\n{}", wrap_text("Print this", 10));
}

void add_subcommands(std::string& text, const Command& command, std::string& not_built) {
  std::string listed;
  size_t column = 12;
  for (const Command& subcommand : command.subcommands) {
    if (works(subcommand.support)) column = std::max(column, subcommand.name.size() + 2);
  }
  for (const Command& subcommand : command.subcommands) {
    if (subcommand.support == Support::kNotBuilt) not_built += format_text("{} ", subcommand.name);
    if (!works(subcommand.support)) continue;
    listed += format_text("  {:<{}}{}\n", subcommand.name, column, subcommand.help);
  }
  if (!listed.empty()) text += "\nCommands:\n" + listed;
}

}  // namespace

std::string wrap_text(std::string_view text, size_t indent, size_t width) {
  std::string wrapped;
  size_t column = 0;
  while (!text.empty()) {
    size_t space = text.find(' ');
    std::string_view word = text.substr(0, space);
    text = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
    if (word.empty()) continue;
    if (column > 0 && column + 1 + word.size() > width) {
      wrapped += '\n';
      column = 0;
    }
    wrapped += column == 0 ? std::string(indent, ' ') : " ";
    column += (column == 0 ? indent : 1) + word.size();
    wrapped += word;
  }
  if (column > 0) wrapped += '\n';
  return wrapped;
}

std::string synopsis(const Option& option) {
  std::string text = option.short_name ? format_text("-{}, ", option.short_name) : "";
  text += format_text("--{}", option.name);
  if (option.takes_value()) text += format_text(" {}", option.placeholder());
  return text;
}

std::string help_text(std::string_view program, const CommandLine& line) {
  const Command& command = line.command();
  std::string text = usage_line(program, line);
  text += format_text("\n{}.\n", command.help);
  std::string refusal = command.refusal(line.command_name());
  if (!refusal.empty()) text += wrap_text("Note: " + refusal + ".", 0);
  std::string not_built;
  add_positionals(text, command);
  add_subcommands(text, command, not_built);
  add_options(text, command, not_built);
  if (!not_built.empty() && works(command.support)) {
    text += "\nKnown, but not supported by this build yet:\n" + wrap_text(not_built, 2);
  }
  return text;
}

}  // namespace crosvm

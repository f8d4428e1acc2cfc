#include "cli/documents.h"

#include <algorithm>

#include "base/format.h"
#include "cli/help.h"
#include "cli/option_table.h"

namespace crosvm {
namespace {

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    result += text.substr(0, at);
    result += to;
    text.remove_prefix(at + from.size());
  }
  return result.append(text);
}

std::string_view state(Support support) {
  switch (support) {
    case Support::kBuilt:
      return "yes";
    case Support::kIgnored:
      return "ignored";
    case Support::kNotBuilt:
      return "not yet";
    case Support::kElsewhere:
      return "elsewhere";
    case Support::kRemoved:
      return "removed";
  }
  return "";
}

std::string notes(const Option& option) {
  std::string text(option.help);
  auto add = [&](std::string note) { text += (text.empty() ? "" : ". ") + std::move(note); };
  if (option.repeatable) add("May be repeated");
  if (option.required) add("Required");
  if (!option.availability.empty()) add(format_text("{} only", option.availability));
  if (option.deprecated()) add(format_text("Deprecated: use `{}`", option.instead));
  if (option.support == Support::kRemoved && !option.instead.empty()) {
    add(format_text("Use `{}`", option.instead));
  }
  return text;
}

/// Calls `visit(full name, command)` for every subcommand that has no subcommands of its own.
template <class Visit>
void for_each_command(const Command& command, const std::string& prefix, const Visit& visit) {
  for (const Command& subcommand : command.subcommands) {
    std::string name = prefix + std::string(subcommand.name);
    visit(name, subcommand);
    for_each_command(subcommand, name + " ", visit);
  }
}

std::string markdown_cell(std::string_view text) { return replaced(text, "|", "\\|"); }

void add_markdown_options(std::string& text, const Command& command) {
  for (const OptionGroup& group : command.groups) {
    if (command.groups.size() > 1) text += format_text("\n### {}\n", group.title);
    text += "\n| Option | Supported | |\n|---|---|---|\n";
    for (const Option& option : group.options) {
      text += format_text("| `{}` | {} | {} |\n", markdown_cell(synopsis(option)),
                          state(option.support), markdown_cell(notes(option)));
    }
  }
}

std::string arguments_of(const Command& command) {
  std::string text;
  for (const Positional& positional : command.positionals) {
    std::string_view dots = positional.repeatable ? "…" : "";
    text += positional.required ? format_text(" {}{}", positional.name, dots)
                                : format_text(" [{}{}]", positional.name, dots);
  }
  return text;
}

std::string troff(std::string_view text) {
  std::string escaped = replaced(replaced(text, "\\", "\\e"), "-", "\\-");
  escaped = replaced(escaped, "…", "...");
  if (escaped.starts_with('.') || escaped.starts_with('\'')) escaped.insert(0, "\\&");
  return escaped;
}

void add_manual_options(std::string& text, const Command& command) {
  for (const OptionGroup& group : command.groups) {
    for (const Option& option : group.options) {
      if (option.hidden || option.support != Support::kBuilt) continue;
      text += format_text(".TP\n.B {}\n{}.\n", troff(synopsis(option)), troff(notes(option)));
    }
  }
}

std::string completion_words(const Command& command) {
  std::string words = "--help";
  for (const OptionGroup& group : command.groups) {
    for (const Option& option : group.options) {
      if (!option.hidden && option.support == Support::kBuilt) {
        words += format_text(" --{}", option.name);
      }
    }
  }
  for (const Command& subcommand : command.subcommands) {
    if (subcommand.support == Support::kBuilt) words += format_text(" {}", subcommand.name);
  }
  return words;
}

}  // namespace

std::string options_markdown() {
  std::string text =
      "# Options\n\n"
      "Made from the option table by `crosvm --print-options-md`; edit the table instead.\n\n"
      "Supported: *yes*; *ignored*, because what it asks for is always so; *not yet*, refused by\n"
      "name with exit status 35; *elsewhere*, on other systems only; *removed*, refused with what\n"
      "to use instead. Values called KEY=VALUE,… follow one grammar: `path=a.img,ro,id=x`, lists "
      "and\n"
      "nested values in brackets, and the first key may go without its name.\n\n"
      "## crosvm\n\nBefore the subcommand.\n";
  add_markdown_options(text, root_command());
  for_each_command(root_command(), "", [&](const std::string& name, const Command& command) {
    text += format_text(
        "\n## crosvm {}{}\n\n{}. Supported: {}{}.\n", name, arguments_of(command), command.help,
        state(command.support),
        command.availability.empty() ? "" : format_text(", {} only", command.availability));
    bool same_as_run = command.name == "run-mp";
    if (same_as_run) text += "\nTakes every option of `run`.\n";
    if (!same_as_run) add_markdown_options(text, command);
  });
  return text;
}

std::string manual_page() {
  std::string text =
      ".TH CROSVM 1\n.SH NAME\ncrosvm \\- virtual machine monitor\n"
      ".SH SYNOPSIS\n.B crosvm\n[options] command [arguments]\n.SH OPTIONS\n";
  add_manual_options(text, root_command());
  text += ".SH COMMANDS\n";
  for_each_command(root_command(), "", [&](const std::string& name, const Command& command) {
    if (command.support != Support::kBuilt) return;
    text += format_text(".SS crosvm {}{}\n{}.\n", troff(name), troff(arguments_of(command)),
                        troff(command.help));
    add_manual_options(text, command);
  });
  text +=
      ".SH EXIT STATUS\n"
      "0 success, or the guest stopped; 1 an error; 35 a mistake on the command line. With\n"
      ".B \\-\\-extended\\-status\n"
      "also 32 the guest asked for a reset, 33 the VM crashed, 34 the guest's kernel panicked,\n"
      "36 the watchdog expired.\n";
  return text;
}

std::string bash_completion() {
  std::string text =
      "# Completion of crosvm for bash: source this file.\n"
      "_crosvm() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command= index\n"
      "  for ((index = 1; index < COMP_CWORD; index++)); do\n"
      "    case ${COMP_WORDS[index]} in\n";
  std::string cases;
  for (const Command& command : root_command().subcommands) {
    if (command.support != Support::kBuilt) continue;
    text += format_text("      {}) command={}; break ;;\n", command.name, command.name);
    cases += format_text("    {}) words='{}' ;;\n", command.name, completion_words(command));
  }
  text += "    esac\n  done\n  local words\n  case $command in\n" + cases;
  text += format_text("    *) words='{}' ;;\n  esac\n", completion_words(root_command()));
  text +=
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "  if [[ $word != -* && -n $command ]]; then\n"
      "    COMPREPLY+=($(compgen -f -- \"$word\"))\n"
      "  fi\n"
      "}\n"
      "complete -o filenames -F _crosvm crosvm\n";
  return text;
}

}  // namespace crosvm

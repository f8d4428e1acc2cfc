#include "cli/command_line.h"

#include <algorithm>
#include <optional>

#include "base/format.h"

namespace crosvm {
namespace {

/// An argument after the pre-pass of cli.md 1.1.1.
struct Token {
  std::string_view text;
  bool split_off = false;  // what stood behind `=` in the argument before
};

std::vector<Token> split_arguments(std::span<const std::string_view> arguments) {
  std::vector<Token> tokens;
  tokens.reserve(arguments.size());
  for (std::string_view argument : arguments) {
    size_t equals =
        argument.size() > 1 && argument[0] == '-' ? argument.find('=') : std::string_view::npos;
    if (argument == "-h") {
      tokens.push_back({"--help"});
    } else if (equals == std::string_view::npos) {
      tokens.push_back({argument});
    } else {
      tokens.push_back({argument.substr(0, equals)});
      tokens.push_back({.text = argument.substr(equals + 1), .split_off = true});
    }
  }
  return tokens;
}

/// Names once written with underscores (cli.md 2.1).
std::string modern_name(std::string_view name) {
  std::string modern(name);
  if (name == "host_ip" || name.starts_with("balloon_")) std::ranges::replace(modern, '_', '-');
  return modern;
}

Error unrecognized(std::string_view token) {
  return Error::invalid(format_text("Unrecognized argument: {}", token));
}

class Parser {
 public:
  Parser(const Command& root, std::span<const std::string_view> arguments)
      : tokens_(split_arguments(arguments)) {
    line_.levels.push_back({.command = &root, .options = {}});
  }

  Result<CommandLine> parse() {
    while (next_ < tokens_.size()) TRY(take(tokens_[next_++].text));
    if (!line_.help) TRY(check_complete());
    return std::move(line_);
  }

 private:
  Result<void> take(std::string_view token) {
    if (options_ended_) return take_positional(token);
    if (token == "--help" || token == "help") {
      line_.help = true;
      return {};
    }
    if (!token.starts_with('-')) return take_positional(token);
    if (line_.help) {
      return fail(Error::invalid(format_text("Unrecognized argument: {} (after help)", token)));
    }
    if (token == "--") {
      options_ended_ = true;
      return {};
    }
    return take_option(token);
  }

  Result<void> take_positional(std::string_view token) {
    const Command& command = line_.command();
    if (!command.subcommands.empty()) {
      const Command* subcommand = command.find_subcommand(token);
      if (!subcommand) return fail(unrecognized(token));
      line_.levels.push_back({.command = subcommand, .options = {}});
      return {};
    }
    size_t count = line_.positionals.size();
    bool room = count < command.positionals.size() || (count > 0 && !command.positionals.empty() &&
                                                       command.positionals.back().repeatable);
    if (!room) return fail(unrecognized(token));
    line_.positionals.push_back(token);
    return {};
  }

  Result<void> take_option(std::string_view token) {
    const Command& command = line_.command();
    const Option* option = nullptr;
    std::optional<std::string_view> attached;
    if (token.starts_with("--")) {
      option = command.find_option(modern_name(token.substr(2)));
    } else if (token.size() > 1) {
      option = command.find_option(token[1]);
      if (option && token.size() > 2) {  // -c4, of releases before 2022
        if (!option->takes_value()) return fail(unrecognized(token));
        attached = attached_value(token);
        token = token.substr(0, 2);
      }
    }
    if (!option) return fail(unrecognized(token));
    // Whether it took a value is forgotten, so nothing after it can be understood.
    if (option->support == Support::kRemoved) return fail(Error::invalid(option->refusal(token)));
    GivenOption given{.option = option, .spelling = token, .value = {}};
    if (attached) {
      given.value = *attached;
    } else if (option->takes_value() && !value_left_out(*option)) {
      if (next_ == tokens_.size()) {
        return fail(Error::invalid(format_text("No value provided for option '{}'.", token)));
      }
      given.value = tokens_[next_++].text;
    }
    if (!option->takes_value() && next_ < tokens_.size() && tokens_[next_].split_off) {
      return fail(Error::invalid(
          format_text("Option '{0}' takes no value, but '{1}' was given; write {0} alone, or leave "
                      "it out",
                      token, tokens_[next_].text)));
    }
    if (option->takes_value() && !option->repeatable && is_given(*option)) {
      return fail(given.error("duplicate values provided"));
    }
    line_.levels.back().options.push_back(given);
    return {};
  }

  /// The rest of `-pquiet`; the pre-pass may have cut `-pinit=/bin/sh`, so it goes to its end.
  std::string_view attached_value(std::string_view token) {
    const char* begin = token.data() + 2;
    if (next_ == tokens_.size() || !tokens_[next_].split_off) return token.substr(2);
    std::string_view rest = tokens_[next_++].text;
    return {begin, static_cast<size_t>(rest.data() + rest.size() - begin)};
  }

  /// Whether an option that may lack its value does (cli.md 2.2): `--gpu KERNEL` is not a value.
  bool value_left_out(const Option& option) const {
    if (!option.optional_value) return false;
    if (next_ == tokens_.size()) return true;
    const Token& next = tokens_[next_];
    if (next.split_off) return false;
    bool is_last = next_ + 1 == tokens_.size();
    return next.text.starts_with('-') || (is_last && line_.positionals.empty());
  }

  Result<void> check_complete() const {
    const Command& command = line_.command();
    std::string missing;
    auto add = [&](std::string_view dashes, std::string_view name) {
      missing += format_text("{}{}{}", missing.empty() ? "" : ", ", dashes, name);
    };
    if (!command.subcommands.empty()) {
      if (stands_alone()) return {};
      add("", "help");
      for (const Command& subcommand : command.subcommands) add("", subcommand.name);
      return fail(Error::invalid(
          format_text("One of the following subcommands must be present: {}", missing)));
    }
    for (size_t i = line_.positionals.size(); i < command.positionals.size(); ++i) {
      if (command.positionals[i].required) add("", command.positionals[i].name);
    }
    if (!missing.empty()) {
      return fail(
          Error::invalid(format_text("Required positional arguments not provided: {}", missing)));
    }
    for (const OptionGroup& group : command.groups) {
      for (const Option& option : group.options) {
        if (option.required && !is_given(option)) add("--", option.name);
      }
    }
    if (missing.empty()) return {};
    return fail(Error::invalid(format_text("Required options not provided: {}", missing)));
  }

  bool is_given(const Option& option) const {
    return std::ranges::any_of(line_.options(),
                               [&](const GivenOption& given) { return given.option == &option; });
  }

  /// The options that print a document take no subcommand.
  bool stands_alone() const {
    return line_.levels.size() == 1 &&
           std::ranges::any_of(line_.options(),
                               [](const GivenOption& given) { return given.option->hidden; });
  }

  std::vector<Token> tokens_;
  size_t next_ = 0;
  bool options_ended_ = false;
  CommandLine line_;
};

}  // namespace

Error GivenOption::error(std::string_view reason) const {
  return Error::invalid(
      format_text("Error parsing option '{}' with value '{}': {}", spelling, value, reason));
}

std::string CommandLine::command_name() const {
  std::string name;
  for (size_t i = 1; i < levels.size(); ++i) {
    if (i > 1) name += ' ';
    name += levels[i].command->name;
  }
  return name;
}

Result<CommandLine> parse_command_line(const Command& root,
                                       std::span<const std::string_view> arguments) {
  return Parser(root, arguments).parse();
}

Result<void> check_supported(const CommandLine& line) {
  std::string refusal = line.command().refusal(line.command_name());
  if (!refusal.empty()) return fail(Error::invalid(std::move(refusal)));
  for (const CommandLine::Level& level : line.levels) {
    for (const GivenOption& given : level.options) {
      refusal = given.option->refusal(given.spelling);
      if (!refusal.empty()) return fail(Error::invalid(std::move(refusal)));
    }
  }
  return {};
}

}  // namespace crosvm

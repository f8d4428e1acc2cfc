#include "cli/globals.h"

#include <cstdio>

#include "cli/documents.h"

namespace crosvm {

Globals read_globals(const CommandLine& line) {
  Globals globals;
  for (const GivenOption& given : line.global_options()) {
    std::string_view name = given.option->name;
    if (name == "extended-status") globals.extended_status = true;
    if (name == "no-syslog") globals.logging.use_syslog = false;
    if (name == "syslog-tag") globals.logging.syslog_tag = given.value;
    if (name == "log-level") {
      globals.logging.filter = given.value;
      globals.log_level = &given;
    }
    if (name == "print-options-md") globals.document = options_markdown;
    if (name == "print-man") globals.document = manual_page;
    if (name == "print-completion") globals.document = bash_completion;
  }
  return globals;
}

Result<void> configure_log(const Globals& globals) {
  auto configured = log::configure(globals.logging);
  if (!configured && globals.log_level) {
    return fail(globals.log_level->error(configured.error().what()));
  }
  return configured;
}

void warn_of_deprecated(const CommandLine& line) {
  for (const CommandLine::Level& level : line.levels) {
    for (const GivenOption& given : level.options) {
      if (given.option->support == Support::kIgnored) {
        log::warn("{} has no effect: {}", given.spelling, given.option->help);
      } else if (given.option->deprecated()) {
        log::warn("{} is deprecated; use {}", given.spelling, given.option->instead);
      }
    }
  }
}

void print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

int refuse(const Error& error) {
  log::error("arg parsing failed: {}", error.what());
  log::info("exiting with invalid arguments");
  return kInvalidArguments;
}

int fail_with(const Error& error) {
  log::error("exiting with error {}: {}", kFailure, error.what());
  return kFailure;
}

int succeed() {
  log::info("exiting with success");
  return kSuccess;
}

}  // namespace crosvm

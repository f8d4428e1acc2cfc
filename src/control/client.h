#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>

#include "control/protocol.h"

/// The client side of the control subcommands (cli.md 3.0).
namespace crosvm::control {

/// Sends one request to the VM at `socket_path` and waits, as long as it takes, for the one answer.
/// Errors: those of connecting, sending and receiving; connection_reset when the VM ends first.
Result<Response> ask(const std::string& socket_path, Request request);

/// A subcommand called `name` that succeeds on Ok: silent then; on another answer it writes
/// "unexpected response: …" to `out`. Logs how it ended, and of an errno what `explain` makes of
/// it. Returns the exit status, 0 or 1.
int run_simple_client(std::string_view name, const std::string& socket_path, Request request,
                      std::FILE* out = stdout,
                      std::string_view (*explain)(std::errc code) = nullptr);

}  // namespace crosvm::control

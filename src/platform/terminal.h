#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Finds the keys by which a user leaves a VM that has the terminal: Ctrl-A x leaves, Ctrl-A Ctrl-A
/// sends one Ctrl-A, Ctrl-A with any other key sends both.
class EscapeFilter {
 public:
  /// Appends to `output` what is for the guest; never more than `typed.size() + 1` bytes. Returns
  /// true when the user asked to leave; what was typed after that is dropped.
  bool filter(std::span<const std::byte> typed, std::vector<std::byte>& output);

 private:
  bool after_ctrl_a_ = false;
};

/// Keeps a terminal in raw mode: every key goes to the guest, Ctrl-C too. Output processing stays,
/// so that our own log lines still begin at the left. At most one at a time.
class RawTerminal {
 public:
  /// Nothing (no error) when `fd` is not a terminal. `fd` is duplicated. A background job is
  /// stopped (SIGTTOU) until it gets the terminal, as any program that sets modes.
  static Result<std::optional<RawTerminal>> enter(const Fd& fd);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&& other) = delete;
  ~RawTerminal();

 private:
  RawTerminal() = default;
  bool active_ = true;
};

/// Puts the terminal back as it was before `RawTerminal::enter`; does nothing when none is raw.
/// Async-signal-safe: for handlers of signals that end the process.
void restore_terminal();

/// The same, until `resume_terminal`: for a process that is about to be stopped. Async-signal-safe.
void pause_terminal();
/// Makes the terminal raw again, when it is ours to be raw: after a stop, whoever sees to it
/// meanwhile may have set other modes. A background job is stopped until it gets the terminal.
/// Async-signal-safe.
void resume_terminal();

}  // namespace crosvm

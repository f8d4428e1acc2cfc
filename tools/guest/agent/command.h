#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm::agent {

/// How a command ended.
struct Ending {
  int status = 0;          ///< its exit status, when no signal ended it
  int signal = 0;          ///< the number of that signal, or 0
  bool timed_out = false;  ///< the signal was ours
};

/// A running command: a process in a session of its own, with pipes to its standard input, output
/// and errors.
class Command {
 public:
  /// Starts argv[0], looked up in PATH. `input` is what the command can read. Errors: what stopped
  /// it from starting, naming argv[0].
  static Result<Command> start(const std::vector<std::string>& argv, std::string input);
  /// What still runs of the command's session leader's process group is killed, the leader is
  /// reaped.
  ~Command();
  Command(Command&& other) noexcept;
  Command& operator=(Command&&) = delete;

  /// Readable when the process has ended.
  const Fd& process() const { return process_; }
  /// Closed, once all of `input` is written or nobody reads it.
  const Fd& input() const { return input_pipe_; }
  /// Each closed at its end.
  const Fd& output() const { return output_; }
  const Fd& errors() const { return errors_; }

  void write_input();                                  ///< as much as the pipe takes
  std::string read_output() { return take(output_); }  ///< up to kMaxChunk bytes, without blocking
  std::string read_errors() { return take(errors_); }

  void kill_all();
  /// Reaps the process, which has ended (`process` is readable). Once. What it has left running
  /// goes on.
  Ending reap();

 private:
  Command() = default;
  static std::string take(Fd& pipe);

  pid_t pid_ = -1;  // and the number of its process group; -1 when reaped
  Fd process_;
  Fd input_pipe_;
  Fd output_;
  Fd errors_;
  std::string input_;
};

}  // namespace crosvm::agent

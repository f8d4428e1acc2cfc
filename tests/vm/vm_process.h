#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"

namespace crosvm::test {

/// crosvm as a child process, as a user's script would start it.
class VmProcess {
 public:
  enum class Input { kPipe, kTerminal };

  /// Starts `arguments` (without the program's name). With kTerminal the child's stdin and stdout
  /// are a pseudo-terminal, in whose foreground it runs: what changes or hangs up the terminal
  /// sends it signals. Its stderr is always a pipe of its own.
  explicit VmProcess(const std::vector<std::string>& arguments, Input input = Input::kPipe);
  ~VmProcess();  // kills and reaps
  VmProcess(const VmProcess&) = delete;
  VmProcess& operator=(const VmProcess&) = delete;

  /// Waits until what the child has written to stdout contains `text`; false on time-out or its
  /// end.
  bool wait_for(std::string_view text, std::chrono::seconds timeout = std::chrono::seconds(120));
  void send(std::string_view text);
  void signal(int number);
  /// Closes our end of what the child writes to stdout.
  void close_output() { from_child_ = Fd(); }
  /// Waits for the end; the exit status, 128 + number for a signal, nothing on time-out.
  std::optional<int> wait_exit(std::chrono::seconds timeout = std::chrono::seconds(120));

  /// The same without reading what the child writes.
  std::optional<int> wait_exit_unread(std::chrono::seconds timeout);

  /// The pipe behind the child's stderr, for its settings.
  const Fd& error_pipe() const { return errors_from_child_; }
  pid_t pid() const { return pid_; }
  /// Reads what the child has written to stdout so far and forgets it.
  void discard_output();
  /// Whether the child writes to stdout within `timeout`; nothing is read.
  bool has_output(std::chrono::milliseconds timeout);

  const std::string& output() const { return output_; }
  const std::string& errors() const { return errors_; }
  /// What a guest's kernel said on the console of its own end, from the first line about it on.
  std::string last_words() const;
  /// The terminal's own descriptor, for its settings. Only with kTerminal.
  const Fd& terminal() const { return to_child_; }

 private:
  void pump(std::chrono::milliseconds timeout);
  bool running();

  pid_t pid_ = -1;
  pid_t session_leader_ = -1;  // only with kTerminal
  std::optional<int> status_;
  Fd to_child_;
  Fd from_child_;
  Fd errors_from_child_;
  Fd terminal_end_;  // kept open so that the settings can be read after the child's end
  std::string output_;
  std::string errors_;
};

/// The crosvm under test: $CROSVM_BIN.
std::string crosvm_binary();
/// A file of a guest image: $CROSVM_IMAGES/KERNEL/NAME.
std::string image(std::string_view kernel, std::string_view name);
/// An empty directory of this test's own, removed at the end with all that is in it.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  const std::string& path() const { return path_; }
  /// Names of the entries, sorted.
  std::vector<std::string> entries() const;

 private:
  std::string path_;
};

}  // namespace crosvm::test

// Runs a command in a guest, for scripts: agent_run [OPTION...] SOCKET -- WORD...
//
// Listens at SOCKET, where the VM's `agent` port connects, waits for the guest's agent, passes on
// what the command says and exits with its status. 125: the command did not get to run to its end;
// a message says why.

#include <charconv>
#include <cstdio>
#include <string>
#include <vector>

#include "../agent_client.h"
#include "base/format.h"

namespace {

using crosvm::Error;
using crosvm::fail;
using crosvm::format_text;
using crosvm::Result;

constexpr int kNotRun = 125;
constexpr char kUsage[] =
    "usage: agent_run [OPTION...] SOCKET -- WORD...\n"
    "  --wait S      how long to wait for the guest's agent, in seconds (120)\n"
    "  --timeout S   kill the command after so long; 0: never (0)\n"
    "  --power-off   power the guest off afterwards\n";

struct Arguments {
  long wait_s = 120;
  long timeout_s = 0;
  bool power_off = false;
  std::string socket;
  std::vector<std::string> words;
};

Result<long> number(std::string_view option, std::string_view text) {
  long value = 0;
  auto end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0 || value > 1'000'000)
    return fail(Error::invalid(format_text("{} needs a number, not '{}'", option, text)));
  return value;
}

Result<Arguments> parse(const std::vector<std::string>& given) {
  Arguments arguments;
  size_t at = 0;
  for (; at < given.size() && given[at].starts_with("--") && given[at] != "--"; ++at) {
    const std::string& option = given[at];
    if (option == "--power-off") {
      arguments.power_off = true;
      continue;
    }
    long* value = option == "--wait"      ? &arguments.wait_s
                  : option == "--timeout" ? &arguments.timeout_s
                                          : nullptr;
    if (value == nullptr) return fail(Error::invalid("unknown option " + option));
    if (++at == given.size()) return fail(Error::invalid(option + " needs a value"));
    *value = TRY(number(option, given[at]));
  }
  if (at + 2 >= given.size() || given[at + 1] != "--")
    return fail(Error::invalid("a socket, --, and a command are needed"));
  arguments.socket = given[at];
  arguments.words.assign(given.begin() + static_cast<long>(at) + 2, given.end());
  return arguments;
}

Result<int> run(const Arguments& arguments) {
  using crosvm::test::AgentClient;
  AgentClient client = TRY(AgentClient::listen(arguments.socket));
  TRY(client.wait_ready(std::chrono::seconds(arguments.wait_s)));
  auto pass_on = [](bool is_error, std::string_view bytes) {
    std::FILE* to = is_error ? stderr : stdout;
    std::fwrite(bytes.data(), 1, bytes.size(), to);
    std::fflush(to);
  };
  auto result = client.stream(arguments.words,
                              {.timeout = std::chrono::seconds(arguments.timeout_s)}, pass_on);
  if (arguments.power_off) {
    // The guest is gone already, perhaps because that is what the command did.
    if (auto sent = client.power_off(); !sent && result) return result->status;
  }
  return TRY(std::move(result)).status;
}

}  // namespace

int main(int argc, char** argv) {
  auto arguments = parse({argv + 1, argv + argc});
  if (!arguments) {
    std::fprintf(stderr, "agent_run: %s\n%s", arguments.error().what().c_str(), kUsage);
    return 2;
  }
  auto status = run(*arguments);
  if (!status) std::fprintf(stderr, "agent_run: %s\n", status.error().what().c_str());
  return status.value_or(kNotRun);
}

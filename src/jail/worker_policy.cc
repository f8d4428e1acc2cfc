#include "jail/worker_policy.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/format.h"
#include "jail/bpf_simulation.h"
#include "jail/spawner_process.h"

namespace crosvm {
namespace {

/// Whether a worker may send on `socket`, as PacketSocket does.
bool lets_send(const SeccompProgram& program, int socket) {
  constexpr uint64_t kMessage = 0x7fff'0000'1000;  // somewhere on the stack
  seccomp_data call{};
  call.nr = SYS_sendmsg;
  call.arch = ::seccomp_arch_native();
  call.args[0] = static_cast<uint64_t>(socket);
  call.args[1] = kMessage;
  call.args[2] = MSG_NOSIGNAL;
  const uint32_t verdict = simulate_bpf(program.code(), call);
  // What cannot be told here is left to the kernel.
  return verdict == SECCOMP_RET_ALLOW || verdict == SECCOMP_RET_LOG || verdict == UINT32_MAX;
}

}  // namespace

Result<SeccompProgram> find_worker_policy(std::string_view name,
                                          const SeccompPolicySource& source) {
  SeccompProgram program = TRY(find_seccomp_policy(name, source));
  if (program.path().empty()) return program;
  if (lets_send(program, kWorkerListener) && lets_send(program, kWorkerChannel)) return program;
  return fail(Error::invalid(format_text(
      "{}: this policy does not allow sendmsg, without which a device's process cannot start; add "
      "the line \"sendmsg: 1\"{}",
      program.path(),
      program.path().ends_with(".bpf") ? " to its source, and compile it again" : "")));
}

}  // namespace crosvm

#include "jail/worker.h"

#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/log.h"
#include "base/packet_socket.h"
#include "base/start_error.h"
#include "base/system_log.h"
#include "jail/broker_channel.h"
#include "jail/enter_jail.h"
#include "jail/seccomp_filter.h"
#include "jail/spawner_process.h"
#include "jail/worker_commands.h"
#include "jail/worker_order.h"
#include "vhost/vhost_user_server.h"
#include "virtio/device_rings.h"

namespace crosvm {
namespace {

/// What the log writes to, for a process in the network of the host. With a Unix socket of that
/// network one reaches whoever has a socket there whose address is no file ("abstract"), so that
/// for the system log is of another network, which a thread has for the moment.
Result<void> open_log_apart(const log::Options& options) {
  Result<void> opened;
  const auto open = [&] {
    log::Options own = options;
    own.use_syslog = ::unshare(CLONE_NEWNET) == 0;
    const int error = errno;
    opened = log::configure(own);
    log::open_sinks();
    if (!own.use_syslog) {
      log::warn("{}; nothing goes to the system log from here",
                Error::from_errno("making", "a network for the system log's socket", error).what());
    }
  };
  try {  // std::thread has no other way to say that the system refused
    std::thread(open).join();
  } catch (const std::system_error& refused) {
    return fail(start_error("starting a thread for", "the system log", refused.code().value()));
  }
  return opened;
}

Result<void> open_log(const log::Options& options, bool host_network) {
  if (host_network && options.use_syslog && ::access(SystemLog::kPath, F_OK) == 0) {
    return open_log_apart(options);
  }
  TRY(log::configure(options));
  log::open_sinks();
  return {};
}

class Worker {
 public:
  Worker() : channel_(Fd(kWorkerChannel), kWorkerPackets) {}

  /// What happens before the VMM hears that the device is ready.
  Result<void> prepare(const DeviceType* (*find)(std::string_view name)) {
    WorkerOrder order = TRY(receive_order());
    const DeviceType* type = find(order.device);
    TRY(open_log(order.logging, type && type->host_network));
    if (!type) {
      return fail(
          Error::invalid(format_text("this program has no device of the kind '{}'", order.device)));
    }
    auto opened = TRY(type->receive(order.text, std::move(order.resources)));
    std::vector<IoUring> rings =
        make_device_rings(order.name, opened->rings(), std::exchange(order.io_witness, {}));
    loop_ = TRY(EventLoop::create());
    channel_watch_ = TRY(loop_->watch(channel_.fd(), EPOLLIN, [this](uint32_t) { hear_vmm(); }));
    const SeccompProgram filter = TRY(find_filter(order));
    JailConfig jail;
    jail.pivot_root = order.pivot_root;
    jail.resolv_conf = order.resolv_conf;
    jail.name = order.name;
    TRY(enter_jail(jail));
    TRY(install_filter(filter, order.denied_call));
    // From here on it may meet what an image or a guest wrote.
    ChannelBroker files(channel_);
    auto make = [&](DeviceEvents& events) {
      return opened->create({.loop = *loop_,
                             .events = events,
                             .rings = std::move(rings),
                             .files = &files,
                             .restarts = order.restarts});
    };
    auto gone = [this](const Error&) { loop_->stop(); };
    server_ = TRY(VhostUserServer::create(*loop_, order.name, make, gone));
    has_frontend_ = static_cast<bool>(order.frontend);
    return has_frontend_ ? server_->serve(std::move(order.frontend)) : Result<void>();
  }

  int run(const DeviceType* (*find)(std::string_view name)) {
    if (auto prepared = prepare(find); !prepared) {
      (void)channel_.send(encode_worker_failed(prepared.error()));  // else nobody is there to tell
      return 1;
    }
    (void)channel_.send(encode_worker_ready(server_->info()));
    auto ran = loop_->run();
    if (ran) ran = std::move(taken_);
    if (!ran) log::error("it cannot go on: {}", ran.error().what());
    server_.reset();
    return ran ? 0 : 1;
  }

 private:
  /// While the device is ready: its front-end, commands for it, and the end.
  void hear_vmm() {
    auto packet = channel_.receive();
    if (!packet || !*packet) return vmm_has_gone();
    if (!has_frontend_) return take_frontend(*std::move(*packet));
    auto command = decode_device_command(*std::move(*packet));
    auto answer = [this](const Result<std::string>& said) {
      (void)channel_.send(encode_command_answer(said));  // else nobody is there to tell
    };
    if (!command) return answer(fail(std::move(command).error()));
    server_->command(*std::move(command), answer);
  }

  void take_frontend(Packet packet) {
    has_frontend_ = true;
    taken_ = serve(decode_frontend(std::move(packet)));
    if (!taken_) loop_->stop();
  }

  Result<void> serve(Result<Fd> frontend) { return server_->serve(TRY(std::move(frontend))); }

  /// Once: the device's last requests still need the loop.
  void vmm_has_gone() {
    loop_->unwatch(channel_watch_);
    loop_->stop();
  }

  Result<WorkerOrder> receive_order() {
    auto packet = TRY(channel_.receive());
    if (!packet) return fail(Error(std::errc::broken_pipe, "the VMM has gone"));
    return decode_worker_order(*std::move(packet));
  }

  static Result<SeccompProgram> find_filter(const WorkerOrder& order) {
    if (order.filter) {
      std::vector<sock_filter> code(TRY(file_size(order.filter, order.policy)) /
                                    sizeof(sock_filter));
      TRY(read_full_at(order.filter, 0, std::as_writable_bytes(std::span(code)), order.policy));
      return SeccompProgram::foreign(std::move(code));
    }
    return find_seccomp_policy(order.policy,
                               {.directory = std::nullopt, .action = order.denied_call});
  }

  /// The spawner hears that the filter is in force, and gets its listener, on which it hears of
  /// every call that is not allowed.
  static Result<void> install_filter(const SeccompProgram& filter, SeccompDefault denied_call) {
    PacketSocket supervisor(Fd(kWorkerListener), kListenerPackets);
    const bool listener = denied_call == SeccompDefault::kNotify;
    Packet packet{.text = "listener", .fds = {}};
    Fd hears = TRY(install_seccomp(filter, {.all_threads = false, .listener = listener}));
    if (hears) packet.fds.push_back(std::move(hears));
    return supervisor.send(packet);
  }

  PacketSocket channel_;
  std::unique_ptr<EventLoop> loop_;
  EventLoop::WatchId channel_watch_ = 0;
  std::unique_ptr<VhostUserServer> server_;
  bool has_frontend_ = false;
  Result<void> taken_;  // a front-end that came later
};

}  // namespace

bool is_worker(int argc, const char* const* argv) {
  return argc > 0 && std::string_view(argv[0]) == kWorkerProgram;
}

int worker_main(const DeviceType* (*find)(std::string_view name)) {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  return Worker().run(find);
}

}  // namespace crosvm

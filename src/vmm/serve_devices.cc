#include "vmm/serve_devices.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <functional>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "devices/all_devices.h"
#include "devices/vsock/vsock_host.h"
#include "jail/broker_process.h"
#include "jail/check_sandbox_options.h"
#include "jail/helper_process.h"
#include "jail/jailed_services.h"
#include "jail/seccomp_filter.h"
#include "jail/spawner.h"
#include "platform/terminal.h"
#include "vhost/vhost_user_server.h"
#include "virtio/device_rings.h"
#include "vmm/backend_socket.h"
#include "vmm/backend_socket_process.h"
#include "vmm/console_link.h"
#include "vmm/descriptor_limit.h"
#include "vmm/end_signals.h"
#include "vmm/net_link.h"
#include "vmm/terminal_size.h"

namespace crosvm {
namespace {

/// One device, from its opening to the end of its front-end.
struct Service {
  const ServedDevice* served = nullptr;
  std::string text;  // its configuration
  std::unique_ptr<OpenedDevice> opened;
  std::unique_ptr<ConsoleLink> console;  // null for others
  std::unique_ptr<VsockHost> vsock;      // likewise
  std::optional<BackendSocket> socket;
  std::optional<BackendSocketProcess> listener;  // instead, for this process under a filter
  std::vector<IoUring> rings;                    // until it is made
  std::unique_ptr<BrokerProcess> files;          // likewise; opens what a filter keeps us from
  Fd frontend;                                   // until it is served
  EventLoop::WatchId watch = 0;
  std::unique_ptr<VhostUserServer> server;  // in this process
  bool ready = false;                       // the device's process has it

  const DeviceType& type() const { return *find_device(served->type); }
};

class ServeRun {
 public:
  Result<void> run(const ServeConfig& config) {
    auto served = serve(config);
    // A signal interrupts what the start waits for; that is no failure.
    if (!served && EndSignals::received()) return {};
    return served;
  }

 private:
  Result<void> serve(const ServeConfig& config) {
    confined_ = config.confined;
    std::unique_ptr<Spawner> spawner;
    if (config.jailed) {
      spawner = TRY(Spawner::start());  // while we have one thread
    } else {
      warn_of_ignored(config.sandbox_options, "--jail ");
    }
    loop_ = TRY(EventLoop::create());
    signals_ = TRY(EndSignals::create(*loop_, [this](int number) {
      log::info("ending on SIG{}", ::sigabbrev_np(number));
      loop_->stop();
    }));
    stop_event_ = TRY(make_eventfd());
    if (spawner) {
      jails_ = TRY(JailedServices::create(
          *loop_, std::move(spawner), config.sandbox_options,
          {.ready = [this](const std::string& name) { ready(name); },
           .ended = [this](const std::string& name, bool served) { ended(name, served); },
           .lost = [this] { lost(); }}));
    }
    for (const ServedDevice& device : config.devices) TRY(with_context(open(device), device.name));
    if (confined_) {
      TRY(begin_confined());
    } else {
      for (auto& service : services_) TRY(with_context(begin(*service), service->served->name));
    }
    TRY(take_terminal());
    TRY(loop_->run());
    signal_eventfd(stop_event_);
    return std::move(result_);
  }

  Result<void> open(const ServedDevice& device) {
    auto service = std::make_unique<Service>();
    service->served = &device;
    service->text = device.text;
    if (device.net && (std::holds_alternative<NetRequest::Passt>(device.net->network) ||
                       std::holds_alternative<UserNetConfig>(device.net->network))) {
      return fail(Error::invalid(
          "cards with `user` or `passt` are those of `crosvm run --net`; give tap-name, tap-fd or "
          "host-ip here, or let passt serve the VM itself: passt --vhost-user, and crosvm run "
          "--vhost-user net,socket=…"));
    }
    if (device.net) {
      NetLink link = TRY(NetLink::open(*device.net, device.name, device.socket));
      service->text = std::move(link.request.text);
      service->opened = std::move(link.device);
    } else if (device.type == VsockFactory::kName) {
      TRY(open_vsock(*service));
    } else if (device.ports.empty()) {
      service->opened = TRY(service->type().open(device.text));
    } else {
      const SerialHost host{
          .loop = *loop_, .stop_event = stop_event_, .leave = [this] { loop_->stop(); }};
      service->console = TRY(ConsoleLink::open(device.ports, device.name, host));
      service->text = service->console->request().text;
      service->opened = service->console->take_device();
    }
    services_.push_back(std::move(service));
    return {};
  }

  Result<void> open_vsock(Service& service) {
    const VsockConfig config = TRY(VsockConfig::parse(TRY(KeyValues::parse(service.text))));
    const EndSignals::Held held;
    VsockHost::Opened opened = TRY(VsockHost::open(config));
    service.vsock = std::move(opened.host);
    service.opened = TRY(opened_device<VsockFactory>(service.text, std::move(opened.resources)));
    return keep_vsock(*service.vsock);
  }

  /// The half of a socket device that stays outside of its jail. Where this process becomes the
  /// jail, another one has it, and the socket files.
  Result<void> keep_vsock(VsockHost& host) {
    if (confined_) {
      TRY(start_helper(host.channel(), "connects sockets", [&host] {
        host.serve_until_end();
        host.remove_files();
      }));
      host.leave_files();
      return {};
    }
    for (const std::string& path : host.socket_files()) {
      if (jails_) TRY(jails_->guard_socket(path));
    }
    return host.serve(*loop_);
  }

  Result<void> listen(Service& service) {
    const EndSignals::Held held;
    service.socket.emplace(TRY(BackendSocket::listen(service.served->socket)));
    return jails_ ? jails_->guard_socket(service.socket->path()) : Result<void>();
  }

  /// From here on a front-end may come. It is taken when the device is there: an image that cannot
  /// be served is found out without one.
  Result<void> begin(Service& service) {
    ++left_;
    if (!jails_) {
      service.rings = make_device_rings(service.served->name, service.opened->rings());
      TRY(make_device(service));
    }
    if (service.served->fd) {
      service.frontend = TRY(adopt_frontend(*service.served->fd));
    } else {
      TRY(listen(service));
    }
    if (!jails_) return take_frontend(service);
    TRY(jails_->check_policy(service.type()));
    return jails_->start(service.type(), service.served->name, service.text, *service.opened, Fd());
  }

  /// The same in this process, under a filter: whatever that does not allow is had, or left to
  /// other processes, before it is in force.
  Result<void> begin_confined() {
    for (auto& service : services_) TRY(with_context(prepare(*service), service->served->name));
    TRY(confine(*services_.front()));
    for (auto& service : services_) TRY(with_context(make_device(*service), service->served->name));
    for (auto& service : services_) {
      if (service->listener) TRY(with_context(service->listener->listen(), service->served->name));
      TRY(take_frontend(*service));
    }
    return {};
  }

  Result<void> prepare(Service& service) {
    ++left_;
    if (service.served->fd) {
      service.frontend = TRY(adopt_frontend(*service.served->fd));
    } else {
      service.listener.emplace(TRY(BackendSocketProcess::start(service.served->socket)));
    }
    service.rings = make_device_rings(service.served->name, service.opened->rings());
    if (auto broker = service.opened->broker()) {
      service.files = TRY(BrokerProcess::start(std::move(broker)));
    }
    return {};
  }

  void ready(const std::string& name) {
    Service& service = service_of(name);
    service.ready = true;
    auto taken = with_context(take_frontend(service), name);
    if (!taken) cannot_serve(std::move(taken).error());
  }

  /// The one that is there, or comes.
  Result<void> take_frontend(Service& service) {
    if (service.frontend) {
      loop_->post([this, &service] { have_frontend(service); });
      return {};
    }
    const Fd& fd = service.listener ? service.listener->fd() : service.socket->fd();
    service.watch = TRY(loop_->watch(fd, EPOLLIN, [this, &service](uint32_t) {
      auto frontend = service.listener ? service.listener->take() : service.socket->accept();
      if (!frontend && !service.listener) {
        return log::warn("{}: {}", service.served->name, frontend.error().what());
      }
      loop_->unwatch(std::exchange(service.watch, 0));
      service.listener.reset();
      if (!frontend) return finish(fail(std::move(frontend).error().context(service.served->name)));
      service.frontend = std::move(*frontend);
      have_frontend(service);
    }));
    return {};
  }

  void have_frontend(Service& service) {
    auto started = with_context(start(service), service.served->name);
    if (started) return;
    if (!jails_) return finish(std::move(started));
    log::error("{}", started.error().what());  // its process has ended, of which we hear
  }

  /// The process of a device has. The others go on, unless it never had its device.
  void ended(const std::string& name, bool served) {
    Service& service = service_of(name);
    if (!service.ready && !served) {
      return cannot_serve(Error(std::errc::io_error, name + " cannot be served, as the log tells"));
    }
    if (service.watch != 0) loop_->unwatch(std::exchange(service.watch, 0));
    service.socket.reset();
    service.vsock.reset();  // nobody takes what its sockets would accept
    finish(served ? Result<void>()
                  : fail(Error(std::errc::io_error,
                               format_text("{} was not served, as the log tells", name))));
  }

  /// A mistake of the start, which ends all.
  void cannot_serve(Error why) {
    if (result_) result_ = fail(std::move(why));
    loop_->stop();
  }

  Service& service_of(const std::string& name) {
    return **std::ranges::find_if(
        services_, [&](const auto& service) { return service->served->name == name; });
  }

  void lost() {
    result_ = fail(Error(std::errc::no_child_process,
                         "the spawner of device processes has died, and no front-end can be served "
                         "any more; start crosvm devices again"));
    loop_->stop();
  }

  Result<void> start(Service& service) {
    if (jails_) return jails_->give_frontend(service.served->name, std::move(service.frontend));
    return service.server->serve(std::move(service.frontend));
  }

  /// In this process.
  Result<void> make_device(Service& service) {
    const std::string& name = service.served->name;
    const auto files = std::exchange(service.files, nullptr);
    auto make = [&](DeviceEvents& events) {
      return service.opened->create({.loop = *loop_,
                                     .events = events,
                                     .rings = std::move(service.rings),
                                     .files = files ? &files->broker() : nullptr});
    };
    auto gone = [this, &service, &name](const Error& why) {
      // Nobody takes what its sockets would accept. Not from inside its device.
      loop_->post([&service] { service.vsock.reset(); });
      if (peer_has_gone(why.code())) return finish({});
      finish(fail(Error(why.code(), format_text("{}: {}", name, why.what()))));
    };
    service.server = TRY(VhostUserServer::create(*loop_, name, make, gone));
    return {};
  }

  /// From here on a front-end or an image may take us over. What passes a console's bytes on needs
  /// more than the device's policy allows.
  Result<void> confine(const Service& service) const {
    if (service.console && service.console->passes_bytes()) return {};
    log::open_sinks();
    ::tzset();                  // reads the time zone's file, which a log record would do else
    ::mallopt(M_ARENA_MAX, 1);  // trimming another arena reads /proc
    const std::string policy = JailedServices::policy_of(service.type());
    const SeccompProgram filter = TRY(find_seccomp_policy(
        policy, {.directory = std::nullopt, .action = SeccompDefault::kKillProcess}));
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
      return fail(Error::from_errno("setting", "no_new_privs"));
    }
    TRY(install_seccomp(filter, {.all_threads = true, .listener = false}));
    return {};
  }

  Result<void> take_terminal() {
    bool reads = false;
    for (const auto& service : services_) {
      reads = reads || (service->console && service->console->reads_terminal());
    }
    if (!reads) return {};
    if (jails_) TRY(jails_->guard_terminal());
    Fd input(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
    if (std::optional<RawTerminal> raw = TRY(RawTerminal::enter(input))) {
      terminal_.emplace(std::move(*raw));
    }
    sizes_ = TRY(TerminalSizes::watch(*loop_, [this](ConsoleSize size) {
      for (const auto& service : services_) {
        if (service->console) service->console->resize(size);
      }
    }));
    return {};
  }

  void finish(Result<void> result) {
    if (!result && result_) result_ = std::move(result);
    one_less();
  }

  void one_less() {
    if (--left_ == 0) loop_->stop();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<EndSignals> signals_;
  Fd stop_event_;
  std::optional<RawTerminal> terminal_;
  std::vector<std::unique_ptr<Service>> services_;
  std::unique_ptr<TerminalSizes> sizes_;
  std::unique_ptr<JailedServices> jails_;  // before the consoles that their processes write to
  size_t left_ = 0;                        // services without an end
  bool confined_ = false;                  // this process serves, under a filter
  Result<void> result_;
};

}  // namespace

Result<void> serve_devices(const ServeConfig& config) {
  TRY(raise_descriptor_limit());
  ServeRun run;
  return run.run(config);
}

}  // namespace crosvm

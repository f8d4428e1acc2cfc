#include "vmm/control_requests.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <variant>

#include "base/format.h"
#include "base/log.h"
#include "base/log_limit.h"

namespace crosvm {
namespace {

using control::Reply;
using control::Request;
namespace response = control::response;

/// A client can repeat its mistake without end.
void warn(const Error& error) {
  static LogLimit limit("warnings of control requests");
  if (limit.allows()) log::warn("control request: {}", error.what());
}

control::Response answer(std::errc code) { return response::Err{static_cast<int>(code)}; }

control::Response answer(const Result<void>& result) {
  if (result) return response::Ok{};
  warn(result.error());
  return answer(result.error().code());
}

/// cli.md 4.4: a disk that is not there, one that is read-only, a process that is not there; what
/// cannot be is told like the last, and all else is a failure.
control::Response answer_of_disk(const Result<std::string>& resized) {
  if (resized) return response::Ok{};
  warn(resized.error());
  switch (const std::errc code = resized.error().code()) {
    case std::errc::no_such_device:
    case std::errc::read_only_file_system:
    case std::errc::invalid_argument:
      return answer(code);
    case std::errc::not_connected:
      return answer(std::errc::invalid_argument);
    default:
      return answer(std::errc::io_error);
  }
}

response::HypervisorKind kind_named(std::string_view name) {
  auto names = names_of(response::HypervisorKind());
  auto found = std::ranges::find(names, name);
  CHECK(found != names.end());
  return static_cast<response::HypervisorKind>(found - names.begin());
}

/// One overload for each request that the machine can carry out; the others say what is missing.
struct Executor {
  EventLoop& loop;
  Machine& machine;
  const std::function<void()>& stop;
  const Reply& reply;
  const std::weak_ptr<bool> open;

  void operator()(control::Exit&) const {
    reply(response::Ok{});
    log::info("ending the VM: asked to stop on the control socket");
    stop();
  }
  void operator()(control::Powerbtn&) const { reply(answer(machine.press_power_button())); }
  void operator()(control::Sleepbtn&) const { reply(answer(machine.press_sleep_button())); }
  void operator()(control::Rtc& rtc) const {
    reply(answer(machine.raise_rtc(std::move(rtc.clear_evt))));
  }
  void operator()(control::Gpe& gpe) const {
    Fd clear = gpe.clear_evt ? std::move(*gpe.clear_evt) : Fd();
    Result<void> raised = machine.raise_gpe(gpe.gpe, std::move(clear));
    if (!raised && raised.error().code() == std::errc::invalid_argument) {
      warn(raised.error());  // answered Ok all the same
      raised = {};
    }
    reply(answer(raised));
  }
  void operator()(control::SuspendVcpus&) const {
    // Late: a vCPU that is held up must not hold up the requests of others.
    machine.vcpus().suspend([&loop = loop, reply = reply](bool stopped) {
      loop.post([reply, stopped] {
        reply(stopped ? control::Response(response::Ok{}) : answer(std::errc::io_error));
      });
    });
  }
  void operator()(control::ResumeVcpus&) const {
    machine.vcpus().resume();
    reply(response::Ok{});
  }
  void operator()(control::DiskCommand& disk) const {
    const auto& resize = std::get<control::disk_command::Resize>(disk.command);
    // The reply stays with the loop's thread, whichever thread lets go of this last.
    auto own = std::make_shared<std::optional<Reply>>(reply);
    auto done = [&loop = loop, open = open, own](const Result<std::string>& resized) {
      if (open.expired()) return;  // the loop may be gone, too
      auto said = std::make_shared<Result<std::string>>(resized);
      loop.post([own, said] { (*std::exchange(*own, std::nullopt))(answer_of_disk(*said)); });
    };
    machine.command_device(
        "block", disk.disk_index,
        {.name = "resize", .arguments = std::to_string(resize.new_size), .fds = {}}, done);
  }
  void operator()(control::MakeRT&) const { reply(response::Ok{}); }
  void operator()(control::VcpuPidTid&) const {
    response::VcpuPidTidResponse ids;
    uint32_t index = 0;
    for (VcpuGroup::Ids vcpu : machine.vcpus().ids()) {
      ids.pid_tid_map[index++] = {static_cast<uint32_t>(vcpu.pid), static_cast<uint32_t>(vcpu.tid)};
    }
    reply(std::move(ids));
  }
  void operator()(control::GetVmDescriptor&) const {
    Result<Fd> vm = machine.duplicate_vm_descriptor();
    if (!vm) return reply(answer(vm.error().code()));
    reply(response::VmDescriptor{.hypervisor = kind_named(machine.hypervisor_name()),
                                 .vm_fd = std::move(*vm)});
  }
  template <class Other>
  void operator()(Other& other) const {
    Request request = std::move(other);
    if (auto refusal = control::answer_without_component(request)) reply(std::move(*refusal));
  }
};

}  // namespace

Result<void> ControlRequests::listen(const std::optional<std::string>& path) {
  if (!path) return {};
  listener_.emplace(TRY(with_context(control::Listener::open(*path), "--socket")));
  return {};
}

std::optional<std::string> ControlRequests::made_file() const {
  if (!listener_ || !listener_->made_file()) return std::nullopt;
  return listener_->path();
}

Result<void> ControlRequests::serve(EventLoop& loop, Machine& machine, std::function<void()> stop) {
  if (!listener_) return {};
  open_ = std::make_shared<bool>(true);
  auto handler = [&loop, &machine, stop = std::move(stop), open = std::weak_ptr(open_)](
                     Request request, const Reply& reply) {
    log::debug("control request: {}", control::name_of(request));
    std::visit(Executor{loop, machine, stop, reply, open}, request);
  };
  server_ = TRY(control::Server::create(loop, std::move(*listener_), std::move(handler)));
  listener_.reset();
  return {};
}

void ControlRequests::close() {
  server_.reset();
  listener_.reset();
  open_.reset();  // last: whoever finds it gone lets go of a reply on a thread that is not the
                  // loop's
}

}  // namespace crosvm

#include "jail/rig/worker_host.h"

#include <unistd.h>

#include <fstream>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr int kTries = 2000;
constexpr useconds_t kPauseUs = 10'000;

/// The value of a line of /proc/PID/status.
std::string status_of(pid_t pid, std::string_view field) {
  std::ifstream lines(format_text("/proc/{}/status", pid));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(field) || line[field.size()] != ':') continue;
    const size_t value = line.find_first_not_of("\t ", field.size() + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return {};
}

/// A backend with a host of its own.
class HostedBackend : public DeviceBackend {
 public:
  HostedBackend(std::unique_ptr<WorkerHost> host, std::unique_ptr<DeviceBackend> backend)
      : host_(std::move(host)), backend_(std::move(backend)) {}

  const DeviceInfo& info() const override { return backend_->info(); }
  void set_listener(BackendListener* listener) override { backend_->set_listener(listener); }
  void set_features(uint64_t features) override { backend_->set_features(features); }
  void set_memory(const GuestMemory& memory) override { backend_->set_memory(memory); }
  void set_vring_num(uint16_t index, uint16_t size) override {
    backend_->set_vring_num(index, size);
  }
  void set_vring_addr(uint16_t index, const VringAddresses& addresses) override {
    backend_->set_vring_addr(index, addresses);
  }
  void set_vring_base(uint16_t index, RingPosition position) override {
    backend_->set_vring_base(index, position);
  }
  void set_vring_kick(uint16_t index, Fd kick) override {
    backend_->set_vring_kick(index, std::move(kick));
  }
  void set_vring_call(uint16_t index, Fd call) override {
    backend_->set_vring_call(index, std::move(call));
  }
  void set_vring_enable(uint16_t index, bool enable) override {
    backend_->set_vring_enable(index, enable);
  }
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) override {
    backend_->get_vring_base(index, std::move(done));
  }
  void reset(std::function<void()> done) override { backend_->reset(std::move(done)); }
  void set_config(size_t offset, std::vector<std::byte> data) override {
    backend_->set_config(offset, std::move(data));
  }
  void command(DeviceCommand command, CommandDone done) override {
    backend_->command(std::move(command), std::move(done));
  }

 private:
  std::unique_ptr<WorkerHost> host_;
  std::unique_ptr<DeviceBackend> backend_;  // goes first
};

}  // namespace

Result<std::unique_ptr<WorkerHost>> WorkerHost::create(SandboxOptions options) {
  std::unique_ptr<WorkerHost> host(new WorkerHost);
  auto spawner = TRY(Spawner::start());
  host->spawner_ = spawner->pid();
  host->loop_ = TRY(EventLoop::create());
  auto died = [raw = host.get()](const std::string& device, const std::string& cause) {
    std::lock_guard lock(raw->mutex_);
    raw->deaths_.push_back(device + ": " + cause);
  };
  host->workers_ =
      TRY(Workers::create(*host->loop_, std::move(spawner), std::move(options), std::move(died)));
  return host;
}

WorkerHost::~WorkerHost() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
  workers_.reset();
}

Result<std::unique_ptr<DeviceBackend>> WorkerHost::run(const std::string& name,
                                                       const DeviceType& type,
                                                       const std::string& text) {
  auto opened = TRY(type.open(text));
  return run(name, type, text, *opened);
}

Result<std::unique_ptr<DeviceBackend>> WorkerHost::run(const std::string& name,
                                                       const DeviceType& type,
                                                       const std::string& text,
                                                       OpenedDevice& device) {
  return workers_->finish(TRY(workers_->start(type, name, text, device)));
}

void WorkerHost::go() {
  thread_ = std::thread([this] { CHECK(loop_->run()); });
}

std::vector<pid_t> WorkerHost::processes() const {
  std::ifstream children(format_text("/proc/{}/task/{}/children", spawner_, spawner_));
  std::vector<pid_t> all;
  for (pid_t pid = 0; children >> pid;) all.push_back(pid);
  return all;
}

pid_t WorkerHost::process(std::string_view name) const {
  for (const pid_t pid : processes()) {
    if (status_of(pid, "Name") == name && status_of(pid, "Seccomp") == "2") return pid;
  }
  return 0;
}

pid_t WorkerHost::wait_process(std::string_view name, pid_t former) const {
  for (int tries = 0; tries < kTries; ++tries) {
    const pid_t present = process(name);
    if (present != 0 && present != former) return present;
    ::usleep(kPauseUs);
  }
  return 0;
}

std::vector<std::string> WorkerHost::deaths() const {
  std::lock_guard lock(mutex_);
  return deaths_;
}

bool WorkerHost::wait_death() const {
  for (int tries = 0; tries < kTries; ++tries) {
    if (!deaths().empty()) return true;
    ::usleep(kPauseUs);
  }
  return false;
}

Result<std::unique_ptr<DeviceBackend>> run_in_own_worker(const DeviceType& type,
                                                         std::string_view text,
                                                         OpenedDevice& device) {
  auto host = TRY(WorkerHost::create());
  auto backend = TRY(host->run(std::string(type.name), type, std::string(text), device));
  host->go();
  return std::make_unique<HostedBackend>(std::move(host), std::move(backend));
}

}  // namespace crosvm

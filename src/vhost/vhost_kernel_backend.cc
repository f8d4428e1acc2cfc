#include "vhost/vhost_kernel_backend.h"

// What <linux/vhost.h> includes has a part for old rings that is no C++.
#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY
#endif
#include <linux/vhost.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "base/format.h"
#include "vhost/vhost_user_protocol.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint64_t bits(unsigned first, unsigned last) {
  return (~uint64_t{0} >> (63 - last)) & (~uint64_t{0} << first);
}
constexpr uint64_t kRingFeatures = bits(24, 40);
constexpr uint64_t kMergeableBuffers = uint64_t{1} << 15;  // VIRTIO_NET_F_MRG_RXBUF
constexpr uint64_t kMultiQueue = uint64_t{1} << 22;        // VIRTIO_NET_F_MQ
constexpr uint64_t kDeviceFeatures = bits(0, 23) | bits(50, 63);
/// Bits by which the kernel means something of its own: VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR
/// and VIRTIO_F_ACCESS_PLATFORM, which needs an IOTLB.
constexpr uint64_t kNotForGuests = uint64_t{1} << VHOST_F_LOG_ALL |
                                   uint64_t{1} << VHOST_NET_F_VIRTIO_NET_HDR |
                                   uint64_t{1} << VIRTIO_F_ACCESS_PLATFORM;

template <class T>
Result<void> vhost_ioctl(const Fd& device, unsigned long request, T argument, const char* name) {
  if (::ioctl(device.get(), request, argument) == 0) return {};
  return fail(Error::from_errno(name, "the kernel's vhost device"));
}

}  // namespace

class VhostKernelDevice;

/// The queues that the kernel does not serve.
class ServedQueues {
 public:
  ServedQueues(VhostKernelDevice& device, VhostKernelOptions options)
      : device_(device),
        serve_(std::move(options.serve)),
        negotiated_(std::move(options.negotiated)) {}

  void negotiated(std::optional<uint64_t> features) const {
    if (negotiated_) negotiated_(features);
  }
  Result<void> start(uint16_t index, const FrontendRing& ring, uint64_t features,
                     const GuestMemory& memory);
  /// Nothing: no such queue runs.
  std::optional<RingPosition> stop(uint16_t index);
  Result<void> set_call(uint16_t index, const Fd& call, uint64_t features,
                        const GuestMemory& memory);

 private:
  /// As it was started, but for its position.
  struct Served {
    FrontendRing ring;
    std::unique_ptr<Virtqueue> queue;
  };
  VhostKernelDevice& device_;
  std::function<Result<void>(Virtqueue& queue)> serve_;
  std::function<void(std::optional<uint64_t> features)> negotiated_;
  std::map<uint16_t, Served> queues_;
};

/// The half on the loop.
class VhostKernelDevice : public LoopDevice {
 public:
  VhostKernelDevice(EventLoop& loop, VhostKernelOptions options)
      : LoopDevice(loop), kind_(std::move(options.kind)), served_(*this, std::move(options)) {}
  ~VhostKernelDevice() override { loop().unwatch(error_watch_); }

  Result<void> prepare(DeviceInfo info);
  /// With the mutex held.
  void stop_all();
  void use_pairs(uint16_t pairs);
  /// Without.
  void show_config(std::vector<std::byte> config) {
    std::lock_guard lock(mutex());
    if (!closed()) tell_config(std::move(config));
  }

  void write_config(size_t, std::vector<std::byte>) override { tell_config(config()); }
  Result<void> set_features(uint64_t features) override;
  Result<void> set_memory(const GuestMemory& memory) override;
  Result<void> start_ring(uint16_t index, const FrontendRing& ring) override;
  Result<void> set_call(uint16_t index, const Fd& call) override;
  void stop_ring(uint16_t index, std::function<void(RingPosition)> stopped) override;
  void reset(std::function<void()> done) override {  // no ring runs
    features_ = 0;
    served_.negotiated(std::nullopt);
    done();
  }
  Result<RingPosition> resume_position(uint16_t, const FrontendRing& ring) override {
    return ring.base;
  }

 private:
  /// The kernel's name for a queue; nothing: it does not serve it.
  struct Place {
    const Fd* device;
    uint32_t index;
  };
  struct Ring {
    bool runs = false;
    RingPosition base;  // of a ring that the kernel does not serve
    Fd kick;            // of one that runs
    bool has_tap = false;
  };

  bool is_net() const { return std::holds_alternative<VhostNet>(kind_); }
  std::vector<const Fd*> devices() const;
  std::optional<Place> place(uint16_t index) const;
  Result<void> set_up(const Place& at, const FrontendRing& ring);
  Result<void> set_vring_fd(const Place& at, unsigned long request, const Fd& fd);
  Result<void> update_running(uint16_t index);
  Result<void> update_tap(const VhostNet& net, uint16_t index);
  Result<void> stop_serving(uint16_t index);
  Result<void> watch_errors();
  void error_ready();
  bool has_lost_tap() const;

  std::variant<VhostNet, VhostVsock> kind_;
  uint64_t kernel_features_ = 0;
  uint64_t features_ = 0;  // negotiated
  ServedQueues served_;
  const GuestMemory* memory_ = nullptr;
  std::vector<Ring> rings_;
  uint16_t used_pairs_ = UINT16_MAX;  // of a network device
  bool tap_refused_ = false;          // which has been said
  bool vsock_runs_ = false;
  Fd error_;
  EventLoop::WatchId error_watch_ = 0;
};

std::vector<const Fd*> VhostKernelDevice::devices() const {
  std::vector<const Fd*> all;
  if (const auto* net = std::get_if<VhostNet>(&kind_)) {
    for (const Fd& device : net->devices) all.push_back(&device);
  } else {
    all.push_back(&std::get<VhostVsock>(kind_).device);
  }
  return all;
}

std::optional<VhostKernelDevice::Place> VhostKernelDevice::place(uint16_t index) const {
  const std::vector<const Fd*> all = devices();
  if (index / 2u >= all.size()) return {};
  // Without several pairs the third queue is the control queue (virtio 1.3 §5.1.2).
  if (is_net() && index >= 2 && (features_ & kMultiQueue) == 0) return {};
  return Place{.device = all[index / 2u], .index = index % 2u};
}

Result<void> VhostKernelDevice::prepare(DeviceInfo info) {
  if (const auto* net = std::get_if<VhostNet>(&kind_);
      net && net->devices.size() != net->taps.size()) {
    return fail(Error::invalid(format_text("{} vhost-net devices for {} queues of a tap",
                                           net->devices.size(), net->taps.size())));
  }
  const std::vector<const Fd*> all = devices();
  if (all.empty() || info.queue_sizes.size() < 2 * all.size()) {
    return fail(Error::invalid(format_text("{} queues for {} vhost devices of two each",
                                           info.queue_sizes.size(), all.size())));
  }
  kernel_features_ = ~kNotForGuests;
  for (const Fd* device : all) {
    TRY(vhost_ioctl(*device, VHOST_SET_OWNER, nullptr, "becoming the owner of"));
    uint64_t features = 0;
    TRY(vhost_ioctl(*device, VHOST_GET_FEATURES, &features, "asking the features of"));
    kernel_features_ &= features;
  }
  if (const auto* vsock = std::get_if<VhostVsock>(&kind_)) {
    TRY(vhost_ioctl(vsock->device, VHOST_VSOCK_SET_GUEST_CID, &vsock->guest_cid,
                    "setting the context ID of"));
  }
  const uint64_t judged = kRingFeatures | (is_net() ? kMergeableBuffers : kDeviceFeatures);
  info.features &= kernel_features_ | ~judged;
  rings_.resize(info.queue_sizes.size());
  make_rings(std::move(info));
  return {};
}

Result<void> VhostKernelDevice::set_features(uint64_t features) {
  features_ = features;
  served_.negotiated(features);
  const uint64_t known = features & kernel_features_;
  for (const Fd* device : devices()) {
    TRY(vhost_ioctl(*device, VHOST_SET_FEATURES, &known, "setting the features of"));
  }
  return {};
}

Result<void> VhostKernelDevice::set_memory(const GuestMemory& memory) {
  memory_ = &memory;
  const auto regions = memory.regions();
  // A header and an array: as 64-bit words both are aligned.
  static_assert(sizeof(vhost_memory) == 8 && sizeof(vhost_memory_region) == 32);
  std::vector<uint64_t> table(1 + 4 * regions.size());
  auto* header = reinterpret_cast<vhost_memory*>(table.data());
  header->nregions = static_cast<uint32_t>(regions.size());
  for (size_t i = 0; i < regions.size(); ++i) {
    const vhost_memory_region region{.guest_phys_addr = regions[i].base.value,
                                     .memory_size = regions[i].size,
                                     .userspace_addr = reinterpret_cast<uintptr_t>(regions[i].host),
                                     .flags_padding = 0};
    std::memcpy(table.data() + 1 + 4 * i, &region, sizeof(region));
  }
  for (const Fd* device : devices()) {
    TRY(vhost_ioctl(*device, VHOST_SET_MEM_TABLE, header, "telling the guest's memory to"));
  }
  return {};
}

Result<void> VhostKernelDevice::set_vring_fd(const Place& at, unsigned long request, const Fd& fd) {
  const vhost_vring_file file{.index = at.index, .fd = fd ? fd.get() : VHOST_FILE_UNBIND};
  return vhost_ioctl(*at.device, request, &file, "giving an eventfd to");
}

Result<void> VhostKernelDevice::set_up(const Place& at, const FrontendRing& ring) {
  const auto user = [&](GuestAddress address) -> Result<uint64_t> {
    const GuestSlice slice = TRY(memory_->slice(address, 1));
    return reinterpret_cast<uintptr_t>(slice.as_iovec().iov_base);
  };
  const vhost_vring_state size{.index = at.index, .num = ring.size};
  TRY(vhost_ioctl(*at.device, VHOST_SET_VRING_NUM, &size, "setting a queue's size in"));
  const vhost_vring_state base{.index = at.index, .num = ring.base.index};
  TRY(vhost_ioctl(*at.device, VHOST_SET_VRING_BASE, &base, "setting a queue's position in"));
  const vhost_vring_addr addr{.index = at.index,
                              .flags = 0,
                              .desc_user_addr = TRY(user(ring.addresses->descriptor_area)),
                              .used_user_addr = TRY(user(ring.addresses->device_area)),
                              .avail_user_addr = TRY(user(ring.addresses->driver_area)),
                              .log_guest_addr = 0};
  TRY(vhost_ioctl(*at.device, VHOST_SET_VRING_ADDR, &addr, "setting a queue's place in"));
  TRY(set_vring_fd(at, VHOST_SET_VRING_ERR, error_));
  TRY(set_vring_fd(at, VHOST_SET_VRING_CALL, ring.call));
  return set_vring_fd(at, VHOST_SET_VRING_KICK, ring.kick);
}

Result<void> VhostKernelDevice::start_ring(uint16_t index, const FrontendRing& ring) {
  rings_[index].base = ring.base;
  const auto at = place(index);
  if (!at) return served_.start(index, ring, features_, *memory_);
  TRY(watch_errors());
  TRY(set_up(*at, ring));
  rings_[index].kick = TRY(ring.kick.duplicate());
  rings_[index].runs = true;
  auto running = update_running(index);
  if (!running) rings_[index].runs = false;
  TRY(std::move(running));
  signal_eventfd(ring.kick);  // there may be requests whose kick was seen before it ran
  return {};
}

Result<void> VhostKernelDevice::update_running(uint16_t index) {
  if (const auto* net = std::get_if<VhostNet>(&kind_)) return update_tap(*net, index);
  const bool wanted = rings_[0].runs && rings_[1].runs;
  if (wanted == vsock_runs_) return {};
  const int running = wanted ? 1 : 0;
  TRY(vhost_ioctl(std::get<VhostVsock>(kind_).device, VHOST_VSOCK_SET_RUNNING, &running,
                  wanted ? "starting" : "stopping"));
  vsock_runs_ = wanted;
  return {};
}

/// A transmitq keeps the tap that it has: what is in its ring when its pair goes out of use is
/// sent, or the driver would wait for it for good.
Result<void> VhostKernelDevice::update_tap(const VhostNet& net, uint16_t index) {
  Ring& ring = rings_[index];
  const bool transmits = index % 2 == 1;
  const bool wanted = ring.runs && (index / 2u < used_pairs_ || (transmits && ring.has_tap));
  const vhost_vring_file backend{.index = index % 2u,
                                 .fd = wanted ? net.taps[index / 2u].get() : VHOST_FILE_UNBIND};
  auto done =
      vhost_ioctl(net.devices[index / 2u], VHOST_NET_SET_BACKEND, &backend, "giving the tap to");
  ring.has_tap = wanted && done.has_value();
  // The kernel takes no tap whose interface is gone. The link is down then, and a ring without a
  // tap is no reason to keep the control queue from the driver.
  if (!wanted || done || done.error().code() != std::errc::invalid_argument) return done;
  if (!std::exchange(tap_refused_, true)) complain(done.error().what() + "; no packet moves");
  return {};
}

void VhostKernelDevice::use_pairs(uint16_t pairs) {
  const uint16_t former = std::exchange(used_pairs_, pairs);
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    const bool was_used = index / 2u < former;
    if (!rings_[index].runs || was_used == (index / 2u < pairs)) continue;
    if (auto done = update_running(index); !done) {
      rings().break_down(done.error().what());
      return;
    }
    signal_eventfd(rings_[index].kick);  // there may be requests
  }
}

Result<void> VhostKernelDevice::stop_serving(uint16_t index) {
  const auto at = place(index);
  if (!at || !std::exchange(rings_[index].runs, false)) return {};
  TRY(update_running(index));
  // Nothing is in flight now: the kernel waits for its own work.
  vhost_vring_state state{.index = at->index, .num = 0};
  TRY(vhost_ioctl(*at->device, VHOST_GET_VRING_BASE, &state, "asking a queue's position of"));
  rings_[index].base = {.index = static_cast<uint16_t>(state.num)};
  TRY(set_vring_fd(*at, VHOST_SET_VRING_KICK, Fd()));
  return set_vring_fd(*at, VHOST_SET_VRING_CALL, Fd());
}

void VhostKernelDevice::stop_ring(uint16_t index, std::function<void(RingPosition)> stopped) {
  if (const auto at = served_.stop(index)) rings_[index].base = *at;
  if (auto done = stop_serving(index); !done) complain(done.error().what());
  stopped(rings_[index].base);
}

void VhostKernelDevice::stop_all() {
  for (uint16_t index = 0; index < rings_.size(); ++index) {
    if (auto done = stop_serving(index); !done) complain(done.error().what());
  }
}

Result<void> VhostKernelDevice::set_call(uint16_t index, const Fd& call) {
  const auto at = place(index);
  if (at) return set_vring_fd(*at, VHOST_SET_VRING_CALL, call);
  return served_.set_call(index, call, features_, *memory_);
}

// ---- ServedQueues

Result<void> ServedQueues::start(uint16_t index, const FrontendRing& ring, uint64_t features,
                                 const GuestMemory& memory) {
  if (!serve_) return {};
  Served served{.ring = {.size = ring.size,
                         .addresses = ring.addresses,
                         .base = ring.base,
                         .kick = TRY(ring.kick.duplicate()),
                         .call = {},
                         .enabled = true},
                .queue = nullptr};
  VirtqueueSetup setup{.index = index,
                       .size = ring.size,
                       .addresses = *ring.addresses,
                       .features = features,
                       .position = ring.base,
                       .kick = TRY(ring.kick.duplicate()),
                       .call = {}};
  if (ring.call) setup.call = TRY(ring.call.duplicate());
  served.queue = std::make_unique<Virtqueue>(TRY(Virtqueue::create(memory, std::move(setup))));
  Virtqueue* queue = served.queue.get();
  // Nobody may hear of the device any more while its loop still runs.
  auto process = [this, queue]() -> Result<void> {
    std::lock_guard lock(device_.mutex());
    return device_.closed() ? Result<void>() : serve_(*queue);
  };
  auto broken = [this](const Error& error) {
    std::lock_guard lock(device_.mutex());
    if (!device_.closed()) device_.rings().break_down(error.what());
  };
  TRY(queue->listen(device_.loop(), process, broken));
  queues_.insert_or_assign(index, std::move(served));
  return {};
}

std::optional<RingPosition> ServedQueues::stop(uint16_t index) {
  auto found = queues_.find(index);
  if (found == queues_.end()) return std::nullopt;
  const RingPosition at = found->second.queue->position();
  queues_.erase(found);
  return at;
}

Result<void> ServedQueues::set_call(uint16_t index, const Fd& call, uint64_t features,
                                    const GuestMemory& memory) {
  auto found = queues_.find(index);
  if (found == queues_.end()) return {};
  FrontendRing ring = std::move(found->second.ring);
  ring.base = *stop(index);
  if (call) ring.call = TRY(call.duplicate());
  return start(index, ring, features, memory);
}

Result<void> VhostKernelDevice::watch_errors() {
  if (!error_) error_ = TRY(make_eventfd());
  if (error_watch_ != 0) return {};
  drain_eventfd(error_);  // said of rings before a reset
  error_watch_ = TRY(loop().watch(error_, EPOLLIN, [this](uint32_t) { error_ready(); }));
  return {};
}

void VhostKernelDevice::error_ready() {
  std::lock_guard lock(mutex());
  if (closed()) return;
  drain_eventfd(error_);
  // Until a ring starts again: a broken ring may say so without end.
  loop().unwatch(std::exchange(error_watch_, 0));
  if (!has_lost_tap()) rings().break_down("the kernel finds a ring broken");
}

/// The kernel blames the ring when the interface of a tap goes away while packets are sent, of
/// which the link tells.
bool VhostKernelDevice::has_lost_tap() const {
  const auto* net = std::get_if<VhostNet>(&kind_);
  return net != nullptr && std::ranges::any_of(net->taps, [](const Fd& tap) {
           pollfd state{.fd = tap.get(), .events = 0, .revents = 0};
           return ::poll(&state, 1, 0) > 0;
         });
}

// ---- VhostKernelBackend

VhostKernelBackend::VhostKernelBackend(std::shared_ptr<VhostKernelDevice> device)
    : LoopBackend(device), kernel_(*device) {}

VhostKernelBackend::~VhostKernelBackend() {
  std::lock_guard lock(kernel_.mutex());
  kernel_.stop_all();
}

Result<std::unique_ptr<VhostKernelBackend>> VhostKernelBackend::create(EventLoop& loop,
                                                                       VhostKernelOptions options) {
  const std::string name = options.info.name;
  DeviceInfo info = std::move(options.info);
  auto begin = std::move(options.begin);
  auto device = std::make_shared<VhostKernelDevice>(loop, std::move(options));
  TRY(with_context(device->prepare(std::move(info)), name));
  if (begin) {
    loop.post([begin, weak = std::weak_ptr(device)] {
      begin({.show_config =
                 [weak](std::vector<std::byte> config) {
                   if (auto there = weak.lock()) there->show_config(std::move(config));
                 },
             .use_pairs =
                 [weak](uint16_t pairs) {
                   if (auto there = weak.lock()) there->use_pairs(pairs);
                 }});
    });
  }
  return std::unique_ptr<VhostKernelBackend>(new VhostKernelBackend(std::move(device)));
}

}  // namespace crosvm

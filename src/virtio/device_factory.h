#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/file_broker.h"
#include "base/io_uring.h"
#include "base/key_value.h"
#include "base/result.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// What a device is created with, in the process and on the thread where it will run.
struct DeviceContext {
  EventLoop& loop;       ///< outlives the device
  DeviceEvents& events;  ///< outlives the device
  /// As many as the factory asked for, or none where the host has no io_uring; created before any
  /// system call filter.
  std::vector<IoUring> rings;
  /// Opens what its files name, while it is being created; null: nothing is.
  FileBroker* files = nullptr;
  /// Its process may be killed, and another one go on with its requests.
  bool restarts = false;
};

/// How a kind of device is made, in steps (design: parse, open, spawn, create):
///
///     struct BlockFactory {
///       static constexpr std::string_view kName = "block";
///       static constexpr std::string_view kPolicy = "block_device";  // of its system calls
///       using Config = BlockConfig;
///       using Resources = BlockResources;                        // the descriptors it lives on
///       static Result<Config> parse(const KeyValues& text);      // opens nothing
///       static Result<Resources> open(const Config& config);     // in the VMM; starts no thread
///       static size_t rings(const Config& config);               // io_uring instances it can use
///       static Result<std::unique_ptr<VirtioDevice>> create(     // in the jail; sees no path
///           const Config& config, Resources resources, DeviceContext context);
///       static constexpr bool kIdempotent = true;  // optional: a request may be executed twice
///       static constexpr std::string_view kProgram = "crosvm-worker-x";  // optional: who has it
///       static constexpr bool kHostNetwork = true;  // optional: it lives on sockets of the host
///       static std::unique_ptr<FileBroker> broker(const Config& config);  // optional: in the VMM
///     };
///
/// Only a device that says kIdempotent may be started anew after its process has died: what that
/// process had begun is then executed once more.
///
/// Resources holds descriptors alone, and names them to a visitor, so that they can be sent to
/// another process: `template <class V> void visit(V&& each) { each(image); each(more); }` with
/// members of the types Fd and std::vector<Fd>.
template <class F>
concept DeviceFactory = requires(const KeyValues& text, const typename F::Config& config,
                                 typename F::Resources resources, DeviceContext context) {
  { F::kName } -> std::convertible_to<std::string_view>;
  { F::kPolicy } -> std::convertible_to<std::string_view>;
  { F::parse(text) } -> std::same_as<Result<typename F::Config>>;
  { F::open(config) } -> std::same_as<Result<typename F::Resources>>;
  { F::rings(config) } -> std::same_as<size_t>;
  {
    F::create(config, std::move(resources), std::move(context))
  } -> std::same_as<Result<std::unique_ptr<VirtioDevice>>>;
};

/// The descriptors of a device's Resources, on their way to another process: how many each member
/// holds, and all of them in the order of the members.
struct PackedResources {
  std::vector<size_t> counts;
  std::vector<Fd> fds;
};

/// A device after `open`: all it needs is in hand, and it runs nowhere yet.
class OpenedDevice {
 public:
  virtual ~OpenedDevice() = default;
  virtual size_t rings() const = 0;
  /// Once, instead of `create`: for DeviceType::receive, where the device will run.
  virtual PackedResources pack() { return {}; }
  /// What opens the files that its files name, in the process that called `open`; null: nobody.
  virtual std::unique_ptr<FileBroker> broker() const { return nullptr; }
  /// Once; the descriptors move into the device.
  virtual Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) = 0;
};

/// A DeviceFactory behind function pointers: one line of the list of all devices.
struct DeviceType {
  std::string_view name;
  std::string_view policy;
  bool idempotent = false;  ///< its requests may be executed twice
  /// The executable that its process is (base/companion_program.h), since crosvm lacks what it
  /// needs; empty: crosvm, which can also run it itself.
  std::string_view program;
  /// Its process is in the network of the VMM, and knows who resolves names there; else it is in
  /// an empty one.
  bool host_network = false;
  /// Whether `text` is a configuration of this device.
  Result<void> (*check)(std::string_view text);
  Result<std::unique_ptr<OpenedDevice>> (*open)(std::string_view text);
  /// What `open` gave, from its packed descriptors. Errors: invalid_argument when they are not
  /// those of such a device.
  Result<std::unique_ptr<OpenedDevice>> (*receive)(std::string_view text, PackedResources packed);
};

namespace factory_detail {
/// Visits Resources and takes the descriptors out of them.
struct Packer {
  PackedResources packed;
  void operator()(Fd& member) {
    packed.counts.push_back(member ? 1 : 0);
    if (member) packed.fds.push_back(std::move(member));
  }
  void operator()(std::vector<Fd>& members) {
    packed.counts.push_back(members.size());
    for (Fd& member : members) packed.fds.push_back(std::move(member));
  }
};

/// Visits Resources and puts descriptors into them.
class Unpacker {
 public:
  explicit Unpacker(PackedResources packed) : packed_(std::move(packed)) {}
  void operator()(Fd& member) {
    const size_t count = next_count(1);
    if (count == 1) member = std::move(packed_.fds[next_fd_++]);
  }
  void operator()(std::vector<Fd>& members) {
    for (size_t left = next_count(packed_.fds.size()); left > 0; --left) {
      members.push_back(std::move(packed_.fds[next_fd_++]));
    }
  }
  /// Whether every descriptor found its place.
  bool fits() const {
    return !wrong_ && next_ == packed_.counts.size() && next_fd_ == packed_.fds.size();
  }

 private:
  size_t next_count(size_t most) {
    const size_t left = packed_.fds.size() - next_fd_;
    wrong_ = wrong_ || next_ == packed_.counts.size() || packed_.counts[next_] > most ||
             packed_.counts[next_] > left;
    return wrong_ ? 0 : packed_.counts[next_++];
  }

  PackedResources packed_;
  size_t next_ = 0;
  size_t next_fd_ = 0;
  bool wrong_ = false;
};

template <DeviceFactory F>
class Opened : public OpenedDevice {
 public:
  Opened(typename F::Config config, typename F::Resources resources)
      : config_(std::move(config)), resources_(std::move(resources)) {}
  size_t rings() const override { return F::rings(config_); }
  PackedResources pack() override {
    Packer packer;
    resources_.visit(packer);
    return std::move(packer.packed);
  }
  std::unique_ptr<FileBroker> broker() const override {
    if constexpr (requires { F::broker(config_); }) return F::broker(config_);
    return nullptr;
  }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    const auto own = context.files ? nullptr : broker();
    if (own) context.files = own.get();
    return F::create(config_, std::move(resources_), std::move(context));
  }

 private:
  typename F::Config config_;
  typename F::Resources resources_;
};

template <DeviceFactory F>
Result<typename F::Config> parse(std::string_view text) {
  return F::parse(TRY(KeyValues::parse(text)));
}
template <DeviceFactory F>
Result<void> check(std::string_view text) {
  TRY(parse<F>(text));
  return {};
}
template <DeviceFactory F>
Result<std::unique_ptr<OpenedDevice>> open(std::string_view text) {
  auto config = TRY(parse<F>(text));
  auto resources = TRY(F::open(config));
  return std::make_unique<Opened<F>>(std::move(config), std::move(resources));
}
template <DeviceFactory F>
Result<std::unique_ptr<OpenedDevice>> receive(std::string_view text, PackedResources packed) {
  auto config = TRY(parse<F>(text));
  typename F::Resources resources;
  Unpacker unpacker(std::move(packed));
  resources.visit(unpacker);
  if (!unpacker.fits()) {
    return fail(Error::invalid("these are not the descriptors of a device of this configuration"));
  }
  return std::make_unique<Opened<F>>(std::move(config), std::move(resources));
}
}  // namespace factory_detail

/// A device whose descriptors were opened elsewhere: what `open` would have given is `resources`.
template <DeviceFactory F>
Result<std::unique_ptr<OpenedDevice>> opened_device(std::string_view text,
                                                    typename F::Resources resources) {
  auto config = TRY(factory_detail::parse<F>(text));
  return std::make_unique<factory_detail::Opened<F>>(std::move(config), std::move(resources));
}

template <DeviceFactory F>
constexpr DeviceType device_type() {
  bool idempotent = false;
  if constexpr (requires { F::kIdempotent; }) idempotent = F::kIdempotent;
  std::string_view program;
  if constexpr (requires { F::kProgram; }) program = F::kProgram;
  bool host_network = false;
  if constexpr (requires { F::kHostNetwork; }) host_network = F::kHostNetwork;
  return {F::kName,
          F::kPolicy,
          idempotent,
          program,
          host_network,
          factory_detail::check<F>,
          factory_detail::open<F>,
          factory_detail::receive<F>};
}

}  // namespace crosvm

#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
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
};

/// How a kind of device is made, in steps (design: parse, open, spawn, create):
///
///     struct BlockFactory {
///       static constexpr std::string_view kName = "block";
///       using Config = BlockConfig;
///       using Resources = BlockResources;                        // the descriptors it lives on
///       static Result<Config> parse(const KeyValues& text);      // opens nothing
///       static Result<Resources> open(const Config& config);     // in the VMM; starts no thread
///       static size_t rings(const Config& config);               // io_uring instances it can use
///       static Result<std::unique_ptr<VirtioDevice>> create(     // in the jail; sees no path
///           const Config& config, Resources resources, DeviceContext context);
///     };
///
/// Resources holds descriptors alone, and names them to a visitor, so that they can be sent to
/// another process: `template <class V> void visit(V&& each) { each(image); each(more); }` with
/// members of the types Fd and std::vector<Fd>.
template <class F>
concept DeviceFactory = requires(const KeyValues& text, const typename F::Config& config,
                                 typename F::Resources resources, DeviceContext context) {
  { F::kName } -> std::convertible_to<std::string_view>;
  { F::parse(text) } -> std::same_as<Result<typename F::Config>>;
  { F::open(config) } -> std::same_as<Result<typename F::Resources>>;
  { F::rings(config) } -> std::same_as<size_t>;
  {
    F::create(config, std::move(resources), std::move(context))
  } -> std::same_as<Result<std::unique_ptr<VirtioDevice>>>;
};

/// A device after `open`: all it needs is in hand, and it runs nowhere yet.
class OpenedDevice {
 public:
  virtual ~OpenedDevice() = default;
  virtual size_t rings() const = 0;
  /// Once; the descriptors move into the device.
  virtual Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) = 0;
};

/// A DeviceFactory behind function pointers: one line of the list of all devices.
struct DeviceType {
  std::string_view name;
  /// Whether `text` is a configuration of this device.
  Result<void> (*check)(std::string_view text);
  Result<std::unique_ptr<OpenedDevice>> (*open)(std::string_view text);
};

namespace factory_detail {
template <DeviceFactory F>
class Opened : public OpenedDevice {
 public:
  Opened(typename F::Config config, typename F::Resources resources)
      : config_(std::move(config)), resources_(std::move(resources)) {}
  size_t rings() const override { return F::rings(config_); }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
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
  return {F::kName, factory_detail::check<F>, factory_detail::open<F>};
}

}  // namespace crosvm

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/fd.h"

/// The requests of the control socket as types (cli.md 4.3). Each says its JSON form once, and
/// control/codec.h reads and writes it:
///   kTag        name in an enumeration; with nothing else: `"Name"`
///   value       one unnamed value: `{"Name":v}`
///   elements()  several unnamed values: `{"Name":[v1,v2]}`
///   fields(f)   named members: `{"Name":{"f":v}}`; f(name, member) for each
/// The forms of a request are in the namespace named after it: Swap{swap::Enable()}.
/// An Fd stands for the index of a descriptor that travels beside the text.
namespace crosvm::control {

/// A message without payload.
#define CROSVM_PLAIN_MESSAGE(Name)                  \
  struct Name {                                     \
    static constexpr std::string_view kTag = #Name; \
  }

/// A message with one unnamed value.
#define CROSVM_VALUE_MESSAGE(Name, Type)            \
  struct Name {                                     \
    static constexpr std::string_view kTag = #Name; \
    Type value{};                                   \
  }

namespace display_parameters {
struct Windowed {
  static constexpr std::string_view kTag = "windowed";
  std::array<uint32_t, 2> value = {1280, 1024};  // width, height in pixels
};
}  // namespace display_parameters

struct DisplayParameters {
  std::variant<display_parameters::Windowed> mode;
  bool hidden = false;
  uint32_t refresh_rate = 60;
  std::array<uint32_t, 2> dpi = {320, 320};

  template <class F>
  void fields(F& f) {
    f.defaulted("mode", mode);
    f.defaulted("hidden", hidden);
    f.defaulted("refresh-rate", refresh_rate);
    f.defaulted("dpi", dpi);
  }
};

// Requests, in the order of the table.

CROSVM_PLAIN_MESSAGE(Exit);
CROSVM_PLAIN_MESSAGE(Powerbtn);
CROSVM_PLAIN_MESSAGE(Sleepbtn);

struct Rtc {
  static constexpr std::string_view kTag = "Rtc";
  Fd clear_evt;

  template <class F>
  void fields(F& f) {
    f("clear_evt", clear_evt);
  }
};

CROSVM_PLAIN_MESSAGE(SuspendVcpus);

namespace swap {
CROSVM_PLAIN_MESSAGE(Enable);
CROSVM_PLAIN_MESSAGE(Trim);
CROSVM_PLAIN_MESSAGE(SwapOut);

struct Disable {
  static constexpr std::string_view kTag = "Disable";
  bool slow_file_cleanup = false;

  template <class F>
  void fields(F& f) {
    f("slow_file_cleanup", slow_file_cleanup);
  }
};

CROSVM_PLAIN_MESSAGE(Status);
}  // namespace swap

struct Swap {
  static constexpr std::string_view kTag = "Swap";
  std::variant<swap::Enable, swap::Trim, swap::SwapOut, swap::Disable, swap::Status> value;
};

CROSVM_PLAIN_MESSAGE(ResumeVcpus);

struct Gpe {
  static constexpr std::string_view kTag = "Gpe";
  uint32_t gpe = 0;
  std::optional<Fd> clear_evt;

  template <class F>
  void fields(F& f) {
    f("gpe", gpe);
    f("clear_evt", clear_evt);
  }
};

CROSVM_VALUE_MESSAGE(PciPme, uint16_t);  // requester id
CROSVM_PLAIN_MESSAGE(MakeRT);

namespace balloon_command {
struct Adjust {
  static constexpr std::string_view kTag = "Adjust";
  uint64_t num_bytes = 0;
  bool wait_for_success = false;

  template <class F>
  void fields(F& f) {
    f("num_bytes", num_bytes);
    f("wait_for_success", wait_for_success);
  }
};

CROSVM_PLAIN_MESSAGE(Stats);
CROSVM_PLAIN_MESSAGE(WorkingSet);

struct WorkingSetConfig {
  static constexpr std::string_view kTag = "WorkingSetConfig";
  std::vector<uint32_t> bins;
  uint32_t refresh_threshold = 0;
  uint32_t report_threshold = 0;

  template <class F>
  void fields(F& f) {
    f("bins", bins);
    f("refresh_threshold", refresh_threshold);
    f("report_threshold", report_threshold);
  }
};
}  // namespace balloon_command

struct BalloonCommand {
  static constexpr std::string_view kTag = "BalloonCommand";
  std::variant<balloon_command::Adjust, balloon_command::Stats, balloon_command::WorkingSet,
               balloon_command::WorkingSetConfig>
      value;
};

namespace disk_command {
struct Resize {
  static constexpr std::string_view kTag = "Resize";
  uint64_t new_size = 0;  // bytes

  template <class F>
  void fields(F& f) {
    f("new_size", new_size);
  }
};
}  // namespace disk_command

struct DiskCommand {
  static constexpr std::string_view kTag = "DiskCommand";
  uint64_t disk_index = 0;
  std::variant<disk_command::Resize> command;

  template <class F>
  void fields(F& f) {
    f("disk_index", disk_index);
    f("command", command);
  }
};

namespace usb_command {
struct AttachDevice {
  static constexpr std::string_view kTag = "AttachDevice";
  Fd file;

  template <class F>
  void fields(F& f) {
    f("file", file);
  }
};

struct AttachSecurityKey {
  static constexpr std::string_view kTag = "AttachSecurityKey";
  Fd file;

  template <class F>
  void fields(F& f) {
    f("file", file);
  }
};

struct DetachDevice {
  static constexpr std::string_view kTag = "DetachDevice";
  uint8_t port = 0;

  template <class F>
  void fields(F& f) {
    f("port", port);
  }
};

struct ListDevice {
  static constexpr std::string_view kTag = "ListDevice";
  std::array<uint8_t, 16> ports{};

  template <class F>
  void fields(F& f) {
    f("ports", ports);
  }
};
}  // namespace usb_command

struct UsbCommand {
  static constexpr std::string_view kTag = "UsbCommand";
  std::variant<usb_command::AttachDevice, usb_command::AttachSecurityKey, usb_command::DetachDevice,
               usb_command::ListDevice>
      value;
};
enum class MouseMode { kTouchscreen };

constexpr std::array<std::string_view, 1> names_of(MouseMode) { return {"touchscreen"}; }

namespace gpu_command {
struct AddDisplays {
  static constexpr std::string_view kTag = "AddDisplays";
  std::vector<DisplayParameters> displays;

  template <class F>
  void fields(F& f) {
    f("displays", displays);
  }
};

CROSVM_PLAIN_MESSAGE(ListDisplays);

struct RemoveDisplays {
  static constexpr std::string_view kTag = "RemoveDisplays";
  std::vector<uint32_t> display_ids;

  template <class F>
  void fields(F& f) {
    f("display_ids", display_ids);
  }
};

struct SetDisplayMouseMode {
  static constexpr std::string_view kTag = "SetDisplayMouseMode";
  uint32_t display_id = 0;
  MouseMode mouse_mode{};

  template <class F>
  void fields(F& f) {
    f("display_id", display_id);
    f("mouse_mode", mouse_mode);
  }
};
}  // namespace gpu_command

struct GpuCommand {
  static constexpr std::string_view kTag = "GpuCommand";
  std::variant<gpu_command::AddDisplays, gpu_command::ListDisplays, gpu_command::RemoveDisplays,
               gpu_command::SetDisplayMouseMode>
      value;
};
enum class BatteryType { kGoldfish };

constexpr std::array<std::string_view, 1> names_of(BatteryType) { return {"goldfish"}; }
enum class BatteryStatus { kUnknown, kCharging, kDischarging, kNotCharging, kFull };

constexpr std::array<std::string_view, 5> names_of(BatteryStatus) {
  return {"Unknown", "Charging", "DisCharging", "NotCharging", "Full"};
}
enum class BatteryHealth {
  kUnknown,
  kGood,
  kOverheat,
  kDead,
  kOverVoltage,
  kUnexpectedFailure,
  kCold,
  kWatchdogTimerExpire,
  kSafetyTimerExpire,
  kOverCurrent
};

constexpr std::array<std::string_view, 10> names_of(BatteryHealth) {
  return {"Unknown",
          "Good",
          "Overheat",
          "Dead",
          "OverVoltage",
          "UnexpectedFailure",
          "Cold",
          "WatchdogTimerExpire",
          "SafetyTimerExpire",
          "OverCurrent"};
}

namespace bat_command {
CROSVM_VALUE_MESSAGE(SetStatus, BatteryStatus);
CROSVM_VALUE_MESSAGE(SetHealth, BatteryHealth);
CROSVM_VALUE_MESSAGE(SetPresent, uint32_t);
CROSVM_VALUE_MESSAGE(SetCapacity, uint32_t);
CROSVM_VALUE_MESSAGE(SetACOnline, uint32_t);
CROSVM_VALUE_MESSAGE(SetFakeBatConfig, uint32_t);
CROSVM_PLAIN_MESSAGE(CancelFakeConfig);
}  // namespace bat_command

struct BatCommand {
  static constexpr std::string_view kTag = "BatCommand";
  BatteryType type{};
  std::variant<bat_command::SetStatus, bat_command::SetHealth, bat_command::SetPresent,
               bat_command::SetCapacity, bat_command::SetACOnline, bat_command::SetFakeBatConfig,
               bat_command::CancelFakeConfig>
      command;

  auto elements() { return std::tie(type, command); }
};

namespace snd_command {
CROSVM_VALUE_MESSAGE(MuteAll, bool);
}  // namespace snd_command

struct SndCommand {
  static constexpr std::string_view kTag = "SndCommand";
  std::variant<snd_command::MuteAll> value;
};
enum class HotPlugDeviceType { kUpstreamPort, kDownstreamPort, kEndPoint };

constexpr std::array<std::string_view, 3> names_of(HotPlugDeviceType) {
  return {"UpstreamPort", "DownstreamPort", "EndPoint"};
}

namespace hot_plug_vfio_command {
struct Device {
  HotPlugDeviceType device_type{};
  std::string path;
  bool hp_interrupt = false;

  template <class F>
  void fields(F& f) {
    f("device_type", device_type);
    f("path", path);
    f("hp_interrupt", hp_interrupt);
  }
};
}  // namespace hot_plug_vfio_command

struct HotPlugVfioCommand {
  static constexpr std::string_view kTag = "HotPlugVfioCommand";
  hot_plug_vfio_command::Device device;
  bool add = false;

  template <class F>
  void fields(F& f) {
    f("device", device);
    f("add", add);
  }
};

namespace hot_plug_net_command {
CROSVM_VALUE_MESSAGE(AddTap, std::string);  // name of the tap interface
CROSVM_VALUE_MESSAGE(RemoveTap, uint8_t);   // bus
}  // namespace hot_plug_net_command

struct HotPlugNetCommand {
  static constexpr std::string_view kTag = "HotPlugNetCommand";
  std::variant<hot_plug_net_command::AddTap, hot_plug_net_command::RemoveTap> value;
};

namespace snapshot {
struct Take {
  static constexpr std::string_view kTag = "Take";
  std::string snapshot_path;
  bool compress_memory = false;
  bool encrypt = false;

  template <class F>
  void fields(F& f) {
    f("snapshot_path", snapshot_path);
    f("compress_memory", compress_memory);
    f("encrypt", encrypt);
  }
};
}  // namespace snapshot

struct Snapshot {
  static constexpr std::string_view kTag = "Snapshot";
  std::variant<snapshot::Take> value;
};
enum class RegisteredEvent {
  kVirtioBalloonWsReport,
  kVirtioBalloonResize,
  kVirtioBalloonOomDeflation
};

constexpr std::array<std::string_view, 3> names_of(RegisteredEvent) {
  return {"VirtioBalloonWsReport", "VirtioBalloonResize", "VirtioBalloonOOMDeflation"};
}

struct RegisterListener {
  static constexpr std::string_view kTag = "RegisterListener";
  std::string socket_addr;
  RegisteredEvent event{};

  template <class F>
  void fields(F& f) {
    f("socket_addr", socket_addr);
    f("event", event);
  }
};

struct UnregisterListener {
  static constexpr std::string_view kTag = "UnregisterListener";
  std::string socket_addr;
  RegisteredEvent event{};

  template <class F>
  void fields(F& f) {
    f("socket_addr", socket_addr);
    f("event", event);
  }
};

struct Unregister {
  static constexpr std::string_view kTag = "Unregister";
  std::string socket_addr;

  template <class F>
  void fields(F& f) {
    f("socket_addr", socket_addr);
  }
};

CROSVM_PLAIN_MESSAGE(SuspendVm);
CROSVM_PLAIN_MESSAGE(ResumeVm);
CROSVM_PLAIN_MESSAGE(VcpuPidTid);

struct Throttle {  // never answered
  static constexpr std::string_view kTag = "Throttle";
  uint64_t vcpu = 0;
  uint32_t microseconds = 0;

  auto elements() { return std::tie(vcpu, microseconds); }
};

CROSVM_PLAIN_MESSAGE(GetVmDescriptor);

struct RegisterMemory {
  static constexpr std::string_view kTag = "RegisterMemory";
  Fd fd;
  uint64_t offset = 0;       // bytes
  uint64_t range_start = 0;  // guest physical, bytes
  uint64_t range_end = 0;
  bool cache_coherent = false;

  template <class F>
  void fields(F& f) {
    f("fd", fd);
    f("offset", offset);
    f("range_start", range_start);
    f("range_end", range_end);
    f("cache_coherent", cache_coherent);
  }
};

struct UnregisterMemory {
  static constexpr std::string_view kTag = "UnregisterMemory";
  uint64_t region_id = 0;

  template <class F>
  void fields(F& f) {
    f("region_id", region_id);
  }
};

/// What a client asks. Move-only: it may own descriptors.
using Request =
    std::variant<Exit, Powerbtn, Sleepbtn, Rtc, SuspendVcpus, Swap, ResumeVcpus, Gpe, PciPme,
                 MakeRT, BalloonCommand, DiskCommand, UsbCommand, GpuCommand, BatCommand,
                 SndCommand, HotPlugVfioCommand, HotPlugNetCommand, Snapshot, RegisterListener,
                 UnregisterListener, Unregister, SuspendVm, ResumeVm, VcpuPidTid, Throttle,
                 GetVmDescriptor, RegisterMemory, UnregisterMemory>;

}  // namespace crosvm::control

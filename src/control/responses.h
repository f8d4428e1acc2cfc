#pragma once

#include "control/requests.h"

/// The answers of the control socket (cli.md 4.3.2), described like the requests.
namespace crosvm::control {

namespace response {

CROSVM_PLAIN_MESSAGE(Ok);
CROSVM_VALUE_MESSAGE(Err, int32_t);  // a positive errno
CROSVM_VALUE_MESSAGE(ErrString, std::string);

struct RegisterMemory {
  static constexpr std::string_view kTag = "RegisterMemory";
  uint32_t slot = 0;

  template <class F>
  void fields(F& f) {
    f("slot", slot);
  }
};

struct RegisterMemory2 {
  static constexpr std::string_view kTag = "RegisterMemory2";
  uint64_t region_id = 0;

  template <class F>
  void fields(F& f) {
    f("region_id", region_id);
  }
};

namespace balloon_stats {
/// Bytes or events; absent when the guest did not report it.
struct Stats {
  std::optional<uint64_t> swap_in, swap_out, major_faults, minor_faults, free_memory, total_memory,
      available_memory, disk_caches, hugetlb_allocations, hugetlb_failures, shared_memory,
      unevictable_memory;

  template <class F>
  void fields(F& f) {
    f("swap_in", swap_in);
    f("swap_out", swap_out);
    f("major_faults", major_faults);
    f("minor_faults", minor_faults);
    f("free_memory", free_memory);
    f("total_memory", total_memory);
    f("available_memory", available_memory);
    f("disk_caches", disk_caches);
    f("hugetlb_allocations", hugetlb_allocations);
    f("hugetlb_failures", hugetlb_failures);
    f("shared_memory", shared_memory);
    f("unevictable_memory", unevictable_memory);
  }
};
}  // namespace balloon_stats

struct BalloonStats {
  static constexpr std::string_view kTag = "BalloonStats";
  balloon_stats::Stats stats;
  uint64_t balloon_actual = 0;  // bytes

  template <class F>
  void fields(F& f) {
    f("stats", stats);
    f("balloon_actual", balloon_actual);
  }
};

namespace balloon_ws {
struct Bucket {
  uint64_t age = 0;
  std::array<uint64_t, 2> bytes{};  // file-backed, anonymous

  template <class F>
  void fields(F& f) {
    f("age", age);
    f("bytes", bytes);
  }
};

struct WorkingSet {
  std::vector<Bucket> ws;

  template <class F>
  void fields(F& f) {
    f("ws", ws);
  }
};
}  // namespace balloon_ws

struct BalloonWS {
  static constexpr std::string_view kTag = "BalloonWS";
  balloon_ws::WorkingSet ws;
  uint64_t balloon_actual = 0;  // bytes

  template <class F>
  void fields(F& f) {
    f("ws", ws);
    f("balloon_actual", balloon_actual);
  }
};

struct PciHotPlugResponse {
  static constexpr std::string_view kTag = "PciHotPlugResponse";
  uint8_t bus = 0;

  template <class F>
  void fields(F& f) {
    f("bus", bus);
  }
};

namespace usb_response {
struct Attached {
  static constexpr std::string_view kTag = "Ok";
  uint8_t port = 0;

  template <class F>
  void fields(F& f) {
    f("port", port);
  }
};

CROSVM_PLAIN_MESSAGE(NoAvailablePort);
CROSVM_PLAIN_MESSAGE(NoSuchDevice);
CROSVM_PLAIN_MESSAGE(NoSuchPort);
CROSVM_PLAIN_MESSAGE(FailedToOpenDevice);

struct Device {  // all zero for an empty slot
  uint8_t port = 0;
  uint16_t vendor_id = 0;
  uint16_t product_id = 0;

  template <class F>
  void fields(F& f) {
    f("port", port);
    f("vendor_id", vendor_id);
    f("product_id", product_id);
  }
};

using DeviceList = std::array<Device, 16>;
CROSVM_VALUE_MESSAGE(Devices, DeviceList);
CROSVM_PLAIN_MESSAGE(FailedToInitHostDevice);
}  // namespace usb_response

struct UsbResponse {
  static constexpr std::string_view kTag = "UsbResponse";
  std::variant<usb_response::Attached, usb_response::NoAvailablePort, usb_response::NoSuchDevice,
               usb_response::NoSuchPort, usb_response::FailedToOpenDevice, usb_response::Devices,
               usb_response::FailedToInitHostDevice>
      value;
};

namespace gpu_response {
CROSVM_PLAIN_MESSAGE(DisplaysUpdated);

struct DisplayList {
  static constexpr std::string_view kTag = "DisplayList";
  std::map<uint32_t, DisplayParameters> displays;  // by display id

  template <class F>
  void fields(F& f) {
    f("displays", displays);
  }
};

struct TooManyDisplays {
  static constexpr std::string_view kTag = "TooManyDisplays";
  uint64_t allowed = 0;
  uint64_t requested = 0;

  template <class F>
  void fields(F& f) {
    f("allowed", allowed);
    f("requested", requested);
  }
};

struct NoSuchDisplay {
  static constexpr std::string_view kTag = "NoSuchDisplay";
  uint32_t display_id = 0;

  template <class F>
  void fields(F& f) {
    f("display_id", display_id);
  }
};

CROSVM_PLAIN_MESSAGE(DisplayMouseModeSet);
CROSVM_VALUE_MESSAGE(ErrString, std::string);
}  // namespace gpu_response

struct GpuResponse {
  static constexpr std::string_view kTag = "GpuResponse";
  std::variant<gpu_response::DisplaysUpdated, gpu_response::DisplayList,
               gpu_response::TooManyDisplays, gpu_response::NoSuchDisplay,
               gpu_response::DisplayMouseModeSet, gpu_response::ErrString>
      value;
};
enum class BatResult {
  kOk,
  kNoBatDevice,
  kNoSuchHealth,
  kNoSuchProperty,
  kNoSuchStatus,
  kNoSuchBatType,
  kStringParseIntErr,
  kStringParseBoolErr
};

constexpr std::array<std::string_view, 8> names_of(BatResult) {
  return {"Ok",           "NoBatDevice",   "NoSuchHealth",      "NoSuchProperty",
          "NoSuchStatus", "NoSuchBatType", "StringParseIntErr", "StringParseBoolErr"};
}

CROSVM_VALUE_MESSAGE(BatResponse, BatResult);
enum class SwapState {
  kReady,
  kPending,
  kTrimInProgress,
  kSwapOutInProgress,
  kActive,
  kSwapInInProgress,
  kFailed
};

constexpr std::array<std::string_view, 7> names_of(SwapState) {
  return {"Ready",  "Pending",          "TrimInProgress", "SwapOutInProgress",
          "Active", "SwapInInProgress", "Failed"};
}

namespace swap_status {
struct Metrics {  // pages
  uint64_t resident_pages = 0, copied_from_file_pages = 0, copied_from_staging_pages = 0,
           zeroed_pages = 0, redundant_pages = 0, staging_pages = 0, swap_pages = 0;

  template <class F>
  void fields(F& f) {
    f("resident_pages", resident_pages);
    f("copied_from_file_pages", copied_from_file_pages);
    f("copied_from_staging_pages", copied_from_staging_pages);
    f("zeroed_pages", zeroed_pages);
    f("redundant_pages", redundant_pages);
    f("staging_pages", staging_pages);
    f("swap_pages", swap_pages);
  }
};

struct Transition {
  uint64_t pages = 0;
  uint64_t time_ms = 0;

  template <class F>
  void fields(F& f) {
    f("pages", pages);
    f("time_ms", time_ms);
  }
};
}  // namespace swap_status

struct SwapStatus {
  static constexpr std::string_view kTag = "SwapStatus";
  SwapState state{};
  swap_status::Metrics metrics;
  swap_status::Transition state_transition;

  template <class F>
  void fields(F& f) {
    f("state", state);
    f("metrics", metrics);
    f("state_transition", state_transition);
  }
};
enum class SleepState { kSleep, kWake };

constexpr std::array<std::string_view, 2> names_of(SleepState) { return {"Sleep", "Wake"}; }

CROSVM_VALUE_MESSAGE(DevicesState, SleepState);

struct VcpuPidTidResponse {
  static constexpr std::string_view kTag = "VcpuPidTidResponse";
  std::map<uint32_t, std::array<uint32_t, 2>> pid_tid_map;  // by vCPU index

  template <class F>
  void fields(F& f) {
    f("pid_tid_map", pid_tid_map);
  }
};
enum class HypervisorKind { kKvm, kGeniezone, kGunyah, kHalla, kHaxm, kWhpx };

constexpr std::array<std::string_view, 6> names_of(HypervisorKind) {
  return {"Kvm", "Geniezone", "Gunyah", "Halla", "Haxm", "Whpx"};
}

struct VmDescriptor {
  static constexpr std::string_view kTag = "VmDescriptor";
  HypervisorKind hypervisor{};
  Fd vm_fd;

  template <class F>
  void fields(F& f) {
    f("hypervisor", hypervisor);
    f("vm_fd", vm_fd);
  }
};

}  // namespace response

/// What the VM answers. Move-only: it may own a descriptor.
using Response =
    std::variant<response::Ok, response::Err, response::ErrString, response::RegisterMemory,
                 response::RegisterMemory2, response::BalloonStats, response::BalloonWS,
                 response::PciHotPlugResponse, response::UsbResponse, response::GpuResponse,
                 response::BatResponse, response::SwapStatus, response::DevicesState,
                 response::VcpuPidTidResponse, response::VmDescriptor>;

}  // namespace crosvm::control

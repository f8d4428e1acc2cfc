#include "control/protocol.h"

#include <cerrno>
#include <system_error>

#include "control/codec.h"

namespace crosvm::control {
namespace {

template <class Message>
Packet encode_message(Message message) {
  Packet packet;
  Encoder encoder(packet.fds);
  packet.text = encoder.encode(message).dump();
  return packet;
}

template <class Message>
Result<Message> decode_message(Packet packet) {
  Json json = TRY(Json::parse(packet.text, {.max_bytes = kMaxPacketBytes}));
  Message message;
  Decoder decoder(packet.fds);
  TRY(decoder.decode(json, message));
  return message;
}

/// `value` must hold no descriptor.
template <class T>
Json to_json(T value) {
  std::vector<Fd> none;
  return Encoder(none).encode(value);
}

std::string usb_text(const response::UsbResponse& response) {
  struct Texts {
    std::string operator()(const response::usb_response::Attached& r) {
      return format_text("ok {}", r.port);
    }
    std::string operator()(response::usb_response::NoAvailablePort) { return "no_available_port"; }
    std::string operator()(response::usb_response::NoSuchDevice) { return "no_such_device"; }
    std::string operator()(response::usb_response::NoSuchPort) { return "no_such_port"; }
    std::string operator()(response::usb_response::FailedToOpenDevice) {
      return "failed_to_open_device";
    }
    std::string operator()(response::usb_response::FailedToInitHostDevice) {
      return "failed_to_init_host_device";
    }
    std::string operator()(const response::usb_response::Devices& r) {
      std::string text = "devices";
      for (const auto& device : r.value) {
        if (device.port == 0) continue;
        text += format_text(" {} {:04x} {:04x}", device.port, device.vendor_id, device.product_id);
      }
      return text;
    }
  };
  return std::visit(Texts(), response.value);
}

Json display_to_json(const DisplayParameters& display) {  // keys sorted, unlike in messages
  Json json;
  json.set("dpi", to_json(display.dpi));
  json.set("hidden", display.hidden);
  json.set("mode", to_json(display.mode));
  json.set("refresh-rate", display.refresh_rate);
  return json;
}

std::string gpu_text(const response::GpuResponse& response) {
  struct Texts {
    std::string operator()(response::gpu_response::DisplaysUpdated) { return "displays updated"; }
    std::string operator()(const response::gpu_response::DisplayList& r) {
      Json displays = Json::object();
      std::map<std::string, const DisplayParameters*> sorted;  // as text: "10" before "2"
      for (const auto& [id, display] : r.displays) sorted[std::to_string(id)] = &display;
      for (const auto& [id, display] : sorted) displays.set(id, display_to_json(*display));
      Json json;
      json.set("displays", std::move(displays));
      return json.dump_pretty();
    }
    std::string operator()(const response::gpu_response::TooManyDisplays& r) {
      return format_text("too_many_displays: allowed {}, requested {}", r.allowed, r.requested);
    }
    std::string operator()(const response::gpu_response::NoSuchDisplay& r) {
      return format_text("no_such_display {}", r.display_id);
    }
    std::string operator()(response::gpu_response::DisplayMouseModeSet) {
      return "display_mouse_mode_set";
    }
    std::string operator()(const response::gpu_response::ErrString& r) {
      return "err_string " + r.value;
    }
  };
  return std::visit(Texts(), response.value);
}

std::string battery_text(const response::BatResponse& response) {
  using enum response::BatResult;
  switch (response.value) {
    case kOk:
      return "Setting battery property successfully";
    case kNoBatDevice:
      return "No battery device created";
    case kNoSuchHealth:
      return "Invalid battery health: use unknown, good, overheat, dead, overvoltage, "
             "unexpectedfailure, cold, watchdogtimerexpire, safetytimerexpire or overcurrent";
    case kNoSuchProperty:
      return "Invalid battery property: use status, health, present, capacity, aconline, "
             "set_fake_bat_config or cancel_fake_bat_config";
    case kNoSuchStatus:
      return "Invalid battery status: use unknown, charging, discharging, notcharging or full";
    case kNoSuchBatType:
      return "Invalid battery type: use goldfish";
    case kStringParseIntErr:
      return "Battery property target is not an integer";
    case kStringParseBoolErr:
      break;
  }
  return "Battery property target is not a boolean";
}

struct DisplayText {
  std::string operator()(const response::Ok&) { return "ok"; }
  std::string operator()(const response::Err& r) {
    return format_text("error: {} (os error {})", std::generic_category().message(r.value),
                       r.value);
  }
  std::string operator()(const response::ErrString& r) { return "error: " + r.value; }
  std::string operator()(const response::RegisterMemory& r) {
    return format_text("memory registered, slot {}", r.slot);
  }
  std::string operator()(const response::RegisterMemory2& r) {
    return format_text("memory registered, region id {}", r.region_id);
  }
  std::string operator()(const response::BalloonStats& r) {
    return format_text("stats: {}\nballoon_actual: {}", to_json(r.stats).dump_pretty(),
                       r.balloon_actual);
  }
  std::string operator()(const response::BalloonWS& r) {
    return format_text("ws: {}, balloon_actual: {}", to_json(r.ws).dump(), r.balloon_actual);
  }
  std::string operator()(const response::PciHotPlugResponse& r) {
    return format_text("pci hotplug bus {}", r.bus);
  }
  std::string operator()(const response::UsbResponse& r) { return usb_text(r); }
  std::string operator()(const response::GpuResponse& r) { return gpu_text(r); }
  std::string operator()(const response::BatResponse& r) { return battery_text(r); }
  std::string operator()(const response::SwapStatus& r) { return to_json(r).dump(); }
  std::string operator()(const response::DevicesState& r) {
    return format_text("devices {}", r.value == response::SleepState::kSleep ? "asleep" : "awake");
  }
  std::string operator()(const response::VcpuPidTidResponse& r) {
    return "vCPU threads: " + to_json(r.pid_tid_map).dump();
  }
  std::string operator()(const response::VmDescriptor& r) {
    return "VM descriptor of " + std::string(names_of(r.hypervisor)[size_t(r.hypervisor)]);
  }
};

/// The answers of 4.4 to a VM without …; what always has an answer of its own (Exit, the vCPUs)
/// says that it is not supported.
struct AnswerWithout {
  using Answer = std::optional<Response>;
  static Answer error(int number) { return response::Err{number}; }
  static Answer refuse(std::string_view what) {
    return response::ErrString{std::string(what) + " is not supported by this VM"};
  }

  template <class Any>
  Answer operator()(const Any&) {
    return error(ENOTSUP);  // power management, swap, balloon, and what no rule covers
  }
  Answer operator()(const SuspendVcpus&) { return error(EIO); }
  Answer operator()(const SuspendVm&) { return error(EIO); }
  Answer operator()(const ResumeVm&) { return error(EIO); }
  Answer operator()(const MakeRT&) { return response::Ok(); }
  Answer operator()(const DiskCommand&) { return error(ENODEV); }
  Answer operator()(const UsbCommand&) { return error(ENODEV); }
  Answer operator()(const GpuCommand&) { return error(EIO); }
  Answer operator()(const BatCommand&) {
    return response::BatResponse{response::BatResult::kNoBatDevice};
  }
  Answer operator()(const SndCommand&) { return response::Ok(); }
  Answer operator()(const HotPlugVfioCommand&) { return error(EINVAL); }
  Answer operator()(const HotPlugNetCommand&) { return refuse("PCI hotplug of network devices"); }
  Answer operator()(const Snapshot&) { return error(EIO); }
  Answer operator()(const RegisterListener&) { return response::Ok(); }
  Answer operator()(const UnregisterListener&) { return response::Ok(); }
  Answer operator()(const Unregister&) { return response::Ok(); }
  Answer operator()(const VcpuPidTid&) { return refuse("listing vCPU threads"); }
  Answer operator()(const Throttle&) { return std::nullopt; }
  Answer operator()(const GetVmDescriptor&) { return refuse("handing out the VM descriptor"); }
  Answer operator()(const RegisterMemory& r) {
    if (r.range_start >= r.range_end) return error(EINVAL);
    return refuse("registering memory");
  }
  Answer operator()(const UnregisterMemory&) { return refuse("unregistering memory"); }
};

}  // namespace

Packet encode(Request message) { return encode_message(std::move(message)); }
Packet encode(Response message) { return encode_message(std::move(message)); }

Result<Request> decode_request(Packet packet) {
  return with_context(decode_message<Request>(std::move(packet)), "control request");
}

Result<Response> decode_response(Packet packet) {
  return with_context(decode_message<Response>(std::move(packet)), "control response");
}

std::string_view name_of(const Request& request) {
  return std::visit([]<class T>(const T&) { return T::kTag; }, request);
}

std::string display(const Response& response) { return std::visit(DisplayText(), response); }

std::optional<Response> answer_without_component(const Request& request) {
  return std::visit(AnswerWithout(), request);
}

}  // namespace crosvm::control

#include "jail/worker_order.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "base/format.h"
#include "base/json.h"

namespace crosvm {
namespace {

constexpr std::string_view kFrontendPacket = "front-end";

template <class Numbers>
Json numbers(const Numbers& values) {
  Json list = Json::array();
  for (const auto& value : values) list.push_back(static_cast<uint64_t>(value));
  return list;
}

template <class T>
Result<std::vector<T>> read_numbers(const Json& object, std::string_view name, uint64_t most) {
  std::vector<T> values;
  for (const Json& item : TRY(TRY(object.at(name))->items())) {
    values.push_back(static_cast<T>(TRY(item.as_uint(most))));
  }
  return values;
}

Result<std::string> read_text(const Json& object, std::string_view name) {
  return TRY(object.at(name))->as_string();
}

/// Descriptors that need not be there come first, in a fixed order.
void add(std::vector<Fd>& fds, Fd& optional) {
  if (optional) fds.push_back(std::move(optional));
}

/// The worker has read an image by now that may have taken it over: what it says of its device must
/// at least be something that a transport can offer.
Result<void> check_device_info(const DeviceInfo& info) {
  constexpr size_t kMostQueues = 1024;
  constexpr size_t kLongestConfig = 4096;
  const bool sizes_fit = std::ranges::all_of(
      info.queue_sizes, [](uint16_t size) { return std::has_single_bit(size) && size <= 32768; });
  if (info.queue_sizes.empty() || info.queue_sizes.size() > kMostQueues || !sizes_fit ||
      info.config.size() > kLongestConfig) {
    return fail(Error::invalid(format_text(
        "{}: its process describes a device that cannot be, with {} queues and a configuration of "
        "{} bytes",
        info.name, info.queue_sizes.size(), info.config.size())));
  }
  return {};
}

}  // namespace

Result<WorkerOrder> duplicate(const WorkerOrder& order) {
  auto copy = [](const Fd& fd) -> Result<Fd> { return fd ? fd.duplicate() : Fd(); };
  WorkerOrder other{.device = order.device,
                    .name = order.name,
                    .text = order.text,
                    .logging = order.logging,
                    .pivot_root = order.pivot_root,
                    .resolv_conf = order.resolv_conf,
                    .policy = order.policy,
                    .denied_call = order.denied_call,
                    .restarts = order.restarts,
                    .frontend = TRY(copy(order.frontend)),
                    .filter = TRY(copy(order.filter)),
                    .io_witness = TRY(copy(order.io_witness)),
                    .resources = {.counts = order.resources.counts, .fds = {}}};
  for (const Fd& fd : order.resources.fds) other.resources.fds.push_back(TRY(copy(fd)));
  return other;
}

Result<Fd> file_with_program(const SeccompProgram& program, const std::string& name) {
  Fd file(::memfd_create("crosvm-policy", MFD_CLOEXEC));
  if (!file) return fail(Error::from_errno("creating a file for", name));
  TRY(write_full(file, std::as_bytes(program.code()), name));
  return file;
}

Result<Packet> encode_worker_order(WorkerOrder order) {
  Json json;
  json.set("device", order.device);
  json.set("name", order.name);
  json.set("text", order.text);
  json.set("log", order.logging.filter);
  json.set("syslog", order.logging.use_syslog);
  json.set("syslog_tag", order.logging.syslog_tag);
  if (order.pivot_root) json.set("pivot_root", *order.pivot_root);
  if (!order.resolv_conf.empty()) json.set("resolv_conf", order.resolv_conf);
  json.set("policy", order.policy);
  json.set("denied_call", static_cast<uint64_t>(order.denied_call));
  json.set("restarts", order.restarts);
  json.set("frontend", static_cast<bool>(order.frontend));
  json.set("filter", static_cast<bool>(order.filter));
  json.set("io_witness", static_cast<bool>(order.io_witness));
  json.set("counts", numbers(order.resources.counts));
  Packet packet{.text = json.dump(), .fds = {}};
  add(packet.fds, order.frontend);
  add(packet.fds, order.filter);
  add(packet.fds, order.io_witness);
  std::ranges::move(order.resources.fds, std::back_inserter(packet.fds));
  if (packet.fds.size() > kWorkerPackets.fds || packet.text.size() > kWorkerPackets.bytes) {
    return fail(Error::invalid(
        format_text("{}: {} descriptors and {} bytes of configuration are more than its process "
                    "can be given, which is {} and {}; divide it into several devices",
                    order.name, packet.fds.size(), packet.text.size(), kWorkerPackets.fds,
                    kWorkerPackets.bytes)));
  }
  return packet;
}

Result<WorkerOrder> decode_worker_order(Packet packet) {
  const Json json = TRY(Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes}));
  WorkerOrder order{.device = TRY(read_text(json, "device")),
                    .name = TRY(read_text(json, "name")),
                    .text = TRY(read_text(json, "text")),
                    .logging = {.filter = TRY(read_text(json, "log")),
                                .use_syslog = TRY(TRY(json.at("syslog"))->as_bool()),
                                .syslog_tag = TRY(read_text(json, "syslog_tag"))},
                    .pivot_root = std::nullopt,
                    .resolv_conf = {},
                    .policy = TRY(read_text(json, "policy")),
                    .denied_call = {},
                    .restarts = TRY(TRY(json.at("restarts"))->as_bool()),
                    .frontend = {},
                    .filter = {},
                    .io_witness = {},
                    .resources = {}};
  if (const Json* root = json.find("pivot_root")) order.pivot_root = TRY(root->as_string());
  if (const Json* text = json.find("resolv_conf")) order.resolv_conf = TRY(text->as_string());
  order.denied_call = static_cast<SeccompDefault>(
      TRY(TRY(json.at("denied_call"))->as_uint(static_cast<uint64_t>(SeccompDefault::kLog))));
  order.resources.counts = TRY(read_numbers<size_t>(json, "counts", kWorkerPackets.fds));

  auto next = packet.fds.begin();
  for (auto [name, fd] : {std::pair{"frontend", &order.frontend},
                          {"filter", &order.filter},
                          {"io_witness", &order.io_witness}}) {
    if (!TRY(TRY(json.at(name))->as_bool())) continue;
    if (next == packet.fds.end()) {
      return fail(Error::invalid(format_text("a worker's order lacks its {} descriptor", name)));
    }
    *fd = std::move(*next++);
  }
  std::move(next, packet.fds.end(), std::back_inserter(order.resources.fds));
  return order;
}

Packet encode_frontend(Fd frontend) {
  Packet packet{.text = std::string(kFrontendPacket), .fds = {}};
  packet.fds.push_back(std::move(frontend));
  return packet;
}

Result<Fd> decode_frontend(Packet packet) {
  if (packet.text != kFrontendPacket || packet.fds.size() != 1) {
    return fail(Error::invalid("a packet that brings no front-end"));
  }
  return std::move(packet.fds.front());
}

Packet encode_worker_ready(const DeviceInfo& info) {
  Json json;
  json.set("name", info.name);
  json.set("device_type", info.device_type);
  json.set("features", info.features);
  json.set("queue_sizes", numbers(info.queue_sizes));
  json.set("config", numbers(info.config));
  return {.text = json.dump(), .fds = {}};
}

Packet encode_worker_failed(const Error& error) {
  Json json;
  json.set("error", error.what());
  json.set("code", static_cast<int64_t>(error.code()));
  return {.text = json.dump(), .fds = {}};
}

Result<DeviceInfo> decode_worker_answer(const Packet& packet) {
  const Json json = TRY(Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes}));
  if (const Json* what = json.find("error")) {
    const auto code = static_cast<std::errc>(TRY(TRY(json.at("code"))->as_int(0, INT16_MAX)));
    return fail(Error(code, TRY(what->as_string())));
  }
  DeviceInfo info{
      .name = TRY(read_text(json, "name")),
      .device_type = static_cast<uint32_t>(TRY(TRY(json.at("device_type"))->as_uint(UINT32_MAX))),
      .features = TRY(TRY(json.at("features"))->as_uint()),
      .queue_sizes = TRY(read_numbers<uint16_t>(json, "queue_sizes", UINT16_MAX)),
      .config = TRY(read_numbers<std::byte>(json, "config", UINT8_MAX))};
  TRY(check_device_info(info));
  return info;
}

}  // namespace crosvm

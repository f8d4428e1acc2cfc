#include "jail/spawner_messages.h"

#include "base/format.h"
#include "base/json.h"

namespace crosvm::spawner {
namespace {

struct ToJson {
  Json operator()(const Spawn& spawn) const {
    return Json::object({{"spawn", spawn.worker},
                         {"name", spawn.name},
                         {"program", spawn.program},
                         {"host_network", spawn.host_network}});
  }
  Json operator()(const Kill& kill) const { return Json::object({{"kill", kill.worker}}); }
  Json operator()(const GuardSocket& guard) const {
    return Json::object(
        {{"guard_socket", guard.path}, {"device", guard.device}, {"inode", guard.inode}});
  }
  Json operator()(const GuardTerminal&) const { return Json::object({{"guard_terminal", true}}); }
  Json operator()(const Supervise& supervise) const {
    return Json::object({{"supervise", supervise.thread}, {"policy", supervise.policy}});
  }
  Json operator()(const Farewell&) const { return Json::object({{"farewell", true}}); }
};

Result<uint32_t> worker_number(const Json& json) {
  return static_cast<uint32_t>(TRY(json.as_uint(UINT32_MAX)));
}

}  // namespace

Packet encode(const Request& request) {
  return {.text = std::visit(ToJson(), request).dump(), .fds = {}};
}

Result<Request> decode_request(const std::string& text) {
  const Json json = TRY(Json::parse(text, {.max_bytes = kPackets.bytes}));
  if (const Json* worker = json.find("spawn")) {
    return Spawn{.worker = TRY(worker_number(*worker)),
                 .name = TRY(TRY(json.at("name"))->as_string()),
                 .program = TRY(TRY(json.at("program"))->as_string()),
                 .host_network = TRY(TRY(json.at("host_network"))->as_bool())};
  }
  if (const Json* worker = json.find("kill")) return Kill{.worker = TRY(worker_number(*worker))};
  if (const Json* path = json.find("guard_socket")) {
    return GuardSocket{.path = TRY(path->as_string()),
                       .device = TRY(TRY(json.at("device"))->as_uint()),
                       .inode = TRY(TRY(json.at("inode"))->as_uint())};
  }
  if (json.find("guard_terminal")) return GuardTerminal();
  if (const Json* thread = json.find("supervise")) {
    return Supervise{.policy = TRY(TRY(json.at("policy"))->as_string()),
                     .thread = TRY(thread->as_string())};
  }
  if (json.find("farewell")) return Farewell();
  return fail(Error::invalid(format_text("the spawner does not know the request {}", text)));
}

Packet encode(const Ended& ended) {
  const Json json = Json::object({{"ended", ended.worker},
                                  {"clean", ended.end == WorkerEnd::kClean},
                                  {"started", ended.end != WorkerEnd::kNotStarted},
                                  {"cause", ended.cause}});
  return {.text = json.dump(), .fds = {}};
}

Result<Ended> decode_ended(const std::string& text) {
  const Json json = TRY(Json::parse(text, {.max_bytes = kPackets.bytes}));
  const bool clean = TRY(TRY(json.at("clean"))->as_bool());
  const bool started = TRY(TRY(json.at("started"))->as_bool());
  return Ended{.worker = TRY(worker_number(*TRY(json.at("ended")))),
               .end = clean     ? WorkerEnd::kClean
                      : started ? WorkerEnd::kDied
                                : WorkerEnd::kNotStarted,
               .cause = TRY(TRY(json.at("cause"))->as_string())};
}

}  // namespace crosvm::spawner

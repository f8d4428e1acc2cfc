#include "jail/worker_commands.h"

#include <utility>

#include "base/format.h"
#include "base/json.h"
#include "base/log.h"
#include "jail/worker_order.h"

namespace crosvm {

// ---- the packets

Result<Packet> encode_device_command(DeviceCommand command) {
  Json json;
  json.set("command", command.name);
  json.set("arguments", command.arguments);
  Packet packet{.text = json.dump(), .fds = std::move(command.fds)};
  if (packet.text.size() > kWorkerPackets.bytes || packet.fds.size() > kWorkerPackets.fds) {
    return fail(Error(std::errc::message_size,
                      format_text("'{}' with {} bytes and {} descriptors is more than its process "
                                  "can be told at once, which is {} and {}",
                                  command.name, packet.text.size(), packet.fds.size(),
                                  kWorkerPackets.bytes, kWorkerPackets.fds)));
  }
  return packet;
}

Result<DeviceCommand> decode_device_command(Packet packet) {
  const Json json = TRY(Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes}));
  return DeviceCommand{.name = TRY(TRY(json.at("command"))->as_string()),
                       .arguments = TRY(TRY(json.at("arguments"))->as_string()),
                       .fds = std::move(packet.fds)};
}

Packet encode_command_answer(const Result<std::string>& answer) {
  if (!answer) return encode_worker_failed(answer.error());
  Json json;
  json.set("answer", *answer);
  Packet packet{.text = json.dump(), .fds = {}};
  if (packet.text.size() <= kWorkerPackets.bytes) return packet;
  return encode_worker_failed(Error(
      std::errc::message_size, format_text("an answer of {} bytes is too long", answer->size())));
}

Result<Result<std::string>> decode_command_answer(const Packet& packet) {
  const Json json = TRY(Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes}));
  if (const Json* what = json.find("error")) {
    const auto code = static_cast<std::errc>(TRY(TRY(json.at("code"))->as_int(1, INT16_MAX)));
    return Result<std::string>(fail(Error(code, TRY(what->as_string()))));
  }
  return Result<std::string>(TRY(TRY(json.at("answer"))->as_string()));
}

// ---- the VMM's end

void WorkerCommands::ask(DeviceCommand command, CommandDone done) {
  if (closed_) {
    return done(fail(Error(std::errc::not_connected, name_ + ": the device has no process")));
  }
  if (waiting_.size() >= kMost) {
    return done(fail(Error(std::errc::device_or_resource_busy,
                           format_text("{}: {} commands wait for the device; try '{}' again later",
                                       name_, waiting_.size(), command.name))));
  }
  waiting_.push_back({std::move(command), std::move(done)});
  send_next();
}

void WorkerCommands::serve(PacketSocket& channel) {
  channel_ = &channel;
  send_next();
}

void WorkerCommands::send_next() {
  while (channel_ && !asked_ && !waiting_.empty()) {
    auto packet = encode_device_command(std::exchange(waiting_.front().command, {}));
    Result<void> sent;
    if (packet) {
      asked_ = true;
      sent = channel_->send(*packet);
      if (sent) return;
    } else {
      sent = fail(std::move(packet).error());
    }
    end_first(fail(std::move(sent).error().context(name_)));
  }
}

void WorkerCommands::end_first(Result<std::string> answer) {
  asked_ = false;
  CommandDone done = std::move(waiting_.front().done);
  waiting_.pop_front();
  done(std::move(answer));
}

bool WorkerCommands::answered(const Packet& packet) {
  auto answer = asked_ ? decode_command_answer(packet)
                       : fail(Error::invalid("its process says something that nobody asked for"));
  if (!answer) {
    if (limit_.allows()) log::error("{}: {}", name_, answer.error().what());
    return false;
  }
  end_first(*std::move(answer));
  send_next();
  return true;
}

void WorkerCommands::lost() {
  channel_ = nullptr;
  if (!asked_) return;
  end_first(fail(Error(std::errc::not_connected,
                       name_ + ": its process ended before it had an answer; ask again")));
}

void WorkerCommands::close() {
  closed_ = true;
  lost();
  while (!waiting_.empty()) {
    end_first(fail(Error(std::errc::not_connected, name_ + ": the device has no process")));
  }
}

}  // namespace crosvm

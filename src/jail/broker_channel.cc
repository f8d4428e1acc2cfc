#include "jail/broker_channel.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/format.h"
#include "base/json.h"
#include "jail/worker_order.h"

namespace crosvm {
namespace {

/// What may be no text is told byte by byte.
Json bytes_of(const std::string& text) {
  Json list = Json::array();
  for (const char c : text) list.push_back(uint64_t{static_cast<unsigned char>(c)});
  return list;
}

Result<std::string> text_of(const Json& list) {
  std::string text;
  for (const Json& item : TRY(list.items())) {
    text += static_cast<char>(TRY(item.as_uint(UINT8_MAX)));
  }
  return text;
}

Result<FileBroker::Request> decode_request(const Packet& packet) {
  const Json json = TRY(Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes}));
  return FileBroker::Request{
      .from = static_cast<uint32_t>(TRY(TRY(json.at("from"))->as_uint(UINT32_MAX))),
      .name = TRY(text_of(*TRY(json.at("open")))),
      .writable = TRY(TRY(json.at("writable"))->as_bool())};
}

Packet encode_file(FileBroker::File file) {
  Json json;
  json.set("number", uint64_t{file.number});
  json.set("object", file.object);
  Packet packet{.text = json.dump(), .fds = {}};
  packet.fds.push_back(std::move(file.fd));
  return packet;
}

Result<FileBroker::File> duplicate(const FileBroker::File& file) {
  return FileBroker::File{
      .number = file.number, .object = file.object, .fd = TRY(file.fd.duplicate())};
}

}  // namespace

Result<FileBroker::File> ChannelBroker::open(const Request& request) {
  Json json;
  json.set("open", bytes_of(request.name));
  json.set("from", uint64_t{request.from});
  json.set("writable", request.writable);
  TRY(channel_.send({.text = json.dump(), .fds = {}}));
  auto answer = TRY(channel_.receive());
  if (!answer) return fail(Error(std::errc::broken_pipe, "the VMM has gone"));
  const Json said = TRY(Json::parse(answer->text, {.max_bytes = kWorkerPackets.bytes}));
  if (const Json* what = said.find("error")) {
    const auto code = static_cast<std::errc>(TRY(TRY(said.at("code"))->as_int(0, INT16_MAX)));
    return fail(Error(code, TRY(what->as_string())));
  }
  if (answer->fds.size() != 1) return fail(Error::invalid("the VMM sent no file"));
  return File{.number = static_cast<uint32_t>(TRY(TRY(said.at("number"))->as_uint(UINT32_MAX))),
              .object = TRY(TRY(said.at("object"))->as_string()),
              .fd = std::move(answer->fds.front())};
}

bool BrokerDesk::concerns(const Packet& packet) {
  const auto json = Json::parse(packet.text, {.max_bytes = kWorkerPackets.bytes});
  return json && json->find("open") != nullptr;
}

Result<FileBroker::File> BrokerDesk::open(const FileBroker::Request& request) {
  const auto known = std::ranges::find(files_, request, &Remembered::request);
  if (known != files_.end()) return duplicate(known->file);
  if (!broker_) {
    return fail(Error(std::errc::permission_denied,
                      "an image names a file that it did not name when the VM started"));
  }
  FileBroker::File file = TRY(broker_->open(request));
  if (remembers_) files_.push_back({.request = request, .file = TRY(duplicate(file))});
  return file;
}

Packet BrokerDesk::answer(const Packet& packet) {
  auto request = decode_request(packet);
  auto file = request ? open(*request) : fail(std::move(request).error());
  return file ? encode_file(*std::move(file)) : encode_worker_failed(file.error());
}

}  // namespace crosvm

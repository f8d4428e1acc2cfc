#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "control/protocol.h"

namespace {

using namespace crosvm;
using namespace crosvm::control;

Packet packet_of(std::string text, size_t fds) {
  Packet packet{.text = std::move(text), .fds = {}};
  for (size_t i = 0; i < fds; ++i) packet.fds.push_back(std::move(make_eventfd().value()));
  return packet;
}

/// What is written of a message is read back as the same text, with as many descriptors.
void check_request(Packet packet) {
  auto request = decode_request(std::move(packet));
  if (!request) return;
  (void)answer_without_component(*request);
  Packet once = encode(std::move(*request));
  std::string text = once.text;
  size_t fds = once.fds.size();
  auto again = decode_request(std::move(once));
  CHECK(again.has_value());
  Packet twice = encode(std::move(*again));
  CHECK(twice.text == text);
  CHECK(twice.fds.size() == fds);
}

void check_response(Packet packet) {
  auto response = decode_response(std::move(packet));
  if (!response) return;
  (void)display(*response);
  std::string text = encode(std::move(*response)).text;
  CHECK(!text.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  size_t fds = data[0] % 4;
  std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  check_request(packet_of(text, fds));
  check_response(packet_of(text, fds));
  return 0;
}

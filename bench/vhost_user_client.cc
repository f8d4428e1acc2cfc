#include "bench/vhost_user_client.h"

#include <linux/virtio_ids.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>

namespace crosvm {
namespace {

// Messages of the vhost-user protocol, "Front-end message types".
enum Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kSetVringEnable = 18,
};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kProtocolFeatures = uint64_t{1} << 30;
constexpr uint64_t kMultiqueue = 1;
constexpr uint64_t kUserBase = uint64_t{1} << 40;  // our addresses, as the back-end sees them
constexpr size_t kMostRegions = 8;

struct Header {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
};
struct VringState {
  uint32_t index;
  uint32_t value;
};
struct VringAddress {
  uint32_t index;
  uint32_t flags;
  uint64_t descriptors;
  uint64_t used;
  uint64_t available;
  uint64_t log;
};
struct Region {
  uint64_t guest_address;
  uint64_t size;
  uint64_t user_address;
  uint64_t offset;
};
struct MemoryTable {
  uint32_t count;
  uint32_t padding;
  std::array<Region, kMostRegions> regions;
};

}  // namespace

std::unique_ptr<VhostUserClient> VhostUserClient::connect(const std::string& socket,
                                                          uint16_t queues) {
  std::unique_ptr<VhostUserClient> client(new VhostUserClient());
  client->socket_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  CHECK(socket.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, socket.data(), socket.size());
  CHECK(::connect(client->socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) ==
        0);
  client->send(kSetOwner, {});
  uint64_t features = client->ask(kGetFeatures);
  CHECK((features & kProtocolFeatures) != 0);
  uint64_t protocol = client->ask(kGetProtocolFeatures) & kMultiqueue;
  client->send_value(kSetProtocolFeatures, protocol);
  client->info_ = {.name = socket,
                   .device_type = VIRTIO_ID_BLOCK,
                   .features = features & ~kProtocolFeatures,
                   .queue_sizes = std::vector<uint16_t>(queues, 256),
                   .config = {}};
  client->running_.resize(queues);
  return client;
}

void VhostUserClient::send(uint32_t request, std::span<const std::byte> payload,
                           std::span<const int> fds) {
  Header header{request, kVersion, static_cast<uint32_t>(payload.size())};
  std::array<iovec, 2> parts = {
      {{&header, sizeof(header)}, {const_cast<std::byte*>(payload.data()), payload.size()}}};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostRegions * sizeof(int))> control = {};
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  CHECK(::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) ==
        static_cast<ssize_t>(sizeof(header) + payload.size()));
}

template <class T>
T VhostUserClient::receive() {
  Header header;
  T payload;
  auto header_bytes = std::as_writable_bytes(std::span(&header, 1));
  auto payload_bytes = std::as_writable_bytes(std::span(&payload, 1));
  CHECK(read_full(socket_, header_bytes, info_.name).value_or(0) == sizeof(header));
  CHECK(header.size == sizeof(T));
  CHECK(read_full(socket_, payload_bytes, info_.name).value_or(0) == sizeof(payload));
  return payload;
}

uint64_t VhostUserClient::ask(uint32_t request) {
  send(request, {});
  return receive<uint64_t>();
}

void VhostUserClient::set_features(uint64_t features) {
  send_value(kSetFeatures, features | kProtocolFeatures);
}

void VhostUserClient::set_memory(const GuestMemory& memory) {
  MemoryTable table = {};
  std::vector<int> fds;
  for (const RamRegion& region : memory.regions()) {
    CHECK(table.count < kMostRegions);
    table.regions[table.count++] = {region.base.value, region.size, kUserBase + region.base.value,
                                    region.offset};
    fds.push_back(memory.memfd().get());
  }
  auto bytes = std::as_bytes(std::span(&table, 1));
  send(kSetMemTable, bytes.first(8 + table.count * sizeof(Region)), fds);
}

void VhostUserClient::set_vring_num(uint16_t index, uint16_t size) {
  send_value(kSetVringNum, VringState{index, size});
}

void VhostUserClient::set_vring_addr(uint16_t index, const VringAddresses& addresses) {
  send_value(kSetVringAddr, VringAddress{.index = index,
                                         .flags = 0,
                                         .descriptors = kUserBase + addresses.descriptor_area.value,
                                         .used = kUserBase + addresses.device_area.value,
                                         .available = kUserBase + addresses.driver_area.value,
                                         .log = 0});
}

void VhostUserClient::set_vring_base(uint16_t index, RingPosition position) {
  send_value(kSetVringBase, VringState{index, position.index});
}

void VhostUserClient::set_vring_kick(uint16_t index, Fd kick) {
  int fd = kick.get();
  send_value(kSetVringKick, uint64_t{index}, std::span(&fd, 1));
  running_[index] = true;
}

void VhostUserClient::set_vring_call(uint16_t index, Fd call) {
  int fd = call.get();
  send_value(kSetVringCall, uint64_t{index}, std::span(&fd, 1));
}

void VhostUserClient::set_vring_enable(uint16_t index, bool enable) {
  send_value(kSetVringEnable, VringState{index, enable});
}

void VhostUserClient::get_vring_base(uint16_t index, std::function<void(RingPosition)> done) {
  send_value(kGetVringBase, VringState{index, 0});
  auto state = receive<VringState>();
  running_[index] = false;
  done({.index = static_cast<uint16_t>(state.value)});
}

void VhostUserClient::reset(std::function<void()> done) {
  for (uint16_t index = 0; index < running_.size(); ++index) {
    if (running_[index]) get_vring_base(index, [](RingPosition) {});
  }
  done();
}

}  // namespace crosvm

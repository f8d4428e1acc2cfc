// A hostile front-end of a vhost-user server: messages mutated at will, to a device that runs. The
// first byte picks the kind of rings; then each step sends a message, well-formed or not, lets the
// driver use a ring, or hangs up.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>

#include "base/log.h"
#include "hostile_device.h"
#include "message_count.h"
#include "vhost/inflight_region.h"
#include "vhost/vhost_test_frontend.h"
#include "virtio/rig/window_device.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint64_t kFeatures = uint64_t{1} << VIRTIO_F_VERSION_1 | uint64_t{1}
                                                                       << VIRTIO_RING_F_EVENT_IDX;

class Play {
 public:
  Play(VhostTestFrontend& frontend, bool packed, FuzzInput& input)
      : frontend_(frontend), packed_(packed), input_(input) {}

  void run() {
    set_up();
    while (!input_.empty()) {
      step();
      frontend_.turn(2);
      while (frontend_.receive(1)) {
      }
    }
    frontend_.disconnect();
    frontend_.turn();
    frontend_.connect();
    CHECK(frontend_.ask(VHOST_USER_GET_QUEUE_NUM) == 2u);
    frontend_.disconnect();
    frontend_.turn();
    frontend_.connect();
  }

 private:
  void set_up() {
    frontend_.negotiate(kFeatures | (packed_ ? uint64_t{1} << VIRTIO_F_RING_PACKED : 0));
    frontend_.send(frontend_.memory_table());
    open_requests();
    for (uint16_t index = 0; index < 2; ++index) {
      frontend_.driver(index).restart({});
      frontend_.start_ring(index, packed_ ? 0x80008000 : 0);
    }
  }

  void open_requests() {
    std::array<int, 2> pair{};
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    requests_.emplace(Fd(pair[0]));
    VhostUserMessage message = vhost_user_message(VHOST_USER_SET_BACKEND_REQ_FD);
    message.fds.emplace_back(pair[1]);
    frontend_.send(std::move(message));
  }

  void step() {
    const uint8_t what = input_.byte();
    switch (what % 8) {
      case 0:
        frontend_.driver(what >> 3 & 1).restart({});
        frontend_.start_ring(what >> 3 & 1, packed_ ? 0x80008000 : 0);
        return;
      case 1: {
        RigDriver& driver = frontend_.driver(what >> 3 & 1);
        if (driver.outstanding() < 8) driver.send({readable("x"), writable(1)});
        driver.try_used();
        return;
      }
      case 2:
        if (what & 0x80) return shared_memory(what);
        frontend_.send(frontend_.memory_table());
        return;
      case 3:
        if (what & 0x80) return state(what);
        inflight();
        return;
      default:
        send_mutated();
    }
  }

  void inflight() {
    VhostUserInflight description{
        .mmap_size = 0, .mmap_offset = 0, .num_queues = 2, .queue_size = 16, .padding = 0};
    Fd file = VhostTestFrontend::must(InflightRegion::create(description));
    std::vector<std::byte> bytes(input_.byte());
    input_.fill(bytes);
    if (bytes.size() > 9) bytes[8] = std::byte{1}, bytes[9] = std::byte{0};
    if (bytes.size() > 11) bytes[10] = std::byte{16}, bytes[11] = std::byte{0};
    CHECK(::pwrite(file.get(), bytes.data(), bytes.size(), 0) ==
          static_cast<ssize_t>(bytes.size()));
    frontend_.send(VHOST_USER_SET_INFLIGHT_FD, description, std::move(file));
  }

  /// The device is made to map something, or an answer to that comes, good or not.
  void shared_memory(uint8_t what) {
    count_message();
    if (what & 0x40) {
      VhostUserMessage message = vhost_user_message(
          VHOST_USER_SET_CONFIG, VhostUserConfigHeader{.offset = 0, .size = 8, .flags = 0});
      message.add(WindowCommand{.what = static_cast<uint8_t>(1 + (what >> 5 & 1)),
                                .id = static_cast<uint8_t>(input_.byte() % 4),
                                .page = static_cast<uint8_t>(input_.byte() % 20),
                                .pages = static_cast<uint8_t>(input_.byte() % 20)}
                      .bytes());
      return frontend_.send(std::move(message));
    }
    if (!requests_) return open_requests();
    uint32_t request = VHOST_USER_BACKEND_SHMEM_MAP;
    for (int i = 0; i < 8; ++i) {
      auto asked = requests_->receive();
      if (!asked) return requests_.reset();
      if (*asked) request = (*asked)->request;
    }
    if (what & 0x20) request = input_.byte() % 12;
    VhostUserMessage answer = vhost_user_message(request, uint64_t{what & 0x10u});
    answer.flags = (what & 0x08) ? input_.byte() & 0xfcu : kVhostUserReply;
    if (what & 0x08) answer.payload.resize(input_.byte() % 16);
    if (!requests_->send(std::move(answer))) requests_.reset();
  }

  /// The device's state is taken, or given: any bytes, or its own with some of them changed.
  void state(uint8_t what) {
    count_message();
    const uint32_t direction = what >> 4 & 1;
    if (what & 0x20) {
      for (uint16_t index = 0; index < 2; ++index) {
        frontend_.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = index, .num = 0});
      }
      frontend_.turn();
    }
    std::array<int, 2> ends{};
    CHECK(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
    Fd reader(ends[0]);
    Fd writer(ends[1]);
    const bool save = direction == kVhostUserStateSave;
    frontend_.send(VHOST_USER_SET_DEVICE_STATE_FD,
                   VhostUserDeviceState{.direction = direction, .phase = 0},
                   std::move(save ? writer : reader));
    if (what & 0x40) frontend_.send(vhost_user_message(VHOST_USER_CHECK_DEVICE_STATE));
    frontend_.turn();
    if (save) {
      std::vector<std::byte> bytes(4096);
      const ssize_t got = ::read(reader.get(), bytes.data(), bytes.size());
      if (got > 0) state_.assign(bytes.begin(), bytes.begin() + got);
    } else {
      std::vector<std::byte> bytes = state_;
      for (int changes = input_.byte() % 4; changes > 0 && !bytes.empty(); --changes) {
        bytes[input_.byte() % bytes.size()] = std::byte{input_.byte()};
      }
      if (bytes.empty()) bytes.resize(input_.byte());
      (void)!::write(writer.get(), bytes.data(), bytes.size());
    }
  }

  void send_mutated() {
    count_message();
    VhostUserMessage message = vhost_user_message(input_.byte() % 48);
    message.flags = input_.byte() & 0xfcu;
    const VhostUserVringAddr addr = frontend_.addresses(input_.byte() & 1);
    const auto* const bytes = reinterpret_cast<const std::byte*>(&addr);
    if (message.request == VHOST_USER_SET_VRING_ADDR) {
      message.payload.assign(bytes, bytes + sizeof(addr));
    } else if (message.request == VHOST_USER_SET_MEM_TABLE) {
      message.payload = frontend_.memory_table().payload;
    } else if (message.request == VHOST_USER_ADD_MEM_REG ||
               message.request == VHOST_USER_REM_MEM_REG) {
      message.add(VhostUserSingleRegion{
          .padding = 0, .region = frontend_.describe(frontend_.memory().guest().regions()[0])});
    } else {
      message.payload.resize(input_.byte() % 48);
    }
    for (int mutations = input_.byte() % 8; mutations > 0 && !message.payload.empty();
         --mutations) {
      message.payload[input_.byte() % message.payload.size()] = std::byte{input_.byte()};
    }
    const uint8_t fds = input_.byte();
    for (int i = 0; i < fds % 9; ++i) {
      message.fds.push_back(fds & 0x80
                                ? VhostTestFrontend::must(make_eventfd())
                                : VhostTestFrontend::copy(frontend_.memory().guest().memfd()));
    }
    if (!frontend_.channel().send(std::move(message))) {
      frontend_.disconnect();
      frontend_.turn();
      frontend_.connect();
    }
  }

  VhostTestFrontend& frontend_;
  bool packed_;
  FuzzInput& input_;
  std::vector<std::byte> state_;  // of the device, once it was taken
  std::optional<VhostUserChannel> requests_;
};

/// One for either kind of ring: making guest memory takes far longer than a run.
VhostTestFrontend& frontend_of(bool packed) {
  static std::array<std::unique_ptr<VhostTestFrontend>, 2> frontends;
  auto& frontend = frontends[packed];
  if (!frontend) {
    frontend =
        std::make_unique<VhostTestFrontend>(EchoOptions{}, [](EchoOptions, DeviceContext context) {
          const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
          return std::make_unique<WindowDevice>(std::vector<uint64_t>{0, 16 * page, page},
                                                Fd(::memfd_create("window", MFD_CLOEXEC)),
                                                std::move(context));
        });
    for (int i = 0; i < 2; ++i) frontend->add_driver(packed);
  }
  return *frontend;
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  ::signal(SIGPIPE, SIG_IGN);  // as in every process of ours
  (void)crosvm::log::configure({.filter = "off", .use_syslog = false});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  crosvm::FuzzInput input({data + 1, size - 1});
  const bool packed = (data[0] & 1) != 0;
  crosvm::Play(crosvm::frontend_of(packed), packed, input).run();
  return 0;
}

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <set>

#include "vhost/vhost_test_frontend.h"
#include "virtio/dirty_log.h"
#include "virtio/ring_abi.h"

// The log of dirty pages ("Migration"): what a device writes is in it.

namespace crosvm {
namespace {

constexpr uint64_t kRing = uint64_t{1} << VIRTIO_F_VERSION_1 |
                           uint64_t{1} << VIRTIO_RING_F_EVENT_IDX |
                           uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC;
constexpr uint64_t kBit30 = vhost_user_bit(kVhostUserProtocolFeatures);
constexpr uint64_t kLogAll = vhost_user_bit(kVhostLogAll);
constexpr uint64_t kPage = kVhostUserLogPage;
/// Pages up to the end of RAM, and some for rings that have their place elsewhere.
constexpr uint64_t kLogBytes = RigMemory::kEnd.value / kPage / 8 + 16;
constexpr uint64_t kOffset = 24;  // of the log in its file

EchoOptions options(EchoMode mode = EchoMode::kAtOnce, EchoControl* control = nullptr) {
  return {.mode = mode, .queue_sizes = {16, 16}, .control = control};
}

/// The memory that a front-end shares.
class SharedLog {
 public:
  explicit SharedLog(uint64_t bytes = kLogBytes) : file_(::memfd_create("log", MFD_CLOEXEC)) {
    CHECK(::ftruncate(file_.get(), static_cast<off_t>(kOffset + bytes)) == 0);
  }
  Fd copy() const { return VhostTestFrontend::copy(file_); }
  const Fd& file() const { return file_; }
  /// The pages that are marked, which are so no more.
  std::set<uint64_t> take() const {
    std::vector<uint8_t> bits(kLogBytes);
    const std::vector<uint8_t> none(kLogBytes);
    CHECK(::pread(file_.get(), bits.data(), bits.size(), kOffset) ==
          static_cast<ssize_t>(bits.size()));
    CHECK(::pwrite(file_.get(), none.data(), none.size(), kOffset) ==
          static_cast<ssize_t>(none.size()));
    std::set<uint64_t> pages;
    for (uint64_t page = 0; page < bits.size() * 8; ++page) {
      if ((bits[page / 8] >> page % 8 & 1) != 0) pages.insert(page);
    }
    return pages;
  }

 private:
  Fd file_;
};

/// All of guest RAM.
std::vector<std::byte> snapshot(const GuestMemory& memory) {
  std::vector<std::byte> all;
  for (const RamRegion& region : memory.regions()) {
    const size_t at = all.size();
    all.resize(at + region.size);
    CHECK(memory.read_bytes(region.base, std::span(all).subspan(at)));
  }
  return all;
}
std::set<uint64_t> changed(const GuestMemory& memory, const std::vector<std::byte>& before) {
  const std::vector<std::byte> now = snapshot(memory);
  std::set<uint64_t> pages;
  size_t at = 0;
  for (const RamRegion& region : memory.regions()) {
    for (uint64_t offset = 0; offset < region.size; offset += kPage, at += kPage) {
      if (std::memcmp(before.data() + at, now.data() + at, kPage) != 0) {
        pages.insert((region.base.value + offset) / kPage);
      }
    }
  }
  return pages;
}

class VhostUserLogTest : public testing::TestWithParam<bool> {
 protected:
  uint64_t features() const {
    return kRing | kBit30 | (GetParam() ? uint64_t{1} << VIRTIO_F_RING_PACKED : 0);
  }
  void start(VhostTestFrontend& frontend) {
    frontend.negotiate(features());
    frontend.send(frontend.memory_table());
    for (uint16_t index = 0; index < 2; ++index) {
      frontend.add_driver(GetParam());
      frontend.start_ring(index, GetParam() ? 0x80008000 : 0);
    }
  }
  /// The answer's payload.
  static std::vector<std::byte> set_base(VhostTestFrontend& frontend, const SharedLog& log,
                                         uint64_t bytes = kLogBytes) {
    frontend.send(VHOST_USER_SET_LOG_BASE, VhostUserLog{.size = bytes, .offset = kOffset},
                  log.copy());
    const auto answer = frontend.receive();
    CHECK(answer && answer->is_reply() && answer->request == VHOST_USER_SET_LOG_BASE);
    return answer->payload;
  }
  static bool log_ring(VhostTestFrontend& frontend, uint16_t index, uint64_t at) {
    VhostUserVringAddr addresses = frontend.addresses(index);
    addresses.flags = kVhostUserVringLog;
    addresses.log = at;
    return frontend.ack(VHOST_USER_SET_VRING_ADDR, addresses);
  }
  static uint64_t device_area(VhostTestFrontend& frontend, uint16_t index) {
    return frontend.driver(index).ring().addresses().device_area.value;
  }
  bool set_log_all(VhostTestFrontend& frontend, bool on) const {
    return frontend.ack(VHOST_USER_SET_FEATURES, features() | (on ? kLogAll : 0));
  }
  /// Has the device answer a request; gives the pages that it wrote to.
  static std::set<uint64_t> exchange(VhostTestFrontend& frontend, uint16_t index) {
    RigDriver& driver = frontend.driver(index);
    driver.send({readable("hello"), writable(3), writable(2 * kPage)});
    const auto before = snapshot(frontend.memory().guest());
    frontend.turn();  // the device runs here and nowhere else
    const auto pages = changed(frontend.memory().guest(), before);
    EXPECT_TRUE(driver.wait_used().arrived);
    return pages;
  }
  static void expect_logged(VhostTestFrontend& frontend, uint16_t index, const SharedLog& log) {
    log.take();
    const auto pages = exchange(frontend, index);
    const auto marked = log.take();
    EXPECT_GE(pages.size(), 2u);
    for (const uint64_t page : pages) EXPECT_TRUE(marked.contains(page)) << page;
    EXPECT_LE(marked.size(), 7u) << "all of RAM is no answer";
  }
};

INSTANTIATE_TEST_SUITE_P(Rings, VhostUserLogTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(VhostUserLogTest, EveryPageThatTheDeviceWritesIsInTheLog) {
  VhostTestFrontend frontend(options());
  const SharedLog log;
  start(frontend);
  exchange(frontend, 0);
  EXPECT_TRUE(set_base(frontend, log).empty());
  exchange(frontend, 0);
  EXPECT_TRUE(log.take().empty()) << "VHOST_F_LOG_ALL was not set";
  ASSERT_TRUE(set_log_all(frontend, true));
  ASSERT_TRUE(log_ring(frontend, 0, device_area(frontend, 0)));
  for (int i = 0; i < 3; ++i) expect_logged(frontend, 0, log);
  ASSERT_TRUE(set_log_all(frontend, false));
  exchange(frontend, 0);
  EXPECT_TRUE(log.take().empty());
}

TEST_P(VhostUserLogTest, ARingIsLoggedWhereItsFrontEndWantsIt) {
  VhostTestFrontend frontend(options());
  const SharedLog log;
  start(frontend);
  set_base(frontend, log);
  ASSERT_TRUE(set_log_all(frontend, true));
  const auto send_without_room = [&] {
    frontend.driver(1).send({readable("x")});
    frontend.turn();
    EXPECT_TRUE(frontend.driver(1).wait_used().arrived);
    return log.take();
  };
  EXPECT_TRUE(send_without_room().empty()) << "only where that is wanted";
  const uint64_t elsewhere = (kLogBytes - 1) * 8 * kPage;
  ASSERT_TRUE(log_ring(frontend, 1, elsewhere));
  log.take();
  std::set<uint64_t> expected{elsewhere / kPage};
  if (GetParam()) {
    expected.insert(frontend.driver(1).ring().addresses().descriptor_area.value / kPage);
  }
  EXPECT_EQ(send_without_room(), expected);
}

TEST_P(VhostUserLogTest, LoggingBeginsWithNothingInFlight) {
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
  const SharedLog log;
  start(frontend);
  EXPECT_TRUE(set_base(frontend, log).empty());
  frontend.driver(0).send({readable("x"), writable(1)});
  frontend.turn();
  VhostUserMessage message = vhost_user_message(VHOST_USER_SET_FEATURES, features() | kLogAll);
  message.flags = kVhostUserNeedReply;
  frontend.send(std::move(message));
  EXPECT_FALSE(frontend.receive()) << "what is in flight would not be logged";
  control.release();
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload_as<uint64_t>(), 0u);
  EXPECT_TRUE(frontend.driver(0).wait_used().arrived);
  EXPECT_TRUE(log_ring(frontend, 0, device_area(frontend, 0)));
  expect_logged(frontend, 0, log);
}

TEST_P(VhostUserLogTest, ALogIsSwappedWhileRingsRun) {
  VhostTestFrontend frontend(options());
  start(frontend);
  const SharedLog first;
  set_base(frontend, first);
  ASSERT_TRUE(set_log_all(frontend, true));
  for (uint16_t index = 0; index < 2; ++index) {
    ASSERT_TRUE(log_ring(frontend, index, device_area(frontend, index)));
  }
  expect_logged(frontend, 0, first);
  const SharedLog second;
  EXPECT_TRUE(set_base(frontend, second).empty());
  first.take();
  expect_logged(frontend, 0, second);
  expect_logged(frontend, 1, second);
  EXPECT_TRUE(first.take().empty());
}

TEST_P(VhostUserLogTest, ANewMemoryTableStartsRingsWhereTheyAre) {
  VhostTestFrontend frontend(options());
  const SharedLog log;
  start(frontend);
  for (int i = 0; i < 5; ++i) {
    frontend.driver(0).send({readable("x"), writable(1)});
    EXPECT_TRUE(frontend.driver(0).wait_used().arrived);
  }
  set_base(frontend, log);
  ASSERT_TRUE(set_log_all(frontend, true));
  ASSERT_TRUE(frontend.ack(frontend.memory_table()));
  exchange(frontend, 0);
  frontend.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = 0, .num = 0});
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload_as<VhostUserVringState>()->num, GetParam() ? 0x80068006u : 6u);
}

TEST_P(VhostUserLogTest, TellsThatTheLogHasChanged) {
  VhostTestFrontend frontend(options());
  const SharedLog log;
  start(frontend);
  auto event = VhostTestFrontend::must(make_eventfd());
  ASSERT_TRUE(frontend.ack(VHOST_USER_SET_LOG_FD, uint64_t{0}, VhostTestFrontend::copy(event)));
  set_base(frontend, log);
  ASSERT_TRUE(set_log_all(frontend, true));
  EXPECT_EQ(drain_eventfd(event), 0u);
  exchange(frontend, 0);
  EXPECT_GT(drain_eventfd(event), 0u);
  EXPECT_FALSE(frontend.ack(vhost_user_message(VHOST_USER_SET_LOG_FD)));
}

TEST_P(VhostUserLogTest, LogsThatCannotBeAreRefused) {
  VhostTestFrontend frontend(options());
  start(frontend);
  const SharedLog log;
  const auto refused = [&](const VhostUserLog& where, Fd file) {
    frontend.send(VHOST_USER_SET_LOG_BASE, where, std::move(file));
    const auto answer = frontend.receive();
    return answer && answer->is_reply() && answer->payload_as<uint64_t>() == 1u;
  };
  EXPECT_TRUE(refused({.size = 0, .offset = kOffset}, log.copy()));
  EXPECT_TRUE(refused({.size = 4096, .offset = kOffset}, log.copy())) << "RAM is larger";
  EXPECT_TRUE(refused({.size = kLogBytes + 1, .offset = kOffset}, log.copy()));
  EXPECT_TRUE(refused({.size = kLogBytes, .offset = UINT64_MAX}, log.copy()));
  EXPECT_TRUE(refused({.size = UINT64_MAX, .offset = kOffset}, log.copy()));
  EXPECT_TRUE(refused({.size = kLogBytes, .offset = kOffset}, {}));
  EXPECT_TRUE(refused({.size = kLogBytes, .offset = 0}, VhostTestFrontend::must(make_eventfd())));
  frontend.send(vhost_user_message(VHOST_USER_SET_LOG_BASE, uint64_t{0x7f0000}));
  EXPECT_EQ(frontend.receive()->payload_as<uint64_t>(), 1u);
  EXPECT_TRUE(set_base(frontend, log).empty());
  ASSERT_TRUE(set_log_all(frontend, true));
  EXPECT_FALSE(log_ring(frontend, 0, kLogBytes * 8 * kPage));
  EXPECT_FALSE(log_ring(frontend, 0, UINT64_MAX));
  exchange(frontend, 0);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0u);
}

TEST_P(VhostUserLogTest, ALogThatEndsInsideARingStopsTheDeviceAlone) {
  VhostTestFrontend frontend(options());
  start(frontend);
  const SharedLog log;
  set_base(frontend, log);
  ASSERT_TRUE(set_log_all(frontend, true));
  const uint64_t end = kLogBytes * 8 * kPage;
  log_ring(frontend, 0, end - 2);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0x40u);
}

TEST_P(VhostUserLogTest, RamBeyondTheLogStopsTheDeviceAlone) {
  VhostTestFrontend frontend(options());
  frontend.negotiate(features() | kLogAll);
  const SharedLog log;
  EXPECT_TRUE(set_base(frontend, log, 4096).empty()) << "there is no RAM yet";
  frontend.send(frontend.memory_table());
  frontend.add_driver(GetParam());
  frontend.start_ring(0, GetParam() ? 0x80008000 : 0);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0x40u);
  EXPECT_TRUE(frontend.gone().empty());
}

TEST_P(VhostUserLogTest, NeedsTheProtocolFeature) {
  VhostTestFrontend frontend(options());
  frontend.send(vhost_user_message(VHOST_USER_SET_OWNER));
  frontend.send(VHOST_USER_SET_PROTOCOL_FEATURES, vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  const SharedLog log;
  EXPECT_FALSE(frontend.ack(VHOST_USER_SET_LOG_BASE,
                            VhostUserLog{.size = kLogBytes, .offset = kOffset}, log.copy()));
}

TEST(DirtyLog, CountsPagesFromZero) {
  const SharedLog shared;
  const auto log = DirtyLog::map(shared.file(), kOffset, kLogBytes);
  ASSERT_TRUE(log.has_value());
  (*log)->mark({kPage - 1}, 2);
  (*log)->mark({9 * kPage}, kPage);
  (*log)->mark({20 * kPage}, 0);
  EXPECT_EQ(shared.take(), (std::set<uint64_t>{0, 1, 9}));
  const uint64_t end = kLogBytes * 8 * kPage;
  EXPECT_TRUE((*log)->covers({end - 1}, 1));
  EXPECT_FALSE((*log)->covers({end - 1}, 2));
  EXPECT_FALSE((*log)->covers({UINT64_MAX}, 2));
  EXPECT_TRUE((*log)->covers({UINT64_MAX}, 0));
}

}  // namespace
}  // namespace crosvm

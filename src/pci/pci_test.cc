#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "pci/pci_config_access.h"
#include "pci/pvpanic.h"

namespace crosvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A machine's view of PCI: ports and memory as a guest's kernel uses them.
class PciTest : public testing::Test {
 protected:
  static constexpr uint64_t kEcam = 0xf4000000;
  static constexpr uint64_t kLowMmio = 0xd0000000;

  PciTest() {
    auto ports = std::make_shared<PciConfigPorts>(root_, [this] { ++resets_; });
    EXPECT_TRUE(io_.insert(PciConfigPorts::kBase, PciConfigPorts::kLength, ports));
    EXPECT_TRUE(mmio_.insert(kEcam, 64 << 20, std::make_shared<PciEcam>(root_)));
  }

  template <class T>
  T in(uint64_t port) {
    return read<T>(io_, port);
  }
  template <class T>
  void out(uint64_t port, T value) {
    io_.write(port, std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  T load(uint64_t address) {
    return read<T>(mmio_, address);
  }
  template <class T>
  void store(uint64_t address, T value) {
    mmio_.write(address, std::as_bytes(std::span(&value, 1)));
  }
  static uint64_t ecam(PciAddress address, uint64_t offset = 0) {
    return kEcam + (address.bus << 20 | address.device << 15 | address.function << 12) + offset;
  }
  uint32_t cam(PciAddress address, uint32_t offset) {
    out<uint32_t>(0xcf8, 1U << 31 | address.bus << 16 | address.device << 11 |
                             address.function << 8 | offset);
    return in<uint32_t>(0xcfc);
  }
  PciAddress add_pvpanic() {
    auto added = root_.add(
        std::make_shared<Pvpanic>([this](PanicCode code) { reports_.push_back(code); }), {});
    EXPECT_TRUE(added.has_value());
    return *added;
  }

  Bus mmio_{"mmio"};
  Bus io_{"io"};
  PciRoot root_{mmio_, io_,
                PciWindows{.low_mmio = {kLowMmio, kEcam},
                           .high_mmio = {1ULL << 40, 1ULL << 41},
                           .io = {0xc000, 0x10000}}};
  int resets_ = 0;
  std::vector<PanicCode> reports_;

 private:
  template <class T>
  static T read(Bus& bus, uint64_t address) {
    T value = 0;
    bus.read(address, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
};

TEST_F(PciTest, TheHostBridgeAnswersBothMechanisms) {
  EXPECT_EQ(cam({}, 0), 0x12378086U);
  EXPECT_EQ(load<uint32_t>(ecam({})), 0x12378086U);
  EXPECT_EQ(load<uint32_t>(ecam({}, 8)), 0x06000000U);
  root_.announce_ecam(kEcam);
  EXPECT_EQ(cam({}, 0x60), kEcam | 1);
  EXPECT_EQ(cam({}, 0x64), 0U);
}

TEST_F(PciTest, AnAbsentFunctionReadsAllOnes) {
  EXPECT_EQ(cam({.device = 5}, 0), ~0U);
  EXPECT_EQ(load<uint16_t>(ecam({.bus = 3, .device = 31, .function = 7})), 0xffff);
  EXPECT_EQ(load<uint32_t>(ecam({}, 0x100)), ~0U) << "virtual devices have 64 registers";
}

TEST_F(PciTest, ThePortsHonourBytesAndWordsAndTheEnableBit) {
  cam({}, 0);
  EXPECT_EQ(in<uint8_t>(0xcfe), 0x37);
  EXPECT_EQ(in<uint16_t>(0xcfe), 0x1237);
  EXPECT_EQ(in<uint16_t>(0xcff), 0xffff) << "crosses the register";
  EXPECT_EQ(in<uint32_t>(0xcf8), 1U << 31) << "the address reads back";
  out<uint32_t>(0xcf8, 0);
  EXPECT_EQ(in<uint32_t>(0xcfc), ~0U);
}

TEST_F(PciTest, TheResetRegisterNeedsItsBitInOneByte) {
  out<uint8_t>(0xcf9, 0x02);
  EXPECT_EQ(resets_, 0);
  out<uint16_t>(0xcf9, 0x06);
  EXPECT_EQ(resets_, 0);
  out<uint8_t>(0xcf9, 0x06);
  EXPECT_EQ(resets_, 1);
}

TEST_F(PciTest, PvpanicReportsThroughItsBar) {
  PciAddress address = add_pvpanic();
  EXPECT_EQ(address, (PciAddress{.device = 1}));
  EXPECT_EQ(load<uint32_t>(ecam(address)), 0x00111b36U);
  uint64_t bar = load<uint32_t>(ecam(address, 0x10));
  EXPECT_EQ(bar, kLowMmio);
  EXPECT_EQ(load<uint8_t>(bar), 3);
  EXPECT_EQ(load<uint32_t>(bar), 0U) << "only single bytes";
  store<uint8_t>(bar, 1);
  store<uint8_t>(bar, 2);
  store<uint8_t>(bar, 9);
  store<uint16_t>(bar, 1);
  store<uint8_t>(bar + 1, 1);
  EXPECT_THAT(reports_, ElementsAre(PanicCode::kPanicked, PanicCode::kCrashKernelLoaded,
                                    PanicCode::kUnknown));
}

TEST_F(PciTest, ABarIsSizedMovedAndSwitchedOff) {
  PciAddress address = add_pvpanic();
  store<uint32_t>(ecam(address, 0x10), ~0U);
  EXPECT_EQ(load<uint32_t>(ecam(address, 0x10)), ~15U);
  store<uint32_t>(ecam(address, 0x10), 0xe0000000);
  EXPECT_EQ(load<uint8_t>(0xe0000000), 3);
  EXPECT_EQ(load<uint8_t>(kLowMmio), 0) << "gone from where it was";
  store<uint16_t>(ecam(address, 4), 0);
  EXPECT_EQ(load<uint8_t>(0xe0000000), 0);
  store<uint16_t>(ecam(address, 4), 2);
  EXPECT_EQ(load<uint8_t>(0xe0000000), 3);
}

TEST_F(PciTest, ABarMovedOntoAnotherDeviceAnswersNowhereUntilItMovesOn) {
  PciAddress first = add_pvpanic();
  PciAddress second = add_pvpanic();
  uint32_t taken = load<uint32_t>(ecam(first, 0x10));
  store<uint32_t>(ecam(second, 0x10), taken);
  store<uint8_t>(taken, 1);
  EXPECT_EQ(reports_.size(), 1U);
  store<uint32_t>(ecam(second, 0x10), 0xe0000000);
  EXPECT_EQ(load<uint8_t>(0xe0000000), 3);
}

TEST_F(PciTest, ABarThatWasInTheWayMakesRoom) {
  PciAddress first = add_pvpanic();
  PciAddress second = add_pvpanic();
  uint32_t taken = load<uint32_t>(ecam(first, 0x10));
  store<uint32_t>(ecam(second, 0x10), taken);
  store<uint16_t>(ecam(first, 4), 0);
  store<uint32_t>(ecam(first, 0x10), 0xe0000000);
  store<uint16_t>(ecam(first, 4), 2);
  EXPECT_EQ(load<uint8_t>(0xe0000000), 3);
  EXPECT_EQ(load<uint8_t>(taken), 3) << "the second one's, which nobody wrote to again";
}

/// A function with two BARs of each kind's smallest size, which notices accesses at once.
class BusyDevice : public PciDevice {
 public:
  BusyDevice() {
    CHECK(config_.add_bar(0, {.size = 16}));
    CHECK(config_.add_bar(1, {.size = 16}));
    CHECK(config_.add_bar(2, {.kind = PciBar::Kind::kIo, .size = 4}));
    CHECK(config_.add_bar(3, {.kind = PciBar::Kind::kIo, .size = 4}));
    CHECK(config_.add_bar(4, {.kind = PciBar::Kind::kMemory64, .prefetchable = true, .size = 16}));
  }
  std::string_view label() const override { return "busy"; }
  PciConfigSpace& config() override { return config_; }
  void read_bar(size_t, uint64_t, std::span<std::byte> data) override {
    if (inside++ != 0) ++overlaps;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    --inside;
    data[0] = std::byte{0x5a};
  }
  void write_bar(size_t, uint64_t, std::span<const std::byte>) override {}
  void bar_mapped(size_t bar, std::optional<uint64_t> address) override {
    if (bar == 1) places.push_back(address.value_or(0));
  }

  std::vector<uint64_t> places;  // of BAR 1, 0 for nowhere
  std::atomic<int> inside = 0;
  std::atomic<int> overlaps = 0;

 private:
  PciConfigSpace config_{{.vendor = 1}};
};

TEST_F(PciTest, AccessesToAllBarsOfAFunctionComeOneAtATime) {
  auto device = std::make_shared<BusyDevice>();
  PciAddress address = *root_.add(device, {});
  uint32_t first = load<uint32_t>(ecam(address, 0x10));
  uint32_t second = load<uint32_t>(ecam(address, 0x14));
  auto reads = [this](uint64_t at) {
    return std::thread([this, at] { EXPECT_EQ(load<uint8_t>(at), 0x5a); });
  };
  std::thread one = reads(first);
  while (device->inside == 0) std::this_thread::yield();  // or it might find its BAR moved
  std::thread other = reads(second);
  store<uint32_t>(ecam(address, 0x10), 0xe0000000);  // while it is being read
  std::thread moved = reads(0xe0000000);
  for (std::thread* thread : {&one, &other, &moved}) thread->join();
  EXPECT_EQ(device->overlaps, 0);
}

TEST_F(PciTest, SmallBarsDoNotShareAPageOrAPortBlock) {
  PciAddress address = *root_.add(std::make_shared<BusyDevice>(), {});
  EXPECT_EQ(load<uint32_t>(ecam(address, 0x10)), kLowMmio);
  EXPECT_EQ(load<uint32_t>(ecam(address, 0x14)), kLowMmio + 0x1000);
  EXPECT_EQ(load<uint32_t>(ecam(address, 0x18)), 0xc000U | 1);
  EXPECT_EQ(load<uint32_t>(ecam(address, 0x1c)), 0xc400U | 1);
  EXPECT_TRUE(root_.add(std::make_shared<BusyDevice>(), {}));
  EXPECT_EQ(load<uint32_t>(ecam({.device = 2}, 0x20)), 0x1000U | 0xc);
  EXPECT_EQ(load<uint32_t>(ecam({.device = 2}, 0x24)), 0x100U);
}

TEST_F(PciTest, AFunctionLearnsWhereItsBarsAre) {
  auto device = std::make_shared<BusyDevice>();
  PciAddress address = *root_.add(device, {});
  constexpr uint64_t kPlace = kLowMmio + 0x1000;
  EXPECT_THAT(device->places, ElementsAre(kPlace));
  device->places.clear();
  store<uint32_t>(ecam(address, 0x14), kPlace);
  EXPECT_THAT(device->places, ElementsAre()) << "it has not moved";
  store<uint32_t>(ecam(address, 0x14), 0xe0000000);
  EXPECT_THAT(device->places, ElementsAre(0, 0xe0000000));
  store<uint16_t>(ecam(address, 4), 0);
  store<uint32_t>(ecam(address, 0x14), kLowMmio);
  store<uint16_t>(ecam(address, 4), 2);
  EXPECT_THAT(device->places, ElementsAre(0, 0xe0000000, 0)) << "the place is BAR 0's";
  store<uint32_t>(ecam(address, 0x10), 0xe1000000);
  EXPECT_THAT(device->places, ElementsAre(0, 0xe0000000, 0, kLowMmio));
}

TEST_F(PciTest, IdentityAndStatusAreReadOnly) {
  PciAddress address = add_pvpanic();
  for (uint64_t offset : {0x00, 0x02, 0x06, 0x08, 0x0e, 0x2c, 0x2e, 0x34}) {
    uint16_t before = load<uint16_t>(ecam(address, offset));
    store<uint16_t>(ecam(address, offset), static_cast<uint16_t>(~before));
    EXPECT_EQ(load<uint16_t>(ecam(address, offset)), before) << offset;
  }
  store<uint8_t>(ecam(address, 0x3c), 11);
  EXPECT_EQ(load<uint8_t>(ecam(address, 0x3c)), 11) << "the interrupt line is a scratch byte";
}

TEST_F(PciTest, AnAddressIsGivenOnce) {
  PciAddress wanted{.device = 9};
  auto device = std::make_shared<Pvpanic>([](PanicCode) {});
  ASSERT_EQ(root_.add(device, wanted), wanted);
  auto again = root_.add(std::make_shared<Pvpanic>([](PanicCode) {}), wanted);
  ASSERT_FALSE(again.has_value());
  EXPECT_THAT(again.error().what(), HasSubstr("0000:00:09.0 is taken by pvpanic"));
}

TEST_F(PciTest, ReservedAddressesAreLeftAlone) {
  constexpr PciAddress kSecondSlot{.device = 2};
  EXPECT_EQ(root_.reserve(kSecondSlot, "disk"), kSecondSlot);
  EXPECT_EQ(root_.reserve({}, "rng"), (PciAddress{.device = 1}));
  EXPECT_EQ(root_.reserve({}, "console"), (PciAddress{.device = 3}));
  EXPECT_EQ(add_pvpanic(), (PciAddress{.device = 4}));
  auto again = root_.reserve(kSecondSlot, "net");
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code(), std::errc::address_in_use);
  EXPECT_EQ(again.error().what(), "net: PCI address 0000:00:02.0 is taken by disk; choose another");
  EXPECT_FALSE(root_.add(std::make_shared<BusyDevice>(), kSecondSlot));
  EXPECT_THAT(root_.reserve(PciAddress{}, "x").error().what(), HasSubstr("PCI host bridge"));
  EXPECT_EQ(cam(kSecondSlot, 0), ~0U) << "nothing is there yet";
  ASSERT_TRUE(root_.add_reserved(std::make_shared<BusyDevice>(), kSecondSlot));
  EXPECT_EQ(cam(kSecondSlot, 0), 1U);
  EXPECT_FALSE(root_.reserve(kSecondSlot, "net"));
}

TEST_F(PciTest, WhenSlotsRunOutFunctionsAreUsedAndSlotsBecomeMultifunction) {
  for (int i = 0; i < 31; ++i) add_pvpanic();
  EXPECT_EQ(load<uint8_t>(ecam({.device = 1}, 0x0e)), 0);
  EXPECT_EQ(add_pvpanic(), (PciAddress{.device = 1, .function = 1}));
  EXPECT_EQ(load<uint8_t>(ecam({.device = 1}, 0x0e)), 0x80);
}

TEST_F(PciTest, AFunctionZeroThatComesLastIsMultifunctionToo) {
  for (uint8_t function : {3, 0}) {
    PciAddress address{.device = 7, .function = function};
    ASSERT_EQ(root_.add(std::make_shared<Pvpanic>([](PanicCode) {}), address), address);
  }
  EXPECT_EQ(load<uint8_t>(ecam({.device = 7}, 0x0e)), 0x80);
}

TEST_F(PciTest, RandomAccessesOfEverySizeDoNoHarm) {
  add_pvpanic();
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) {
    std::array<std::byte, 8> data{};
    size_t size = 1U << random() % 4;
    uint64_t at = ecam({.device = static_cast<uint8_t>(random() % 3)}, random() % 0x140);
    for (auto& byte : data) byte = static_cast<std::byte>(random());
    if (random() % 2 == 0) {
      mmio_.write(at, std::span(data).first(size));
    } else {
      mmio_.read(at, std::span(data).first(size));
    }
    io_.write(0xcf8 + random() % 8, std::span(data).first(size));
  }
  EXPECT_EQ(cam({}, 0), 0x12378086U);
}

TEST(PciAddress, IsReadAndPrintedAsTheCommandLineDoes) {
  EXPECT_EQ(PciAddress::parse("00:1f.7")->to_string(), "0000:00:1f.7");
  EXPECT_EQ(PciAddress::parse("0000:a0:3.0")->to_string(), "0000:a0:03.0");
  for (const char* bad : {"", "1", "00:20.0", "00:1.8", "1:00:01.0", "0:1", "00:0x1.0", "zz:1.0"}) {
    EXPECT_FALSE(PciAddress::parse(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace crosvm

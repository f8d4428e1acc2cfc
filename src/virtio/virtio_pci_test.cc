#include "virtio/virtio_pci.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <sys/resource.h>

#include <map>

#include "pci/pci_root.h"
#include "virtio/virtio_pci_rig.h"

namespace crosvm {
namespace {

using test::fake_device;
using test::kAckAndDriver;
using test::kDeviceFeature;
using test::kIntxGsi;
using test::kNegotiated;
using test::kRingReset;
using test::kRunning;
using test::kVersion1;
using test::VirtioPciRig;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint16_t kNone = 0xffff;
constexpr uint8_t kNeedsReset = VIRTIO_CONFIG_S_NEEDS_RESET;
constexpr uint64_t kConfig = 0x2000;
constexpr uint64_t kNotify = 0x3000;

// ---- what PCI sees

struct Class {
  uint32_t type;
  uint32_t code;  // class, subclass, interface
};

TEST(VirtioPciIdentity, EachDeviceTypeHasItsClass) {
  const Class classes[] = {{1, 0x028000},  {9, 0x028000},  {19, 0x028000}, {2, 0x018000},
                           {26, 0x018000}, {3, 0x078000},  {16, 0x038000}, {63, 0x038000},
                           {25, 0x040100}, {4, 0x088000},  {5, 0x088000},  {32, 0x088000},
                           {61, 0x088000}, {62, 0x088000}, {18, 0x098000}, {8, 0x010000},
                           {27, 0x010800}, {23, 0x080600}, {30, 0x040000}, {31, 0x040000},
                           {48, 0x040000}, {29, 0x0d8000}, {99, 0xff0000}};
  for (const Class& expected : classes) {
    DeviceInfo info = fake_device();
    info.device_type = expected.type;
    VirtioPciRig rig(info);
    EXPECT_EQ(rig.config_read<uint32_t>(0), 0x10401af4 + (expected.type << 16));
    EXPECT_EQ(rig.config_read<uint32_t>(8), expected.code << 8 | 1) << expected.type;
    EXPECT_EQ(rig.config_read<uint32_t>(0x2c), 0x10401af4 + (expected.type << 16));
  }
}

TEST(VirtioPciCapabilities, AreInOrderAndDescribeBar0) {
  VirtioPciRig rig;
  struct Expected {
    size_t at;
    uint8_t length, type;
    uint32_t offset, size;
  };
  const Expected structures[] = {{0x40, 16, VIRTIO_PCI_CAP_COMMON_CFG, 0, 60},
                                 {0x50, 16, VIRTIO_PCI_CAP_ISR_CFG, 0x1000, 1},
                                 {0x60, 16, VIRTIO_PCI_CAP_DEVICE_CFG, 0x2000, 0x1000},
                                 {0x70, 20, VIRTIO_PCI_CAP_NOTIFY_CFG, 0x3000, 0x1000},
                                 {0x84, 20, VIRTIO_PCI_CAP_PCI_CFG, 0, 0}};
  size_t at = rig.config_read<uint8_t>(PCI_CAPABILITY_LIST);
  for (const Expected& expected : structures) {
    EXPECT_EQ(at, expected.at);
    EXPECT_EQ(rig.config_read<uint8_t>(at), PCI_CAP_ID_VNDR);
    EXPECT_EQ(rig.config_read<uint8_t>(at + 2), expected.length);
    EXPECT_EQ(rig.config_read<uint8_t>(at + 3), expected.type);
    EXPECT_EQ(rig.config_read<uint8_t>(at + 4), 0) << "BAR";
    EXPECT_EQ(rig.config_read<uint32_t>(at + 8), expected.offset);
    EXPECT_EQ(rig.config_read<uint32_t>(at + 12), expected.size);
    at = rig.config_read<uint8_t>(at + 1);
  }
  EXPECT_EQ(rig.config_read<uint32_t>(0x80), 4U) << "notify_off_multiplier";
  EXPECT_EQ(at, 0x98U);
  EXPECT_EQ(rig.config_read<uint32_t>(at) & 0xffff00ff, 0x00020011U) << "MSI-X, three vectors";
  EXPECT_EQ(rig.config_read<uint32_t>(at + 4), 0x6000U);
  EXPECT_EQ(rig.config_read<uint32_t>(at + 8), 0x7000U);
  at = rig.config_read<uint8_t>(at + 1);
  EXPECT_EQ(at, 0xa4U);
  EXPECT_EQ(rig.config_read<uint32_t>(at), 0x00020001U) << "PM 1.2, the last one";
  EXPECT_EQ(rig.config_read<uint32_t>(at + 4), 8U) << "D0, no soft reset";

  EXPECT_EQ(rig.device()->config().bar(0)->size, 0x8000U);
  EXPECT_EQ(rig.device()->config().bar(0)->kind, PciBar::Kind::kMemory32);
  EXPECT_FALSE(rig.device()->config().bar(2));
  EXPECT_EQ(rig.config_read<uint8_t>(PCI_INTERRUPT_PIN), 0) << "INTx is disabled";
}

TEST(VirtioPciCapabilities, SharedMemoryIsBar2) {
  constexpr uint64_t kLength = (5ULL << 30) + 0x1000;
  VirtioPciRig rig(fake_device(), {.intx = virtio_pci::Intx{.pin = 1, .line = kIntxGsi},
                                   .shared_memory = {{.id = 7, .length = kLength}}});
  const size_t at = rig.find_capability(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_SHARED_MEMORY_CFG);
  ASSERT_EQ(at, 0xacU);
  EXPECT_EQ(rig.config_read<uint8_t>(at + 2), 24);
  EXPECT_EQ(rig.config_read<uint16_t>(at + 4), 0x0702) << "BAR 2, id 7";
  EXPECT_EQ(rig.config_read<uint32_t>(at + 8), 0U);
  EXPECT_EQ(rig.config_read<uint32_t>(at + 12), 0x40001000U);
  EXPECT_EQ(rig.config_read<uint32_t>(at + 16), 0U);
  EXPECT_EQ(rig.config_read<uint32_t>(at + 20), 1U);
  const PciBar bar = *rig.device()->config().bar(2);
  EXPECT_EQ(bar.size, 8ULL << 30);
  EXPECT_TRUE(bar.kind == PciBar::Kind::kMemory64 && bar.prefetchable);
  EXPECT_EQ(rig.config_read<uint16_t>(PCI_INTERRUPT_LINE), 0x010a);
}

TEST(VirtioPciCapabilities, ThePowerStateIsD0OrD3Hot) {
  VirtioPciRig rig;
  const size_t control = rig.find_capability(PCI_CAP_ID_PM) + PCI_PM_CTRL;
  rig.config_write<uint16_t>(control, 3);
  EXPECT_EQ(rig.config_read<uint16_t>(control), 8 | 3);
  rig.config_write<uint16_t>(control, 1);
  EXPECT_EQ(rig.config_read<uint16_t>(control), 8 | 3) << "there is no D1";
  rig.config_write<uint16_t>(control, 0xfff0);
  EXPECT_EQ(rig.config_read<uint16_t>(control), 8);
}

TEST(VirtioPciCreate, WhatDoesNotFitIsRefusedByName) {
  for (bool queues : {true, false}) {
    DeviceInfo info = fake_device();
    if (queues) info.queue_sizes.assign(1025, 16);
    if (!queues) info.config.resize(0x1001);
    test::FakeVm vm;
    MsiRoutes routes(vm, {}, 24);
    auto relay = *InterruptRelay::create();
    const RamRange ram[] = {{GuestAddress{0}, 1 << 20}};
    auto memory = *GuestMemory::create(ram, {});
    auto interrupts =
        *PciInterrupts::create({vm, routes, *relay}, VirtioPci::interrupts_for(info, {}));
    auto made = VirtioPci::create(std::make_unique<test::FakeBackend>(info), memory, vm,
                                  std::move(interrupts), {});
    ASSERT_FALSE(made.has_value());
    EXPECT_THAT(made.error().what(), testing::StartsWith("block0: "));
  }
}

// ---- registers

/// What a register reads: the model that every access is compared with.
struct Register {
  uint64_t offset;
  size_t size;
  uint64_t value;
};

std::vector<Register> expected_registers() {
  return {{0, 4, 1},
          {4, 4, 0x101},
          {8, 4, 1},
          {12, 4, 0x101},
          {16, 2, 2},
          {18, 2, 2},
          {20, 1, kNegotiated},
          {21, 1, 0},
          {22, 2, 1},
          {24, 2, 32},
          {26, 2, 1},
          {28, 2, 0},
          {30, 2, 1},
          {32, 4, 0x11000},
          {36, 4, 5},
          {40, 4, 0x12000},
          {44, 4, 5},
          {48, 4, 0x13000},
          {52, 4, 5},
          {32, 8, 0x500011000},
          {40, 8, 0x500012000},
          {48, 8, 0x500013000},
          {56, 2, 0},
          {58, 2, 0}};
}

/// Puts a value of its own into every register.
void fill_registers(VirtioPciRig& rig) {
  rig.negotiate();
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_DFSELECT, 1);
  rig.set_config_vector(2);
  rig.set_up_queue(1, 32);
  for (uint64_t high : {36, 44, 52}) rig.write<uint32_t>(high, 5);
  rig.set_queue_vector(1, 1);
}

uint64_t read_sized(VirtioPciRig& rig, uint64_t offset, size_t size) {
  uint64_t value = 0;
  rig.device()->read_bar(0, offset, std::as_writable_bytes(std::span(&value, 1)).first(size));
  return value;
}
void write_sized(VirtioPciRig& rig, uint64_t offset, size_t size, uint64_t value) {
  rig.device()->write_bar(0, offset, std::as_bytes(std::span(&value, 1)).first(size));
}

TEST(VirtioPciRegisters, EveryReadIsAnsweredAsTheModelSays) {
  VirtioPciRig rig;
  fill_registers(rig);
  std::map<std::pair<uint64_t, size_t>, uint64_t> model;
  for (const Register& r : expected_registers()) model[{r.offset, r.size}] = r.value;
  for (uint64_t offset = 0; offset < 80; ++offset) {
    for (size_t size = 1; size <= 8; ++size) {
      auto known = model.find({offset, size});
      EXPECT_EQ(read_sized(rig, offset, size), known == model.end() ? 0 : known->second)
          << offset << ", " << size << " bytes";
    }
  }
}

TEST(VirtioPciRegisters, AWriteOfAnotherSizeOrToAnotherOffsetChangesNothing) {
  VirtioPciRig rig;
  fill_registers(rig);
  std::map<std::pair<uint64_t, size_t>, bool> registers;
  for (const Register& r : expected_registers()) registers[{r.offset, r.size}] = true;
  for (uint64_t offset = 0; offset < 80; ++offset) {
    for (size_t size = 1; size <= 8; ++size) {
      if (!registers.contains({offset, size})) write_sized(rig, offset, size, ~0ULL);
    }
  }
  for (uint64_t read_only : {4, 18, 30, 56}) {
    write_sized(rig, read_only, read_only == 4 ? 4 : 2, ~0ULL);
  }
  rig.write<uint8_t>(VIRTIO_PCI_COMMON_CFGGENERATION, 9);
  for (const Register& r : expected_registers()) {
    EXPECT_EQ(read_sized(rig, r.offset, r.size), r.value) << r.offset;
  }
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty());
}

TEST(VirtioPciRegisters, AQueueThatDoesNotExistReadsZeroAndTakesNothing) {
  VirtioPciRig rig;
  rig.select(2);
  for (uint64_t offset = 24; offset < 60; offset += 2) write_sized(rig, offset, 2, 1);
  for (uint64_t offset = 32; offset < 56; offset += 4) write_sized(rig, offset, 4, 1);
  for (uint64_t offset = 24; offset < 60; offset += 2) EXPECT_EQ(read_sized(rig, offset, 2), 0U);
  for (uint64_t offset = 32; offset < 56; offset += 8) EXPECT_EQ(read_sized(rig, offset, 8), 0U);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SELECT), 2);
}

TEST(VirtioPciRegisters, AQueueSizeIsAPowerOfTwoUpToTheLargest) {
  VirtioPciRig rig;
  rig.select(1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 64);
  for (uint16_t size : {0, 3, 65, 128, 0xffff}) {
    rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, size);
    EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 64);
  }
  for (uint16_t size : {1, 2, 32, 64}) {
    rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, size);
    EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), size);
  }
}

TEST(VirtioPciRegisters, APackedRingHasAnySize) {
  DeviceInfo info = fake_device();
  info.features |= 1ULL << VIRTIO_F_RING_PACKED;
  VirtioPciRig rig(info);
  rig.negotiate(kVersion1 | 1ULL << VIRTIO_F_RING_PACKED);
  for (uint16_t size : {100, 0, 257}) {
    rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, size);
    EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 100);
  }
}

TEST(VirtioPciRegisters, AVectorBeyondTheTableReadsBackAsNone) {
  VirtioPciRig rig;
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_MSIX), kNone);
  rig.select(1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_MSIX), kNone);
  for (uint16_t vector : {0, 2, 3, 0x7fff, 0xffff}) {
    const uint16_t expected = vector < 3 ? vector : kNone;
    rig.set_config_vector(vector);
    EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_MSIX), expected);
    rig.set_queue_vector(1, vector);
    EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_MSIX), expected);
  }
}

TEST(VirtioPciRegisters, TheMsixTableIsReachedWithFourAndEightBytes) {
  VirtioPciRig rig;
  EXPECT_EQ(rig.read<uint32_t>(0x600c), 1U) << "masked at first";
  rig.write<uint64_t>(0x6010, 0xfee01000);
  rig.write<uint32_t>(0x6018, 0x1234);
  EXPECT_EQ(rig.read<uint64_t>(0x6010), 0xfee01000U);
  EXPECT_EQ(rig.read<uint32_t>(0x6018), 0x1234U);
  EXPECT_EQ(rig.read<uint16_t>(0x6018), 0);
  EXPECT_EQ(rig.read<uint64_t>(0x7000), 0U) << "nothing is pending";
}

// ---- features and status

TEST(VirtioPciFeatures, AreTwoPagesAndReadBack) {
  VirtioPciRig rig;
  EXPECT_EQ(rig.offered(), kDeviceFeature | kVersion1 | kRingReset);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_DFSELECT, 2);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_DF), 0U);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_DFSELECT), 2U);
  rig.accept(0x1122334455667788);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_GF), 0x11223344U);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, 0);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_GF), 0x55667788U);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GF, 8);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_GF), 8U) << "replaced, not added to";
}

TEST(VirtioPciFeatures, FeaturesOkIsRefusedForWhatWasNotOffered) {
  VirtioPciRig rig;
  const uint64_t bits[] = {kDeviceFeature, kVersion1 | 1, kVersion1 | 1ULL << 42, 0};
  for (uint64_t bad : bits) {
    rig.negotiate(bad);
    EXPECT_EQ(rig.status(), kAckAndDriver) << bad;
    rig.set_status(kRunning);
    EXPECT_EQ(rig.status(), kAckAndDriver | VIRTIO_CONFIG_S_DRIVER_OK);
    EXPECT_THAT(rig.backend().take_calls(), IsEmpty()) << "not handed over";
    rig.set_status(0);
  }
  rig.negotiate(kVersion1);
  EXPECT_EQ(rig.status(), kNegotiated);
  rig.accept(kVersion1 | kDeviceFeature);
  rig.set_status(kRunning);
  EXPECT_EQ(rig.backend().take_calls().front(), "features 0x100000000") << "fixed by FEATURES_OK";
}

TEST(VirtioPciFeatures, BitsAbove63AreRefusedToo) {
  VirtioPciRig rig;
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, 2);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GF, 0);
  rig.negotiate();
  EXPECT_EQ(rig.status(), kNegotiated) << "a driver that knows more pages clears them";
  rig.set_status(0);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, 7);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GF, 1);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_GF), 0U);
  rig.negotiate();
  EXPECT_EQ(rig.status(), kAckAndDriver);
}

TEST(VirtioPciStatus, BitsStayUntilAResetAndOthersAreNotTaken) {
  VirtioPciRig rig;
  rig.set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
  rig.set_status(VIRTIO_CONFIG_S_DRIVER | 0x10 | 0x20 | kNeedsReset);
  EXPECT_EQ(rig.status(), kAckAndDriver);
  rig.set_status(0);
  EXPECT_EQ(rig.status(), 0);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty()) << "the backend had heard of nothing";
}

TEST(VirtioPciStatus, ADriverThatFailedDoesNotStart) {
  VirtioPciRig rig;
  rig.negotiate();
  rig.set_status(VIRTIO_CONFIG_S_FAILED);
  rig.set_status(kRunning);
  EXPECT_EQ(rig.status(), kRunning | VIRTIO_CONFIG_S_FAILED);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty());
}

// ---- handing over

TEST(VirtioPciActivation, DriverOkHandsOverTheEnabledQueues) {
  VirtioPciRig rig;
  rig.negotiate();
  rig.set_up_queue(1, 32);
  rig.enable_queue(1);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty());
  rig.set_status(kRunning);
  EXPECT_THAT(
      rig.backend().take_calls(),
      ElementsAre("features 0x100000020", "memory", "num 1 32", "addr 1 0x11000 0x12000 0x13000",
                  "base 1 0 true", "call 1", "kick 1", "enable 1 true"));
  rig.set_status(kRunning);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty()) << "once";

  rig.set_up_queue(0, 256);
  rig.enable_queue(0);
  EXPECT_THAT(rig.backend().take_calls(),
              ElementsAre("num 0 256", "addr 0 0x1000 0x2000 0x3000", "base 0 0 true", "call 0",
                          "kick 0", "enable 0 true"));
}

TEST(VirtioPciActivation, AnEnabledQueueKeepsItsRegisters) {
  VirtioPciRig rig;
  rig.start_driver();
  rig.backend().take_calls();
  rig.select(0);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, 2);
  rig.write<uint64_t>(VIRTIO_PCI_COMMON_Q_DESCLO, 0xdead000);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_Q_USEDHI, 0xdead);
  for (uint16_t enable : {0, 1, 2}) rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE, enable);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 128);
  EXPECT_EQ(rig.read<uint64_t>(VIRTIO_PCI_COMMON_Q_DESCLO), 0x1000U);
  EXPECT_EQ(rig.read<uint64_t>(VIRTIO_PCI_COMMON_Q_USEDLO), 0x3000U);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 1);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty());
}

TEST(VirtioPciActivation, WithoutDescriptorsTheDeviceNeedsAReset) {
  VirtioPciRig rig;
  rig.enable_msix();
  rig.negotiate();
  rig.set_config_vector(0);
  rig.enable_queue(0);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 3, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  rig.set_status(kRunning);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(rig.status(), kRunning | kNeedsReset);
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("features 0x100000020", "memory"));
  EXPECT_THAT(rig.take_vectors(), ElementsAre(0));
  rig.set_status(0);
  rig.start_driver();
  EXPECT_TRUE(rig.backend().queue(0).enabled);
}

TEST(VirtioPciInterrupts, QueuesAndConfigurationHaveTheirVectorsWheneverTheyAreSet) {
  VirtioPciRig rig;
  rig.enable_msix();
  rig.set_queue_vector(0, 1);
  rig.start_driver();
  signal_eventfd(rig.backend().queue(0).call);
  EXPECT_THAT(rig.take_vectors(), ElementsAre(1));
  signal_eventfd(rig.backend().queue(1).call);
  EXPECT_THAT(rig.take_vectors(), IsEmpty()) << "none is set";
  rig.set_queue_vector(0, 2);
  rig.set_queue_vector(1, 1);
  rig.set_config_vector(0);
  rig.take_vectors();
  signal_eventfd(rig.backend().queue(0).call);
  EXPECT_THAT(rig.take_vectors(), ElementsAre(2));
  rig.backend().listener().config_changed(std::vector<std::byte>(8));
  EXPECT_THAT(rig.take_vectors(), ElementsAre(0));
}

/// Reads ISR until something was in it, as the relay's thread puts it there.
uint8_t wait_isr(VirtioPciRig& rig) {
  for (int i = 0; i < 5000; ++i) {
    if (const auto causes = rig.read<uint8_t>(0x1000)) return causes;
    usleep(1000);
  }
  return 0;
}

TEST(VirtioPciInterrupts, TheLineSaysItsCauseInIsr) {
  VirtioPciRig rig;
  rig.start_driver();
  EXPECT_EQ(rig.read<uint8_t>(0x1000), 0);
  signal_eventfd(rig.backend().queue(1).call);
  EXPECT_EQ(wait_isr(rig), 1);
  EXPECT_EQ(rig.read<uint8_t>(0x1000), 0) << "reading clears";
  rig.backend().listener().needs_reset();
  EXPECT_EQ(rig.read<uint16_t>(0x1000), 0) << "another size reads and clears nothing";
  EXPECT_EQ(wait_isr(rig), 2);
}

// ---- reset

TEST(VirtioPciReset, StatusReadsZeroWhenTheBackendIsDone) {
  VirtioPciRig rig;
  rig.start_driver();
  rig.set_config_vector(1);
  rig.backend().take_calls();
  rig.backend().hold(true);
  rig.set_status(0);
  EXPECT_EQ(rig.status(), kRunning);
  // All of this is ignored, a second reset too.
  rig.set_status(0);
  rig.set_status(VIRTIO_CONFIG_S_FAILED);
  rig.select(1);
  rig.write<uint8_t>(kConfig, 1);
  rig.write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, 0);
  rig.backend().listener().needs_reset();
  EXPECT_EQ(rig.status(), kRunning);
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("reset"));

  EXPECT_EQ(rig.backend().complete(), 1U);
  EXPECT_EQ(rig.status(), 0);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_MSIX), kNone);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SELECT), 0);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 256);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
  EXPECT_EQ(rig.read<uint64_t>(VIRTIO_PCI_COMMON_Q_DESCLO), 0U);
  EXPECT_EQ(rig.read<uint32_t>(VIRTIO_PCI_COMMON_GF), 0U);

  rig.start_driver();
  EXPECT_EQ(rig.status(), kRunning);
  EXPECT_TRUE(rig.backend().queue(0).enabled);
  const auto calls = rig.backend().take_calls();
  EXPECT_THAT(calls, testing::Not(testing::Contains("memory"))) << "no reset takes it back";
}

TEST(VirtioPciReset, NoInterruptOfBeforeComesAfter) {
  VirtioPciRig rig;
  rig.enable_msix();
  rig.start_driver();
  rig.set_queue_vector(0, 1);
  rig.backend().hold(true);
  rig.set_status(0);
  const Fd call = *rig.backend().queue(0).call.duplicate();
  rig.backend().complete();
  rig.take_vectors();
  signal_eventfd(call);
  EXPECT_THAT(rig.take_vectors(), IsEmpty());
}

TEST(VirtioPciQueueReset, StopsOneQueueAndItStartsAgain) {
  VirtioPciRig rig;
  rig.start_driver();
  rig.set_queue_vector(1, 2);
  rig.backend().take_calls();
  rig.backend().hold(true);
  rig.select(1);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("stop 1"));
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET), 1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 1);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  rig.set_up_queue(1, 16);
  rig.enable_queue(1);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty()) << "not before it has stopped";

  rig.backend().complete();
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET), 0);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 64);
  EXPECT_EQ(rig.read<uint64_t>(VIRTIO_PCI_COMMON_Q_DESCLO), 0U);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_MSIX), kNone);
  EXPECT_TRUE(rig.backend().queue(0).enabled) << "the other one runs on";

  rig.set_up_queue(1, 16);
  rig.enable_queue(1);
  EXPECT_EQ(rig.backend().take_calls().front(), "num 1 16");
  EXPECT_TRUE(rig.backend().queue(1).enabled);
  EXPECT_EQ(rig.status(), kRunning);
}

TEST(VirtioPciQueueReset, NeedsTheFeatureAndAnEnabledQueue) {
  VirtioPciRig rig;
  rig.negotiate(kVersion1);
  rig.enable_queue(0);
  rig.set_status(kRunning);
  rig.backend().take_calls();
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET), 0);
  rig.set_status(0);
  rig.start_driver();
  rig.backend().take_calls();
  rig.select(0);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  rig.backend().take_calls();
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET), 0);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty()) << "it was reset already";
}

TEST(VirtioPciQueueReset, OneOfBeforeADeviceResetChangesNothingAfterIt) {
  VirtioPciRig rig;
  rig.start_driver();
  rig.backend().hold(true);
  rig.select(0);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  rig.set_status(0);
  EXPECT_EQ(rig.backend().complete(), 2U);
  EXPECT_EQ(rig.status(), 0);
  rig.backend().hold(false);
  rig.start_driver();
  EXPECT_EQ(rig.status(), kRunning);
  EXPECT_TRUE(rig.backend().queue(0).enabled);
}

TEST(VirtioPciQueueReset, BeforeDriverOkItIsDoneAtOnce) {
  VirtioPciRig rig;
  rig.negotiate();
  rig.set_up_queue(0, 2);
  rig.enable_queue(0);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
  EXPECT_EQ(rig.read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE), 256);
  EXPECT_THAT(rig.backend().take_calls(), IsEmpty());
}

TEST(VirtioPciNeedsReset, InterruptsOnceAndOnlyARunningDriver) {
  VirtioPciRig rig;
  rig.enable_msix();
  rig.set_config_vector(0);
  rig.negotiate();
  rig.backend().listener().needs_reset();
  EXPECT_EQ(rig.status(), kNegotiated | kNeedsReset);
  EXPECT_THAT(rig.take_vectors(), IsEmpty());
  rig.set_status(0);
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("reset")) << "the backend has to hear of it";
  EXPECT_EQ(rig.status(), 0);

  rig.set_config_vector(0);
  rig.start_driver();
  rig.backend().listener().needs_reset();
  EXPECT_EQ(rig.status(), kRunning | kNeedsReset);
  EXPECT_THAT(rig.take_vectors(), ElementsAre(0));
  rig.backend().listener().needs_reset();
  EXPECT_THAT(rig.take_vectors(), IsEmpty());
  rig.set_status(kRunning);
  EXPECT_EQ(rig.status(), kRunning | kNeedsReset) << "the driver cannot clear it";
}

// ---- device configuration

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> all;
  for (int value : values) all.push_back(static_cast<std::byte>(value));
  return all;
}

TEST(VirtioPciConfig, EverySizeAndOffsetReadsWhatIsThereAndZeroBehind) {
  VirtioPciRig rig;
  const std::vector<std::byte> config = fake_device().config;
  for (uint64_t offset = 0; offset < 12; ++offset) {
    for (size_t size : {1, 2, 4, 8}) {
      uint64_t expected = 0;
      for (size_t i = 0; i < size && offset + i < config.size(); ++i) {
        expected |= std::to_integer<uint64_t>(config[offset + i]) << (8 * i);
      }
      EXPECT_EQ(read_sized(rig, kConfig + offset, size), expected) << offset << ", " << size;
    }
  }
  EXPECT_EQ(rig.read<uint64_t>(kConfig + 0xffc), 0U);
}

TEST(VirtioPciConfig, WritesGoToTheDeviceAndIntoTheCopy) {
  VirtioPciRig rig;
  rig.write<uint8_t>(kConfig, 9);
  EXPECT_EQ(rig.read<uint8_t>(kConfig), 0x11) << "no driver is there";
  rig.set_status(kAckAndDriver);
  rig.write<uint16_t>(kConfig + 3, 0xabcd);
  EXPECT_EQ(rig.read<uint64_t>(kConfig), 0x887766abcd332211U);
  rig.write<uint32_t>(kConfig + 5, ~0U);
  rig.write<uint8_t>(kConfig + 8, 1);
  EXPECT_EQ(rig.read<uint64_t>(kConfig), 0x887766abcd332211U) << "not wholly inside";
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("config 3 2"));
  rig.set_status(0);
  EXPECT_THAT(rig.backend().take_calls(), ElementsAre("reset"));
}

TEST(VirtioPciConfig, AChangeIsCountedAndInterruptsARunningDriver) {
  VirtioPciRig rig;
  auto generation = [&] { return rig.read<uint8_t>(VIRTIO_PCI_COMMON_CFGGENERATION); };
  rig.enable_msix();
  rig.set_config_vector(0);
  const uint8_t first = generation();
  rig.backend().listener().config_changed(bytes({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(rig.read<uint64_t>(kConfig), 0x0807060504030201U);
  EXPECT_NE(generation(), first);
  EXPECT_THAT(rig.take_vectors(), IsEmpty()) << "no driver runs";

  rig.start_driver();
  // A read that is torn by a change shows by the generation before and after.
  const uint8_t before = generation();
  EXPECT_EQ(rig.read<uint32_t>(kConfig), 0x04030201U);
  rig.backend().listener().config_changed(bytes({9, 9, 9, 9, 9, 9, 9, 9}));
  EXPECT_EQ(rig.read<uint32_t>(kConfig + 4), 0x09090909U);
  EXPECT_NE(generation(), before);
  EXPECT_THAT(rig.take_vectors(), ElementsAre(0));

  const uint8_t after = generation();
  rig.backend().listener().config_changed(bytes({9, 9, 9, 9, 9, 9, 9, 9}));
  EXPECT_EQ(generation(), after);
  EXPECT_THAT(rig.take_vectors(), IsEmpty()) << "nothing changed";
  rig.backend().listener().config_changed(bytes({1}));
  EXPECT_EQ(rig.read<uint64_t>(kConfig), 1U) << "its length stays";
  rig.set_status(0);
  EXPECT_EQ(generation(), after + 1) << "goes on counting";
}

// ---- notifications

std::vector<uint64_t> ioevent_addresses(VirtioPciRig& rig) {
  std::vector<uint64_t> all;
  for (const auto& ioevent : rig.vm().ioevents()) {
    EXPECT_EQ(ioevent.what.length, 0U);
    EXPECT_FALSE(ioevent.what.datamatch);
    all.push_back(ioevent.what.address);
  }
  return all;
}

TEST(VirtioPciNotify, AWriteOfAnySizeKicksItsQueue) {
  VirtioPciRig rig;
  rig.start_driver();
  const Fd& first = rig.backend().queue(0).kick;
  const Fd& second = rig.backend().queue(1).kick;
  for (size_t size : {1, 2, 4, 8}) {
    write_sized(rig, kNotify + 4, size, 1);
    EXPECT_EQ(drain_eventfd(second), 1U);
    EXPECT_EQ(drain_eventfd(first), 0U);
  }
  write_sized(rig, kNotify, 2, 77);
  EXPECT_EQ(drain_eventfd(first), 1U) << "the address says which queue";
  for (uint64_t offset : {1, 2, 3, 5, 8, 0xffc}) write_sized(rig, kNotify + offset, 2, 0);
  EXPECT_EQ(drain_eventfd(first) + drain_eventfd(second), 0U);
}

TEST(VirtioPciNotify, IoeventsFollowTheBarWhileAQueueIsLive) {
  VirtioPciRig rig;
  rig.device()->bar_mapped(0, 0xd0000000);
  EXPECT_THAT(rig.vm().ioevents(), IsEmpty()) << "no driver, no cost";
  rig.start_driver();
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xd0003000, 0xd0003004));
  rig.device()->bar_mapped(0, std::nullopt);
  EXPECT_THAT(rig.vm().ioevents(), IsEmpty());
  rig.device()->bar_mapped(0, 0xe0000000);
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xe0003000, 0xe0003004));
  rig.device()->bar_mapped(0, 0xe1000000);
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xe1003000, 0xe1003004));
  rig.select(0);
  rig.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xe1003004));
  rig.set_status(0);
  EXPECT_THAT(rig.vm().ioevents(), IsEmpty());
}

TEST(VirtioPciNotify, WithoutAnIoeventTheBarStillWorks) {
  VirtioPciRig rig;
  rig.device()->bar_mapped(0, 0xd0000000);
  rig.vm().fail_with(EEXIST);
  rig.start_driver();
  EXPECT_THAT(rig.vm().ioevents(), IsEmpty());
  EXPECT_EQ(rig.status(), kRunning);
  rig.write<uint16_t>(kNotify, 0);
  EXPECT_EQ(drain_eventfd(rig.backend().queue(0).kick), 1U);
  rig.vm().fail_with(0);
  rig.device()->bar_mapped(0, 0xd0000000);
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xd0003000, 0xd0003004)) << "tried again";
}

// ---- the window in configuration space

class VirtioPciWindow : public testing::Test {
 protected:
  void aim(uint8_t bar, uint32_t offset, uint32_t length) {
    rig_.config_write<uint8_t>(window_ + 4, bar);
    rig_.config_write<uint32_t>(window_ + 8, offset);
    rig_.config_write<uint32_t>(window_ + 12, length);
  }
  VirtioPciRig rig_;
  const size_t window_ = rig_.find_capability(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);
  const size_t data_ = window_ + sizeof(virtio_pci_cap);
};

TEST_F(VirtioPciWindow, ReadsAndWritesRegisters) {
  aim(0, VIRTIO_PCI_COMMON_STATUS, 1);
  rig_.config_write<uint8_t>(data_, 1);
  EXPECT_EQ(rig_.status(), 1);
  rig_.config_write<uint32_t>(data_, 0xffffff03);
  EXPECT_EQ(rig_.status(), 3) << "the first byte alone";
  EXPECT_EQ(rig_.config_read<uint8_t>(data_), 3);
  aim(0, VIRTIO_PCI_COMMON_NUMQ, 2);
  EXPECT_EQ(rig_.config_read<uint16_t>(data_), 2);
  aim(0, kConfig + 4, 4);
  EXPECT_EQ(rig_.config_read<uint32_t>(data_), 0x88776655U);
  rig_.set_status(0);
  rig_.start_driver();
  aim(0, kNotify + 4, 2);
  rig_.config_write<uint16_t>(data_, 1);
  EXPECT_EQ(drain_eventfd(rig_.backend().queue(1).kick), 1U);
}

TEST_F(VirtioPciWindow, ElsewhereNothingHappens) {
  struct Aim {
    uint8_t bar;
    uint32_t offset, length;
  };
  const Aim aims[] = {{0, 20, 0}, {0, 20, 3}, {0, 20, 8},     {0, 20, ~0U},
                      {1, 20, 1}, {2, 20, 1}, {0, 0x8000, 1}, {0, 0xfffffffc, 4},
                      {0, 19, 2}, {0, 18, 4}, {0x80, 20, 1}};
  for (const Aim& aim_at : aims) {
    aim(aim_at.bar, aim_at.offset, aim_at.length);
    rig_.config_write<uint32_t>(data_, 0x01010101);
    EXPECT_EQ(rig_.config_read<uint32_t>(data_), 0x01010101U) << "the register itself";
    EXPECT_EQ(rig_.status(), 0);
  }
}

// ---- under PciRoot

TEST(VirtioPciRoot, MovesItsBarAndAnswersBehindIt) {
  constexpr PciAddress kAddress{.device = 3};
  constexpr uint64_t kLow = 0xd0000000;
  VirtioPciRig rig;
  Bus mmio("mmio");
  Bus io("io");
  PciRoot root(mmio, io,
               PciWindows{.low_mmio = {kLow, 0xf0000000},
                          .high_mmio = {1ULL << 40, 1ULL << 41},
                          .io = {0xc000, 0x10000}});
  ASSERT_TRUE(root.add(rig.device(), kAddress));
  rig.start_driver();
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(kLow + 0x3000, kLow + 0x3004));

  auto config_write = [&](size_t offset, uint32_t value) {
    root.config_write(kAddress, offset / 4, 0, std::as_bytes(std::span(&value, 1)));
  };
  config_write(PCI_BASE_ADDRESS_0, 0xe0000000);
  EXPECT_THAT(ioevent_addresses(rig), ElementsAre(0xe0003000, 0xe0003004));
  uint8_t status = 0;
  mmio.read(0xe0000000 + VIRTIO_PCI_COMMON_STATUS, std::as_writable_bytes(std::span(&status, 1)));
  EXPECT_EQ(status, kRunning);

  config_write(PCI_COMMAND, 0);
  EXPECT_THAT(rig.vm().ioevents(), IsEmpty());
  const size_t window = rig.find_capability(PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);
  config_write(window + VIRTIO_PCI_CAP_OFFSET, VIRTIO_PCI_COMMON_STATUS);
  config_write(window + VIRTIO_PCI_CAP_LENGTH, 1);
  std::byte through{};
  root.config_read(kAddress, (window + sizeof(virtio_pci_cap)) / 4, 0, std::span(&through, 1));
  EXPECT_EQ(through, std::byte{kRunning}) << "the window needs no BAR";
}

}  // namespace
}  // namespace crosvm

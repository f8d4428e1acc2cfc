#include "devices/block/block_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_config.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <thread>
#include <tuple>

#include "devices/block/block_test_disk.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kSector = 512;
constexpr uint64_t kDiskBytes = 4 << 20;

struct Way {
  std::string_view name;
  std::string_view text;  // added to the configuration
  RigOptions options = {};
};

/// Every way that a request can take to the file and back.
class BlockDeviceTest : public ::testing::TestWithParam<Way> {
 protected:
  Rig make(const std::string& more = "") {
    return make_rig<BlockFactory>(disk_.text(more + std::string(GetParam().text)),
                                  GetParam().options);
  }
  TestDisk disk_{kDiskBytes};
};

constexpr std::string_view kPacked = ",packed-queue";
INSTANTIATE_TEST_SUITE_P(
    , BlockDeviceTest,
    testing::Values(Way{"Auto", ""}, Way{"Epoll", ",async-executor=epoll"},
                    Way{"Inline", "", {.place = RigPlace::kInline}},
                    Way{"Packed", kPacked, {.packed = true}},
                    Way{"Plain", "", {.event_idx = false, .indirect = false}},
                    Way{"PackedPlain", kPacked, {.packed = true, .indirect = false}},
                    Way{"Workers", ",multiple-workers"},
                    Way{"EpollWorkers", ",multiple-workers,async-executor=epoll"},
                    Way{"Process", "", {.place = RigPlace::kWorker}},
                    Way{"ProcessEpoll", ",async-executor=epoll", {.place = RigPlace::kWorker}},
                    Way{"ProcessPacked", kPacked, {.place = RigPlace::kWorker, .packed = true}},
                    Way{"ProcessWorkers", ",multiple-workers", {.place = RigPlace::kWorker}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BlockDeviceTest, WritesAndReads) {
  Rig rig = make();
  std::string text(3 * kSector, 'w');
  EXPECT_EQ(write_at(rig.driver(0), 5, text), VIRTIO_BLK_S_OK);
  EXPECT_EQ(disk_.read(4 * kSector, 5 * kSector),
            std::string(kSector, '\0') + text + std::string(kSector, '\0'));
  RigUsed used = read_at(rig.driver(0), 5, text.size());
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(used.written, text.size() + 1);
  EXPECT_EQ(as_text(used.bytes).substr(0, text.size()), text);
}

TEST_P(BlockDeviceTest, BuffersMayBeCutAnywhere) {
  Rig rig = make();
  auto whole = header(VIRTIO_BLK_T_OUT, 1).bytes;
  RigUsed used = ask(rig.driver(0),
                     {readable(std::span(whole).first(3)), readable(std::span(whole).subspan(3)),
                      readable("a"), readable(std::string(511, 'b')), writable(1)});
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(used.written, 1U);
  used = ask(rig.driver(0), {header(VIRTIO_BLK_T_IN, 1), writable(1), writable(500), writable(12)});
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(as_text(used.bytes).substr(0, 3), "abb");
  EXPECT_EQ(used.written, 513U);
}

TEST_P(BlockDeviceTest, EveryQueueServes) {
  Rig rig = make();
  for (uint16_t queue = 0; queue < BlockDevice::kQueues; ++queue) {
    std::string text(kSector, static_cast<char>('A' + queue));
    rig.driver(queue).send({header(VIRTIO_BLK_T_OUT, queue), readable(text), writable(1)});
  }
  for (uint16_t queue = 0; queue < BlockDevice::kQueues; ++queue) {
    EXPECT_EQ(rig.driver(queue).wait_used().last_byte(), VIRTIO_BLK_S_OK);
    EXPECT_EQ(disk_.read(queue * kSector, 1)[0], 'A' + queue);
  }
}

TEST_P(BlockDeviceTest, FlushGetIdAndUnknownTypes) {
  Rig rig = make(",id=disk-7");
  EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(),
            VIRTIO_BLK_S_OK);
  RigUsed id = ask(rig.driver(0), {header(VIRTIO_BLK_T_GET_ID), writable(20), writable(1)});
  EXPECT_EQ(id.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(id.written, 21U);
  EXPECT_EQ(as_text(id.bytes).substr(0, 20), "disk-7" + std::string(14, '\0'));
  RigUsed cramped = ask(rig.driver(0), {header(VIRTIO_BLK_T_GET_ID), writable(19), writable(1)});
  EXPECT_EQ(cramped.last_byte(), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(cramped.byte(0), std::to_integer<int>(kRigFiller));
  for (uint32_t type : {2U, 3U, 14U, 99U, 0x80000000U}) {
    EXPECT_EQ(ask(rig.driver(0), {header(type), writable(1)}).last_byte(), VIRTIO_BLK_S_UNSUPP);
  }
}

TEST_P(BlockDeviceTest, RefusesWhatLiesPastTheEnd) {
  Rig rig = make();
  const uint64_t end = kDiskBytes / kSector;
  EXPECT_EQ(read_at(rig.driver(0), end - 1, kSector).last_byte(), VIRTIO_BLK_S_OK);
  for (uint64_t sector : {end, end + 1, UINT64_MAX / kSector, UINT64_MAX / kSector + 1, UINT64_MAX,
                          uint64_t{1} << 55}) {
    RigUsed used = read_at(rig.driver(0), sector, kSector);
    EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_IOERR) << sector;
    EXPECT_EQ(used.written, 1U);
    EXPECT_EQ(used.byte(0), std::to_integer<int>(kRigFiller));
    EXPECT_EQ(write_at(rig.driver(0), sector, std::string(kSector, 'x')), VIRTIO_BLK_S_IOERR);
  }
  EXPECT_EQ(write_at(rig.driver(0), end - 1, std::string(2 * kSector, 'x')), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(disk_.read(kDiskBytes - kSector, kSector + 1), std::string(kSector, '\0'));
  EXPECT_EQ(read_at(rig.driver(0), end, 0).last_byte(), VIRTIO_BLK_S_OK);
}

TEST_P(BlockDeviceTest, BadRequestsAreAnsweredAndTheQueueGoesOn) {
  Rig rig = make();
  EXPECT_EQ(ask(rig.driver(0), {readable("short header"), writable(1)}).last_byte(),
            VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(ask(rig.driver(0), {writable(20)}).last_byte(), VIRTIO_BLK_S_IOERR);
  RigUsed without_status = ask(rig.driver(0), {header(VIRTIO_BLK_T_IN)});
  EXPECT_EQ(without_status.written, 0U);
  EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_OUT), readable("torn")}).written, 0U);
  EXPECT_EQ(disk_.read(0, 4), std::string(4, '\0'));
  EXPECT_EQ(read_at(rig.driver(0), 0, kSector).last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(BlockDeviceTest, DiscardGivesHostBlocksBack) {
  Rig rig = make();
  ASSERT_EQ(write_at(rig.driver(0), 0, std::string(1 << 20, 'd')), VIRTIO_BLK_S_OK);
  ASSERT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
  uint64_t before = disk_.host_sectors();
  RigUsed used = ask(rig.driver(0), {header(VIRTIO_BLK_T_DISCARD), readable(Range{0, 512, 0}),
                                     readable(Range{1024, 512, 0}), writable(1)});
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_LE(disk_.host_sectors() + 1024, before);
  EXPECT_EQ(disk_.read(0, 1) + disk_.read(512 * kSector, 1), std::string("\0d", 2));
}

TEST_P(BlockDeviceTest, DiscardsNothingOnADiskThatIsNotSparse) {
  Rig rig = make(",sparse=false");
  EXPECT_EQ(rig.info().features & (1U << VIRTIO_BLK_F_DISCARD), 0U);
  ASSERT_EQ(write_at(rig.driver(0), 0, std::string(kSector, 'd')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(
      ask(rig.driver(0), {header(VIRTIO_BLK_T_DISCARD), readable(Range{0, 1, 0}), writable(1)})
          .last_byte(),
      VIRTIO_BLK_S_OK);
  EXPECT_EQ(disk_.read(0, 1), "d");
}

TEST_P(BlockDeviceTest, WritesZeroes) {
  Rig rig = make();
  ASSERT_EQ(write_at(rig.driver(0), 0, std::string(64 << 10, 'z')), VIRTIO_BLK_S_OK);
  RigUsed used =
      ask(rig.driver(0), {header(VIRTIO_BLK_T_WRITE_ZEROES), readable(Range{1, 3, 0}),
                          readable(Range{10, 2, 1}), readable("odd bytes"), writable(1)});
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(used.written, 1U);
  EXPECT_EQ(disk_.read(0, 12 * kSector),
            std::string(kSector, 'z') + std::string(3 * kSector, '\0') +
                std::string(6 * kSector, 'z') + std::string(2 * kSector, '\0'));
}

TEST_P(BlockDeviceTest, RefusesBadSegmentsAndTouchesNothing) {
  Rig rig = make();
  ASSERT_EQ(write_at(rig.driver(0), 0, std::string(kSector, 'k')), VIRTIO_BLK_S_OK);
  auto status = [&](uint32_t type, const std::vector<Range>& ranges) {
    return ask(rig.driver(0),
               {header(type), readable(std::as_bytes(std::span(ranges))), writable(1)})
        .last_byte();
  };
  const Range good{0, 1, 0};
  for (uint32_t type : {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES}) {
    for (const Range& bad :
         {Range{kDiskBytes / kSector, 1, 0}, Range{0, UINT32_MAX, 0}, Range{UINT64_MAX, 1, 0},
          Range{uint64_t{1} << 55, 1, 0}, Range{0, 1, 2}, Range{0, 1, 0x80000000}}) {
      EXPECT_EQ(status(type, {good, bad}), VIRTIO_BLK_S_IOERR);
    }
    EXPECT_EQ(status(type, std::vector<Range>(33, Range{8, 1, 0})), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(status(type, std::vector<Range>(32, Range{8, 1, 0})), VIRTIO_BLK_S_OK);
    EXPECT_EQ(status(type, {}), VIRTIO_BLK_S_OK);
  }
  EXPECT_EQ(status(VIRTIO_BLK_T_DISCARD, {Range{0, 1, 1}}), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(disk_.read(0, 1), "k");
}

TEST_P(BlockDeviceTest, AReadOnlyDiskIsOnlyRead) {
  disk_.write(0, "keep");
  Rig rig = make(",ro");
  EXPECT_EQ(write_at(rig.driver(0), 0, std::string(kSector, 'x')), VIRTIO_BLK_S_IOERR);
  const std::vector<uint32_t> types = {VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD,
                                       VIRTIO_BLK_T_WRITE_ZEROES};
  for (uint32_t type : types) {
    EXPECT_EQ(ask(rig.driver(0), {header(type), readable(Range{0, 1, 0}), writable(1)}).last_byte(),
              VIRTIO_BLK_S_IOERR);
  }
  EXPECT_EQ(as_text(read_at(rig.driver(0), 0, kSector).bytes).substr(0, 4), "keep");
  EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_GET_ID), writable(21)}).last_byte(),
            VIRTIO_BLK_S_OK);
}

TEST_P(BlockDeviceTest, ResetAndStopWithRequestsInFlight) {
  Rig rig = make();
  for (int round = 0; round < 40; ++round) {
    for (uint16_t queue : {0, 3, 15}) {
      for (uint64_t i = 0; i < 8; ++i) {
        rig.driver(queue).send(
            {header(VIRTIO_BLK_T_OUT, i * 128), readable(std::string(65536, 'r')), writable(1)});
      }
    }
    if (round % 2 == 0) {
      rig.reset();
      continue;
    }
    rig.restart();  // every request comes back, whether before or after
    for (uint16_t queue : {0, 3, 15}) {
      for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(rig.driver(queue).wait_used().last_byte(), VIRTIO_BLK_S_OK);
      }
    }
  }
  EXPECT_EQ(read_at(rig.driver(0), 0, kSector).last_byte(), VIRTIO_BLK_S_OK);
}

TEST_P(BlockDeviceTest, AFullQueueIsServedToTheLastRequest) {
  Rig rig = make();
  RigDriver& driver = rig.driver(0);
  for (int round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < 80; ++i) {
      driver.add({header(VIRTIO_BLK_T_IN, i), writable(kSector), writable(1)});
    }
    driver.kick();
    for (uint64_t i = 0; i < 80; ++i) {
      ASSERT_EQ(driver.wait_used().last_byte(), VIRTIO_BLK_S_OK);
    }
  }
}

virtio_blk_config config_of(const Rig& rig) {
  virtio_blk_config config = {};
  auto bytes = rig.info().config;
  EXPECT_EQ(bytes.size(), sizeof(config));
  std::memcpy(&config, bytes.data(), std::min(bytes.size(), sizeof(config)));
  return config;
}

constexpr uint64_t bits(std::initializer_list<unsigned> features) {
  uint64_t all = 0;
  for (unsigned feature : features) all |= uint64_t{1} << feature;
  return all;
}

TEST(BlockDeviceOffersTest, ConfigurationAndFeatures) {
  TestDisk disk(kDiskBytes + 100);
  Rig rig = make_rig<BlockFactory>(disk.text());
  virtio_blk_config config = config_of(rig);
  EXPECT_EQ(config.capacity, kDiskBytes / kSector);
  EXPECT_EQ(config.seg_max, 254U);
  EXPECT_EQ(config.blk_size, 512U);
  EXPECT_EQ(config.num_queues, 16);
  EXPECT_EQ(config.max_discard_sectors, UINT32_MAX);
  EXPECT_EQ(config.max_discard_seg, 32U);
  EXPECT_EQ(config.discard_sector_alignment, 128U);
  EXPECT_EQ(config.max_write_zeroes_sectors, UINT32_MAX);
  EXPECT_EQ(config.max_write_zeroes_seg, 32U);
  EXPECT_EQ(config.write_zeroes_may_unmap, 1);
  EXPECT_EQ(rig.info().device_type, 2U);
  EXPECT_EQ(rig.info().queue_sizes, std::vector<uint16_t>(16, 256));
  const uint64_t always =
      bits({VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_MQ});
  const uint64_t of_device = (uint64_t{1} << 24) - 1;
  EXPECT_EQ(rig.info().features & of_device,
            always | bits({VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES}));
  EXPECT_EQ(rig.info().features & bits({VIRTIO_F_RING_PACKED}), 0U);
  // The tail that is no whole sector is out of reach.
  EXPECT_EQ(read_at(rig.driver(0), kDiskBytes / kSector, kSector).last_byte(), VIRTIO_BLK_S_IOERR);

  rig = make_rig<BlockFactory>(disk.text(",ro,block-size=4096,packed-queue,lock=false"));
  EXPECT_EQ(rig.info().features & of_device, always | bits({VIRTIO_BLK_F_RO}));
  EXPECT_NE(rig.info().features & bits({VIRTIO_F_RING_PACKED}), 0U);
  EXPECT_EQ(config_of(rig).blk_size, 4096U);
}

TEST(BlockDeviceOffersTest, TopologyOfTheHostFile) {
  TestDisk disk(kDiskBytes);
  struct stat status;
  ASSERT_EQ(::stat(disk.path().c_str(), &status), 0);
  if (status.st_blksize != 4096) GTEST_SKIP() << "blocks of " << status.st_blksize << " bytes";
  virtio_blk_config config = config_of(make_rig<BlockFactory>(disk.text()));
  EXPECT_EQ(config.physical_block_exp, 3);
  EXPECT_EQ(config.alignment_offset, 0);
  EXPECT_EQ(config.min_io_size, 8);
  config = config_of(make_rig<BlockFactory>(disk.text(",block-size=4096")));
  EXPECT_EQ(config.physical_block_exp, 0);
  EXPECT_EQ(config.min_io_size, 1);
}

TEST(BlockDeviceOffersTest, DirectAndUncachedDisksDoTheSame) {
  TestDisk disk(kDiskBytes);
  for (const char* more : {",direct", ",direct,async-executor=epoll", ",dontcache",
                           ",dontcache,async-executor=epoll", ",direct,multiple-workers"}) {
    auto opened = open_rig<BlockFactory>(disk.text(more));
    if (!opened && opened.error().code() == std::errc::not_supported) {
      GTEST_SKIP() << opened.error().what();
    }
    ASSERT_TRUE(opened) << opened.error().what();
    std::string text(3 * kSector, 'd');
    ASSERT_EQ(write_at(opened->driver(0), 9, text), VIRTIO_BLK_S_OK);
    EXPECT_EQ(disk.read(9 * kSector, text.size()), text);
    RigUsed used = ask(opened->driver(1), {header(VIRTIO_BLK_T_IN, 9), writable(100),
                                           writable(text.size() - 100), writable(1)});
    EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
    EXPECT_EQ(as_text(used.bytes).substr(0, text.size()), text);
  }
}

std::string open_error(const std::string& text) {
  auto opened = open_rig<BlockFactory>(text);
  return opened ? "no error" : opened.error().what();
}

TEST(BlockFactoryTest, RefusesFilesThatAreNoDisk) {
  EXPECT_THAT(open_error("path=/nonexistent/disk"), HasSubstr("/nonexistent/disk"));
  EXPECT_THAT(open_error("path=/,ro"), HasSubstr("directory"));
  TestDisk disk(4096);
  disk.write(0, "QFI\xfb");
  EXPECT_THAT(open_error(disk.text()), HasSubstr("version 0 of qcow2 is not known"));
}

TEST(BlockFactoryTest, ErrorsNameTheFix) {
  EXPECT_THAT(open_error("path=/nonexistent/disk"), HasSubstr("check the path"));
  EXPECT_THAT(open_error("path=/dev/null"), HasSubstr("a disk is an image file or a block device"));
  TestDisk disk(4096);
  ASSERT_EQ(::chmod(disk.path().c_str(), 0444), 0);
  const auto before = static_cast<uid_t>(::setfsuid(65534));  // root may write it all the same
  const std::string said = open_error(disk.text());
  const std::string reading = open_error(disk.text(",ro"));
  ::setfsuid(before);
  EXPECT_THAT(said, EndsWith("Permission denied; make it writable for the user who starts crosvm, "
                             "or add ro"));
  EXPECT_EQ(reading, "no error");
}

/// What `text` logs when its disk is made.
std::string said_of(const std::string& text) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(open_error(text), "no error");
  return testing::internal::GetCapturedStderr();
}

TEST(BlockFactoryTest, SaysWhatIsOdd) {
  TestDisk disk(1 << 20);
  EXPECT_THAT(said_of(disk.text()), IsEmpty());
  EXPECT_THAT(said_of(disk.text(",block-size=4096")), IsEmpty());
  EXPECT_THAT(said_of(disk.text(",block-size=1048576")),
              HasSubstr("block-size=1048576: Linux guests take 512, 1024, 2048 or 4096"));
  EXPECT_THAT(said_of(disk.text(",block-size=1536")), HasSubstr("Linux guests take"));
  TestDisk empty(0);
  EXPECT_THAT(said_of(empty.text()),
              HasSubstr("0 bytes make a disk without a sector; grow it with truncate -s"));
}

TEST(BlockFactoryTest, AnEmptyDiskHasNothingToRead) {
  TestDisk empty(0);
  Rig rig = make_rig<BlockFactory>(empty.text());
  EXPECT_EQ(config_of(rig).capacity, 0U);
  EXPECT_EQ(read_at(rig.driver(0), 0, kSector).last_byte(), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
}

TEST(BlockFactoryTest, ASignalEndsTheWaitForALock) {
  TestDisk disk(4096);
  auto holder = device_type<BlockFactory>().open(disk.text());
  ASSERT_TRUE(holder);
  struct sigaction nothing{};
  struct sigaction before{};
  nothing.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR1, &nothing, &before), 0);
  std::atomic<bool> done = false;
  std::thread signals([&done, main = ::pthread_self()] {
    while (!done) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      ::pthread_kill(main, SIGUSR1);
    }
  });
  auto waited = device_type<BlockFactory>().open(disk.text());
  done = true;
  signals.join();
  ::sigaction(SIGUSR1, &before, nullptr);
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code(), std::errc::interrupted);
}

TEST(BlockFactoryTest, LocksTheImage) {
  TestDisk disk(4096);
  auto writer = device_type<BlockFactory>().open(disk.text());
  ASSERT_TRUE(writer);
  auto started = std::chrono::steady_clock::now();
  EXPECT_THAT(open_error(disk.text()), HasSubstr("is in use by another process"));
  EXPECT_GE(std::chrono::steady_clock::now() - started, std::chrono::seconds(1));
  EXPECT_THAT(open_error(disk.text(",ro")), HasSubstr("is being written by another process"));
  EXPECT_EQ(open_error(disk.text(",lock=false")), "no error");
  writer->reset();
  auto reader = device_type<BlockFactory>().open(disk.text(",ro"));
  ASSERT_TRUE(reader);
  EXPECT_EQ(open_error(disk.text(",ro")), "no error");
  EXPECT_THAT(open_error(disk.text()), HasSubstr("is in use"));
}

TEST(BlockFactoryTest, WhatTheImageMayNameIsThere) {
  TestDisk disk(4096);
  EXPECT_EQ(open_error(disk.text(",allow-backing=/dev")), "no error");
  EXPECT_THAT(open_error(disk.text(",allow-backing=[/dev,nope]")),
              HasSubstr("allow-backing=nope: "));
}

TEST(BlockFactoryTest, WaitsForALockThatIsLetGo) {
  TestDisk disk(4096);
  auto holder = device_type<BlockFactory>().open(disk.text());
  ASSERT_TRUE(holder);
  std::thread ends([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    holder->reset();
  });
  EXPECT_EQ(open_error(disk.text()), "no error");
  ends.join();
}

TEST(BlockFactoryTest, ADescriptorBringsItsAccess) {
  TestDisk disk(4096);
  Fd only_read(::open(disk.path().c_str(), O_RDONLY));  // NOLINT: inherited, as if started with it
  std::string path = "path=/proc/self/fd/" + std::to_string(only_read.get());
  EXPECT_THAT(open_error(path), HasSubstr("not open for reading and writing"));
  EXPECT_EQ(open_error(path + ",ro"), "no error");
}

TEST(BlockFactoryTest, AsksForTheRingsItCanUse) {
  BlockConfig config;
  EXPECT_EQ(BlockFactory::rings(config), 1U);
  config.multiple_workers = true;
  EXPECT_EQ(BlockFactory::rings(config), 16U);
  config.async_executor = AsyncExecutor::kEpoll;
  EXPECT_EQ(BlockFactory::rings(config), 0U);
}

}  // namespace
}  // namespace crosvm

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <thread>

#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "disk/faulty_file.h"
#include "disk/raw_disk.h"
#include "virtio/rig/hostile_chains.h"

namespace crosvm {
namespace {

using namespace block_test;
using FileKind = FileOperation::Kind;

constexpr uint64_t kSector = 512;
constexpr uint64_t kDiskBytes = 4 << 20;

/// The block device on a file that fails as a plan says.
struct FaultyBlockFactory {
  static constexpr std::string_view kName = "faulty-block";
  static constexpr std::string_view kPolicy = "block_device";
  using Config = BlockConfig;
  struct Resources {
    Fd image;
    FaultPlan* plan;
    template <class V>
    void visit(V&& each) {
      each(image);
    }
  };
  static Result<Config> parse(const KeyValues& text) { return BlockConfig::parse(text); }
  static Result<Resources> open(const Config& config) {
    return Resources{.image = TRY(BlockFactory::open(config)).image, .plan = nullptr};
  }
  static size_t rings(const Config& config) { return BlockFactory::rings(config); }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      DeviceContext context) {
    auto facts = TRY(inspect_raw_image(resources.image, config.path));
    auto image = std::make_shared<Fd>(std::move(resources.image));
    auto make = [=, plan = resources.plan](
                    EventLoop& loop, std::optional<IoUring> ring) -> Result<std::unique_ptr<Disk>> {
      auto file = TRY(make_async_file(loop, image, std::move(ring)));
      return TRY(RawDisk::create(make_faulty_file(loop, *plan, std::move(file)), facts,
                                 {.read_only = config.read_only, .sparse = config.sparse},
                                 config.path));
    };
    return TRY(BlockDevice::create(config, std::move(make), std::move(context)));
  }
};

struct Way {
  std::string_view name;
  std::string_view text;
  RigOptions options = {};
};
std::string name_of_way(const testing::TestParamInfo<Way>& info) {
  return std::string(info.param.name);
}
constexpr std::string_view kPacked = ",packed-queue";

class BlockFaultTest : public ::testing::TestWithParam<Way> {
 protected:
  Rig make() {
    std::string text = disk_.text(std::string(GetParam().text));
    auto resources = FaultyBlockFactory::open(*BlockConfig::parse(*KeyValues::parse(text)));
    EXPECT_TRUE(resources);
    resources->plan = &plan_;
    return must_have_rig(
        Rig::create(std::move(*opened_device<FaultyBlockFactory>(text, std::move(*resources))),
                    GetParam().options));
  }
  TestDisk disk_{kDiskBytes};
  FaultPlan plan_;
};
INSTANTIATE_TEST_SUITE_P(, BlockFaultTest,
                         testing::Values(Way{"Auto", ""}, Way{"Epoll", ",async-executor=epoll"},
                                         Way{"Packed", kPacked, {.packed = true}},
                                         Way{"Workers", ",multiple-workers"}),
                         name_of_way);

TEST_P(BlockFaultTest, AnErrorIsAnIoErrorOfItsRequestAlone) {
  plan_.add({.kind = FileKind::kWrite, .offset = 3 * kSector, .length = 1, .error = ENOSPC});
  plan_.add({.kind = FileKind::kRead, .offset = 7 * kSector, .length = 1, .error = EIO});
  plan_.add({.kind = FileKind::kSync, .error = EIO});
  Rig rig = make();
  RigDriver& driver = rig.driver(2);
  std::vector<RigToken> writes;
  for (uint64_t i = 0; i < 10; ++i) {
    std::string text(kSector, static_cast<char>('0' + i));
    writes.push_back(driver.add({header(VIRTIO_BLK_T_OUT, i), readable(text), writable(1)}));
  }
  driver.kick();
  for (uint64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(driver.wait_used(writes[i]).last_byte(),
              i == 3 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
  }
  for (uint64_t i = 0; i < 10; ++i) {
    RigUsed used = read_at(driver, i, kSector);
    EXPECT_EQ(used.last_byte(), i == 7 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
    EXPECT_EQ(used.written, i == 7 ? 1 : kSector + 1);
  }
  EXPECT_EQ(ask(driver, {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(disk_.read(3 * kSector, 1), std::string(1, '\0'));
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(BlockFaultTest, TheLogSaysWhatHelpsAHostWithoutRoom) {
  plan_.add({.kind = FileKind::kWrite, .offset = 3 * kSector, .length = 1, .error = EDQUOT});
  plan_.add({.kind = FileKind::kWrite, .offset = 5 * kSector, .length = 1, .error = ENOSPC});
  Rig rig = make();
  testing::internal::CaptureStderr();
  for (const uint64_t sector : {3, 5}) {
    EXPECT_EQ(write_at(rig.driver(0), sector, std::string(kSector, 'q')), VIRTIO_BLK_S_IOERR);
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(testing::HasSubstr("Disk quota exceeded; the quota there is used up"),
                             testing::HasSubstr("No space left on device; make room")));
  EXPECT_EQ(write_at(rig.driver(0), 3, std::string(kSector, 'q')), VIRTIO_BLK_S_IOERR)
      << "the quota is still used up";
  EXPECT_EQ(write_at(rig.driver(0), 4, std::string(kSector, 'q')), VIRTIO_BLK_S_OK);
}

TEST_P(BlockFaultTest, DiscardErrorsAreToldButNotThatThereIsNone) {
  plan_.add({.kind = FileKind::kAllocate, .offset = 0, .length = 1, .error = EIO});
  Rig rig = make();
  auto discard = [&](uint64_t sector) {
    return ask(rig.driver(0),
               {header(VIRTIO_BLK_T_DISCARD), readable(Range{sector, 8, 0}), writable(1)})
        .last_byte();
  };
  EXPECT_EQ(discard(0), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(discard(8), VIRTIO_BLK_S_OK);
  plan_.add({.kind = FileKind::kAllocate, .error = EOPNOTSUPP});
  EXPECT_EQ(discard(8), VIRTIO_BLK_S_OK);
}

TEST_P(BlockFaultTest, ASecondSegmentThatFailsEndsTheRequest) {
  plan_.add({.kind = FileKind::kAllocate, .offset = 8 * kSector, .length = 1, .error = EIO});
  Rig rig = make();
  ASSERT_EQ(write_at(rig.driver(0), 0, std::string(24 * kSector, 's')), VIRTIO_BLK_S_OK);
  RigUsed used =
      ask(rig.driver(0), {header(VIRTIO_BLK_T_WRITE_ZEROES), readable(Range{0, 8, 0}),
                          readable(Range{8, 8, 0}), readable(Range{16, 8, 0}), writable(1)});
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(disk_.read(0, 1) + disk_.read(16 * kSector, 1), std::string("\0s", 2));
}

TEST_P(BlockFaultTest, ShortTransfersAreContinued) {
  plan_.add({.kind = FileKind::kRead, .at_most = 100});
  plan_.add({.kind = FileKind::kWrite, .at_most = 300});
  Rig rig = make();
  std::string text(8 * kSector, 't');
  EXPECT_EQ(write_at(rig.driver(0), 0, text), VIRTIO_BLK_S_OK);
  RigUsed used = read_at(rig.driver(0), 0, text.size());
  EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(as_text(used.bytes).substr(0, text.size()), text);
  plan_.clear();
  plan_.add({.kind = FileKind::kRead, .at_most = 0});  // as past the end of a file that shrank
  EXPECT_EQ(read_at(rig.driver(0), 0, kSector).last_byte(), VIRTIO_BLK_S_IOERR);
}

TEST_P(BlockFaultTest, ASlowRequestHoldsUpNobodyButAReset) {
  plan_.add({.offset = 0, .length = 1, .delay = std::chrono::milliseconds(100)});
  Rig rig = make();
  RigToken slow =
      rig.driver(0).send({header(VIRTIO_BLK_T_OUT), readable(std::string(512, 's')), writable(1)});
  EXPECT_EQ(read_at(rig.driver(0), 1, kSector).last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(rig.driver(0).outstanding(), 1U);
  EXPECT_EQ(rig.driver(0).wait_used(slow).last_byte(), VIRTIO_BLK_S_OK);
  rig.driver(0).send({header(VIRTIO_BLK_T_OUT), readable(std::string(512, 'r')), writable(1)});
  rig.reset();
  plan_.clear();
  // What was popped before the reset has been done; nothing is written after it.
  std::string after = disk_.read(0, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  EXPECT_EQ(disk_.read(0, 1), after);
}

class BlockRandomTest : public ::testing::TestWithParam<Way> {
 protected:
  TestDisk disk_{kDiskBytes};
};
INSTANTIATE_TEST_SUITE_P(, BlockRandomTest,
                         testing::Values(Way{"Auto", ""}, Way{"Epoll", ",async-executor=epoll"},
                                         Way{"Inline", "", {.place = RigPlace::kInline}},
                                         Way{"Packed", kPacked, {.packed = true}},
                                         Way{"Workers", ",multiple-workers"},
                                         Way{"Direct", ",direct"},
                                         Way{"Process", "", {.place = RigPlace::kWorker}}),
                         name_of_way);

TEST_P(BlockRandomTest, DoesWhatAFlatModelDoes) {
  constexpr uint64_t kSectors = kDiskBytes / kSector;
  auto opened =
      open_rig<BlockFactory>(disk_.text(std::string(GetParam().text)), GetParam().options);
  if (!opened) GTEST_SKIP() << opened.error().what();
  Rig& rig = *opened;
  std::string model(kDiskBytes, '\0');
  std::mt19937_64 random(11);
  for (int turn = 0; turn < 3000; ++turn) {
    RigDriver& driver = rig.driver(static_cast<uint16_t>(random() % 16));
    uint64_t sector = random() % kSectors;
    uint64_t sectors = random() % std::min<uint64_t>(kSectors - sector, 64);
    uint64_t offset = sector * kSector;
    uint64_t bytes = sectors * kSector;
    switch (random() % 6) {
      case 0:
      case 1: {
        std::string text(bytes, static_cast<char>('a' + turn % 26));
        ASSERT_EQ(write_at(driver, sector, text), VIRTIO_BLK_S_OK);
        model.replace(offset, bytes, text);
        break;
      }
      case 2: {
        Range range{sector, static_cast<uint32_t>(sectors), static_cast<uint32_t>(random() % 2)};
        RigUsed used =
            ask(driver, {header(VIRTIO_BLK_T_WRITE_ZEROES), readable(range), writable(1)});
        ASSERT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
        model.replace(offset, bytes, bytes, '\0');
        break;
      }
      case 3:
        if (turn % 10 != 0) break;  // slow where the host's disk is
        ASSERT_EQ(ask(driver, {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
        break;
      default: {
        RigUsed used = read_at(driver, sector, bytes);
        ASSERT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
        ASSERT_EQ(as_text(used.bytes).substr(0, bytes), model.substr(offset, bytes)) << turn;
      }
    }
    if (turn % 500 == 499) rig.restart();
  }
  EXPECT_TRUE(disk_.read(0, kDiskBytes) == model);
}

class BlockHostileTest : public ::testing::TestWithParam<Way> {
 protected:
  TestDisk disk_{kDiskBytes};
};
INSTANTIATE_TEST_SUITE_P(, BlockHostileTest,
                         testing::Values(Way{"Auto", ""}, Way{"Epoll", ",async-executor=epoll"},
                                         Way{"Packed", kPacked, {.packed = true}},
                                         Way{"Plain", "", {.event_idx = false, .indirect = false}},
                                         Way{"Workers", ",multiple-workers"},
                                         Way{"Process", "", {.place = RigPlace::kWorker}}),
                         name_of_way);

/// Now and then what looks like a request.
void fill_like_a_request(std::span<std::byte> bytes, HostileChains::Random& random) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  if (bytes.size() < sizeof(Header) || random() % 4 == 0) return;
  constexpr std::array<uint32_t, 7> kTypes = {VIRTIO_BLK_T_IN,          VIRTIO_BLK_T_OUT,
                                              VIRTIO_BLK_T_FLUSH,       VIRTIO_BLK_T_GET_ID,
                                              VIRTIO_BLK_T_DISCARD,     VIRTIO_BLK_T_WRITE_ZEROES,
                                              VIRTIO_BLK_T_SECURE_ERASE};
  Header start{kTypes[random() % kTypes.size()], 0, random() % (kDiskBytes / kSector + 8)};
  std::memcpy(bytes.data(), &start, sizeof(start));
  if (bytes.size() < sizeof(start) + sizeof(Range)) return;
  Range range{random() % (kDiskBytes / kSector), static_cast<uint32_t>(random() % 64),
              static_cast<uint32_t>(random() % 3)};
  std::memcpy(bytes.data() + sizeof(start), &range, sizeof(range));
}

std::string judge(const HostileChain& chain, const DriverRing::Used& used) {
  uint64_t writable = 0;
  for (const DriverBuffer& buffer : chain.buffers) writable += buffer.writable ? buffer.length : 0;
  if (used.written > writable) return "more written than there is room";
  if (writable > 0 && used.written == 0) return "no status";
  return "";
}

TEST_P(BlockHostileTest, HoldsAgainstGeneratedChains) {
  Rig rig = make_rig<BlockFactory>(disk_.text(std::string(GetParam().text)), GetParam().options);
  HostileResult result = play_hostile_chains(rig, {.queue = 1,
                                                   .chains = 5000,
                                                   .seed = 3,
                                                   .fill = fill_like_a_request,
                                                   .judge = judge,
                                                   .may_refuse = false});
  EXPECT_EQ(result.failure, "");
  EXPECT_GT(result.well_formed, 1000U);
  EXPECT_GT(result.malformed, 500U);
  EXPECT_EQ(read_at(rig.driver(0), 0, kSector).last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(disk_.read(kDiskBytes, 1), "");  // as long as it was
}

}  // namespace
}  // namespace crosvm

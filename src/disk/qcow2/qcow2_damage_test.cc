// Damage that is found while a commit runs: the image says so afterwards, and is not made worse.

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::Qcow2Rig;
using test::TestRequest;
using Kind = DiskRequest::Kind;

constexpr uint64_t kSize = 16 << 20;
constexpr uint64_t kCluster = 512;
constexpr uint64_t kBroken = 15 << 20;                // a cluster whose entry has lost its place
constexpr uint64_t kFilled = (2 << 20) - (96 << 10);  // more, and the refcount table moves

uint64_t number_at(const Qcow2Rig& rig, uint64_t offset) {
  std::array<std::byte, 8> bytes;
  rig.file.read(offset, bytes);
  return load_big_endian<uint64_t>(bytes, 0);
}

std::vector<std::byte> make_image() {
  Qcow2Rig rig(1);
  rig.make({.size = kSize, .cluster_size = kCluster, .refcount_bits = 64});
  rig.open();
  EXPECT_EQ(rig.write(kBroken, std::string(2 * kCluster, 'b')), 0);
  EXPECT_EQ(rig.write(0, std::string(kFilled, 'a')), 0);
  rig.close();
  rig.expect_clean();
  const Qcow2Layout layout{.cluster_bits = 9};
  const uint64_t l1 = number_at(rig, 40);
  const uint64_t l2 = number_at(rig, l1 + layout.l1_index(kBroken) * 8) & kQcow2OffsetMask;
  std::array<std::byte, 8> entry;
  store_big_endian(entry, 0, kQcow2Copied);
  rig.file.write(l2 + layout.l2_index(kBroken) * 8, entry);
  return rig.file.bytes();
}

struct Outcome {
  bool was_found = false;
  bool moved = false;  // the refcount table had its new place
  uint64_t errors = 0;
};

/// Comes across the damage when so many requests to the file have begun to end.
class DamagedCommit {
 public:
  DamagedCommit(const std::vector<std::byte>& image, uint64_t seed) : rig_(seed) {
    rig_.file.set_bytes(image);
    rig_.open();
    EXPECT_EQ(rig_.read(kBroken + kCluster, 1), "b");  // the table is in memory
    table_before_ = number_at(rig_, 48);
    // What is perhaps in the file is written again, last of all.
    rig_.queue.fault = [](const DiskRequest& request) {
      return request.kind == Kind::kWrite && request.offset == 0 ? EIO : 0;
    };
    EXPECT_EQ(rig_.resize(kSize + 512), EIO);
    while (rig_.queue.end_one()) {
    }
  }

  Outcome run(uint64_t number, bool close_at_once) {
    uint64_t seen = 0;
    std::optional<TestRequest> read;
    rig_.queue.fault = [&](const DiskRequest&) {
      if (seen++ != number) return 0;
      read.emplace(Kind::kRead, kBroken, kCluster);
      rig_.disk->start(*read);
      rig_.disk->submit();
      return 0;
    };
    // In place, anew, and once more: clusters to be freed.
    (void)rig_.write(kFilled, std::string(256 << 10, 'c'));
    (void)rig_.run(Kind::kDiscard, 0, 8 * kCluster, true);
    TestRequest flush(Kind::kFlush, 0, 0);
    rig_.disk->start(flush);
    rig_.disk->submit();
    while (!(close_at_once && read) && rig_.queue.end_one()) {
    }
    Outcome outcome{.was_found = read.has_value()};
    if (!close_at_once && read) {
      EXPECT_EQ(read->result, EIO);
      EXPECT_EQ(rig_.flush(), EIO);
      EXPECT_EQ(rig_.run(Kind::kWrite, 0, 512), EIO);
    }
    rig_.close();
    if (!read) return outcome;
    EXPECT_EQ(number_at(rig_, 72), kQcow2IncompatibleCorrupt);
    outcome.moved = number_at(rig_, 48) != table_before_;
    outcome.errors = rig_.check().errors;
    return outcome;
  }

 private:
  Qcow2Rig rig_;
  uint64_t table_before_ = 0;
};

class Qcow2DamageTest : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(, Qcow2DamageTest, testing::Bool(), [](const auto& info) {
  return info.param ? "AndTheDiskIsClosed" : "AndTheGuestGoesOn";
});

TEST_P(Qcow2DamageTest, FoundAtAnyMomentOfACommitStaysAllThereIs) {
  const std::vector<std::byte> image = make_image();
  Qcow2Rig before(1);
  before.file.set_bytes(image);
  const uint64_t errors = before.check().errors;
  uint64_t moved = 0;
  uint64_t number = 0;
  for (;; ++number) {
    SCOPED_TRACE(number);
    const Outcome outcome = DamagedCommit(image, number).run(number, GetParam());
    if (!outcome.was_found) break;
    EXPECT_LE(outcome.errors, errors);
    if (outcome.moved) ++moved;
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(moved, 0u);
  EXPECT_GT(number - moved, 20u);
}

}  // namespace
}  // namespace crosvm

#include "memory/guest_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <thread>

#include "memory/huge_pages.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHigh = uint64_t{4} << 30;
constexpr RamRange kTwoRanges[] = {{{0}, 4 * kPage}, {{kHigh}, 2 * kPage}};

GuestMemory make_memory(std::span<const RamRange> ranges,
                        const GuestMemory::Options& options = {}) {
  auto memory = GuestMemory::create(ranges, options);
  EXPECT_TRUE(memory) << memory.error().what();
  return *std::move(memory);
}

TEST(GuestMemory, RegionsStandAtConsecutiveOffsetsOfOneSealedMemfd) {
  const GuestMemory memory = make_memory(kTwoRanges);
  ASSERT_EQ(memory.regions().size(), 2u);
  EXPECT_EQ(memory.regions()[0].offset, 0u);
  EXPECT_EQ(memory.regions()[1].offset, 4 * kPage);
  EXPECT_EQ(memory.total_bytes(), 6 * kPage);
  EXPECT_EQ(memory.end().value, kHigh + 2 * kPage);

  const int fd = memory.memfd().get();
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  EXPECT_EQ(::fcntl(fd, F_GET_SEALS) & seals, seals);  // newer kernels: also against execution
  EXPECT_NE(::ftruncate(fd, 0), 0);
  EXPECT_NE(::ftruncate(fd, 7 * kPage), 0);
  EXPECT_TRUE(::fcntl(fd, F_GETFD) & FD_CLOEXEC);

  ASSERT_TRUE(memory.write<uint32_t>({kHigh + 8}, 0xcafe));
  uint32_t in_file = 0;
  ASSERT_EQ(::pread(fd, &in_file, 4, 4 * kPage + 8), 4);
  EXPECT_EQ(in_file, 0xcafeu);
}

TEST(GuestMemory, ReadsBackWhatWasWritten) {
  const GuestMemory memory = make_memory(kTwoRanges);
  struct Descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
  };
  for (const uint64_t at : {0ul, 1ul, 3ul, kHigh, kHigh + 2 * kPage - 16}) {  // odd ones: unaligned
    ASSERT_TRUE(memory.write<uint8_t>({at}, 0x12));
    EXPECT_EQ(memory.read<uint8_t>({at}).value(), 0x12);
    ASSERT_TRUE(memory.write<uint16_t>({at}, 0x1234));
    EXPECT_EQ(memory.read<uint16_t>({at}).value(), 0x1234);
    ASSERT_TRUE(memory.write<uint32_t>({at}, 0x12345678));
    EXPECT_EQ(memory.read<uint32_t>({at}).value(), 0x12345678u);
    ASSERT_TRUE(memory.write<uint64_t>({at}, 0x123456789abcdef0));
    EXPECT_EQ(memory.read<uint64_t>({at}).value(), 0x123456789abcdef0u);
    ASSERT_TRUE(memory.write<Descriptor>({at}, {1, 2, 3, 4}));
    EXPECT_EQ(memory.read<Descriptor>({at})->next, 4);
    EXPECT_EQ(memory.read<uint64_t>({at}).value(), 1u);
  }
}

TEST(GuestMemory, AWindowMustLieInOneRegion) {
  const GuestMemory memory = make_memory(kTwoRanges);
  EXPECT_TRUE(memory.slice({0}, 4 * kPage));
  EXPECT_TRUE(memory.slice({4 * kPage - 1}, 1));
  const struct {
    uint64_t base, length;
  } outside[] = {{0, 4 * kPage + 1},    {4 * kPage - 1, 2},  {4 * kPage, 0},
                 {4 * kPage, 1},        {kHigh - 1, 2},      {kHigh + 2 * kPage, 1},
                 {UINT64_MAX, 1},       {kPage, UINT64_MAX}, {kHigh, UINT64_MAX - kHigh},
                 {kHigh + 8, 2 * kPage}};
  for (const auto& [base, length] : outside) {
    const auto slice = memory.slice({base}, length);
    ASSERT_FALSE(slice) << base << " " << length;
    EXPECT_EQ(slice.error().code(), std::errc::bad_address);
  }
  EXPECT_FALSE(memory.read<uint64_t>({4 * kPage - 4}));
  EXPECT_FALSE(memory.write<uint64_t>({4 * kPage - 4}, 1));
  EXPECT_EQ(memory.read<uint32_t>({4 * kPage - 4}).value(), 0u);  // the refused write left no half
}

TEST(GuestMemory, TwoAdjacentRangesAreTwoRegions) {
  constexpr RamRange kAdjacent[] = {{{0}, kPage}, {{kPage}, kPage}};
  const GuestMemory memory = make_memory(kAdjacent);
  EXPECT_FALSE(memory.slice({kPage - 1}, 2));
  EXPECT_TRUE(memory.slice({kPage}, kPage));
}

TEST(GuestSlice, ChecksOffsets) {
  const GuestMemory memory = make_memory(kTwoRanges);
  const GuestSlice slice = memory.slice({kPage}, 16).value();
  ASSERT_TRUE(slice.write<uint32_t>(12, 7));
  EXPECT_EQ(memory.read<uint32_t>({kPage + 12}).value(), 7u);
  EXPECT_EQ(slice.sub(8, 8)->read<uint32_t>(4).value(), 7u);
  for (const size_t offset : {13ul, 16ul, 17ul, SIZE_MAX - 1}) {
    const auto value = slice.read<uint32_t>(offset);
    ASSERT_FALSE(value) << offset;
    EXPECT_EQ(value.error().code(), std::errc::result_out_of_range);
    EXPECT_FALSE(slice.write<uint32_t>(offset, 1)) << offset;
  }
  EXPECT_TRUE(slice.sub(16, 0));
  EXPECT_FALSE(slice.sub(17, 0));
  EXPECT_FALSE(slice.sub(8, SIZE_MAX));
}

TEST(GuestSlice, AnAlignedValueIsNeverTorn) {
  const GuestMemory memory = make_memory(kTwoRanges);
  std::atomic<bool> stop = false;
  std::thread guest([&] {
    const GuestSlice slice = memory.slice({8}, 8).value();
    for (uint64_t value = 0; !stop; value = ~value) EXPECT_TRUE(slice.write<uint64_t>(0, value));
  });
  for (int i = 0; i < 200000; ++i) {
    const uint64_t value = memory.read<uint64_t>({8}).value();
    ASSERT_TRUE(value == 0 || value == UINT64_MAX) << value;
  }
  stop = true;
  guest.join();
}

TEST(GuestMemory, RefusesBadRanges) {
  const std::vector<RamRange> bad[] = {
      {},
      {{{0}, 0}},
      {{{0}, kPage + 1}},
      {{{1}, kPage}},
      {{{0}, 2 * kPage}, {{kPage}, kPage}},
      {{{kHigh}, kPage}, {{0}, kPage}},
      {{{UINT64_MAX - kPage + 1}, kPage}},
      {{{UINT64_MAX - kPage + 1}, 2 * kPage}},
  };
  for (const auto& ranges : bad) {
    const auto memory = GuestMemory::create(ranges, {});
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code(), std::errc::invalid_argument) << memory.error().what();
  }
}

TEST(GuestMemory, RefusesMoreThanTheHostHas) {
  constexpr RamRange kHuge[] = {{{0}, uint64_t{1} << 50}};
  const auto memory = GuestMemory::create(kHuge, {});
  ASSERT_FALSE(memory);
  EXPECT_EQ(memory.error().code(), std::errc::not_enough_memory);
  EXPECT_THAT(memory.error().what(), HasSubstr("1073741824 MiB"));
}

TEST(GuestMemory, HugePagesAndLockingFallBackToWhatTheHostGives) {
  constexpr RamRange kRanges[] = {{{0}, 2 * kHugePageSize}, {{kHigh}, kHugePageSize}};
  const GuestMemory memory = make_memory(kRanges, {.hugepages = true, .lock = true});
  for (const RamRegion& region : memory.regions()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(region.host) % kHugePageSize, 0u);
  }
  EXPECT_TRUE(memory.write<uint64_t>({kHigh + kHugePageSize - 8}, 1));
}

TEST(GuestMemory, MovesOwnership) {
  GuestMemory first = make_memory(kTwoRanges);
  ASSERT_TRUE(first.write<uint32_t>({0}, 5));
  GuestMemory second = std::move(first);
  EXPECT_EQ(second.read<uint32_t>({0}).value(), 5u);
  second = make_memory(kTwoRanges);
  EXPECT_EQ(second.read<uint32_t>({0}).value(), 0u);
}

class GuestMemoryFile : public testing::Test {
 protected:
  void SetUp() override {
    file_ = Fd(::memfd_create("file", MFD_CLOEXEC));
    std::array<uint8_t, 2 * kPage> bytes;
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7);
    ASSERT_EQ(::write(file_.get(), bytes.data(), bytes.size()), ssize_t(bytes.size()));
  }
  Fd file_;
  GuestMemory memory_ = make_memory(kTwoRanges);
};

TEST_F(GuestMemoryFile, LoadsAPartOfAFile) {
  ASSERT_TRUE(memory_.load_file({kHigh + 5}, file_, 3, kPage, "kernel"));
  EXPECT_EQ(memory_.read<uint8_t>({kHigh + 4}).value(), 0);
  EXPECT_EQ(memory_.read<uint8_t>({kHigh + 5}).value(), 21);
  EXPECT_EQ(memory_.read<uint8_t>({kHigh + 5 + kPage - 1}).value(), uint8_t((kPage + 2) * 7));
  EXPECT_EQ(memory_.read<uint8_t>({kHigh + 5 + kPage}).value(), 0);
}

TEST_F(GuestMemoryFile, NamesAFileThatEndsEarly) {
  const auto loaded = memory_.load_file({0}, file_, kPage, 2 * kPage, "kernel");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), std::errc::invalid_argument);
  EXPECT_THAT(loaded.error().what(), HasSubstr("kernel: the file ends at byte 8192"));
}

TEST_F(GuestMemoryFile, RefusesToLoadBeyondRam) {
  const auto loaded = memory_.load_file({3 * kPage}, file_, 0, 2 * kPage, "kernel");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), std::errc::bad_address);
  EXPECT_EQ(memory_.read<uint8_t>({3 * kPage + 1}).value(), 0);
}

TEST_F(GuestMemoryFile, NamesAFileThatCannotBeRead) {
  const Fd directory = open_path("/", O_RDONLY | O_DIRECTORY).value();
  const auto loaded = memory_.load_file({0}, directory, 0, kPage, "somewhere");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), std::errc::is_a_directory);
  EXPECT_THAT(loaded.error().what(), HasSubstr("somewhere"));
}

TEST(HugePages, ReadsTheSelectedMode) {
  EXPECT_EQ(selected_mode("always within_size advise [never] deny force\n"), "never");
  EXPECT_EQ(selected_mode("always [within_size] advise"), "within_size");
  EXPECT_EQ(selected_mode(""), "");
  EXPECT_EQ(selected_mode("]["), "");
  EXPECT_TRUE(shmem_mode_allows_huge_pages("advise"));
  EXPECT_FALSE(shmem_mode_allows_huge_pages("never"));
  EXPECT_FALSE(shmem_mode_allows_huge_pages(""));
}

TEST(HugePages, AHugetlbPageMustBeWhole) {
  constexpr RamRange kSmall[] = {{{0}, kPage}};
  EXPECT_FALSE(can_use_hugetlb(kSmall));
}

Fd make_file(uint64_t bytes) {
  Fd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  return file;
}

TEST(GuestMemoryMap, ShowsPartsOfSeveralFilesInAnyOrder) {
  const Fd one = make_file(4 * kPage);
  const Fd two = make_file(8 * kPage);
  {
    const FileRange ranges[] = {{{kHigh}, 2 * kPage, kPage, two}, {{0}, 4 * kPage, 0, one}};
    const auto memory = GuestMemory::map(ranges);
    ASSERT_TRUE(memory) << memory.error().what();
    EXPECT_FALSE(memory->memfd());
    EXPECT_EQ(memory->total_bytes(), 6 * kPage);
    EXPECT_EQ(memory->end().value, kHigh + 2 * kPage);
    ASSERT_TRUE(memory->write<uint32_t>({kHigh + 8}, 0xcafe));
    ASSERT_TRUE(memory->write<uint32_t>({4 * kPage - 4}, 0xbeef));
    EXPECT_FALSE(memory->slice({4 * kPage - 4}, 8));
    EXPECT_FALSE(memory->slice({kHigh - 1}, 1));
    EXPECT_FALSE(memory->slice({kHigh + 2 * kPage}, 0));
    EXPECT_TRUE(memory->slice({kHigh + 2 * kPage - 1}, 1));
  }
  uint32_t in_file = 0;
  ASSERT_EQ(::pread(two.get(), &in_file, 4, kPage + 8), 4);
  EXPECT_EQ(in_file, 0xcafeu);
  ASSERT_EQ(::pread(one.get(), &in_file, 4, 4 * kPage - 4), 4);
  EXPECT_EQ(in_file, 0xbeefu);
}

TEST(GuestMemoryMap, NothingIsRamOfNoBytes) {
  const auto memory = GuestMemory::map({});
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->total_bytes(), 0u);
  EXPECT_FALSE(memory->slice({0}, 0));
}

TEST(GuestMemoryMap, RefusesByNameWhatCannotBe) {
  const Fd file = make_file(4 * kPage);
  const Fd directory(::open("/", O_RDONLY | O_CLOEXEC));
  const Fd device(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  const Fd none;
  struct Case {
    FileRange range;
    const char* says;
  };
  const Case cases[] = {
      {{{0}, 0, 0, file}, "empty"},
      {{{1}, kPage, 0, file}, "whole pages"},
      {{{0}, kPage + 1, 0, file}, "whole pages"},
      {{{0}, kPage, 16, file}, "whole pages"},
      {{{0}, 5 * kPage, 0, file}, "past the end"},
      {{{0}, kPage, 4 * kPage, file}, "past the end"},
      {{{0}, kPage, UINT64_MAX - kPage + 1, file}, "past the end"},
      {{{0}, INT64_MAX - kPage + 1, 0, file}, "past the end"},
      {{{UINT64_MAX - kPage + 1}, kPage, 0, file}, "addressed"},
      {{{INT64_MAX - kPage + 1}, 2 * kPage, 0, file}, "addressed"},
      {{{0}, kPage, 0, directory}, "regular file"},
      {{{0}, kPage, 0, device}, "regular file"},
      {{{0}, kPage, 0, none}, "Bad file descriptor"},
  };
  for (const Case& each : cases) {
    const auto memory = GuestMemory::map(std::span(&each.range, 1));
    ASSERT_FALSE(memory) << each.says;
    EXPECT_THAT(memory.error().what(), HasSubstr(each.says));
    EXPECT_THAT(memory.error().what(), HasSubstr("guest memory range"));
  }
  const FileRange overlapping[] = {{{kPage}, 2 * kPage, 0, file}, {{0}, 2 * kPage, 0, file}};
  const auto memory = GuestMemory::map(overlapping);
  ASSERT_FALSE(memory);
  EXPECT_THAT(memory.error().what(), HasSubstr("overlaps"));
}

}  // namespace
}  // namespace crosvm

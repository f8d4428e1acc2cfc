#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "disk/android_sparse/sparse_image_maker.h"
#include "disk/disk_driver.h"
#include "disk/image_file.h"
#include "disk/qcow2/big_endian.h"
#include "disk/tools/check_image.h"
#include "disk/tools/compact_image.h"
#include "disk/tools/convert_image.h"
#include "disk/tools/held_signals.h"
#include "disk/tools/image_info.h"
#include "disk/tools/make_qcow2.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"
#include "disk/zstd/zstd_file_maker.h"

namespace crosvm {
namespace {

using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

class DiskToolsTest : public testing::Test {
 protected:
  /// Makes `to` of `from`, both in the folder; what went wrong.
  std::string convert(ConvertPlan plan) const {
    plan.source = folder_.path(plan.source);
    plan.target = folder_.path(plan.target);
    const auto done = convert_image(plan);
    return done ? "" : done.error().what();
  }
  /// The bytes of the disk that an image holds.
  std::string bytes_of(const std::string& name) const {
    EXPECT_EQ(convert({.source = name, .target = "bytes.raw", .format = ImageFormat::kRaw}), "");
    return folder_.read("bytes.raw");
  }
  uint64_t host_bytes(const std::string& name) const {
    struct stat status{};
    EXPECT_EQ(::stat(folder_.path(name).c_str(), &status), 0);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_.path("")),
                                             std::filesystem::directory_iterator()));
  }
  CheckOutcome check(const std::string& name, bool repair = false) const {
    const auto outcome = check_image({.path = folder_.path(name), .repair = repair});
    EXPECT_TRUE(outcome) << outcome.error().what();
    return outcome.value_or(CheckOutcome{.errors = 99, .messages = {}});
  }

  TemporaryFolder folder_;
  std::mt19937_64 random_{7};
};

TEST_F(DiskToolsTest, AnyFormatBecomesAnyOther) {
  const std::string bytes = test::mixed_bytes(random_, (1 << 20) + 512, 3000);
  folder_.write("start.img", bytes.substr(0, (1 << 20) + 512));
  const std::vector<std::string> names = {"a.img", "b.qcow2", "c.zst", "d.simg"};
  for (const std::string& first : names) {
    ASSERT_EQ(convert({.source = "start.img", .target = first}), "");
    for (const std::string& second : names) {
      const std::string target = "2" + second;
      ASSERT_EQ(convert({.source = first, .target = target}), "");
      const auto format = ToolImage::open(folder_.path(target), {});
      ASSERT_TRUE(format) << format.error().what();
      EXPECT_EQ(format->format(), *format_of_name(target));
      EXPECT_TRUE(bytes_of(target) == bytes.substr(0, (1 << 20) + 512)) << first << target;
    }
  }
}

// A VM refuses such a file with the command that converts it.
TEST_F(DiskToolsTest, AZstdFrameTooLargeForAVmBecomesAnything) {
  const uint64_t size = (65 << 20) + 512;
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; i += 4096 + i / 16) bytes[i] = static_cast<char>(random_());
  for (const bool has_size : {true, false}) {
    folder_.write("start.zst", test::zstd_frame("begin") + test::zstd_frame(bytes, has_size) +
                                   test::skippable_frame("skipped"));
    const auto opened = ToolImage::open(folder_.path("start.zst"), {});
    ASSERT_FALSE(opened);
    EXPECT_THAT(opened.error().what(), HasSubstr("crosvm disk convert"));
    for (const char* name : {"a.img", "b.qcow2", "c.zst"}) {
      ASSERT_EQ(convert({.source = "start.zst", .target = name}), "");
      EXPECT_TRUE(bytes_of(name).substr(0, size + 5) == "begin" + bytes) << name;
    }
    EXPECT_LE(host_bytes("a.img"), 8u << 20);
  }
  const std::string frame = test::zstd_frame(bytes);
  folder_.write("cut.zst", std::string_view(frame).substr(0, frame.size() - 1));
  EXPECT_THAT(convert({.source = "cut.zst", .target = "d.img"}), HasSubstr("cut.zst"));
  EXPECT_FALSE(std::filesystem::exists(folder_.path("d.img")));
}

// 16 TiB of a pattern in a file of a few bytes, which take a moment and not hours.
TEST_F(DiskToolsTest, APatternIsCheckedWithoutReadingItOut) {
  test::SparseImageMaker maker;
  maker.add(android_sparse::ChunkType::kFill, UINT32_MAX - 1, "abcd");
  maker.add(android_sparse::ChunkType::kRaw, 1, std::string(4096, 'x'));
  folder_.write("a.simg", maker.image());
  ::alarm(120);  // more is a failure
  EXPECT_EQ(check("a.simg").errors, 0u);
  ::alarm(0);
  maker.add(android_sparse::ChunkType::kRaw, 0, "", 4096);
  folder_.write("b.simg", maker.image());
  EXPECT_FALSE(check_image({.path = folder_.path("b.simg")}));
}

TEST_F(DiskToolsTest, ClustersOfAllSizesAndCompressed) {
  const std::string bytes = test::mixed_bytes(random_, 1 << 20, 1700).substr(0, 1 << 20);
  folder_.write("start.img", bytes);
  for (const uint64_t cluster : {512, 65536, 2 << 20}) {
    for (const auto compression :
         {std::optional<Qcow2Compression>(), std::optional(Qcow2Compression::kZlib),
          std::optional(Qcow2Compression::kZstd)}) {
      ASSERT_EQ(convert({.source = "start.img",
                         .target = "a.qcow2",
                         .compression = compression,
                         .cluster_size = cluster}),
                "");
      EXPECT_TRUE(bytes_of("a.qcow2") == bytes) << cluster;
      const CheckOutcome outcome = check("a.qcow2");
      EXPECT_EQ(outcome.errors, 0u) << cluster << outcome.messages.front();
      EXPECT_EQ(outcome.leaks, 0u) << cluster << outcome.messages.front();
    }
  }
}

// Many of these share a cluster, more than two bits can count.
TEST_F(DiskToolsTest, CompressedClustersThatAreTiny) {
  const std::string bytes(16 << 20, 'z');
  folder_.write("start.img", bytes);
  ASSERT_EQ(convert({.source = "start.img",
                     .target = "a.qcow2",
                     .compression = Qcow2Compression::kZlib,
                     .cluster_size = 4096}),
            "");
  EXPECT_LT(folder_.read("a.qcow2").size(), 1u << 20);
  EXPECT_EQ(check("a.qcow2").errors + check("a.qcow2").leaks, 0u);
  EXPECT_TRUE(bytes_of("a.qcow2") == bytes);
}

TEST_F(DiskToolsTest, HolesStayHoles) {
  folder_.write("start.img", std::string(4096, 'x') + std::string(8 << 20, '\0'));
  std::filesystem::resize_file(folder_.path("start.img"), 1ULL << 40);
  for (const char* name : {"a.img", "b.qcow2", "d.simg"}) {
    ASSERT_EQ(convert({.source = "start.img", .target = name}), "");
    EXPECT_LE(host_bytes(name), 512u << 10) << name;
  }
  EXPECT_EQ(std::filesystem::file_size(folder_.path("a.img")), 1ULL << 40);
  const auto image = ToolImage::open(folder_.path("b.qcow2"), {});
  ASSERT_TRUE(image);
}

TEST_F(DiskToolsTest, RefusesWhatCannotBe) {
  folder_.write("start.img", std::string(4097, 'x'));
  EXPECT_THAT(convert({.source = "start.img", .target = "a"}), HasSubstr("give --format"));
  EXPECT_THAT(convert({.source = "start.img", .target = "a.simg"}),
              AllOf(HasSubstr("4097"), HasSubstr("another --format")));
  EXPECT_THAT(convert({.source = "start.img", .target = "a.img", .cluster_size = 4096}),
              HasSubstr("leave them out for raw"));
  EXPECT_THAT(convert({.source = "start.img", .target = "a.qcow2", .cluster_size = 4095}),
              HasSubstr("power of two"));
  EXPECT_THAT(convert({.source = "start.img", .target = "start.img"}),
              HasSubstr("the source as well as the target"));
  EXPECT_THAT(convert({.source = "none.img", .target = "a.img"}), HasSubstr("No such file"));
  EXPECT_EQ(files(), 1u);
}

// A guest may write the start of another image, with names of the host's files, to its own disk.
TEST_F(DiskToolsTest, ARawDiskThatStartsLikeAnotherImageIsAskedFor) {
  folder_.write("secret.img", std::string(1 << 20, 's'));
  ASSERT_TRUE(make_qcow2(
      {.path = folder_.path("inner.qcow2"), .backing_file = folder_.path("secret.img")}));
  const std::string inner = folder_.read("inner.qcow2");
  ASSERT_EQ(
      convert(
          {.source = "inner.qcow2", .target = "guest.qcow2", .source_format = ImageFormat::kRaw}),
      "");
  EXPECT_THAT(convert({.source = "guest.qcow2", .target = "disk.img"}),
              AllOf(HasSubstr("disk.img: the disk starts like a qcow2 image"),
                    HasSubstr("give --format raw, and format=raw")));
  EXPECT_FALSE(std::filesystem::exists(folder_.path("disk.img")));
  testing::internal::CaptureStderr();
  EXPECT_EQ(convert({.source = "guest.qcow2", .target = "disk.img", .format = ImageFormat::kRaw}),
            "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("give format=raw wherever"));
  EXPECT_TRUE(folder_.read("disk.img").starts_with(inner));
  // Nor does it become the backing file of another by its own word, if it is said to be raw.
  ASSERT_TRUE(make_qcow2({.path = folder_.path("top.qcow2"),
                          .backing_file = folder_.path("disk.img"),
                          .backing_format = ImageFormat::kRaw}));
  EXPECT_TRUE(bytes_of("top.qcow2") == folder_.read("disk.img"));
}

TEST_F(DiskToolsTest, AFileThatIsThereStaysUntilTheNewOneIsComplete) {
  folder_.write("start.img", std::string(1 << 20, 'x'));
  folder_.write("old.qcow2", "old");
  ASSERT_EQ(::chmod(folder_.path("old.qcow2").c_str(), 0640), 0);
  {
    const HeldSignals held;
    ::raise(SIGTERM);
    EXPECT_THAT(convert({.source = "start.img", .target = "old.qcow2"}), HasSubstr("interrupted"));
    sigset_t term;
    ::sigemptyset(&term);
    ::sigaddset(&term, SIGTERM);
    const timespec now{};
    EXPECT_EQ(::sigtimedwait(&term, nullptr, &now), SIGTERM);
  }
  EXPECT_TRUE(folder_.read("old.qcow2") == "old");
  EXPECT_EQ(files(), 2u);
  {
    auto vm = ToolImage::open(folder_.path("old.qcow2"), {.read_only = false});
    ASSERT_TRUE(vm);
    EXPECT_THAT(convert({.source = "start.img", .target = "old.qcow2"}),
                HasSubstr("in use by another process"));
  }
  EXPECT_EQ(convert({.source = "start.img", .target = "old.qcow2"}), "");
  EXPECT_TRUE(bytes_of("old.qcow2") == std::string(1 << 20, 'x'));
  struct stat status{};
  ASSERT_EQ(::stat(folder_.path("old.qcow2").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST_F(DiskToolsTest, AnEmptyQcow2HasTheSizeOfItsBackingFile) {
  folder_.write("base.img", std::string(1 << 20, 'b'));
  ASSERT_TRUE(
      make_qcow2({.path = folder_.path("a.qcow2"), .backing_file = folder_.path("base.img")}));
  EXPECT_TRUE(bytes_of("a.qcow2") == std::string(1 << 20, 'b'));
  ASSERT_TRUE(
      make_qcow2({.path = folder_.path("b.qcow2"), .backing_file = folder_.path("a.qcow2")}));
  const auto chain = image_info(folder_.path("b.qcow2"), {});
  ASSERT_TRUE(chain);
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_EQ((*chain)[0].qcow2->backing_format, "qcow2");
  EXPECT_EQ((*chain)[1].qcow2->backing_format, "raw");
  EXPECT_EQ((*chain)[2].format, ImageFormat::kRaw);
  EXPECT_EQ((*chain)[2].virtual_size, 1u << 20);
  const Json json = json_of(*chain);
  const auto below = json.at("backing");
  ASSERT_TRUE(below);
  EXPECT_EQ((*below)->at("backing").value()->at("format").value()->as_string().value(), "raw");
  EXPECT_THAT(text_of(*chain), AllOf(HasSubstr("virtual size:   1.0 MiB (1048576 bytes)"),
                                     HasSubstr("cluster size:   65536")));
}

TEST_F(DiskToolsTest, AFileOfTheChainIsNotReplaced) {
  const std::string bytes(1 << 20, 'b');
  const std::string base = folder_.write("base.img", bytes);
  const std::string middle = folder_.path("middle.qcow2");
  const std::string top = folder_.path("top.qcow2");
  ASSERT_TRUE(make_qcow2({.path = middle, .backing_file = base}));
  ASSERT_TRUE(make_qcow2({.path = top, .backing_file = middle}));
  for (const std::string& inside : {base, middle}) {
    const auto made = make_qcow2({.path = inside, .backing_file = top});
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().what(), HasSubstr(inside + ": " + top + " needs what is in it"));
  }
  EXPECT_THAT(convert({.source = "top.qcow2", .target = "base.img"}),
              HasSubstr(base + ": " + top + " needs what is in it"));
  EXPECT_TRUE(bytes_of("top.qcow2") == bytes);
}

TEST_F(DiskToolsTest, InfoNamesWhatIsMissing) {
  folder_.write("base.img", std::string(1 << 20, 'b'));
  ASSERT_TRUE(
      make_qcow2({.path = folder_.path("a.qcow2"), .backing_file = folder_.path("base.img")}));
  std::filesystem::remove(folder_.path("base.img"));
  const auto chain = image_info(folder_.path("a.qcow2"), {});
  ASSERT_TRUE(chain);
  ASSERT_EQ(chain->size(), 1u);
  EXPECT_THAT((*chain)[0].problem, AllOf(HasSubstr("base.img"), HasSubstr("No such file")));
}

TEST_F(DiskToolsTest, CompactKeepsTheBackingFileAndWhatHidesIt) {
  const std::string base = test::mixed_bytes(random_, 4 << 20, 5000).substr(0, 4 << 20);
  folder_.write("base.img", base);
  ASSERT_TRUE(
      make_qcow2({.path = folder_.path("a.qcow2"), .backing_file = folder_.path("base.img")}));
  std::string now = base;
  {
    auto image = ToolImage::open(folder_.path("a.qcow2"), {.read_only = false});
    ASSERT_TRUE(image) << image.error().what();
    const auto run = [&](DiskRequest::Kind kind, uint64_t offset, std::string text) {
      test::DriverRequest request;
      request.kind = kind;
      request.offset = offset;
      request.length = text.size();
      now.replace(offset, text.size(), text);
      if (kind == DiskRequest::Kind::kWrite) {
        request.buffers.push_back(GuestSlice::over(std::as_writable_bytes(std::span(text))));
      }
      image->disk().start(request);
      image->disk().submit();
      while (request.result < 0) ASSERT_TRUE(image->loop().run_once(std::chrono::seconds(10)));
      EXPECT_EQ(request.result, 0);
    };
    run(DiskRequest::Kind::kWrite, 1 << 20, std::string(1 << 20, 'w'));
    run(DiskRequest::Kind::kWrite, 2 << 20, std::string(1 << 20, '\0'));
    run(DiskRequest::Kind::kWriteZeroes, 3 << 20, std::string(256 << 10, '\0'));
    run(DiskRequest::Kind::kWrite, 700, std::string(100, 'q'));
  }
  ASSERT_TRUE(bytes_of("a.qcow2") == now);
  const auto outcome = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_TRUE(outcome) << outcome.error().what();
  EXPECT_LT(outcome->after + (900 << 10), outcome->before);
  EXPECT_TRUE(bytes_of("a.qcow2") == now);
  EXPECT_EQ(check("a.qcow2").errors + check("a.qcow2").leaks, 0u);
  folder_.write("base.img", std::string(4 << 20, 'n'));  // shows through where it did
  EXPECT_TRUE(bytes_of("a.qcow2").substr(65536, 65536) == std::string(65536, 'n'));
}

TEST_F(DiskToolsTest, CompactStoresNothingPastTheEndOfTheBackingFile) {
  folder_.write("base.img", std::string(1 << 20, 'b'));
  ASSERT_TRUE(
      make_qcow2({.path = folder_.path("a.qcow2"), .backing_file = folder_.path("base.img")}));
  std::string longer = folder_.read("a.qcow2");
  longer.replace(24, 8, std::string("\0\0\0\0\4\0\0\0", 8));  // 64 MiB
  folder_.write("a.qcow2", longer);
  const auto outcome = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_TRUE(outcome) << outcome.error().what();
  const std::string now = folder_.read("a.qcow2");
  const auto l1 = load_big_endian<uint64_t>(std::as_bytes(std::span(now)), 40);
  EXPECT_EQ(now.substr(l1, 8), std::string(8, '\0')) << "it names no table";
  EXPECT_TRUE(bytes_of("a.qcow2") == std::string(1 << 20, 'b') + std::string(63 << 20, '\0'));
}

TEST_F(DiskToolsTest, CompactRawPunchesZeroes) {
  const std::string bytes = std::string(1 << 20, 'a') + std::string(4 << 20, '\0') +
                            std::string(5000, 'b') + std::string(1 << 20, '\0') + "end";
  folder_.write("a.img", bytes);
  const auto outcome = compact_image({.path = folder_.path("a.img")});
  ASSERT_TRUE(outcome) << outcome.error().what();
  EXPECT_LE(outcome->after, (1u << 20) + (64 << 10));
  EXPECT_EQ(outcome->before - outcome->after >= (4u << 20), true);
  EXPECT_TRUE(folder_.read("a.img") == bytes);
}

// Of a file that was written to here and there, every cluster has a little.
TEST_F(DiskToolsTest, CompactKeepsTheHolesWithinClusters) {
  std::string bytes(4 << 20, '\0');
  for (size_t at = 5000; at < bytes.size(); at += 65536) bytes.replace(at, 9, "some text");
  folder_.write("start.img", bytes);
  ASSERT_EQ(convert({.source = "start.img", .target = "a.qcow2"}), "");
  EXPECT_LE(host_bytes("a.qcow2"), 1u << 20);
  const auto outcome = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_TRUE(outcome) << outcome.error().what();
  EXPECT_LE(outcome->after, outcome->before);
  EXPECT_LE(host_bytes("a.qcow2"), 1u << 20);
  EXPECT_TRUE(bytes_of("a.qcow2") == bytes);
  EXPECT_EQ(check("a.qcow2").errors + check("a.qcow2").leaks, 0u);
}

TEST_F(DiskToolsTest, ALinkIsWrittenThrough) {
  folder_.write("start.img", std::string(1 << 20, 'x'));
  std::filesystem::create_directory(folder_.path("there"));
  const auto is_link = [this](const char* name) {
    return std::filesystem::is_symlink(folder_.path(name));
  };
  // To what is not there yet, too, even by another link.
  std::filesystem::create_symlink("there/b.img", folder_.path("link"));
  std::filesystem::create_symlink("link", folder_.path("a.img"));
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(convert({.source = "start.img", .target = "a.img"}), "");
    EXPECT_TRUE(is_link("a.img") && is_link("link"));
    EXPECT_TRUE(folder_.read("there/b.img") == std::string(1 << 20, 'x'));
  }
  std::filesystem::create_symlink("d.img", folder_.path("c.img"));
  std::filesystem::create_symlink("c.img", folder_.path("d.img"));
  EXPECT_THAT(convert({.source = "start.img", .target = "c.img"}), HasSubstr("in a circle"));
  EXPECT_TRUE(is_link("c.img") && is_link("d.img"));
  std::filesystem::create_symlink("none/f.img", folder_.path("e.img"));
  EXPECT_THAT(convert({.source = "start.img", .target = "e.img"}), HasSubstr("No such file"));
  EXPECT_TRUE(is_link("e.img"));
}

TEST_F(DiskToolsTest, CompactRefusesFormatsThatAreNotWritten) {
  folder_.write("start.img", std::string(1 << 20, 'x'));
  ASSERT_EQ(convert({.source = "start.img", .target = "a.zst"}), "");
  const auto outcome = compact_image({.path = folder_.path("a.zst")});
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().what(), HasSubstr("only raw and qcow2"));
}

// The new image would look whole, and have zeroes where the old one has lost its bytes.
TEST_F(DiskToolsTest, CompactLeavesADamagedImageAlone) {
  folder_.write("start.img", std::string(8 << 20, 'x'));
  ASSERT_EQ(convert({.source = "start.img", .target = "a.qcow2"}), "");
  const std::string whole = folder_.read("a.qcow2");
  std::string damaged = whole;
  // Header, refcount table, L1 table; 128 clusters of data; then the L2 table and the counts.
  constexpr size_t kCluster = 65536;
  ASSERT_EQ(whole.size(), 133 * kCluster);
  damaged.replace(131 * kCluster + 4, 1, 1, '\x7f');  // a cluster of data leads past the end
  folder_.write("a.qcow2", damaged);
  const auto outcome = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().what(), AllOf(HasSubstr("the cluster for 0x0 lies outside the file"),
                                            HasSubstr("crosvm disk convert")));
  EXPECT_TRUE(folder_.read("a.qcow2") == damaged);
  EXPECT_EQ(files(), 2u);
}

TEST_F(DiskToolsTest, CompactCountsAnewWhatWasNotClosed) {
  const std::string bytes(1 << 20, 'x');
  folder_.write("start.img", bytes);
  ASSERT_EQ(convert({.source = "start.img", .target = "a.qcow2"}), "");
  std::string dirty = folder_.read("a.qcow2");
  dirty[79] = 1;                                          // of the incompatible features
  dirty.replace(20 * size_t{65536} + 2 * 5, 2, 2, '\0');  // a cluster in use that counts as free
  folder_.write("a.qcow2", dirty);
  const auto outcome = compact_image({.path = folder_.path("a.qcow2")});
  ASSERT_TRUE(outcome) << outcome.error().what();
  EXPECT_EQ(check("a.qcow2").errors + check("a.qcow2").leaks, 0u);
  EXPECT_TRUE(bytes_of("a.qcow2") == bytes);
}

TEST_F(DiskToolsTest, CheckNamesDamageAndRepairsLeaks) {
  folder_.write("start.img", std::string(1 << 20, 'x'));
  ASSERT_EQ(convert({.source = "start.img", .target = "a.qcow2"}), "");
  const std::string whole = folder_.read("a.qcow2");
  // Header, refcount table, L1 table; 16 clusters of data; then the L2 table and the counts.
  constexpr size_t kCluster = 65536;
  constexpr size_t kL2 = 19 * kCluster;
  constexpr size_t kCounts = 20 * kCluster;
  ASSERT_EQ(whole.size(), 21 * kCluster);

  std::string leaking = whole;
  leaking.replace(kL2, 8, 8, '\0');
  folder_.write("a.qcow2", leaking);
  EXPECT_EQ(check("a.qcow2").leaks, 1u);
  EXPECT_EQ(check("a.qcow2").errors, 0u);
  const CheckOutcome repaired = check("a.qcow2", true);
  EXPECT_EQ(repaired.repaired_leaks, 1u);
  EXPECT_EQ(repaired.leaks + repaired.errors, 0u);
  EXPECT_EQ(check("a.qcow2").leaks, 0u);

  std::string damaged = whole;
  damaged.replace(kCounts + 2 * 5, 2, 2, '\0');  // a cluster in use that counts as free
  folder_.write("a.qcow2", damaged);
  const CheckOutcome found = check("a.qcow2");
  EXPECT_EQ(found.errors, 1u);
  EXPECT_THAT(found.messages.front(), HasSubstr("refcount 0, with 1 uses"));
  EXPECT_GE(check("a.qcow2", true).errors, 1u);
  EXPECT_TRUE(folder_.read("a.qcow2") == damaged);
}

TEST_F(DiskToolsTest, CheckReadsOtherFormatsThrough) {
  const std::string bytes = test::mixed_bytes(random_, 1 << 20, 4000);
  folder_.write("start.img", bytes);
  ASSERT_EQ(convert({.source = "start.img", .target = "a.zst"}), "");
  EXPECT_EQ(check("a.zst").format, ImageFormat::kZstd);
  std::string damaged = folder_.read("a.zst");
  damaged[damaged.size() / 2] ^= 1;
  folder_.write("a.zst", damaged);
  const auto outcome = check_image({.path = folder_.path("a.zst")});
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().what(), AllOf(HasSubstr("a.zst"), HasSubstr("reading byte")));
}

// Else its writes would go to a file that nobody sees any more.
TEST_F(DiskToolsTest, WhoWaitsForAnImageGetsTheOneThatTookItsPlace) {
  const std::string path = folder_.write("a.img", "old");
  folder_.write("b.img", "new!");
  auto held = std::make_unique<Fd>(open_image_file(path, {}).value());
  uint64_t size = 0;
  std::thread waiting([&] { size = file_size(open_image_file(path, {}).value(), path).value(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  std::filesystem::rename(folder_.path("b.img"), path);
  held.reset();
  waiting.join();
  EXPECT_EQ(size, 4u);
}

TEST(ReadableBytesTest, OneDecimal) {
  EXPECT_EQ(readable_bytes(1023), "1023 B");
  EXPECT_EQ(readable_bytes(1536), "1.5 KiB");
  EXPECT_EQ(readable_bytes(uint64_t{10} << 30), "10.0 GiB");
}

}  // namespace
}  // namespace crosvm

// The tools for disk images, against those of others where they are installed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "disk/disk_driver.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;

class DiskToolsNativeTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::chdir(folder_.path().c_str()), 0); }
  void TearDown() override { ASSERT_EQ(::chdir("/"), 0); }

  /// The exit status of `crosvm ARGUMENTS`; what it said is in `out_` and `errors_`.
  int crosvm(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--no-syslog");
    VmProcess process(arguments);
    const int status = process.wait_exit(seconds(60)).value_or(-1);
    out_ = process.output();
    errors_ = process.errors();
    return status;
  }
  static void file(const std::string& name, std::string_view bytes) {
    std::ofstream(name, std::ios::binary) << bytes;
  }
  static std::string contents(const std::string& name) {
    std::ifstream in(name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void expect_runs(const std::string& command) {
    const Ran ran = run_program(command);
    EXPECT_EQ(ran.status, 0) << command << '\n' << ran.output;
  }
  std::string image(size_t size) { return mixed_bytes(random_, size, 3000).substr(0, size); }

  ScratchDirectory folder_;
  std::mt19937_64 random_{3};
  std::string out_;
  std::string errors_;
};

TEST_F(DiskToolsNativeTest, QemuImgReadsOursAndWeReadItsImages) {
  if (!has_program("qemu-img")) GTEST_SKIP() << "no qemu-img";
  const std::string bytes = image(6 << 20);
  file("a.img", bytes);
  const std::vector<std::vector<std::string>> ways = {{},
                                                      {"--compress"},
                                                      {"--compression-type", "zstd"},
                                                      {"--cluster-size", "512"},
                                                      {"--cluster-size", "2097152"}};
  for (auto way : ways) {
    way.insert(way.begin(), {"disk", "convert", "a.img", "b.qcow2"});
    ASSERT_EQ(crosvm(way), 0) << errors_;
    expect_runs("qemu-img check b.qcow2");
    expect_runs("qemu-img compare -f raw -F qcow2 a.img b.qcow2");
  }
  for (const char* options : {"", "-c", "-c -o compression_type=zstd", "-o compat=0.10",
                              "-o extended_l2=on", "-o cluster_size=512", "-o refcount_bits=1",
                              "-o lazy_refcounts=on", "-o preallocation=metadata"}) {
    expect_runs(std::string("qemu-img convert -f raw -O qcow2 ") + options + " a.img q.qcow2");
    ASSERT_EQ(crosvm({"disk", "convert", "q.qcow2", "c.img"}), 0) << options << errors_;
    EXPECT_TRUE(contents("c.img") == bytes) << options;
    ASSERT_EQ(crosvm({"disk", "check", "q.qcow2"}), 0) << options << out_ << errors_;
    ASSERT_EQ(crosvm({"disk", "compact", "q.qcow2"}), 0) << options << errors_;
    expect_runs("qemu-img check q.qcow2");
    expect_runs("qemu-img compare -f raw -F qcow2 a.img q.qcow2");
  }
}

TEST_F(DiskToolsNativeTest, AndroidSparseImagesGoBothWays) {
  if (!has_program("simg2img") || !has_program("img2simg")) GTEST_SKIP() << "no simg2img";
  const std::string bytes = image(5 << 20) + std::string(1 << 20, '\0');
  file("a.img", bytes);
  ASSERT_EQ(crosvm({"disk", "convert", "a.img", "b.simg"}), 0) << errors_;
  expect_runs("simg2img b.simg c.img");
  EXPECT_TRUE(contents("c.img") == bytes);
  expect_runs("img2simg a.img d.simg");
  ASSERT_EQ(crosvm({"disk", "convert", "d.simg", "e.img"}), 0) << errors_;
  EXPECT_TRUE(contents("e.img") == bytes);
}

TEST_F(DiskToolsNativeTest, ZstdFilesGoBothWays) {
  if (!has_program("zstd")) GTEST_SKIP() << "no zstd";
  const std::string bytes = image(5 << 20) + std::string(9 << 20, '\0');
  file("a.img", bytes);
  ASSERT_EQ(crosvm({"disk", "convert", "a.img", "b.zst"}), 0) << errors_;
  expect_runs("zstd -q -d b.zst -o c.img");
  EXPECT_TRUE(contents("c.img") == bytes);
  expect_runs("zstd -q a.img -o d.zst");
  ASSERT_EQ(crosvm({"disk", "convert", "d.zst", "e.qcow2"}), 0) << errors_;
  ASSERT_EQ(crosvm({"disk", "convert", "e.qcow2", "f.img"}), 0) << errors_;
  EXPECT_TRUE(contents("f.img") == bytes);
}

TEST_F(DiskToolsNativeTest, AnInterruptedConversionLeavesNothing) {
  file("a.img", image(1 << 20));
  std::filesystem::resize_file("a.img", uint64_t{1} << 40);
  file("b.zst", "what was there");
  // A terabyte of zeroes in frames takes a while.
  VmProcess process({"--no-syslog", "disk", "convert", "a.img", "b.zst"});
  // The file to come has no name yet, where the file system can do without.
  const auto begun = [&] {
    const std::string folder = std::filesystem::canonical(folder_.path()).string() + "/";
    std::error_code gone;  // descriptors come and go while they are looked at
    std::filesystem::directory_iterator each("/proc/" + std::to_string(process.pid()) + "/fd",
                                             gone);
    for (; !gone && each != std::filesystem::directory_iterator(); each.increment(gone)) {
      const std::string file = std::filesystem::read_symlink(each->path(), gone).string();
      if (file.starts_with(folder) && file != folder + "a.img" && file != folder + "b.zst")
        return true;
    }
    return false;
  };
  for (int i = 0; i < 500 && !begun(); ++i) ::usleep(10'000);
  ASSERT_TRUE(begun());
  process.signal(SIGINT);
  EXPECT_EQ(process.wait_exit(seconds(60)), 128 + SIGINT);
  EXPECT_THAT(folder_.entries(), testing::ElementsAre("a.img", "b.zst"));
  EXPECT_EQ(contents("b.zst"), "what was there");
}

TEST_F(DiskToolsNativeTest, AFileThatMayNotGrowLeavesNothing) {
  file("a.img", std::string(3 << 20, 'x'));
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const int status = crosvm({"disk", "convert", "a.img", "b.qcow2"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status, 1);
  EXPECT_THAT(errors_, AllOf(HasSubstr("File too large; "), HasSubstr("ulimit -f")));
  EXPECT_THAT(folder_.entries(), testing::ElementsAre("a.img"));
}

TEST_F(DiskToolsNativeTest, CreateQcow2) {
  ASSERT_EQ(crosvm({"create_qcow2", "a.qcow2", "1048576"}), 0) << errors_;
  std::filesystem::create_directory("base");
  file("base/b.img", std::string(2 << 20, 'b'));
  std::filesystem::create_directory("base/deep");
  ASSERT_EQ(crosvm({"create_qcow2", "base/c.qcow2", "--backing-file", "base/b.img"}), 0) << errors_;
  ASSERT_EQ(crosvm({"disk", "convert", "base/c.qcow2", "d.img"}), 0) << errors_;
  EXPECT_TRUE(contents("d.img") == std::string(2 << 20, 'b'));
  // What lies elsewhere is stored so that it is found, but needs leave.
  ASSERT_EQ(crosvm({"create_qcow2", "base/deep/e.qcow2", "--backing_file", "base/b.img"}), 0);
  EXPECT_THAT(errors_, HasSubstr("allow-backing="));
  EXPECT_EQ(crosvm({"disk", "convert", "base/deep/e.qcow2", "f.img"}), 1);
  EXPECT_THAT(errors_, HasSubstr("--allow-backing "));
  EXPECT_EQ(crosvm({"disk", "convert", "base/b.img", "f.img", "--allow-backing", "nope"}), 1);
  EXPECT_THAT(errors_, HasSubstr("--allow-backing nope: "));
  ASSERT_EQ(crosvm({"disk", "convert", "base/deep/e.qcow2", "f.img", "--allow-backing", "base"}), 0)
      << errors_;
  EXPECT_TRUE(contents("f.img") == std::string(2 << 20, 'b'));
  if (!has_program("qemu-img")) GTEST_SKIP() << "no qemu-img for the rest";
  expect_runs("qemu-img check a.qcow2");
  expect_runs("qemu-img compare base/deep/e.qcow2 base/b.img");
  EXPECT_THAT(run_program("qemu-img info a.qcow2").output, HasSubstr("(1048576 bytes)"));
}

TEST_F(DiskToolsNativeTest, CreateQcow2WantsASizeOrABackingFile) {
  file("b.img", std::string(1 << 20, 'b'));
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"create_qcow2", "a.qcow2"},
        {"create_qcow2", "a.qcow2", "4096", "--backing-file", "b.img"}}) {
    EXPECT_EQ(crosvm(arguments), 1);
    EXPECT_THAT(out_, HasSubstr("Usage: "));
  }
  EXPECT_EQ(crosvm({"create_qcow2", "a.qcow2", "many"}), 35);
  EXPECT_EQ(crosvm({"create_qcow2", "a.qcow2", "--backing-file", "none"}), 1);
  EXPECT_THAT(folder_.entries(), testing::ElementsAre("b.img"));
}

TEST_F(DiskToolsNativeTest, CreateCompositeMakesADiskOfPartitions) {
  const std::string boot = image(1 << 20);
  file("boot.img", boot);
  file("root.img", std::string(5000, 'r'));
  ASSERT_EQ(crosvm({"create_composite", "disk", "boot:boot.img:writable", "root:root.img"}), 0)
      << errors_;
  EXPECT_THAT(folder_.entries(), testing::ElementsAre("boot.img", "disk", "disk.filler",
                                                      "disk.footer", "disk.header", "root.img"));
  ASSERT_EQ(crosvm({"disk", "convert", "disk", "flat.img"}), 0) << errors_;
  EXPECT_TRUE(contents("flat.img").substr(20480, boot.size()) == boot);
  EXPECT_EQ(crosvm({"create_composite", "other", "a:boot.img", "a:root.img"}), 1);
  EXPECT_EQ(crosvm({"create_composite", "other", "a:boot.img:rw"}), 1) << "as the reference";
  EXPECT_EQ(crosvm({"create_composite", "other"}), 35);
  EXPECT_FALSE(std::filesystem::exists("other"));
  if (!has_program("sgdisk")) GTEST_SKIP() << "no sgdisk for the rest";
  EXPECT_THAT(run_program("sgdisk -v flat.img").output, HasSubstr("No problems found"));
}

TEST_F(DiskToolsNativeTest, CheckAndInfoSayWhatAnImageIs) {
  if (!has_program("qemu-img")) GTEST_SKIP() << "no qemu-img";
  expect_runs("qemu-img create -f qcow2 a.qcow2 10M");
  expect_runs("qemu-img snapshot -c before a.qcow2");
  EXPECT_EQ(crosvm({"disk", "check", "a.qcow2"}), 0) << out_;
  EXPECT_EQ(out_, "a.qcow2: no errors\n");
  ASSERT_EQ(crosvm({"disk", "info", "a.qcow2"}), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("format:         qcow2\n"), HasSubstr("10.0 MiB"),
                          HasSubstr("snapshot:       1 before\n")));
  ASSERT_EQ(crosvm({"disk", "info", "--json", "a.qcow2"}), 0);
  EXPECT_THAT(out_, HasSubstr("\"virtual_size\": 10485760"));
  EXPECT_EQ(crosvm({"disk", "compact", "a.qcow2"}), 1);
  EXPECT_THAT(errors_, AllOf(HasSubstr("'before'"), HasSubstr("qemu-img snapshot -d")));
}

TEST_F(DiskToolsNativeTest, BadArgumentsAndImages) {
  file("a.img", std::string(4096, 'a'));
  file("bad.qcow2", std::string("QFI\xfb\0\0\0\x09", 8) + std::string(4096, '\0'));
  EXPECT_EQ(crosvm({"disk", "convert", "a.img", "b.img", "--format", "vmdk"}), 35);
  EXPECT_THAT(errors_, HasSubstr("raw, qcow2, zstd, android-sparse"));
  EXPECT_EQ(crosvm({"disk", "convert", "a.img", "b.qcow2", "--cluster-size", "64K"}), 35);
  EXPECT_EQ(crosvm({"disk", "convert", "a.img"}), 35);
  EXPECT_EQ(crosvm({"disk", "convert", "a.img", "b"}), 35) << "what is it to be?";
  EXPECT_EQ(crosvm({"disk", "convert", "bad.qcow2", "b.img"}), 1);
  EXPECT_THAT(errors_, HasSubstr("bad.qcow2"));
  EXPECT_EQ(crosvm({"disk", "convert", "a.img", "none/b.img"}), 1);
  EXPECT_THAT(errors_, HasSubstr("none/b.img: No such file or directory; check the path"));
  EXPECT_EQ(crosvm({"disk", "check", "bad.qcow2"}), 1);
  EXPECT_EQ(crosvm({"disk", "check", "none.qcow2"}), 1);
  EXPECT_EQ(crosvm({"disk", "compact", "/dev/null"}), 1);
  EXPECT_EQ(crosvm({"disk", "convert", "a.img", "/dev/null", "--format", "raw"}), 1);
  EXPECT_THAT(errors_, HasSubstr("not a file"));
  EXPECT_EQ(crosvm({"disk", "convert", "--source-format", "raw", "bad.qcow2", "b.img"}), 1);
  EXPECT_THAT(errors_, HasSubstr("give --format raw"));
  ASSERT_EQ(crosvm({"disk", "convert", "--source-format", "raw", "--format", "raw", "bad.qcow2",
                    "b.img"}),
            0);
  EXPECT_EQ(contents("b.img"), contents("bad.qcow2"));
}

// The tools are an executable of their own, which crosvm becomes.
TEST_F(DiskToolsNativeTest, TheirProgramStandsBesideCrosvmOrInLibexec) {
  const std::filesystem::path built = std::filesystem::path(crosvm_binary()).parent_path();
  std::filesystem::create_directories("usr/bin");
  std::filesystem::create_directories("usr/libexec/crosvm");
  std::filesystem::copy_file(built / "crosvm", "usr/bin/crosvm");
  file("a.img", std::string(4096, 'a'));
  const std::string command = "usr/bin/crosvm --no-syslog disk info a.img";
  const Ran missing = run_program(command);
  EXPECT_EQ(missing.status, 1);
  EXPECT_THAT(missing.output, AllOf(HasSubstr("/usr/bin/crosvm-disk"),
                                    HasSubstr("/usr/bin/../libexec/crosvm/crosvm-disk")));
  EXPECT_EQ(run_program("usr/bin/crosvm disk info --help").status, 0);
  std::filesystem::copy_file(built / "crosvm-disk", "usr/libexec/crosvm/crosvm-disk");
  const Ran found = run_program(command);
  EXPECT_EQ(found.status, 0) << found.output;
  EXPECT_THAT(found.output, HasSubstr("format:"));
  EXPECT_EQ(run_program("usr/bin/crosvm --no-syslog disk check none").status, 1);
  EXPECT_EQ(run_program("usr/libexec/crosvm/crosvm-disk --no-syslog version").status, 35);
}

}  // namespace
}  // namespace crosvm::test

// Bad input: the status, a message that names the object, the cause and the fix, and nothing left
// behind.

#include <elf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "vm_process.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class BadInputTest : public testing::Test {
 protected:
  /// The exit status of `crosvm ARGUMENTS`; what it said is in `said_`.
  int crosvm(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--no-syslog");
    VmProcess process(arguments);
    int status = process.wait_exit(seconds(60)).value_or(-1);
    said_ = process.errors();
    EXPECT_THAT(process.output(), IsEmpty()) << "errors go to stderr";
    return status;
  }
  /// `crosvm run` with a control socket, which must be gone afterwards.
  int run(std::vector<std::string> arguments) {
    ScratchDirectory sockets;
    arguments.insert(arguments.begin(), {"run", "-s", sockets.path() + "/vm.sock"});
    int status = crosvm(arguments);
    EXPECT_THAT(sockets.entries(), IsEmpty());
    return status;
  }
  std::string file(const std::string& name, const std::string& contents) {
    std::string path = scratch_.path() + "/" + name;
    std::ofstream(path) << contents;
    return path;
  }
  static bool kvm() { return ::access("/dev/kvm", R_OK | W_OK) == 0; }
  static std::string contents(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::string kernel_ = CROSVM_PAYLOADS "/payload_reset";
  ScratchDirectory scratch_;
  std::string said_;
};

TEST_F(BadInputTest, KernelMissing) {
  EXPECT_EQ(run({"/no/such/bzImage"}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr("/no/such/bzImage"), HasSubstr("No such file"),
                           HasSubstr("check the path")));
}

TEST_F(BadInputTest, NoKernelAtAll) {
  EXPECT_EQ(run({}), 1);
  EXPECT_THAT(said_, HasSubstr("no kernel to boot"));
}

TEST_F(BadInputTest, KernelIsADirectory) {
  EXPECT_EQ(run({scratch_.path()}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr(scratch_.path()), HasSubstr("is a directory")));
}

TEST_F(BadInputTest, KernelIsAFifo) {
  std::string fifo = scratch_.path() + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(run({fifo}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr(fifo), HasSubstr("not a regular file")));
}

TEST_F(BadInputTest, KernelIsEmptyOrText) {
  if (!kvm()) GTEST_SKIP() << "no /dev/kvm";
  std::string empty = file("empty", "");
  EXPECT_EQ(run({empty}), 1);
  EXPECT_THAT(said_, HasSubstr(empty));
  std::string text = file("text", std::string(100'000, 'x'));
  EXPECT_EQ(run({text}), 1);
  EXPECT_THAT(said_, HasSubstr(text));
}

TEST_F(BadInputTest, KernelIsTruncated) {
  if (!kvm()) GTEST_SKIP() << "no /dev/kvm";
  std::string whole = contents(kernel_);
  for (size_t length : {10UL, 64UL, 100UL, 180UL}) {
    std::string cut = file("cut", whole.substr(0, length));
    EXPECT_EQ(run({cut}), 1) << length;
    EXPECT_THAT(said_, HasSubstr(cut)) << length;
  }
}

TEST_F(BadInputTest, KernelOfAnotherArchitecture) {
  if (!kvm()) GTEST_SKIP() << "no /dev/kvm";
  std::string elf = contents(kernel_);
  auto machine = static_cast<uint16_t>(EM_AARCH64);
  std::memcpy(elf.data() + offsetof(Elf64_Ehdr, e_machine), &machine, sizeof(machine));
  std::string foreign = file("arm-vmlinux", elf);
  EXPECT_EQ(run({foreign}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr(foreign), HasSubstr("aarch64")));
}

TEST_F(BadInputTest, InitrdMissingEmptyOrLargerThanMemory) {
  EXPECT_EQ(run({"-i", "/no/such/initrd", kernel_}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr("initrd"), HasSubstr("/no/such/initrd")));
  if (!kvm()) GTEST_SKIP() << "no /dev/kvm for the rest";
  std::string empty = file("empty", "");
  EXPECT_EQ(run({"-i", empty, kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr(empty));
  std::string large = file("large", "");
  ASSERT_EQ(::truncate(large.c_str(), 100 << 20), 0);
  EXPECT_EQ(run({"-m", "64", "-i", large, kernel_}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr(large), HasSubstr("--mem")));
}

TEST_F(BadInputTest, MemoryZeroOrBeyondTheHost) {
  EXPECT_NE(run({"-m", "0", kernel_}), 0);
  EXPECT_THAT(said_, HasSubstr("mem"));
  EXPECT_EQ(run({"-m", "0x1000000000", kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr("memory"));
  EXPECT_EQ(run({"-m", "18446744073709551615", kernel_}), 1);
}

TEST_F(BadInputTest, NoVcpusOrTooMany) {
  EXPECT_NE(run({"-c", "0", kernel_}), 0);
  EXPECT_THAT(said_, HasSubstr("cpus"));
  if (!kvm()) GTEST_SKIP() << "no /dev/kvm for the rest";
  EXPECT_EQ(run({"-c", "100000", kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr("--cpus 100000"));
}

TEST_F(BadInputTest, TooFewDescriptors) {
  const std::string script =
      file("limited", "#!/bin/sh\nulimit -n $FEW\nexec \"$TRUE_BIN\" \"$@\"\n");
  ASSERT_EQ(::chmod(script.c_str(), 0700), 0);
  const std::string former = crosvm_binary();
  ::setenv("TRUE_BIN", former.c_str(), 1);
  ::setenv("CROSVM_BIN", script.c_str(), 1);
  for (const char* few : {"16", "20", "34"}) {
    ::setenv("FEW", few, 1);
    EXPECT_EQ(run({"-m", "64", kernel_}), 1) << few;
    EXPECT_THAT(said_, AllOf(HasSubstr("exiting with error 1: "), HasSubstr("raise RLIMIT_NOFILE")))
        << few;
  }
  ::setenv("FEW", "16", 1);
  EXPECT_EQ(crosvm({"device", "rng", "--socket-path", scratch_.path() + "/socket"}), 1);
  EXPECT_THAT(said_, HasSubstr("only 16 files may be open at a time"));
  ::setenv("CROSVM_BIN", former.c_str(), 1);
}

TEST_F(BadInputTest, UnknownFlagKeyOrSubcommand) {
  EXPECT_EQ(run({"--no-such-flag", kernel_}), 35);
  EXPECT_THAT(said_, HasSubstr("Unrecognized argument: --no-such-flag"));
  EXPECT_EQ(run({"--serial", "type=stdout,colour=red", kernel_}), 35);
  EXPECT_THAT(said_, AllOf(HasSubstr("--serial"), HasSubstr("colour")));
  EXPECT_EQ(crosvm({"fly"}), 35);
  EXPECT_THAT(said_, HasSubstr("fly"));
}

TEST_F(BadInputTest, AFlagThatIsNotBuiltYetIsRefusedByName) {
  EXPECT_EQ(run({"--gpu", "backend=2d", kernel_}), 35);
  EXPECT_THAT(said_, HasSubstr("--gpu"));
}

TEST_F(BadInputTest, SocketPathTakenByAFileLeavesTheFile) {
  std::string taken = file("taken", "precious");
  EXPECT_EQ(crosvm({"run", "-s", taken, kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr(taken));
  EXPECT_EQ(contents(taken), "precious");
}

TEST_F(BadInputTest, SocketPathTooLongOrWithoutItsDirectory) {
  EXPECT_EQ(crosvm({"run", "-s", "/tmp/" + std::string(200, 'a'), kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr("aaa"));
  EXPECT_EQ(crosvm({"run", "-s", "/no/such/directory/s", kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr("/no/such/directory/s"));
}

TEST_F(BadInputTest, AMissingKvmDeviceNamesCauseAndFix) {
  EXPECT_EQ(run({"--hypervisor", "kvm[device=/no/such/kvm]", kernel_}), 1);
  EXPECT_THAT(said_, HasSubstr("/no/such/kvm"));
}

TEST_F(BadInputTest, AStopWithoutAVmFails) {
  EXPECT_EQ(crosvm({"stop", scratch_.path() + "/none"}), 1);
  EXPECT_THAT(said_, AllOf(HasSubstr("/none"), HasSubstr("stop")));
}

}  // namespace
}  // namespace crosvm::test

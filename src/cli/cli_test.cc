#include "cli/cli.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "control/socket.h"

namespace crosvm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

/// What a caller of the program sees.
struct Outcome {
  int status = -1;
  std::string out;
  std::string err;
  std::optional<Config> config;  // of the VM that was to run
};

Outcome crosvm(std::vector<const char*> arguments, Result<ExitState> ending = ExitState::kStop) {
  arguments.insert(arguments.begin(), {"crosvm"});
  Outcome outcome;
  EXPECT_TRUE(log::configure({.use_syslog = false}));  // as the process starts, but for syslog
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  outcome.status =
      crosvm_main(static_cast<int>(arguments.size()), arguments.data(), [&](const Config& config) {
        outcome.config = config;
        return ending;
      });
  std::fflush(stdout);
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

/// The configuration of a command line that must be valid.
Config config_of(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"--no-syslog", "run"});
  Outcome outcome = crosvm(std::move(arguments));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  return outcome.config.value_or(Config());
}

TEST(CliTest, WhatIsToBeStartedAnewIsThere) {
  for (const std::vector<const char*>& arguments :
       {std::vector<const char*>{"run", "k", "--restart-devices", "block"},
        {"run", "k", "--no-rng", "--restart-devices", "rng"},
        {"run", "k", "--net", "user", "--restart-devices", "net"},
        {"run", "k", "--net", "tap-name=a,vhost-net", "--restart-devices", "net"}}) {
    const Outcome outcome = crosvm(arguments);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("has no device of the kind"));
  }
  config_of({"k", "--restart-devices", "rng"});
  config_of({"k", "--net", "tap-name=a", "--restart-devices", "net"});
}

// Else what the VM opens first becomes standard error, and messages go into it.
TEST(CliTest, ClosedStandardDescriptorsAreNotGivenToFilesOfTheVm) {
  auto run_with_them_closed = [] {
    for (int number : {0, 1, 2}) ::close(number);
    const char* const arguments[] = {"crosvm", "--no-syslog", "run", "kernel"};
    std::exit(crosvm_main(4, arguments, [](const Config&) -> Result<ExitState> {
      Fd disk = TRY(open_path("/dev/zero", O_RDWR));
      if (disk.get() > 2) return ExitState::kStop;
      return fail(Error::invalid("the disk is a standard descriptor"));
    }));
  };
  EXPECT_EXIT(run_with_them_closed(), ::testing::ExitedWithCode(0), "");
}

// Exit statuses, cli.md 6.1.

TEST(CliTest, ArgumentMistakesExitWith35) {
  struct {
    std::vector<const char*> arguments;
    const char* message;
  } cases[] = {
      {{}, "One of the following subcommands must be present: help, run,"},
      {{"fly"}, "Unrecognized argument: fly"},
      {{"run", "--foo", "bzImage"}, "Unrecognized argument: --foo"},
      {{"run", "-m"}, "No value provided for option '-m'."},
      {{"run", "-m", "2G", "k"}, "Error parsing option '-m' with value '2G': size: `2G`"},
      {{"run", "-m", "1", "-m", "2", "k"}, "'-m' with value '2': duplicate values provided"},
      {{"run", "--mem=speed=3", "k"}, "unknown field `speed`, expected one of `size`"},
      {{"run", "-c", "-1", "k"}, "Error parsing option '-c' with value '-1'"},
      {{"run", "--serial", "printer", "k"}, "Error parsing option '--serial' with value 'printer'"},
      {{"run", "--kernel-entry", "uefi", "k"}, "unknown variant `uefi`, expected one of `auto`"},
      {{"run", "--irqchip", "split", "k"}, "split is not supported by this build yet"},
      {{"run", "--cpus", "4,clusters=[[0,1]]", "k"}, "clusters is not supported by this build"},
      {{"run", "--smbios", "uuid=123", "k"}, "`123` is not a UUID"},
      {{"run", "--scsi-block", "a.img", "k"}, "--scsi-block is not supported by this build yet"},
      {{"run", "--block", "a.img,block-size=100", "k"}, "block-size=100: not a multiple of 512"},
      {{"run", "--block", "ro.img", "k"}, "write path=ro.img if it begins a value): expected `=`"},
      {{"run", "--root", "a", "-r", "b", "k"}, "'-r' with value 'b': duplicate values provided"},
      {{"run", "--async-executor", "tokio", "k"}, "use auto, uring or epoll"},
      {{"run", "--log-file", "a", "k"}, "--log-file is for Windows only"},
      {{"run", "--cfg", "a", "k"}, "--cfg no longer exists"},
      {{"stop"}, "Required positional arguments not provided: VM_SOCKET"},
      {{"stop", "a", "b"}, "Unrecognized argument: b"},
      {{"gpe", "1x", "s"},
       "Error parsing positional argument 'GPE' with value '1x': not a decimal"},
      {{"gpe", "4294967296", "s"}, "'GPE' with value '4294967296'"},
      {{"disk", "resize", "x", "512", "s"}, "'DISK_INDEX' with value 'x': not a decimal number"},
      {{"disk", "resize", "0", "+512", "s"},
       "'NEW_SIZE' with value '+512': a size is that of the "},
      {{"disk", "resize", "0", "1G", "s"}, "'NEW_SIZE' with value '1G': not a decimal number"},
      {{"disk", "resize", "0", "1000", "s"},
       "'NEW_SIZE' with value '1000': a disk has a number of sectors; give a multiple of 512"},
      {{"disk", "resize", "0", "0", "s"},
       "'NEW_SIZE' with value '0': a disk has at least one sector; give 512 or a multiple of it"},
      {{"disk", "resize", "0", "-512", "s"}, "Unrecognized argument: -512"},
      {{"disk", "resize", "0", "512"}, "Required positional arguments not provided: VM_SOCKET"},
      {{"suspend", "--full", "s"}, "--full is not supported by this build yet"},
      {{"disk"}, "One of the following subcommands must be present: help, resize"},
      {{"balloon", "1", "s"}, "`crosvm balloon` is not supported by this build yet"},
      {{"--log-level", "loud", "version"}, "Error parsing option '--log-level' with value 'loud'"},
  };
  for (const auto& test : cases) {
    Outcome outcome = crosvm(test.arguments);
    EXPECT_EQ(outcome.status, 35) << test.message;
    EXPECT_THAT(outcome.err, HasSubstr(std::string("arg parsing failed: "))) << test.message;
    EXPECT_THAT(outcome.err, HasSubstr(test.message));
    EXPECT_THAT(outcome.out, IsEmpty()) << test.message;
    EXPECT_FALSE(outcome.config) << test.message;
  }
}

TEST(CliTest, ImpossibleVmsExitWith1AndSayWhyRaw) {
  struct {
    std::vector<const char*> arguments;
    const char* line;
  } cases[] = {
      {{"run"}, "no kernel to boot; give the path of a bzImage or an ELF vmlinux\n"},
      {{"run", "-m", "0", "k"}, "--mem 0: a VM without memory"},
      {{"run", "-m", "0xffffffffffffffff", "k"},
       "--mem 18446744073709551615: more MiB than 64 bits"},
      {{"run", "-c", "0", "k"}, "--cpus 0: a VM without vCPUs"},
      {{"run", "--serial", "num=1", "--serial", "num=1", "k"},
       "serial port serial 1 is given twice"},
      {{"run", "--hypervisor", "kvm", "--kvm-device", "/dev/kvm", "k"},
       "--hypervisor and --kvm-device cannot both be given"},
  };
  for (const auto& test : cases) {
    Outcome outcome = crosvm(test.arguments);
    EXPECT_EQ(outcome.status, 1) << test.line;
    // Raw at the start of a line, and in the last record of the log.
    EXPECT_THAT("\n" + outcome.err, HasSubstr(std::string("\n") + test.line));
    EXPECT_THAT(outcome.err, HasSubstr(std::string("exiting with error 1: ") + test.line));
    EXPECT_FALSE(outcome.config) << test.line;
  }
}

TEST(CliTest, TheVmsEndIsTheStatusWhenAsked) {
  std::pair<ExitState, int> cases[] = {{ExitState::kStop, 0},
                                       {ExitState::kReset, 32},
                                       {ExitState::kCrash, 33},
                                       {ExitState::kGuestPanic, 34},
                                       {ExitState::kWatchdog, 36}};
  for (auto [state, status] : cases) {
    EXPECT_EQ(crosvm({"--extended-status", "run", "k"}, state).status, status);
    EXPECT_EQ(crosvm({"run", "k"}, state).status, 0);
  }
  Outcome failed = crosvm({"--extended-status", "run", "k"}, fail(Error::invalid("no /dev/kvm")));
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("exiting with error 1: no /dev/kvm"));
}

TEST(CliTest, TheLastRecordSaysHowItEnded) {
  EXPECT_THAT(crosvm({"run", "k"}, ExitState::kReset).err, HasSubstr("exiting with reset"));
  EXPECT_THAT(crosvm({"version"}).err, HasSubstr("exiting with success"));
  EXPECT_THAT(crosvm({"--log-level", "off", "version"}).err, IsEmpty());
}

TEST(CliTest, NumbersOfControlSubcommandsAreRead) {
  Outcome outcome = crosvm({"gpe", "+7", "/nonexistent/vm.sock"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("gpe subcommand failed"));
}

/// The VM is not needed for it: what it may answer is explained (cli.md 4.4).
TEST(CliTest, DiskResizeAsksTheVmAndSaysWhatItsAnswerMeans) {
  const std::string path = testing::TempDir() + "resize.sock";
  std::pair<const char*, const char*> answers[] = {
      {R"("Ok")", "exiting with success"},
      {R"({"Err":19})", "the VM has no disk of that index"},
      {R"({"Err":30})", "the disk is read-only in this VM"},
      {R"({"Err":22})", "the disk cannot have this size, or its process has just ended"},
      {R"({"Err":5})", "the VM's log says why"}};
  for (const auto& [answer, words] : answers) {
    control::Listener listener = std::move(control::Listener::open(path).value());
    std::string heard;
    std::thread vm([&listener, &heard, text = std::string(answer)] {
      std::optional<PacketSocket> socket;
      while (!socket) socket = std::move(listener.accept().value());
      auto packet = socket->receive();
      while (!packet) packet = socket->receive();
      heard = (*packet)->text;
      EXPECT_TRUE(socket->send({.text = text, .fds = {}}));
    });
    Outcome outcome = crosvm({"disk", "resize", "2", "1048576", path.c_str()});
    vm.join();
    EXPECT_EQ(heard,
              R"({"DiskCommand":{"disk_index":2,"command":{"Resize":{"new_size":1048576}}}})");
    const bool ok = answer == answers[0].first;
    EXPECT_EQ(outcome.status, ok ? 0 : 1) << answer;
    EXPECT_THAT(outcome.err, HasSubstr(words));
    EXPECT_EQ(outcome.out.starts_with("unexpected response: error: "), !ok) << outcome.out;
    EXPECT_THAT(outcome.err, HasSubstr(ok ? "" : "disk subcommand failed"));
  }
}

TEST(CliTest, ClientsFailWith1WithoutAVm) {
  for (const char* name : {"stop", "powerbtn", "sleepbtn", "suspend", "resume"}) {
    Outcome outcome = crosvm({name, "/nonexistent/vm.sock"});
    EXPECT_EQ(outcome.status, 1) << name;
    EXPECT_THAT(outcome.err, HasSubstr("/nonexistent/vm.sock")) << name;
    EXPECT_THAT(outcome.err, HasSubstr(std::string(name) + " subcommand failed"));
    EXPECT_THAT(outcome.out, IsEmpty()) << name;
  }
}

// Standard output.

TEST(CliTest, HelpGoesToStdout) {
  Outcome run = crosvm({"run", "--help"});
  EXPECT_EQ(run.status, 0);
  EXPECT_THAT(run.out, StartsWith("Usage: crosvm run <options> KERNEL\n"));
  EXPECT_THAT(run.out, HasSubstr("-m, --mem KEY=VALUE"));
  EXPECT_THAT(run.out, HasSubstr("not supported by this build yet:\n  --bios"));
  EXPECT_THAT(run.out, Not(HasSubstr("--log-file")));
  EXPECT_EQ(crosvm({"help", "run"}).out, run.out);
  EXPECT_EQ(crosvm({"run", "-h"}).out, run.out);
  EXPECT_THAT(crosvm({"--help"}).out, HasSubstr("powerbtn"));
  EXPECT_THAT(crosvm({"gpu", "set-mouse-mode", "help"}).out,
              StartsWith("Usage: crosvm gpu set-mouse-mode [<options>] VM_SOCKET\n"));
}

TEST(CliTest, AMistakeBeforeHelpWins) {
  EXPECT_EQ(crosvm({"run", "-m", "2G", "--help"}).status, 35);
  EXPECT_EQ(crosvm({"run", "--scsi-block", "a.img", "--help"}).status, 0);
}

TEST(CliTest, VersionIsOneLine) {
  EXPECT_THAT(crosvm({"version"}).out, StartsWith("crosvm 0.1.0"));
}

TEST(CliTest, DocumentsAreMadeFromTheTable) {
  std::string options = crosvm({"--print-options-md"}).out;
  EXPECT_THAT(options, HasSubstr("| `-c, --cpus KEY=VALUE,…` | yes |"));
  EXPECT_THAT(options, HasSubstr("| `--scsi-block KEY=VALUE,…` | not yet |"));
  EXPECT_THAT(options, HasSubstr("## crosvm gpu set-mouse-mode VM_SOCKET"));
  EXPECT_THAT(crosvm({"--print-man"}).out, HasSubstr(".B \\-m, \\-\\-mem KEY=VALUE,...\n"));
  std::string completion = crosvm({"--print-completion"}).out;
  EXPECT_THAT(completion, HasSubstr("--kernel-entry"));
  EXPECT_THAT(completion, Not(HasSubstr("--scsi-block")));
}

// What run makes of its options.

TEST(CliTest, DisksStandInTheOrderOfTheCommandLine) {
  Config config = config_of({"k", "--rwdisk", "a", "-b", "b,id=x", "--root", "c", "-d", "e",
                             "--disk", "f,ro=false,root", "--async-executor", "epoll"});
  std::vector<std::string> texts;
  for (const DeviceRequest& disk : config.disks) texts.push_back(disk.text);
  EXPECT_THAT(texts, ElementsAre("path=\"a\",async-executor=epoll",
                                 "path=\"b\",id=\"x\",async-executor=epoll",
                                 "path=\"c\",ro=true,root=true,async-executor=epoll",
                                 "path=\"e\",ro=true,async-executor=epoll",
                                 "path=\"f\",ro=true,async-executor=epoll"));
  EXPECT_EQ(config.root_parameter, "root=/dev/vdc ro");
  EXPECT_EQ(config_of({"k", "--rwroot", "a"}).root_parameter, "root=/dev/vda rw");
}

TEST(CliTest, TwoRootDisksAreAConfigurationMistake) {
  Outcome outcome = crosvm({"--no-syslog", "run", "k", "--root", "a", "-b", "b,root"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("disks a and b are both the root"));
}

TEST(CliTest, RunDescribesTheVm) {
  Config config = config_of({"bzImage",      "-m",
                             "0x200",        "-c",
                             "num-cores=2",  "-i",
                             "initrd.img",   "-p",
                             "quiet",        "-pinit=/bin/sh",
                             "--socket",     "/run/vm",
                             "--name",       "vm",
                             "--acpi-table", "a.aml",
                             "--acpi-table", "b.aml",
                             "--hugepages",  "--lock-guest-memory",
                             "--no-smt",     "--no-i8042",
                             "--no-rtc",     "--kernel-entry",
                             "pvh",          "--nested",
                             "mode=off"});
  EXPECT_EQ(config.kernel, "bzImage");
  EXPECT_EQ(config.memory_mib, 512u);
  EXPECT_EQ(config.vcpus, 2u);
  EXPECT_EQ(config.initrd, "initrd.img");
  EXPECT_THAT(config.params, ElementsAre("quiet", "init=/bin/sh"));
  EXPECT_EQ(config.socket, "/run/vm");
  EXPECT_EQ(config.name, "vm");
  EXPECT_THAT(config.acpi_tables, ElementsAre("a.aml", "b.aml"));
  EXPECT_TRUE(config.hugepages && config.lock_guest_memory);
  EXPECT_FALSE(config.smt || config.i8042 || config.rtc);
  EXPECT_EQ(config.kernel_entry, KernelEntry::kPvh);
  EXPECT_EQ(config.nested, Nested::kOff);
}

TEST(CliTest, RunHasDefaults) {
  Config config = config_of({"bzImage"});
  EXPECT_EQ(config.memory_mib, 256u);
  EXPECT_EQ(config.vcpus, 1u);
  EXPECT_EQ(config.serial.size(), 4u);
  EXPECT_TRUE(config.smt && config.i8042 && config.rtc);
  EXPECT_EQ(config.kvm_device, "/dev/kvm");
  EXPECT_EQ(config.kernel_entry, KernelEntry::kAuto);
  EXPECT_EQ(config.nested, Nested::kAuto);
  EXPECT_FALSE(config.initrd || config.socket || config.name || config.smbios.uuid);
}

TEST(CliTest, TheKvmDeviceHasTwoSpellings) {
  EXPECT_EQ(config_of({"k", "--hypervisor", "kvm[device=/dev/k]"}).kvm_device, "/dev/k");
  EXPECT_EQ(config_of({"k", "--hypervisor", "kvm"}).kvm_device, "/dev/kvm");
  EXPECT_EQ(config_of({"k", "--kvm-device", "/dev/k2"}).kvm_device, "/dev/k2");
}

TEST(CliTest, SmbiosStringsComeFromBothOptions) {
  Config config = config_of({"k", "--oem-strings", "c,d", "--smbios",
                             "vendor,manufacturer=me,serial-number=7,oem-strings=[a,'b c'],"
                             "uuid=00112233-4455-6677-8899-aAbBcCdDeEfF"});
  EXPECT_EQ(config.smbios.bios_vendor, "vendor");
  EXPECT_EQ(config.smbios.manufacturer, "me");
  EXPECT_EQ(config.smbios.serial_number, "7");
  EXPECT_FALSE(config.smbios.product_name);
  EXPECT_THAT(config.smbios.oem_strings, ElementsAre("a", "b c", "c,d"));
  ASSERT_TRUE(config.smbios.uuid);
  EXPECT_THAT(*config.smbios.uuid, ElementsAre(0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
                                               0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff));
}

TEST(CliTest, SwitchesForDevicesThatDoNotExistAreHarmless) {
  config_of({"k", "--no-balloon", "--no-rng", "--no-usb", "--disable-sandbox", "--irqchip",
             "kernel", "-u", "--no-wl", "--wayland-dmabuf"});
}

TEST(CliTest, OldSpellingsWarnAndWork) {
  Outcome outcome = crosvm({"run", "--no-legacy", "k"});
  EXPECT_EQ(outcome.status, 0);
  ASSERT_TRUE(outcome.config);
  EXPECT_FALSE(outcome.config->i8042 || outcome.config->rtc);
  EXPECT_THAT(outcome.err, HasSubstr("--no-legacy is deprecated; use --no-i8042 --no-rtc"));
}

}  // namespace
}  // namespace crosvm

// The virtio devices as a stock Debian guest sees them: disks, entropy, ports, their interrupts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "agent_guest.h"

namespace crosvm::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

/// A raw image in `scratch`, full of a byte and so allocated on the host.
std::string make_image(const ScratchDirectory& scratch, const std::string& name, uint64_t bytes) {
  std::string path = scratch.path() + "/" + name;
  std::ofstream(path, std::ios::binary) << std::string(bytes, 'x');
  return path;
}

uint64_t allocated_bytes(const std::string& path) {
  struct stat facts{};
  EXPECT_EQ(::stat(path.c_str(), &facts), 0) << path;
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

/// How the guest and its devices talk to one another.
struct Way {
  const char* name;
  const char* params;               // of the kernel
  const char* disk_keys;            // of --block
  const char* flag = "--no-i8042";  // one more of `run`
};

class VirtioWayTest : public testing::TestWithParam<Way> {};

/// Writes and verifies with one job on each CPU, so that each queue has its share.
constexpr const char* kVerify =
    "fio --name=verify --filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite"
    " --bs=4k --size=8m --offset_increment=8m --numjobs=2 --cpus_allowed=0,1"
    " --cpus_allowed_policy=split --verify=crc32c --do_verify=1 --verify_fatal=1"
    " --verify_state_save=0 --group_reporting";

TEST_P(VirtioWayTest, DisksEntropyAndPortsWork) {
  const Way& way = GetParam();
  ScratchDirectory scratch;
  std::string disk = make_image(scratch, "disk", 32 * kMiB);
  std::string sealed = make_image(scratch, "sealed", kMiB);
  AgentGuest guest({.vcpus = 2,
                    .extra = {"--block", disk + ",id=the-serial" + way.disk_keys, "--block",
                              sealed + ",ro", way.flag}},
                   way.params);

  EXPECT_THAT(guest.output_of("findmnt -no SOURCE,OPTIONS /"), HasSubstr("/dev/vda"));
  EXPECT_EQ(guest.output_of("cat /sys/block/vdb/serial"), "the-serial");
  EXPECT_EQ(guest.output_of("blockdev --getsize64 /dev/vdb"), "33554432\n");
  EXPECT_THAT(guest.output_of(kVerify), HasSubstr("err= 0"));

  uint64_t before = allocated_bytes(disk);
  guest.output_of("blkdiscard -o 0 -l 16777216 /dev/vdb");
  EXPECT_LE(allocated_bytes(disk), before - 15 * kMiB) << "the host has its blocks back";
  guest.output_of("blkdiscard -z -o 16777216 -l 1048576 /dev/vdb");
  EXPECT_EQ(
      guest.output_of("dd if=/dev/vdb bs=1M skip=16 count=1 2>/dev/null | tr -d '\\0' | wc -c"),
      "0\n");

  EXPECT_EQ(guest.output_of("blockdev --getro /dev/vdc"), "1\n");
  EXPECT_NE(guest.shell("dd if=/dev/zero of=/dev/vdc bs=4096 count=1 oflag=direct").status, 0);
  EXPECT_EQ(guest.output_of("head -c 1 /dev/vdc"), "x");

  EXPECT_EQ(guest.output_of("head -c 4096 /dev/hwrng | wc -c"), "4096\n");
  EXPECT_EQ(guest.output_of("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0\n");

  std::string interrupts = guest.output_of("grep virtio /proc/interrupts");
  std::string pci = guest.output_of("lspci -vv -d 1af4:1042");
  if (std::string(way.params).find("pci=nomsi") == std::string::npos) {
    EXPECT_THAT(interrupts, HasSubstr("virtio2-req.0"));
    EXPECT_THAT(interrupts, HasSubstr("virtio2-req.1"));
    EXPECT_THAT(pci, HasSubstr("MSI-X: Enable+ Count=17 Masked-"));
  } else {
    EXPECT_THAT(interrupts, HasSubstr("IO-APIC"));
    EXPECT_THAT(interrupts, Not(HasSubstr("MSI")));
    EXPECT_THAT(pci, HasSubstr("MSI-X: Enable-"));
  }
  EXPECT_EQ(guest.output_of("dmesg | grep -ciE 'virtio.*(error|fail)|I/O error.*vdb' || true"),
            "0\n");
  EXPECT_EQ(guest.power_off(), 0);
}

INSTANTIATE_TEST_SUITE_P(Ways, VirtioWayTest,
                         testing::Values(Way{"msix_split", "", ""},
                                         Way{"intx_split", "pci=nomsi", ""},
                                         Way{"msix_packed", "", ",packed-queue"},
                                         Way{"without_sandbox", "", "", "--disable-sandbox"}),
                         [](const auto& test) { return std::string(test.param.name); });

/// Takes the driver from the disk and gives it back while fio writes to another, N times; then both
/// disks still work.
TEST(VirtioTest, DriversComeAndGoUnderLoad) {
  const bool full = std::getenv("CROSVM_TEST_FULL") != nullptr;
  ScratchDirectory scratch;
  std::string disk = make_image(scratch, "disk", 16 * kMiB);
  std::string other = make_image(scratch, "other", 16 * kMiB);
  AgentGuest guest({.vcpus = 2, .extra = {"--block", disk, "--block", other}});
  std::string cycles = full ? "1000" : "12";
  AgentResult result = guest.shell(
      "set -e\n"
      "device=$(basename $(readlink -f /sys/block/vdb/device))\n"
      "fio --name=load --filename=/dev/vdc --direct=1 --rw=randwrite --bs=4k --ioengine=libaio"
      " --iodepth=8 --time_based --runtime=600 --size=16m >/dev/null 2>&1 & load=$!\n"
      "disk=vdb\n"
      "for i in $(seq " +
          cycles +
          "); do\n"
          // Not to make a file of that name when the disk is gone already.
          "  dd if=/dev/zero of=/dev/$disk bs=64k count=16 oflag=direct conv=nocreat 2>/dev/null &"
          " writer=$!\n"
          "  echo $device > /sys/bus/virtio/drivers/virtio_blk/unbind\n"
          "  wait $writer || true\n"  // its disk may have gone in the middle
          "  echo $device > /sys/bus/virtio/drivers/virtio_blk/bind\n"
          "  disk=$(ls /sys/bus/virtio/devices/$device/block)\n"
          "  until [ -b /dev/$disk ]; do sleep 0.01; done\n"
          "done\n"
          "kill -0 $load; kill $load; wait $load || true\n"
          "dd if=/dev/$disk of=/dev/null bs=1M iflag=direct 2>/dev/null\n"
          "dd if=/dev/vdc of=/dev/null bs=1M iflag=direct 2>/dev/null\n"
          "echo done\n",
      std::chrono::minutes(full ? 120 : 10));
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_EQ(result.output, "done\n");
  EXPECT_EQ(guest.power_off(), 0);
}

/// `crosvm disk resize`: the guest uses what is new, and finds an end where the disk was cut.
TEST(VirtioTest, DisksChangeTheirSizeUnderTheGuest) {
  ScratchDirectory scratch;
  const std::string socket = scratch.path() + "/vm.sock";
  const std::string raw = make_image(scratch, "raw", 8 * kMiB);
  const std::string qcow2 = scratch.path() + "/qcow2";
  VmProcess maker({"--no-syslog", "create_qcow2", qcow2, std::to_string(8 * kMiB)});
  ASSERT_EQ(maker.wait_exit(), 0) << maker.errors();
  AgentGuest guest({.vcpus = 2, .extra = {"-s", socket, "--block", raw, "--block", qcow2}});
  const std::pair<const char*, const char*> disks[] = {{"1", "vdb"}, {"2", "vdc"}};
  for (const auto& [index, disk] : disks) {
    SCOPED_TRACE(disk);
    auto resize = [&, at = std::string(index), name = std::string(disk)](uint64_t bytes) {
      VmProcess client({"--no-syslog", "disk", "resize", at, std::to_string(bytes), socket});
      EXPECT_EQ(client.wait_exit(), 0) << client.errors();
      // The guest's driver hears of it a little later.
      const std::string size = std::to_string(bytes);
      EXPECT_EQ(guest.output_of("for i in $(seq 300); do [ $(blockdev --getsize64 /dev/" + name +
                                ") = " + size +
                                " ] && break; sleep 0.1; done; blockdev"
                                " --getsize64 /dev/" +
                                name + "; cat /sys/block/" + name + "/size"),
                size + "\n" + std::to_string(bytes / 512) + "\n");
    };
    const std::string device = std::string("/dev/") + disk;
    guest.output_of("head -c 4M /dev/urandom >/run/old; dd if=/run/old of=" + device +
                    " bs=1M oflag=direct 2>/dev/null");
    resize(24 * kMiB);
    guest.output_of("head -c 16M /dev/urandom >/run/new; dd if=/run/new of=" + device +
                    " bs=1M seek=8 oflag=direct 2>/dev/null");
    auto sum = [&guest](const std::string& of) { return guest.output_of(of + " | sha256sum"); };
    const std::string dd = "dd if=" + device + " bs=1M iflag=direct 2>/dev/null";
    EXPECT_EQ(sum(dd + " skip=8"), sum("cat /run/new"));
    EXPECT_EQ(sum(dd + " count=4"), sum("cat /run/old"));
    resize(4 * kMiB);
    EXPECT_EQ(sum(dd), sum("cat /run/old"));
    EXPECT_NE(guest
                  .shell("dd if=/dev/zero of=" + device +
                         " bs=4096 seek=1024 count=1"
                         " oflag=direct")
                  .status,
              0);
    resize(8 * kMiB);
    EXPECT_EQ(guest.output_of("dd if=" + device +
                              " bs=1M skip=4 iflag=direct 2>/dev/null |"
                              " tr -d '\\0' | wc -c"),
              "0\n")
        << "what was cut off does not come back";
  }
  EXPECT_EQ(guest.power_off(), 0);
  struct stat facts{};
  EXPECT_EQ(::stat(raw.c_str(), &facts), 0);
  EXPECT_EQ(static_cast<uint64_t>(facts.st_size), 8 * kMiB);
  VmProcess check({"--no-syslog", "disk", "check", qcow2});
  EXPECT_EQ(check.wait_exit(), 0) << check.output() << check.errors();
}

/// A console on virtio alone: login prompt, keys, and the size of the terminal as it changes.
TEST(VirtioTest, AConsoleTakesKeysAndFollowsTheTerminalsSize) {
  VmProcess vm(
      guest_arguments({.extra = {"--serial", "type=stdout,hardware=virtio-console,console,stdin"}},
                      "crosvm.test=shell"),
      VmProcess::Input::kTerminal);
  // The guest hears of a size some time after it is set, which is once before the VM looks for it
  // and once while the guest runs. What is waited for is not in the commands, which come back too.
  auto expect_size = [&vm](uint16_t rows, uint16_t cols) {
    const std::string row = std::to_string(rows);
    const std::string col = std::to_string(cols);
    vm.send("for i in $(seq 30); do stty size | grep " + row + "." + col +
            " && break; sleep 1; done\n");
    EXPECT_TRUE(vm.wait_for(row + " " + col, std::chrono::seconds(40))) << vm.output();
  };
  winsize size{.ws_row = 31, .ws_col = 97, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(vm.terminal().get(), TIOCSWINSZ, &size), 0);
  ASSERT_TRUE(vm.wait_for("crosvm# "));
  vm.send("tty\n");
  EXPECT_TRUE(vm.wait_for("/dev/hvc0")) << vm.output();
  expect_size(31, 97);
  size.ws_row = 40;
  size.ws_col = 120;
  ASSERT_EQ(::ioctl(vm.terminal().get(), TIOCSWINSZ, &size), 0);  // SIGWINCH to the VM
  expect_size(40, 120);
  vm.send("echo abc | tr a-c A-C; poweroff -f\n");
  EXPECT_TRUE(vm.wait_for("ABC")) << vm.output();
  EXPECT_EQ(vm.wait_exit(), 0);
}

}  // namespace
}  // namespace crosvm::test

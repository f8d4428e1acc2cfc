// Disks by vhost-user in stock Debian guests: ours in QEMU, and qemu-storage-daemon's in ours.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "agent_client.h"
#include "agent_guest.h"
#include "guest_run.h"
#include "other_program.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

/// Writes and verifies on /dev/vdb, with one job on each CPU.
constexpr const char* kVerify =
    "fio --name=verify --filename=/dev/vdb --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite"
    " --bs=4k --size=8m --offset_increment=8m --numjobs=2 --cpus_allowed=0,1"
    " --cpus_allowed_policy=split --verify=crc32c --do_verify=1 --verify_fatal=1"
    " --verify_state_save=0 --group_reporting";

std::string make_image(const ScratchDirectory& scratch, const std::string& name, uint64_t bytes) {
  std::string path = scratch.path() + "/" + name;
  std::ofstream(path, std::ios::binary) << std::string(bytes, 'x');
  return path;
}

bool comes(const std::string& path) {
  for (int tries = 0; tries < 3000 && !std::filesystem::exists(path); ++tries) {
    std::this_thread::sleep_for(10ms);
  }
  return std::filesystem::exists(path);
}

bool installed(const std::string& program) {
  return ::access(("/usr/bin/" + program).c_str(), X_OK) == 0;
}

/// QEMU with a guest that has two vhost-user disks and our agent on a port.
std::vector<std::string> qemu(const std::string& root, const std::string& disk,
                              const std::string& agent) {
  return {"qemu-system-x86_64",
          "-M",
          "q35",
          "-accel",
          "kvm",
          "-cpu",
          "host",
          "-smp",
          "2",
          "-m",
          "512",
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-no-reboot",
          "-object",
          "memory-backend-memfd,id=ram,size=512M,share=on",
          "-numa",
          "node,memdev=ram",
          "-chardev",
          "socket,id=root,path=" + root,
          "-device",
          "vhost-user-blk-pci,chardev=root,num-queues=2,addr=4",
          "-chardev",
          "socket,id=disk,path=" + disk,
          "-device",
          "vhost-user-blk-pci,chardev=disk,num-queues=2,addr=5",
          "-device",
          "virtio-serial-pci,addr=6",
          "-chardev",
          "socket,id=agent,path=" + agent,
          "-device",
          "virtserialport,chardev=agent,name=agent",
          "-kernel",
          image("cloud12", "vmlinuz"),
          "-initrd",
          image("cloud12", "initrd"),
          "-append",
          "quiet panic=-1 root=/dev/vda ro"};
}

TEST(VhostUserTest, QemuBootsFromOurDiskAndVerifiesAnother) {
  if (!installed("qemu-system-x86_64")) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  ScratchDirectory scratch;
  const std::string disk = make_image(scratch, "disk", 32 * kMiB);
  const std::string root_socket = scratch.path() + "/root.sock";
  const std::string disk_socket = scratch.path() + "/disk.sock";
  const std::string agent_socket = scratch.path() + "/agent";
  VmProcess root({"--no-syslog", "device", "block", "--file",
                  image("root", "debian12.img") + ":read-only", "--socket-path", root_socket});
  VmProcess other({"--no-syslog", "device", "block", "--file", disk, "--socket-path", disk_socket});
  ASSERT_TRUE(comes(root_socket)) << root.errors();
  ASSERT_TRUE(comes(disk_socket)) << other.errors();
  auto agent = AgentClient::listen(agent_socket);
  ASSERT_TRUE(agent) << agent.error().what();
  OtherProgram guest(qemu(root_socket, disk_socket, agent_socket));
  auto ready = agent->wait_ready(150s);
  ASSERT_TRUE(ready) << ready.error().what();

  auto mounted = agent->shell("findmnt -no SOURCE,OPTIONS /");
  ASSERT_TRUE(mounted) << mounted.error().what();
  EXPECT_THAT(mounted->output, HasSubstr("/dev/vda"));
  auto verified = agent->shell(kVerify, {.timeout = 300s});
  ASSERT_TRUE(verified) << verified.error().what();
  EXPECT_EQ(verified->status, 0) << verified->errors;
  EXPECT_THAT(verified->output, HasSubstr("err= 0"));
  auto complaints = agent->shell("dmesg | grep -ciE 'virtio.*(error|fail)|I/O error' || true");
  ASSERT_TRUE(complaints) << complaints.error().what();
  EXPECT_EQ(complaints->output, "0\n");
  auto marked = agent->shell(
      "echo written by the guest | dd of=/dev/vdb bs=512 count=1 conv=sync oflag=direct");
  ASSERT_TRUE(marked) << marked.error().what();
  EXPECT_EQ(marked->status, 0) << marked->errors;
  EXPECT_TRUE(agent->power_off());
  EXPECT_TRUE(guest.ends(120s));
  EXPECT_EQ(root.wait_exit(60s), 0) << root.errors();
  EXPECT_EQ(other.wait_exit(60s), 0) << other.errors();
  std::string line;
  std::getline(std::ifstream(disk) >> std::ws, line);
  EXPECT_EQ(line, "written by the guest");
}

TEST(VhostUserTest, OurGuestBootsFromQemuStorageDaemonAndVerifiesAnother) {
  if (!installed("qemu-storage-daemon")) GTEST_SKIP() << "qemu-storage-daemon is not installed";
  ScratchDirectory scratch;
  const std::string disk = make_image(scratch, "disk", 32 * kMiB);
  const std::string root_socket = scratch.path() + "/root.sock";
  const std::string disk_socket = scratch.path() + "/disk.sock";
  OtherProgram daemon(
      {"qemu-storage-daemon", "--blockdev",
       "driver=file,node-name=root,read-only=on,filename=" + image("root", "debian12.img"),
       "--blockdev", "driver=file,node-name=disk,filename=" + disk, "--export",
       "type=vhost-user-blk,id=root,node-name=root,addr.type=unix,addr.path=" + root_socket,
       "--export",
       "type=vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,addr.type=unix,"
       "addr.path=" +
           disk_socket});
  ASSERT_TRUE(comes(root_socket));
  ASSERT_TRUE(comes(disk_socket));
  auto agent = AgentClient::listen(scratch.path() + "/agent");
  ASSERT_TRUE(agent) << agent.error().what();
  VmProcess vm(guest_arguments(
      {.vcpus = 2,
       .extra = {"--serial", agent->serial_option(), "--vhost-user", "block,socket=" + root_socket,
                 "--vhost-user", "block,socket=" + disk_socket}},
      "root=/dev/vda ro"));
  auto ready = agent->wait_ready(150s);
  ASSERT_TRUE(ready) << ready.error().what() << fate_of(vm);
  auto mounted = agent->shell("findmnt -no SOURCE,OPTIONS /");
  ASSERT_TRUE(mounted) << mounted.error().what() << fate_of(vm);
  EXPECT_THAT(mounted->output, HasSubstr("/dev/vda"));
  auto verified = agent->shell(kVerify, {.timeout = 300s});
  ASSERT_TRUE(verified) << verified.error().what() << fate_of(vm);
  EXPECT_THAT(verified->output, HasSubstr("err= 0")) << verified->errors;
  EXPECT_TRUE(agent->power_off());
  EXPECT_EQ(vm.wait_exit(120s), 0) << vm.errors();
}

/// Both ends are ours.
TEST(VhostUserTest, OurGuestUsesOurDevicesByVhostUser) {
  ScratchDirectory scratch;
  const std::string disk = make_image(scratch, "disk", 32 * kMiB);
  const std::string disk_socket = scratch.path() + "/disk.sock";
  const std::string rng_socket = scratch.path() + "/rng.sock";
  const std::string console_socket = scratch.path() + "/console.sock";
  const std::string said = scratch.path() + "/said";
  VmProcess devices({"--no-syslog", "devices", "--block", "vhost=" + disk_socket + "," + disk,
                     "--serial", "vhost=" + console_socket + ",type=file,name=words,path=" + said});
  VmProcess rng({"--no-syslog", "device", "rng", "--socket-path", rng_socket});
  AgentGuest guest(
      {.vcpus = 2,
       .extra = {"--no-rng", "--vhost-user", "block,socket=" + disk_socket, "--vhost-user",
                 "rng,socket=" + rng_socket, "--vhost-user", "console,socket=" + console_socket,
                 "--vhost-user-connect-timeout-ms", "30000"}});
  EXPECT_THAT(guest.output_of(kVerify), HasSubstr("err= 0"));
  EXPECT_EQ(guest.output_of("head -c 4096 /dev/hwrng | wc -c"), "4096\n");
  guest.output_of("echo spoken > /dev/virtio-ports/words");
  const std::string device = guest.output_of("basename $(readlink -f /sys/block/vdb/device)");
  guest.output_of("cd /sys/bus/virtio/drivers/virtio_blk; d=" +
                  device.substr(0, device.find('\n')) + "; echo $d > unbind; echo $d > bind");
  guest.output_of("until [ -b /dev/vdb ]; do sleep 0.1; done; blkdiscard /dev/vdb");
  EXPECT_EQ(guest.power_off(), 0);
  EXPECT_EQ(devices.wait_exit(60s), 0) << devices.errors();
  EXPECT_EQ(rng.wait_exit(60s), 0) << rng.errors();
  std::string line;
  std::getline(std::ifstream(said) >> std::ws, line);
  EXPECT_EQ(line, "spoken");
}

}  // namespace
}  // namespace crosvm::test

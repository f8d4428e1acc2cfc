// Disk images under the file systems of a stock Debian guest: what it writes is there, what it
// trims comes back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "agent_guest.h"

namespace crosvm::test {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

/// A shell command on the host, which must succeed.
void on_host(const std::string& command) {
  const int status = std::system(command.c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command << ": " << status;
}

uint64_t allocated_bytes(const std::string& path) {
  struct stat facts{};
  EXPECT_EQ(::stat(path.c_str(), &facts), 0) << path;
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

/// A writable image of 256 MiB, made by shell commands in a folder.
struct Image {
  std::string name;         // of the file
  std::string make;         // makes it
  std::string holds_space;  // the file whose space is the guest's to give back
  std::string keys = "";    // of --block
  bool qcow2 = true;
};

std::vector<Image> writable_images() {
  return {
      {"raw", "truncate -s 256M raw", "raw", "", false},
      {"direct", "truncate -s 256M direct", "direct", ",direct,async-executor=epoll", false},
      {"plain", "$CROSVM create_qcow2 plain 268435456", "plain"},
      {"q-direct", "$CROSVM create_qcow2 q-direct 268435456", "q-direct", ",direct"},
      {"extended",
       "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k,lazy_refcounts=on"
       " extended 256M",
       "extended", ",multiple-workers"},
      {"overlay",
       "truncate -s 200M base && qemu-img create -q -f qcow2 -b base -F raw overlay 256M",
       "overlay"},
      {"outside", "qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on outside 256M",
       "data"},
  };
}

/// Writes and verifies with one job on each CPU, so that each queue has its share.
std::string verify(const std::string& disk) {
  return "fio --name=verify --filename=" + disk +
         " --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=512-64k --size=2m"
         " --offset_increment=16m --numjobs=4 --cpus_allowed=0-3 --cpus_allowed_policy=split"
         " --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --group_reporting";
}

/// Bytes that the file system on `disk`, which is not mounted, has in use.
uint64_t live_bytes(AgentGuest& guest, const std::string& disk) {
  return std::strtoull(
      guest
          .output_of("dumpe2fs -h " + disk +
                     " 2>/dev/null | awk -F: '/^Block count/ {all = $2} /^Free blocks/ {unused = "
                     "$2} /^Block size/ {size = $2} END {printf \"%d\", (all - unused) * size}'")
          .c_str(),
      nullptr, 10);
}

/// A file system on `disk` keeps a file, loses others, and trims; `space` is the host's file.
void live_on(AgentGuest& guest, const std::string& disk, const std::string& space) {
  EXPECT_EQ(guest.output_of("blockdev --getsize64 " + disk), "268435456\n");
  EXPECT_EQ(guest.output_of("ls /sys/block/" + disk.substr(5) + "/mq | wc -l"), "4\n");
  EXPECT_THAT(guest.output_of(verify(disk)), HasSubstr("err= 0"));
  // Old contents all over, so that it shows whether trimming gives them back.
  guest.output_of("tr '\\0' x </dev/zero | dd of=" + disk +
                  " bs=1M count=96 iflag=fullblock conv=notrunc,fsync 2>/dev/null");
  guest.output_of("mkfs.ext4 -q -E nodiscard,lazy_itable_init=0 " + disk + " && mount " + disk +
                  " /mnt && cd /mnt && dd if=/dev/urandom of=kept bs=1M count=8 2>/dev/null &&"
                  " for i in 1 2 3; do cp kept gone$i; done && sync && rm gone* &&"
                  " sha256sum kept > sum && cd / && umount /mnt");
  EXPECT_GE(allocated_bytes(space), 96 * kMiB);
  guest.output_of("mount " + disk +
                  " /mnt && fstrim /mnt && cd /mnt && sha256sum -c sum && cd / && umount /mnt");
  guest.output_of("fsck.ext4 -fn " + disk);
  const uint64_t live = live_bytes(guest, disk);
  EXPECT_GE(live, 8 * kMiB);
  EXPECT_LE(allocated_bytes(space), live + live / 20);
}

TEST(DiskTest, FileSystemsLiveOnEachWritableFormatAndGiveSpaceBack) {
  ScratchDirectory scratch;
  const std::string in_folder =
      "cd " + scratch.path() + " && CROSVM='" + crosvm_binary() + " --no-syslog' && ";
  const std::string folder = scratch.path() + "/";
  std::vector<std::string> flags;
  std::vector<std::string> sealed;
  for (const Image& image : writable_images()) {
    on_host(in_folder + image.make);
    flags.insert(flags.end(), {"--block", folder + image.name + image.keys});
    sealed.insert(sealed.end(), {"--block", folder + image.name + image.keys + ",ro"});
  }
  {
    AgentGuest guest({.vcpus = 4, .extra = flags});
    char letter = 'b';
    for (const Image& image : writable_images()) {
      SCOPED_TRACE(image.name);
      live_on(guest, std::string("/dev/vd") + letter++, folder + image.holds_space);
    }
    EXPECT_EQ(guest.output_of("dmesg | grep -ciE 'I/O error|corrupt' || true"), "0\n");
    EXPECT_EQ(guest.power_off(), 0);
  }
  for (const Image& image : writable_images()) {
    SCOPED_TRACE(image.name);
    if (image.qcow2) on_host(in_folder + "qemu-img check -q " + image.name);
    on_host(in_folder + "$CROSVM disk check " + image.name + " >/dev/null");
  }
  AgentGuest again({.extra = sealed});
  EXPECT_EQ(again.output_of("for disk in b c d e f g h; do mount -o ro,noload /dev/vd$disk /mnt &&"
                            " (cd /mnt && sha256sum -c sum) && umount /mnt; done | uniq -c"),
            "      7 kept: OK\n");
  EXPECT_EQ(again.power_off(), 0);
}

/// A root disk in qcow2, below an overlay that takes what the boot writes.
TEST(DiskTest, DebianBootsFromQcow2) {
  ScratchDirectory scratch;
  const std::string in_folder = "cd " + scratch.path() + " && ";
  on_host(in_folder + "qemu-img convert -f raw -O qcow2 " + image("root", "debian12.img") +
          " base && " + crosvm_binary() +
          " --no-syslog create_qcow2 root --backing-file base >/dev/null");
  {
    AgentGuest guest({.root = scratch.path() + "/root,root"});
    EXPECT_THAT(guest.output_of("findmnt -no SOURCE /"), HasSubstr("/dev/vda"));
    guest.output_of("mount -o remount,rw / && cat /usr/bin/[a-f]* | sha256sum > /kept && sync");
    EXPECT_EQ(guest.power_off(), 0);
  }
  on_host(in_folder + "qemu-img check -q root");
  AgentGuest again({.root = scratch.path() + "/root,ro,root"});
  EXPECT_EQ(again.output_of("cat /usr/bin/[a-f]* | sha256sum"), again.output_of("cat /kept"));
  EXPECT_EQ(again.power_off(), 0);
}

/// Formats that are only read, and a disk of several images.
TEST(DiskTest, ReadOnlyFormatsAndCompositesReadBack) {
  ScratchDirectory scratch;
  const std::string in_folder = "cd " + scratch.path() + " && ";
  const std::string crosvm = crosvm_binary() + " --no-syslog ";
  on_host(in_folder +
          "{ head -c 6000000 /dev/urandom; head -c 9000000 /dev/zero; head -c 1777216 "
          "/dev/urandom; } > plain");
  for (const char* name : {"a.zst", "a.simg", "a.qcow2"}) {
    on_host(in_folder + crosvm + "disk convert plain " + name + " >/dev/null");
  }
  on_host(in_folder + "truncate -s 1M writable && " + crosvm +
          "create_composite whole one:plain two:writable:writable >/dev/null");
  const std::string folder = scratch.path() + "/";
  {
    AgentGuest guest({.vcpus = 2,
                      .extra = {"--block", folder + "a.zst,ro", "--block", folder + "a.simg,ro",
                                "--block", folder + "a.qcow2,ro", "--block", folder + "whole"}});
    guest.output_of("printf hello | dd of=/dev/vde2 conv=fsync 2>/dev/null");
    const std::string sums =
        guest.output_of("for disk in vdb vdc vdd vde1; do sha256sum < /dev/$disk; done | uniq -c");
    EXPECT_THAT(sums, HasSubstr("4 ")) << sums;
    on_host("echo '" + sums.substr(sums.find('4') + 2, 64) + "  " + folder +
            "plain' | sha256sum -c --quiet");
    EXPECT_EQ(guest.power_off(), 0);
  }
  on_host(in_folder + "[ \"$(head -c 5 writable)\" = hello ]");
}

}  // namespace
}  // namespace crosvm::test

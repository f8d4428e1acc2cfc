#include "cli/option_table.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "cli/help.h"
#include "cli/run_command.h"

namespace crosvm {
namespace {

// Every option of cli.md 1.4.
constexpr std::string_view kRunOptions[] = {"acpi-table",
                                            "android-display-service",
                                            "android-fstab",
                                            "async-executor",
                                            "balloon-bias-mib",
                                            "balloon-control",
                                            "balloon-page-reporting",
                                            "balloon-ws-num-bins",
                                            "balloon-ws-reporting",
                                            "battery",
                                            "bios",
                                            "block",
                                            "boost-uclamp",
                                            "break-linux-pci-config-io",
                                            "bus-lock-ratelimit",
                                            "cid",
                                            "coiommu",
                                            "core-scheduling",
                                            "cpu-affinity",
                                            "cpu-capacity",
                                            "cpu-cluster",
                                            "cpu-frequencies-khz",
                                            "cpu-ipc-ratio",
                                            "cpus",
                                            "crash-pipe-name",
                                            "delay-rt",
                                            "dev-pm",
                                            "device-tree-overlay",
                                            "disable-sandbox",
                                            "disable-virtio-intx",
                                            "disk",
                                            "display-window-keyboard",
                                            "display-window-mouse",
                                            "dump-device-tree-blob",
                                            "dynamic-power-coefficient",
                                            "enable-fw-cfg",
                                            "enable-hwp",
                                            "evdev",
                                            "exit-stats",
                                            "fdt-position",
                                            "ffa",
                                            "file-backed-mapping",
                                            "force-calibrated-tsc-leaf",
                                            "force-disable-readonly-mem",
                                            "fw-cfg",
                                            "gdb",
                                            "gpu",
                                            "gpu-cgroup-path",
                                            "gpu-display",
                                            "gpu-render-server",
                                            "gpu-server-cgroup-path",
                                            "host-cpu-topology",
                                            "host-guid",
                                            "host-ip",
                                            "hugepages",
                                            "hypervisor",
                                            "init-mem",
                                            "initrd",
                                            "input",
                                            "irqchip",
                                            "itmt",
                                            "kernel-log-file",
                                            "keyboard",
                                            "kvm-device",
                                            "lock-guest-memory",
                                            "log-file",
                                            "logs-directory",
                                            "mac",
                                            "media-decoder",
                                            "mem",
                                            "mmio-address-range",
                                            "mouse",
                                            "mte",
                                            "multi-touch",
                                            "name",
                                            "nested",
                                            "net",
                                            "net-vq-pairs",
                                            "netmask",
                                            "no-balloon",
                                            "no-i8042",
                                            "no-pmu",
                                            "no-rng",
                                            "no-rtc",
                                            "no-smt",
                                            "no-usb",
                                            "oem-strings",
                                            "params",
                                            "pci",
                                            "pci-hotplug-slots",
                                            "pci-start",
                                            "per-vm-core-scheduling",
                                            "pflash",
                                            "pivot-root",
                                            "pmem",
                                            "pmem-device",
                                            "pmem-ext2",
                                            "process-invariants-handle",
                                            "process-invariants-size",
                                            "product-channel",
                                            "product-name",
                                            "product-version",
                                            "protected-vm",
                                            "protected-vm-with-firmware",
                                            "protected-vm-without-firmware",
                                            "pstore",
                                            "pvclock",
                                            "restore",
                                            "root",
                                            "rotary",
                                            "rt-cpus",
                                            "rw-pmem-device",
                                            "rwdisk",
                                            "rwroot",
                                            "s2idle",
                                            "scsi-block",
                                            "seccomp-log-failures",
                                            "seccomp-policy-dir",
                                            "serial",
                                            "service-pipe-name",
                                            "shared-dir",
                                            "simple-media-device",
                                            "single-touch",
                                            "slirp-capture-file",
                                            "smbios",
                                            "smccc-trng",
                                            "socket",
                                            "sound",
                                            "split-irqchip",
                                            "stub-pci-device",
                                            "suspended",
                                            "suspended-vcpus",
                                            "swap",
                                            "swiotlb",
                                            "switches",
                                            "syslog-tag",
                                            "tap-fd",
                                            "tap-name",
                                            "task-profiles",
                                            "trackpad",
                                            "unmap-guest-memory-on-fork",
                                            "unprotected-vm-with-firmware",
                                            "v4l2-proxy",
                                            "vcpu-cgroup-path",
                                            "vfio",
                                            "vfio-isolate-hotplug",
                                            "vfio-platform",
                                            "vfio-platform-pm",
                                            "vhost-net",
                                            "vhost-net-device",
                                            "vhost-scmi",
                                            "vhost-user",
                                            "vhost-user-connect-timeout-ms",
                                            "vhost-vsock-device",
                                            "vhost-vsock-fd",
                                            "video-decoder",
                                            "video-encoder",
                                            "virt-cpufreq",
                                            "virt-cpufreq-upstream",
                                            "virtio-snd",
                                            "vsock",
                                            "vtpm-proxy",
                                            "wayland-sock",
                                            "x-display"};

// Every subcommand of cli.md 3.1.
constexpr std::string_view kCommands[] = {"balloon",
                                          "balloon_stats",
                                          "balloon_ws",
                                          "battery",
                                          "create_composite",
                                          "create_qcow2",
                                          "device",
                                          "devices",
                                          "disk",
                                          "gpu",
                                          "snd",
                                          "make_rt",
                                          "resume",
                                          "run",
                                          "stop",
                                          "suspend",
                                          "swap",
                                          "powerbtn",
                                          "sleepbtn",
                                          "gpe",
                                          "usb",
                                          "version",
                                          "vfio",
                                          "virtio-net",
                                          "snapshot",
                                          "run-main",
                                          "run-mp",
                                          "run-metrics",
                                          "run-slirp",
                                          "disk resize",
                                          "gpu add-displays",
                                          "gpu list-displays",
                                          "gpu remove-displays",
                                          "gpu set-mouse-mode",
                                          "snd mute-all",
                                          "swap enable",
                                          "swap trim",
                                          "swap out",
                                          "swap disable",
                                          "swap status",
                                          "usb attach",
                                          "usb attach_key",
                                          "usb detach",
                                          "usb list",
                                          "vfio add",
                                          "vfio remove",
                                          "virtio-net add",
                                          "virtio-net remove",
                                          "snapshot take",
                                          "device block",
                                          "device gpu",
                                          "device net",
                                          "device snd",
                                          "device console",
                                          "device fs",
                                          "device vsock",
                                          "device wl"};

// Every option of a subcommand other than run (cli.md 3).
constexpr std::pair<std::string_view, std::string_view> kCommandOptions[] = {
    {"balloon", "wait"},
    {"suspend", "full"},
    {"resume", "full"},
    {"swap disable", "slow-file-cleanup"},
    {"gpu add-displays", "gpu-display"},
    {"gpu remove-displays", "display-id"},
    {"gpu set-mouse-mode", "display-id"},
    {"gpu set-mouse-mode", "mouse-mode"},
    {"snapshot take", "compress-memory"},
    {"snapshot take", "encrypt"},
    {"create_qcow2", "backing-file"},
    {"device", "async-executor"},
    {"device block", "socket-path"},
    {"device block", "fd"},
    {"device block", "socket"},
    {"device block", "file"},
    {"device console", "output-file"},
    {"device console", "input-file"},
    {"device console", "syslog"},
    {"device console", "port"},
    {"device fs", "tag"},
    {"device fs", "shared-dir"},
    {"device fs", "uid-map"},
    {"device fs", "gid-map"},
    {"device fs", "cfg"},
    {"device fs", "uid"},
    {"device fs", "gid"},
    {"device fs", "disable-sandbox"},
    {"device fs", "skip-pivot-root"},
    {"device fs", "allowlist-socket-path"},
    {"device gpu", "wayland-sock"},
    {"device gpu", "resource-bridge"},
    {"device gpu", "x-display"},
    {"device gpu", "params"},
    {"device net", "device"},
    {"device net", "tap-fd"},
    {"device net", "tap-name"},
    {"device net", "mrg-rxbuf"},
    {"device snd", "config"},
    {"device vsock", "cid"},
    {"device vsock", "vhost-socket"},
    {"device wl", "wayland-sock"},
    {"device wl", "resource-bridge"},
    {"device block", "bootstrap"},
    {"devices", "async-executor"},
    {"devices", "disable-sandbox"},
    {"devices", "jail"},
    {"devices", "serial"},
    {"devices", "block"},
    {"devices", "vsock"},
    {"devices", "net"},
    {"devices", "control-socket"}};

const Command* find_command(std::string_view path) {
  const Command* command = &root_command();
  while (command && !path.empty()) {
    size_t space = path.find(' ');
    command = command->find_subcommand(path.substr(0, space));
    path = space == std::string_view::npos ? std::string_view() : path.substr(space + 1);
  }
  return command;
}

template <class Visit>
void for_each_option(const Command& command, const Visit& visit) {
  for (const OptionGroup& group : command.groups) {
    for (const Option& option : group.options) visit(option);
  }
  for (const Command& subcommand : command.subcommands) for_each_option(subcommand, visit);
}

TEST(OptionTableTest, RunHasEveryOption) {
  const Command* run = find_command("run");
  ASSERT_TRUE(run);
  for (std::string_view name : kRunOptions) EXPECT_TRUE(run->find_option(name)) << name;
  EXPECT_EQ(std::size(kRunOptions), 164u);
}

TEST(OptionTableTest, RunHasTheSpellingsOfOldReleases) {
  const Command* run = find_command("run");
  for (std::string_view name : {"qcow",
                                "rwqcow",
                                "wayland-dmabuf",
                                "no-wl",
                                "multiprocess",
                                "vhost-user-blk",
                                "vhost-user-net",
                                "vhost-user-console",
                                "vhost-user-gpu",
                                "vhost-user-snd",
                                "vhost-user-vsock",
                                "vhost-user-wl",
                                "vhost-user-mac80211-hwsim",
                                "vhost-user-fs",
                                "cras-snd",
                                "no-legacy",
                                "ac97",
                                "software-tpm",
                                "dmi",
                                "plugin",
                                "plugin-root",
                                "direct-pmio",
                                "strict-balloon",
                                "ac-adapter",
                                "cfg",
                                "dump-cfg"}) {
    EXPECT_TRUE(run->find_option(name)) << name;
  }
}

TEST(OptionTableTest, LettersAreThoseOfTheReference) {
  const Command* run = find_command("run");
  for (auto [letter, name] :
       std::initializer_list<std::pair<char, std::string_view>>{{'b', "block"},
                                                                {'c', "cpus"},
                                                                {'d', "disk"},
                                                                {'i', "initrd"},
                                                                {'m', "mem"},
                                                                {'p', "params"},
                                                                {'r', "root"},
                                                                {'s', "socket"},
                                                                {'u', "multiprocess"}}) {
    const Option* option = run->find_option(letter);
    ASSERT_TRUE(option) << letter;
    EXPECT_EQ(option->name, name);
  }
}

TEST(OptionTableTest, HasEverySubcommandAndItsOptions) {
  for (std::string_view path : kCommands) EXPECT_TRUE(find_command(path)) << path;
  for (auto [path, name] : kCommandOptions) {
    const Command* command = find_command(path);
    ASSERT_TRUE(command) << path;
    EXPECT_TRUE(command->find_option(name)) << path << " --" << name;
  }
}

TEST(OptionTableTest, NoNameStandsTwiceInOneCommand) {
  std::set<std::string_view> seen;
  std::set<char> letters;
  for (const OptionGroup& group : find_command("run")->groups) {
    for (const Option& option : group.options) {
      EXPECT_TRUE(seen.insert(option.name).second) << option.name;
      if (option.short_name) {
        EXPECT_TRUE(letters.insert(option.short_name).second) << option.short_name;
      }
    }
  }
}

TEST(OptionTableTest, WhatRunSupportsIsRead) {
  for (const OptionGroup& group : find_command("run")->groups) {
    for (const Option& option : group.options) {
      EXPECT_EQ(is_run_option_read(option.name), option.support == Support::kBuilt) << option.name;
    }
  }
}

TEST(OptionTableTest, EveryOptionIsExplained) {
  for_each_option(root_command(), [](const Option& option) {
    EXPECT_EQ(option.help.empty(), option.support == Support::kRemoved) << option.name;
    EXPECT_EQ(option.support == Support::kElsewhere, !option.availability.empty()) << option.name;
  });
}

TEST(OptionTableTest, RefusalsSayWhy) {
  const Command* run = find_command("run");
  EXPECT_EQ(run->find_option("gpu")->refusal("--gpu"), "--gpu is not supported by this build yet");
  EXPECT_EQ(run->find_option("log-file")->refusal("--log-file"), "--log-file is for Windows only");
  EXPECT_EQ(run->find_option("dmi")->refusal("--dmi"), "--dmi no longer exists; use --smbios");
  EXPECT_EQ(run->find_option("mem")->refusal("-m"), "");
}

// docs/compatibility/rows.tsv: id, area, title, status, note.
TEST(OptionTableTest, RowsMarkedDoneAreBuilt) {
  std::ifstream rows(CROSVM_SOURCE_DIR "/docs/compatibility/rows.tsv");
  size_t options = 0;
  for (std::string line; std::getline(rows, line);) {
    std::istringstream row(line);
    std::string id, area, title, status;
    std::getline(row, id, '\t');
    std::getline(row, area, '\t');
    std::getline(row, title, '\t');
    std::getline(row, status, '\t');
    if (!id.starts_with('F') || !title.starts_with("--")) continue;
    ++options;
    std::string name = title.substr(2, title.find(' ') - 2);
    const Option* option = find_command("run")->find_option(name);
    ASSERT_TRUE(option) << name;
    if (status == "done") {
      EXPECT_EQ(option->support, Support::kBuilt) << name;
    }
  }
  EXPECT_EQ(options, std::size(kRunOptions));
}

TEST(HelpTest, WrapsAtWords) {
  EXPECT_EQ(wrap_text("one two three", 2, 9), "  one two\n  three\n");
  EXPECT_EQ(wrap_text("", 2, 9), "");
}

}  // namespace
}  // namespace crosvm

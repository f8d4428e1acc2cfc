#include "cli/option_table.h"
#include "cli/run_options_devices.h"
#include "cli/run_options_machine.h"
#include "cli/run_options_process.h"
#include "cli/subcommand_options.h"

namespace crosvm {
namespace {

using namespace option_table;

constexpr OptionGroup kGlobalGroups[] = {{"Options", kGlobalOptions}};

constexpr OptionGroup kRunGroups[] = {
    {"Image, firmware, tables", kImageOptions},
    {"vCPUs", kCpuOptions},
    {"Memory", kMemoryOptions},
    {"Protected VMs", kProtectedOptions},
    {"Disks", kDiskOptions},
    {"Serial ports", kSerialOptions},
    {"Network", kNetOptions},
    {"Graphics", kGpuOptions},
    {"Sound and video", kMediaOptions},
    {"Input", kInputOptions},
    {"Shared directories", kShareOptions},
    {"PCI, USB and passed-through devices", kPciOptions},
    {"Sandbox", kSandboxOptions},
    {"Life cycle and platform devices", kLifecycleOptions},
    {"Other systems", kOtherSystemOptions},
    {"Older spellings", kLegacyOptions},
};

constexpr Positional kRunArguments[] = {
    {.name = "KERNEL", .help = "kernel to boot: bzImage or ELF vmlinux", .required = false}};

// One group each: subcommands have few options.
constexpr OptionGroup kDoctorGroups[] = {{"Options", kDoctorOptions}};
constexpr OptionGroup kFullGroups[] = {{"Options", kFullOptions}};
constexpr OptionGroup kBalloonGroups[] = {{"Options", kBalloonOptions}};
constexpr OptionGroup kAddDisplaysGroups[] = {{"Options", kAddDisplaysOptions}};
constexpr OptionGroup kRemoveDisplaysGroups[] = {{"Options", kRemoveDisplaysOptions}};
constexpr OptionGroup kMouseModeGroups[] = {{"Options", kMouseModeOptions}};
constexpr OptionGroup kSwapDisableGroups[] = {{"Options", kSwapDisableOptions}};
constexpr OptionGroup kSnapshotGroups[] = {{"Options", kSnapshotOptions}};
constexpr OptionGroup kQcow2Groups[] = {{"Options", kQcow2Options}};
constexpr OptionGroup kDiskInfoGroups[] = {{"Options", kDiskInfoOptions}};
constexpr OptionGroup kDiskCheckGroups[] = {{"Options", kDiskCheckOptions}};
constexpr OptionGroup kDiskConvertGroups[] = {{"Options", kDiskConvertOptions}};
constexpr OptionGroup kDiskCompactGroups[] = {{"Options", kDiskCompactOptions}};
constexpr OptionGroup kExecutorGroups[] = {{"Options", kExecutorOptions}};
constexpr OptionGroup kBootstrapGroups[] = {{"Options", kBootstrapOptions}};
constexpr OptionGroup kDevicesGroups[] = {{"Options", kExecutorOptions},
                                          {"Devices", kDevicesOptions}};
constexpr OptionGroup kDeviceBlockGroups[] = {{"Frontend", kBackendSocketOptions},
                                              {"Device", kDeviceBlockOptions}};
constexpr OptionGroup kDeviceConsoleGroups[] = {{"Frontend", kBackendSocketOptions},
                                                {"Device", kDeviceConsoleOptions}};
constexpr OptionGroup kDeviceFsGroups[] = {{"Frontend", kBackendSocketOptions},
                                           {"Device", kDeviceFsOptions}};
constexpr OptionGroup kDeviceGpuGroups[] = {{"Frontend", kBackendSocketOptions},
                                            {"Device", kDeviceGpuOptions}};
constexpr OptionGroup kDeviceNetGroups[] = {{"Device", kDeviceNetOptions}};
constexpr OptionGroup kDeviceRngGroups[] = {{"Frontend", kBackendSocketOptions}};
constexpr OptionGroup kDeviceSndGroups[] = {{"Frontend", kBackendSocketOptions},
                                            {"Device", kDeviceSndOptions}};
constexpr OptionGroup kDeviceVsockGroups[] = {{"Frontend", kBackendSocketOptions},
                                              {"Device", kDeviceVsockOptions}};
constexpr OptionGroup kDeviceWlGroups[] = {{"Frontend", kBackendSocketOptions},
                                           {"Device", kDeviceWlOptions}};

constexpr Command client(std::string_view name, std::string_view help,
                         std::span<const Positional> positionals = kVmSocketOnly,
                         std::span<const OptionGroup> groups = {}) {
  return {.name = name, .help = help, .positionals = positionals, .groups = groups};
}
constexpr Command parent(std::string_view name, std::string_view help,
                         std::span<const Command> subcommands,
                         std::span<const OptionGroup> groups = {}) {
  return {.name = name, .help = help, .groups = groups, .subcommands = subcommands};
}
constexpr Command backend(std::string_view name, std::string_view help,
                          std::span<const OptionGroup> groups) {
  return {.name = name, .help = help, .groups = groups};
}
constexpr Command built(Command command) {
  command.support = Support::kBuilt;
  return command;
}
constexpr Command windows(std::string_view name, std::string_view help) {
  return {.name = name,
          .help = help,
          .groups = kBootstrapGroups,
          .support = Support::kElsewhere,
          .availability = "Windows"};
}

constexpr Command kDiskCommands[] = {
    built(client("resize", "Change the size of a disk of a running VM", kDiskResizeArguments)),
    built(client("info", "Say what an image is (not in other crosvm builds)", kImageArguments,
                 kDiskInfoGroups)),
    built(client("check", "Look for damage in an image (not in other crosvm builds)",
                 kImageArguments, kDiskCheckGroups)),
    built(client("convert", "Make an image of another (not in other crosvm builds)",
                 kDiskConvertArguments, kDiskConvertGroups)),
    built(client("compact", "Give unused space back to the host (not in other crosvm builds)",
                 kImageArguments, kDiskCompactGroups))};
constexpr Command kGpuCommands[] = {
    client("add-displays", "Plug displays in", kVmSocketOnly, kAddDisplaysGroups),
    client("list-displays", "List displays"),
    client("remove-displays", "Unplug displays", kVmSocketOnly, kRemoveDisplaysGroups),
    client("set-mouse-mode", "Set how a display takes the pointer", kVmSocketOnly,
           kMouseModeGroups)};
constexpr Command kSndCommands[] = {client("mute-all", "Mute all sound cards", kMuteArguments)};
constexpr Command kSwapCommands[] = {
    client("enable", "Start to swap guest memory"),
    client("trim", "Drop pages that need not be swapped"),
    client("out", "Write guest memory to the swap file"),
    client("disable", "Read everything back", kVmSocketOnly, kSwapDisableGroups),
    client("status", "Show the state of swapping")};
constexpr Command kUsbCommands[] = {client("attach", "Attach a host device", kUsbAttachArguments),
                                    client("attach_key", "Attach a security key", kUsbKeyArguments),
                                    client("detach", "Detach a device", kUsbDetachArguments),
                                    client("list", "List attached devices")};
constexpr Command kVfioCommands[] = {client("add", "Plug a host device in", kVfioArguments),
                                     client("remove", "Unplug it", kVfioArguments)};
constexpr Command kVirtioNetCommands[] = {client("add", "Plug a network card in", kTapArguments),
                                          client("remove", "Unplug it", kBusArguments)};
constexpr Command kSnapshotCommands[] = {
    client("take", "Write a snapshot", kSnapshotArguments, kSnapshotGroups)};
constexpr Command kDeviceCommands[] = {
    built(backend("block", "Serve a disk", kDeviceBlockGroups)),
    built(backend("console", "Serve a console", kDeviceConsoleGroups)),
    backend("fs", "Serve a directory", kDeviceFsGroups),
    backend("gpu", "Serve a graphics card", kDeviceGpuGroups),
    built(backend("net", "Serve network cards", kDeviceNetGroups)),
    built(backend("rng", "Serve random numbers (not in other crosvm builds)", kDeviceRngGroups)),
    backend("snd", "Serve a sound card", kDeviceSndGroups),
    built(backend("vsock", "Serve a socket device", kDeviceVsockGroups)),
    backend("wl", "Serve Wayland", kDeviceWlGroups)};

constexpr Command kSubcommands[] = {
    {.name = "run",
     .help = "Run a VM",
     .positionals = kRunArguments,
     .groups = kRunGroups,
     .support = Support::kBuilt},
    built(client("stop", "Stop a VM at once")),
    built(client("powerbtn", "Press the power button")),
    built(client("sleepbtn", "Press the sleep button")),
    built(client("suspend", "Suspend a VM", kVmSocketOnly, kFullGroups)),
    built(client("resume", "Resume a VM", kVmSocketOnly, kFullGroups)),
    built(client("gpe", "Raise a general purpose event", kGpeArguments)),
    built(backend("version", "Print the version", {})),
    built(
        backend("doctor", "Say whether this host can run VMs, and what to change", kDoctorGroups)),
    client("make_rt", "Give vCPUs real-time priority"),
    client("balloon", "Set the size of the balloon", kBalloonArguments, kBalloonGroups),
    client("balloon_stats", "Print statistics of the balloon"),
    client("balloon_ws", "Print the guest's working set"),
    client("battery", "Change what the battery shows", kBatteryArguments),
    built(parent("disk", "Manage disks", kDiskCommands)),
    parent("gpu", "Manage displays", kGpuCommands),
    parent("snd", "Manage sound", kSndCommands),
    parent("swap", "Manage swapping of guest memory", kSwapCommands),
    parent("usb", "Manage USB devices", kUsbCommands),
    parent("vfio", "Manage passed-through devices", kVfioCommands),
    parent("virtio-net", "Manage network cards", kVirtioNetCommands),
    parent("snapshot", "Manage snapshots", kSnapshotCommands),
    built(client("create_qcow2", "Make a qcow2 image", kQcow2Arguments, kQcow2Groups)),
    built(client("create_composite", "Make a composite image", kCompositeArguments)),
    built(parent("device", "Serve one device by vhost-user", kDeviceCommands, kExecutorGroups)),
    built(backend("devices", "Serve devices by vhost-user, each in a jail", kDevicesGroups)),
    windows("run-main", "Main process"),
    windows("run-metrics", "Metrics process"),
    {.name = "run-mp",
     .help = "Broker of the processes of a VM",
     .positionals = kRunArguments,
     .groups = kRunGroups,
     .support = Support::kElsewhere,
     .availability = "Windows"},
    windows("run-slirp", "Network process"),
};

constexpr Command kRoot = {.name = "crosvm",
                           .help = "Virtual machine monitor",
                           .groups = kGlobalGroups,
                           .subcommands = kSubcommands,
                           .support = Support::kBuilt};

}  // namespace

const Command& root_command() { return kRoot; }

}  // namespace crosvm

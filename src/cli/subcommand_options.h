#pragma once

#include "cli/option_table.h"

/// Positionals and options of `crosvm` itself and of its subcommands but `run` (cli.md 3 and 6.2).
namespace crosvm::option_table {

inline constexpr Option kGlobalOptions[] = {
    Option(
        "extended-status", kSwitch,
        "Tell reset (32), crash (33), guest panic (34) and watchdog (36) apart in the exit status")
        .built(),
    Option("log-level", kOther,
           "What is logged: off, error, warn, info, debug, trace, "
           "MODULE=LEVEL, or a comma list of these; info by default")
        .value("FILTER")
        .built(),
    Option("no-syslog", kSwitch, "Log to stderr only").built(),
    Option("syslog-tag", kString, "Identity in the system log, crosvm by default").built(),
    Option("print-options-md", kSwitch, "Print docs/options.md").hide().built(),
    Option("print-man", kSwitch, "Print the manual page").hide().built(),
    Option("print-completion", kSwitch, "Print the completion script for bash").hide().built(),
};

inline constexpr Positional kVmSocket = {"VM_SOCKET", "control socket of the VM"};
inline constexpr Positional kVmSocketOnly[] = {kVmSocket};

inline constexpr Option kDoctorOptions[] = {
    Option("json", kSwitch, "Print the verdict and every check as JSON").built(),
    Option("processes", kPath,
           "Instead: print the processes of the VM with this control socket, and what each is "
           "confined to")
        .value("VM_SOCKET")
        .built(),
};
inline constexpr Option kFullOptions[] = {
    Option("full", kSwitch, "Devices as well as vCPUs"),
};
inline constexpr Positional kGpeArguments[] = {{"GPE", "number of the event"}, kVmSocket};
inline constexpr Positional kBalloonArguments[] = {{"SIZE", "bytes taken from the guest"},
                                                   kVmSocket};
inline constexpr Option kBalloonOptions[] = {
    Option("wait", kSwitch, "Reply when the guest has followed"),
};
inline constexpr Positional kBatteryArguments[] = {{"BATTERY_TYPE", "goldfish"},
                                                   {"PROPERTY", "what to set"},
                                                   {"TARGET", "its new value"},
                                                   kVmSocket};
inline constexpr Positional kDiskResizeArguments[] = {
    {"DISK_INDEX", "place among the disks on the VM's command line, from 0"},
    {"NEW_SIZE", "in bytes, a multiple of 512"},
    kVmSocket};
inline constexpr Option kAddDisplaysOptions[] = {
    Option("gpu-display", kKeyValues, "A display to add").many(),
};
inline constexpr Option kRemoveDisplaysOptions[] = {
    Option("display-id", kNumber, "A display to remove").many(),
};
inline constexpr Option kMouseModeOptions[] = {
    Option("display-id", kNumber, "The display").require(),
    Option("mouse-mode", kOther, "Its new mode").value("touchscreen").require(),
};
inline constexpr Positional kMuteArguments[] = {{"MUTED", "true or false"}, kVmSocket};
inline constexpr Option kSwapDisableOptions[] = {
    Option("slow-file-cleanup", kSwitch, "Shrink the swap file in the background"),
};
inline constexpr Positional kUsbAttachArguments[] = {
    {"BUS_ID_ADDR_BUS_NUM_DEV_NUM", "BUS:ADDR:VID:PID of the device"},
    {"DEV_PATH", "its device node"},
    kVmSocket};
inline constexpr Positional kUsbKeyArguments[] = {{"DEV_PATH", "hidraw node of the key"},
                                                  kVmSocket};
inline constexpr Positional kUsbDetachArguments[] = {{"PORT", "port of the device"}, kVmSocket};
inline constexpr Positional kVfioArguments[] = {{"VFIO_PATH", "sysfs directory of the device"},
                                                kVmSocket};
inline constexpr Positional kTapArguments[] = {{"TAP_NAME", "name of the tap"}, kVmSocket};
inline constexpr Positional kBusArguments[] = {{"BUS", "bus number of the card"}, kVmSocket};
inline constexpr Positional kSnapshotArguments[] = {{"SNAPSHOT_PATH", "directory to write"},
                                                    kVmSocket};
inline constexpr Option kSnapshotOptions[] = {
    Option("compress-memory", kSwitch, "Compress guest memory"),
    Option("encrypt", kSwitch, "Encrypt the snapshot"),
};
inline constexpr Positional kQcow2Arguments[] = {
    {"PATH", "image to make"}, {.name = "SIZE", .help = "in bytes", .required = false}};
inline constexpr Option kQcow2Options[] = {
    Option("backing-file", kPath, "Image that holds what is not written yet").built(),
    Option("backing_file", kPath, "Older spelling").hide().use("--backing-file").built(),
    Option("backing-format", kOther, "Format of that image, without which its first bytes say it")
        .value("raw|qcow2|zstd|android-sparse")
        .built(),
};
inline constexpr Positional kCompositeArguments[] = {
    {"PATH", "image to make"},
    {.name = "LABEL:PARTITION",
     .help = "partition, perhaps with :writable and :GUID",
     .required = true,
     .repeatable = true}};

inline constexpr Positional kImageArguments[] = {{"IMAGE", "disk image"}};
inline constexpr Positional kDiskConvertArguments[] = {{"SOURCE", "disk image of any format"},
                                                       {"TARGET", "image to make"}};
inline constexpr Option kAllowBackingOption =
    Option("allow-backing", kPath,
           "File or folder that the image may name, though not below its own folder")
        .many()
        .built();
inline constexpr Option kDiskInfoOptions[] = {
    Option("json", kSwitch, "Print it as JSON").built(),
    kAllowBackingOption,
};
inline constexpr Option kDiskCheckOptions[] = {
    Option("repair", kSwitch, "Give back clusters of a qcow2 image that nothing uses").built(),
    kAllowBackingOption,
};
inline constexpr Option kDiskConvertOptions[] = {
    Option("format", kOther, "What to make; by default what the name of TARGET says")
        .value("raw|qcow2|zstd|android-sparse")
        .built(),
    Option("source-format", kOther, "What SOURCE is; by default what its first bytes say")
        .value("raw|qcow2|zstd|android-sparse")
        .built(),
    Option("compress", kSwitch, "Compress the clusters of a qcow2 image").built(),
    Option("compression-type", kOther, "The same by this method; zlib by default")
        .value("zlib|zstd")
        .built(),
    Option("cluster-size", kNumber, "Bytes of a cluster of a qcow2 image; 65536 by default")
        .built(),
    kAllowBackingOption,
};
inline constexpr Option kDiskCompactOptions[] = {
    kAllowBackingOption,
};

inline constexpr Option kExecutorOptions[] = {
    Option("async-executor", kOther, "How disks do their I/O: as --async-executor of run")
        .value("auto|uring|epoll")
        .built(),
};
inline constexpr Option kBackendSocketOptions[] = {
    Option("socket-path", kPath, "Listen here for the frontend").built(),
    Option("fd", kNumber, "Connected socket of the frontend").built(),
    Option("socket", kPath, "Older spelling").hide().use("--socket-path").built(),
    Option("bootstrap", kNumber, "Handle from the broker").hide().only("Windows"),
};
inline constexpr Option kDeviceBlockOptions[] = {
    Option("file", kOther, "Disk image").value("PATH[:read-only]").require().built(),
};
inline constexpr Option kDeviceConsoleOptions[] = {
    Option("output-file", kPath, "Where the guest's output goes; stdout by default").built(),
    Option("input-file", kPath, "Where its input comes from; stdin by default").built(),
    Option("syslog", kSwitch, "Output to the system log").built(),
    Option("port", kKeyValues, "One port of several, with the keys of --serial of run")
        .many()
        .built(),
};
inline constexpr Option kDeviceFsOptions[] = {
    Option("tag", kString, "Name of the share in the guest").require(),
    Option("shared-dir", kPath, "Directory to share").require(),
    Option("uid-map", kString, "User id map of the jail"),
    Option("gid-map", kString, "Group id map of the jail"),
    Option("cfg", kKeyValues, "Details of the file system"),
    Option("uid", kNumber, "User inside the jail"),
    Option("gid", kNumber, "Group inside the jail"),
    Option("disable-sandbox", kSwitch, "Mount namespace only"),
    Option("skip-pivot-root", kBoolean, "Keep the root directory"),
    Option("allowlist-socket-path", kPath, "Socket that takes paths to allow"),
};
inline constexpr Option kDeviceGpuOptions[] = {
    Option("wayland-sock", kOther, "Wayland socket").value("PATH[,name=NAME]").many(),
    Option("resource-bridge", kPath, "Socket to the Wayland device").many(),
    Option("x-display", kString, "X11 display"),
    Option("params", kOther, "Details of the card").value("JSON"),
};
inline constexpr Option kDeviceNetOptions[] = {
    Option("device", kOther, "Card on a new tap").value("SOCKET,IP,MASK,MAC").many().built(),
    Option("tap-fd", kOther, "Card on an open tap").value("SOCKET,FD").many().built(),
    Option("tap-name", kOther, "Card on a tap of this name").value("SOCKET,NAME").many().built(),
    Option("mrg-rxbuf", kSwitch, "Merge receive buffers").built(),
};
inline constexpr Option kDeviceSndOptions[] = {
    Option("config", kKeyValues, "Details of the sound card"),
};
inline constexpr Option kDeviceVsockOptions[] = {
    Option("cid", kNumber, "Context id").require().built(),
    Option("vhost-socket", kPath, "Device node of the kernel's, which this build does not serve")
        .built(),
    Option("connect", kOther,
           "The guest may connect to this port of the host, which is this socket")
        .value("PORT[/seqpacket]:PATH")
        .many()
        .built(),
    Option("listen", kOther, "Who connects to this socket is connected to this port of the guest")
        .value("PORT[/seqpacket]:PATH")
        .many()
        .built(),
};
inline constexpr Option kDeviceWlOptions[] = {
    Option("wayland-sock", kOther, "Wayland socket").value("PATH[,name=NAME]").many(),
    Option("resource-bridge", kPath, "Socket to the graphics device").many(),
};
inline constexpr Option kDevicesOptions[] = {
    Option("disable-sandbox", kSwitch, "No jail").built(),
    Option("jail", kKeyValues,
           "Details of the jails: pivot-root, seccomp-policy-dir, seccomp-log-failures")
        .built(),
    Option("control-socket", kPath, "Socket for disk commands").letter('s'),
    Option("serial", kKeyValues, "Serve a console").value("vhost=PATH,…").many().built(),
    Option("block", kKeyValues, "Serve a disk").value("vhost=PATH,…").many().built(),
    Option("vsock", kKeyValues, "Serve a socket device with backend=user")
        .value("vhost=PATH,…")
        .many()
        .built(),
    Option("net", kKeyValues, "Serve a network card").value("vhost=PATH,…").many().built(),
};
inline constexpr Option kBootstrapOptions[] = {
    Option("bootstrap", kNumber, "Handle from the broker").require(),
};

}  // namespace crosvm::option_table

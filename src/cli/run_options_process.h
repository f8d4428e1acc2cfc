#pragma once

#include "cli/option_table.h"

/// Options of `run` about processes and life cycle (cli.md 1.4, N to P), and the spellings of 2017
/// to 2021 (2.1).
namespace crosvm::option_table {

inline constexpr Option kSandboxOptions[] = {
    Option("disable-sandbox", kSwitch, "Run devices in this process, without a jail").built(),
    Option("pivot-root", kPath, "Empty directory that is the root of jails").built(),
    Option("seccomp-policy-dir", kPath, "Take system call filters from here").built(),
    Option("seccomp-log-failures", kSwitch, "Log refused system calls instead of killing").built(),
    Option("restart-devices", kString,
           "Start processes of devices of these kinds anew when they die: block, net (cards on "
           "taps), rng (not in other crosvm builds)")
        .value("KIND,…")
        .built(),
};

inline constexpr Option kLifecycleOptions[] = {
    Option("socket", kPath, "Control socket; in a directory, crosvm-PID.sock").letter('s').built(),
    Option("restore", kPath, "Start from a snapshot"),
    Option("suspended", kSwitch, "Start with vCPUs and devices suspended"),
    Option("suspended-vcpus", kSwitch, "Start with vCPUs suspended"),
    Option("gdb", kNumber, "Wait for a debugger on this TCP port").value("PORT"),
    Option("battery", kKeyValues, "Add a battery: type").value_optional(),
    Option("s2idle", kSwitch, "Suspend means low-power idle"),
    Option("no-i8042", kSwitch, "No keyboard controller").built(),
    Option("no-rtc", kSwitch, "No CMOS clock").built(),
    Option("no-rng", kSwitch, "No random number device").built(),
    Option("pvclock", kSwitch, "Add a paravirtual clock"),
    Option("vtpm-proxy", kSwitch, "Add a TPM served by the vtpm daemon"),
    Option("vhost-scmi", kSwitch, "SCMI by the host's kernel").only("aarch64"),
};

inline constexpr Option kOtherSystemOptions[] = {
    Option("task-profiles", kString, "Scheduling profile").many().only("Android"),
    Option("crash-pipe-name", kString, "Pipe of the crash handler").only("Windows"),
    Option("exit-stats", kSwitch, "Statistics of exits").only("Windows"),
    Option("host-guid", kString, "Namespace of the socket device").only("Windows"),
    Option("kernel-log-file", kString, "Log of the hypervisor").only("Windows"),
    Option("log-file", kString, "Log file").only("Windows"),
    Option("logs-directory", kString, "Log directory").only("Windows"),
    Option("process-invariants-handle", kNumber, "Shared facts").only("Windows"),
    Option("process-invariants-size", kNumber, "Their size").only("Windows"),
    Option("product-channel", kString, "Release channel").only("Windows"),
    Option("product-name", kString, "Product name").only("Windows"),
    Option("product-version", kString, "Product version").only("Windows"),
    Option("service-pipe-name", kString, "Pipe of the service").only("Windows"),
    Option("slirp-capture-file", kString, "Capture of network packets").only("Windows"),
};

inline constexpr Option kLegacyOptions[] = {
    Option("qcow", kPath, "Add a read-only disk").many().hide().use("--block PATH,ro"),
    Option("rwqcow", kPath, "Add a disk").many().hide().use("--block PATH"),
    Option("wayland-dmabuf", kSwitch, "Had no effect").hide().ignored(),
    Option("no-wl", kSwitch, "No Wayland device, which is the default").hide().ignored(),
    Option("multiprocess", kSwitch, "Sandboxed devices, which is the default")
        .letter('u')
        .hide()
        .ignored(),
    Option("no-legacy", kSwitch, "No keyboard controller and no CMOS clock")
        .hide()
        .use("--no-i8042 --no-rtc")
        .built(),
    Option("vhost-user-blk", kPath, "Disk by another process")
        .many()
        .hide()
        .use("--vhost-user block,socket=PATH")
        .built(),
    Option("vhost-user-net", kPath, "Network card by another process")
        .many()
        .hide()
        .use("--vhost-user net,socket=PATH")
        .built(),
    Option("vhost-user-console", kPath, "Console by another process")
        .many()
        .hide()
        .use("--vhost-user console,socket=PATH")
        .built(),
    Option("vhost-user-gpu", kPath, "Graphics by another process")
        .many()
        .hide()
        .use("--vhost-user gpu,socket=PATH")
        .built(),
    Option("vhost-user-snd", kPath, "Sound by another process")
        .many()
        .hide()
        .use("--vhost-user sound,socket=PATH")
        .built(),
    Option("vhost-user-vsock", kPath, "Sockets by another process")
        .many()
        .hide()
        .use("--vhost-user vsock,socket=PATH")
        .built(),
    Option("vhost-user-wl", kPath, "Wayland by another process")
        .many()
        .hide()
        .use("--vhost-user wl,socket=PATH")
        .built(),
    Option("vhost-user-mac80211-hwsim", kPath, "Wireless by another process")
        .many()
        .hide()
        .use("--vhost-user mac80211-hwsim,socket=PATH")
        .built(),
    Option("vhost-user-fs", kOther, "Shared directory by another process")
        .value("PATH:TAG")
        .many()
        .hide()
        .use("--vhost-user fs,socket=PATH")
        .built(),
    Option("cras-snd", kKeyValues, "Sound card").many().hide().use("--virtio-snd backend=cras,…"),
    Option("ac97", kString, "").removed("--virtio-snd"),
    Option("software-tpm", kSwitch, "").removed("--vtpm-proxy"),
    Option("dmi", kPath, "").removed("--smbios"),
    Option("plugin*", kString, "").removed(""),
    Option("direct-*", kString, "").removed("--vfio"),
    Option("strict-balloon", kSwitch, "").removed(""),
    Option("ac-adapter", kSwitch, "").removed("--battery"),
    Option("cfg", kPath, "").removed("the options themselves"),
    Option("dump-cfg", kPath, "").removed("the options themselves"),
};

}  // namespace crosvm::option_table

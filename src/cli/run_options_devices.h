#pragma once

#include "cli/option_table.h"

/// Options of `run` about devices (cli.md 1.4, E to M).
namespace crosvm::option_table {

inline constexpr Option kDiskOptions[] = {
    Option("block", kKeyValues,
           "Add a disk: path of a raw image or block device, ro, root, sparse, direct, lock, "
           "block-size, id, multiple-workers, async-executor, packed-queue, pci-address, dontcache")
        .letter('b')
        .many()
        .built(),
    Option("disk", kKeyValues, "Add a read-only disk")
        .letter('d')
        .many()
        .use("--block PATH,ro")
        .built(),
    Option("rwdisk", kKeyValues, "Add a disk").many().use("--block PATH").built(),
    Option("root", kKeyValues, "Add a read-only root disk")
        .letter('r')
        .use("--block PATH,ro,root")
        .built(),
    Option("rwroot", kKeyValues, "Add a root disk").use("--block PATH,root").built(),
    Option("scsi-block", kKeyValues, "Add a SCSI disk").many(),
    Option("pmem", kKeyValues, "Add a persistent memory device").many(),
    Option("pmem-device", kKeyValues, "Add read-only persistent memory")
        .many()
        .use("--pmem PATH,ro=true"),
    Option("rw-pmem-device", kKeyValues, "Add persistent memory").many().use("--pmem PATH"),
    Option("pmem-ext2", kOther, "Show a directory as an ext2 image in persistent memory")
        .value("PATH[:key=value…]"),
    Option("async-executor", kOther,
           "How disks do their I/O: uring is io_uring, epoll is threads, auto (the default) is "
           "io_uring where it can be had")
        .value("auto|uring|epoll")
        .built(),
};

inline constexpr Option kSerialOptions[] = {
    Option("serial", kKeyValues,
           "Add a serial port: type (file, stdout, sink, syslog, unix, unix-stream), hardware "
           "(serial, debugcon), num, path, input, stdin, console, earlycon, out-timestamp, "
           "input-unix-stream, debugcon-port")
        .many()
        .built(),
    Option("syslog-tag", kString, "Identity in the system log")
        .use("crosvm --syslog-tag TAG run")
        .built(),
};

inline constexpr Option kNetOptions[] = {
    Option("net", kKeyValues,
           "Add a network card: tap-name or tap-fd with mac, or host-ip, netmask and mac for a new "
           "tap; vq-pairs, vhost-net, packed-queue, pci-address, mrg-rxbuf. Ours: user, a network "
           "without privilege, with forward (up to 256), allow, deny (up to 1024 each), mac, mtu, "
           "ipv4-network, ipv6-network; "
           "passt with socket, mac, mtu, vhost-user")
        .many()
        .built(),
    Option("host-ip", kOther, "Host address of a new tap")
        .value("IP")
        .use("--net host-ip=…")
        .built(),
    Option("netmask", kOther, "Its netmask").value("IP").use("--net netmask=…").built(),
    Option("mac", kOther, "Its address, not its card's").value("MAC").use("--net mac=…").built(),
    Option("tap-name", kString, "Card on a tap of this name")
        .many()
        .use("--net tap-name=…")
        .built(),
    Option("tap-fd", kNumber, "Card on an open tap").many().use("--net tap-fd=…").built(),
    Option("net-vq-pairs", kNumber, "Queue pairs of those cards").use("--net vq-pairs=…").built(),
    Option("vhost-net", kSwitch, "Those cards in the host's kernel")
        .use("--net …,vhost-net")
        .built(),
    Option("vhost-net-device", kPath, "Its device node")
        .use("--net …,vhost-net=[device=PATH]")
        .built(),
    Option("vsock", kKeyValues,
           "Add a socket device: cid, device, max-queue-sizes, backend (kernel; user, not in other "
           "crosvm builds: connect and listen lead to Unix sockets)")
        .built(),
    Option("cid", kNumber, "Context id of the socket device").use("--vsock cid=N").built(),
    Option("vhost-vsock-device", kPath, "Its device node").use("--vsock device=PATH").built(),
    Option("vhost-vsock-fd", kNumber, "Its open device")
        .use("--vsock device=/proc/self/fd/N")
        .built(),
};

inline constexpr Option kGpuOptions[] = {
    Option("gpu", kKeyValues, "Add a graphics card").many().value_optional(),
    Option("gpu-display", kKeyValues, "Add a display to it")
        .many()
        .value_optional()
        .use("--gpu displays=[…]"),
    Option("gpu-render-server", kKeyValues, "Render in a process of its own"),
    Option("gpu-cgroup-path", kPath, "cgroup for the graphics threads"),
    Option("gpu-server-cgroup-path", kPath, "cgroup for the render server"),
    Option("display-window-keyboard", kSwitch, "Keys typed in the display window reach the guest"),
    Option("display-window-mouse", kSwitch, "So do pointer movements"),
    Option("wayland-sock", kOther, "Wayland socket for the guest").value("PATH[,name=NAME]").many(),
    Option("x-display", kString, "X11 display"),
    Option("android-display-service", kString, "Name of the display service").only("Android"),
};

inline constexpr Option kMediaOptions[] = {
    Option("virtio-snd", kKeyValues, "Add a sound card").many(),
    Option("sound", kPath, "Sound by a VioS server"),
    Option("video-decoder", kKeyValues, "Add a video decoder").many().value_optional(),
    Option("video-encoder", kKeyValues, "Add a video encoder").many().value_optional(),
    Option("media-decoder", kKeyValues, "Add a virtio-media decoder").many(),
    Option("simple-media-device", kSwitch, "Add a capture device for tests"),
    Option("v4l2-proxy", kPath, "Show a V4L2 device of the host").many(),
};

inline constexpr Option kInputOptions[] = {
    Option("input", kKeyValues, "Add an input device").many(),
    Option("evdev", kPath, "Pass an event device").many().use("--input evdev[path=PATH]"),
    Option("keyboard", kPath, "Keyboard on a socket").many().use("--input keyboard[path=PATH]"),
    Option("mouse", kPath, "Mouse on a socket").many().use("--input mouse[path=PATH]"),
    Option("rotary", kPath, "Rotary on a socket").many().use("--input rotary[path=PATH]"),
    Option("switches", kPath, "Switches on a socket").many().use("--input switches[path=PATH]"),
    Option("single-touch", kKeyValues, "Touch screen").many().use("--input single-touch[…]"),
    Option("multi-touch", kKeyValues, "Multi-touch screen").many().use("--input multi-touch[…]"),
    Option("trackpad", kKeyValues, "Trackpad").many().use("--input trackpad[…]"),
};

inline constexpr Option kShareOptions[] = {
    Option("shared-dir", kOther, "Share a directory with the guest")
        .value("SRC:TAG[:key=value…]")
        .many(),
};

inline constexpr Option kPciOptions[] = {
    Option("pci", kKeyValues, "Where PCI windows lie in guest memory"),
    Option("pci-start", kNumber, "Start of the low PCI window").use("--pci mem=[start=…]"),
    Option("pci-hotplug-slots", kNumber, "Number of hotplug slots"),
    Option("break-linux-pci-config-io", kSwitch, "Make the guest use memory-mapped configuration"),
    Option("disable-virtio-intx", kSwitch, "Virtio devices without legacy interrupts").built(),
    Option("stub-pci-device", kKeyValues, "A PCI device that only identifies itself").many(),
    Option("vfio", kKeyValues, "Pass a host device").many(),
    Option("vfio-platform", kKeyValues, "Pass a platform device").many().use("--vfio PATH"),
    Option("vfio-isolate-hotplug", kSwitch, "Hot-plugged devices behind the IOMMU"),
    Option("vfio-platform-pm", kSwitch, "Power states of platform devices").only("aarch64"),
    Option("no-usb", kSwitch, "No USB controller").built(),
    Option("vhost-user", kKeyValues,
           "Device served by another process: type (block, net, fs, …), socket, max-queue-size, "
           "pci-address")
        .many()
        .built(),
    Option("vhost-user-connect-timeout-ms", kNumber,
           "How long to wait for its process to listen; without this it must listen already")
        .value("MS")
        .built(),
};

}  // namespace crosvm::option_table

#pragma once

#include "cli/option_table.h"

/// Options of `run` about the machine itself (cli.md 1.4, A to D).
namespace crosvm::option_table {

inline constexpr Option kImageOptions[] = {
    Option("bios", kPath, "Boot this firmware ROM instead of a kernel"),
    Option("initrd", kPath, "Initial RAM disk handed to the kernel").letter('i').built(),
    Option("params", kString, "More kernel command line, after the built-in parameters")
        .letter('p')
        .many()
        .built(),
    Option("kernel-entry", kOther,
           "How an ELF kernel is entered: auto takes the 64-bit Linux entry when it lies in a "
           "loaded segment, PVH otherwise (not in other crosvm builds)")
        .value("auto|linux|pvh")
        .built(),
    Option("android-fstab", kPath, "Describe this fstab's entries to the guest's firmware"),
    Option("acpi-table", kPath, "Append a raw ACPI table read from this file").many().built(),
    Option("device-tree-overlay", kKeyValues, "Apply a device tree overlay").many(),
    Option("dump-device-tree-blob", kPath, "Write the guest's device tree to this file"),
    Option("fdt-position", kOther, "Where the device tree is placed")
        .value("start|end|after-payload"),
    Option("pflash", kKeyValues, "Image of a parallel flash below the firmware"),
    Option("smbios", kKeyValues,
           "Identity in the SMBIOS tables: bios-vendor, bios-version, manufacturer, product-name, "
           "serial-number, uuid, oem-strings=[…]")
        .built(),
    Option("oem-strings", kString, "One OEM string for the SMBIOS tables")
        .many()
        .use("--smbios oem-strings=[…]")
        .built(),
    Option("enable-fw-cfg", kSwitch, "Give the guest a fw_cfg device"),
    Option("fw-cfg", kKeyValues, "Add a file or a string to fw_cfg").many(),
    Option("pstore", kKeyValues, "Keep the guest's crash log in a file"),
    Option("name", kString, "Name of the crosvm process").built(),
    Option("hypervisor", kKeyValues, "Hypervisor to run on: kvm, kvm[device=PATH]").built(),
    Option("kvm-device", kPath, "KVM device node").use("--hypervisor kvm[device=PATH]").built(),
    Option("irqchip", kKeyValues,
           "Where interrupt controllers live: kernel (split and userspace "
           "are not built yet)")
        .value("kernel|split|userspace")
        .built(),
    Option("split-irqchip", kSwitch, "IOAPIC and PIC in crosvm, local APICs in the kernel")
        .use("--irqchip split"),
    Option("nested", kKeyValues,
           "Hardware virtualisation inside the guest: auto offers it when "
           "the host can, on insists")
        .value("off|auto|on")
        .built(),
};

inline constexpr Option kCpuOptions[] = {
    Option("cpus", kKeyValues, "Number of vCPUs: num-cores, boot-cpu").letter('c').built(),
    Option("cpu-affinity", kCpuSet, "Host CPUs that vCPU threads run on")
        .value("CPUS|V=CPUS[:V=CPUS…]"),
    Option("cpu-capacity", kOther, "Relative capacity of each vCPU, 1024 is the baseline")
        .value("V=N,…"),
    Option("cpu-cluster", kCpuSet, "Group vCPUs into a cluster")
        .many()
        .use("--cpus clusters=[[…]]"),
    Option("cpu-frequencies-khz", kOther, "Frequencies offered to each vCPU")
        .value("V=F,…;…")
        .only("aarch64"),
    Option("cpu-ipc-ratio", kOther, "Instructions per cycle of vCPUs against the host's, by 1024")
        .value("V=N,…")
        .only("aarch64"),
    Option("dynamic-power-coefficient", kOther, "Power model coefficient of each vCPU")
        .value("V=N,…"),
    Option("core-scheduling", kBoolean, "Keep other processes off the vCPUs' physical cores"),
    Option("per-vm-core-scheduling", kSwitch, "One core scheduling group for the whole VM"),
    Option("host-cpu-topology", kSwitch, "Mirror the host: one vCPU pinned to each CPU"),
    Option("rt-cpus", kCpuSet, "vCPUs that get real-time priority"),
    Option("delay-rt", kSwitch, "Postpone real-time priority until `crosvm make_rt`"),
    Option("no-smt", kSwitch, "Show the guest one thread per core").built(),
    Option("vcpu-cgroup-path", kPath, "cgroup for the vCPU threads"),
    Option("boost-uclamp", kSwitch, "Raise the vCPU threads' minimum utilisation"),
    Option("enable-hwp", kSwitch, "Show hardware P-states to the guest"),
    Option("itmt", kSwitch, "Let the guest use Turbo Boost Max"),
    Option("bus-lock-ratelimit", kNumber, "Bus locks allowed per second, 0 for no limit"),
    Option("force-calibrated-tsc-leaf", kSwitch, "Always show the calibrated TSC frequency"),
    Option("virt-cpufreq", kSwitch, "Virtual CPU frequency device, first version").only("aarch64"),
    Option("virt-cpufreq-upstream", kSwitch, "Virtual CPU frequency device").only("aarch64"),
    Option("mte", kSwitch, "Memory tagging").only("aarch64"),
    Option("no-pmu", kSwitch, "No performance counters").only("aarch64"),
    Option("smccc-trng", kSwitch, "Random numbers by SMCCC calls").only("aarch64"),
};

inline constexpr Option kMemoryOptions[] = {
    Option("mem", kKeyValues, "Guest memory in MiB, 256 by default: size").letter('m').built(),
    Option("hugepages", kSwitch, "Back guest memory with huge pages where the host can").built(),
    Option("lock-guest-memory", kSwitch, "Keep guest memory from being swapped out").built(),
    Option("unmap-guest-memory-on-fork", kSwitch, "Leave guest memory out of forked processes"),
    Option("file-backed-mapping", kKeyValues, "Map a file into guest memory").many(),
    Option("force-disable-readonly-mem", kSwitch, "Do without read-only memory slots"),
    Option("mmio-address-range", kOther, "Address ranges for devices").value("S-E,…"),
    Option("swiotlb", kNumber, "Size of the bounce buffer region").value("MIB").only("aarch64"),
    Option("init-mem", kNumber, "Memory outside the balloon at boot").value("MIB"),
    Option("no-balloon", kSwitch, "No balloon device").built(),
    Option("balloon-bias-mib", kNumber, "Bias of the balloon").value("MIB"),
    Option("balloon-control", kPath, "Socket of an outside balloon controller"),
    Option("balloon-page-reporting", kSwitch, "Return the guest's free pages to the host"),
    Option("balloon-ws-num-bins", kNumber, "Bins of the working set histogram"),
    Option("balloon-ws-reporting", kSwitch, "Report the guest's working set"),
    Option("swap", kPath, "Directory for a swap file of guest memory"),
    Option("coiommu", kKeyValues, "Pinning policy of the cooperative IOMMU"),
};

inline constexpr Option kProtectedOptions[] = {
    Option("protected-vm", kSwitch, "Hide guest memory from the host"),
    Option("protected-vm-without-firmware", kSwitch, "The same without the platform's firmware"),
    Option("protected-vm-with-firmware", kPath, "The same with this firmware"),
    Option("unprotected-vm-with-firmware", kPath, "Run that firmware without protection"),
    Option("ffa", kKeyValues, "Let the VM call the secure world").only("Android on aarch64"),
    Option("dev-pm", kOther, "How the guest powers devices").value("pkvm-hvc").only("aarch64"),
};

}  // namespace crosvm::option_table

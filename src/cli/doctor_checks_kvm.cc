#include <cerrno>

#include "base/format.h"
#include "cli/doctor_checks.h"

namespace crosvm::doctor {
namespace {

constexpr const char* kNode = "/dev/kvm";

struct Cpu {
  bool vmx = false;         // Intel's virtualization
  bool svm = false;         // AMD's
  bool hypervisor = false;  // this is a VM itself
  bool virtualizes() const { return vmx || svm; }
  std::string module() const { return svm ? "kvm_amd" : "kvm_intel"; }
};

Cpu read_cpu(const Host& host) {
  std::string info = host.read("/proc/cpuinfo").value_or("");
  size_t start = info.find("\nflags");
  if (start == std::string::npos) return {};
  std::string flags = info.substr(start + 1, info.find('\n', start + 1) - start - 1) + " ";
  auto has = [&](const char* flag) {
    return flags.find(format_text(" {} ", flag)) != std::string::npos;
  };
  return {.vmx = has("vmx"), .svm = has("svm"), .hypervisor = has("hypervisor")};
}

Check check_cpu(const Cpu& cpu, bool kvm_is_there) {
  Check check{.id = "cpu-virtualization", .object = "CPU"};
  if (cpu.virtualizes()) {
    check.cause = cpu.vmx ? "has vmx" : "has svm";
    return check;
  }
  // A KVM without them is a paravirtual one; whether it is good enough, the probe guest says.
  check.status = kvm_is_there ? Status::kNote : Status::kFail;
  if (cpu.hypervisor) {
    check.cause = "neither vmx nor svm: this is a VM without nested virtualization";
    check.fix =
        "on the machine that runs this VM: sudo modprobe -r kvm_intel && sudo modprobe kvm_intel "
        "nested=1 (or kvm_amd), and give the VM the host's CPU model; in a cloud, choose a machine "
        "type with nested virtualization";
  } else {
    check.cause = "neither vmx nor svm: no hardware virtualization, or the firmware disables it";
    check.fix = "enable VT-x (Intel) or SVM (AMD) in the firmware set-up";
  }
  return check;
}

Check check_device(const Host& host, const Cpu& cpu, int error) {
  Check check{.id = "kvm-device", .object = kNode, .cause = "opens"};
  if (error == 0) return check;
  check.status = Status::kFail;
  check.cause = error_text(error);
  if (error == EACCES || error == EPERM) {
    check.cause = "this user may not open it";
    check.fix = permission_fix(host, kNode);
  } else if (host.exists("/sys/module/" + cpu.module())) {
    check.cause += ", but the module is loaded: a container without the device";
    check.fix = "start the container with --device /dev/kvm, or: sudo mknod /dev/kvm c 10 232";
  } else if (cpu.virtualizes()) {
    check.cause += ": the module is not loaded";
    check.fix = "sudo modprobe " + cpu.module();
  } else {
    check.fix = "give this machine hardware virtualization first: see cpu-virtualization";
  }
  return check;
}

Check check_stock_guest(const Host& host, const Cpu& cpu) {
  Check check{.id = "stock-guest", .object = kNode, .cause = "runs what a stock kernel executes"};
  auto probe = host.probe_stock_guest();
  if (probe && probe->can_run) return check;
  check.status = Status::kFail;
  if (probe) {
    check.cause = format_text("cannot run a stock kernel: a probe guest stopped at {} ({})",
                              probe->instruction, probe->cause);
  } else {
    check.cause = "cannot run a probe guest: " + probe.error().what();
  }
  if (host.exists("/sys/module/kvm_pvm")) {
    check.cause += "; this is kvm_pvm, a paravirtual KVM for prepared kernels";
  }
  check.fix = cpu.virtualizes()
                  ? "load the hardware's KVM instead: sudo modprobe " + cpu.module()
                  : "use a machine with hardware virtualization, or run guests in the "
                    "emulated test host: ./dev testhost";
  return check;
}

}  // namespace

std::vector<Check> check_kvm(const Host& host) {
  Cpu cpu = read_cpu(host);
  int error = host.open_device(kNode);
  bool is_there = error == 0 || error == EACCES || error == EPERM;
  std::vector<Check> checks = {check_device(host, cpu, error), check_cpu(cpu, is_there)};
  if (error == 0) checks.push_back(check_stock_guest(host, cpu));
  return checks;
}

}  // namespace crosvm::doctor

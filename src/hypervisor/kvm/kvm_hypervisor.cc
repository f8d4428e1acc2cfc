#include <fcntl.h>

#include <cerrno>

#include "base/format.h"
#include "hypervisor/kvm/ioctl.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/kvm_vm.h"

namespace crosvm {
namespace kvm {
namespace {

using x86_64::CpuidEntry;

/// Why /dev/kvm does not open, and what helps.
Error explain_open(const std::string& path, Error error) {
  switch (error.code()) {
    case std::errc::no_such_file_or_directory:
    case std::errc::no_such_device:
    case std::errc::no_such_device_or_address:
      return Error(error.code(),
                   format_text("{}; load the kernel module (modprobe kvm_intel or kvm_amd); if it "
                               "refuses, enable virtualization in the firmware, or nested "
                               "virtualization where this machine is itself a guest",
                               error.what()));
    case std::errc::permission_denied:
    case std::errc::operation_not_permitted:
      return Error(error.code(),
                   format_text("{}; add the user to the group that owns {} (usermod -aG kvm USER) "
                               "and log in again",
                               error.what(), path));
    default:
      return error;
  }
}

class KvmHypervisor : public x86_64::Hypervisor {
 public:
  KvmHypervisor(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Result<void> check() {
    const auto version =
        call(fd_, KVM_GET_API_VERSION, 0ul, "asking for the KVM version of", path_);
    if (!version) {
      return fail(Error(version.error().code(),
                        format_text("{}; it is not a KVM device", version.error().what())));
    }
    if (*version != KVM_API_VERSION) {
      return fail(
          Error(std::errc::function_not_supported,
                format_text("{}: KVM API version {}, but {} is needed; run a mainline kernel",
                            path_, *version, KVM_API_VERSION)));
    }
    if (capability(KVM_CAP_IMMEDIATE_EXIT) <= 0) {
      return fail(Error(std::errc::not_supported,
                        format_text("{}: no immediate exit (KVM_CAP_IMMEDIATE_EXIT), so a running "
                                    "vCPU could not be stopped; Linux 4.13 or newer is needed",
                                    path_)));
    }
    run_size_ = static_cast<size_t>(
        TRY(call(fd_, KVM_GET_VCPU_MMAP_SIZE, 0ul, "asking for the vCPU area's size of", path_)));
    CHECK(run_size_ >= sizeof(kvm_run));
    return {};
  }

  Result<std::unique_ptr<x86_64::Vm>> create_vm() override {
    while (true) {
      Fd vm(::ioctl(fd_.get(), KVM_CREATE_VM, 0ul));
      if (vm) return std::unique_ptr<x86_64::Vm>(new KvmVm(std::move(vm), run_size_));
      const Error error = Error::from_errno("creating a VM on", path_);
      if (error.code() == std::errc::interrupted) continue;  // a signal came meanwhile
      if (error.code() != std::errc::device_or_resource_busy) return fail(error);
      return fail(Error(error.code(), format_text("{}; another hypervisor holds the CPU's "
                                                  "virtualization, stop its machines first",
                                                  error.what())));
    }
  }

  Result<std::vector<CpuidEntry>> supported_cpuid() override {
    constexpr size_t kMost = 1 << 14;
    for (size_t count = 128; count <= kMost; count *= 2) {
      CpuidList list(count);
      const auto got =
          call(fd_, kGetSupportedCpuid, list.header(), "asking for the CPUID of", path_);
      if (got) return to_entries(list.entries().first(list.header()->count));
      if (got.error().code() != std::errc::argument_list_too_long) return fail(got.error());
    }
    return fail(Error(std::errc::argument_list_too_long,
                      format_text("{}: more than {} CPUID leaves", path_, kMost)));
  }

  uint32_t max_vcpus() override {
    constexpr int kWhenUnknown = 4;  // KVM API 4.4
    for (const int name : {KVM_CAP_MAX_VCPUS, KVM_CAP_NR_VCPUS}) {
      if (const int most = capability(name); most > 0) return static_cast<uint32_t>(most);
    }
    return kWhenUnknown;
  }

  bool has_tsc_deadline_timer() override { return capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0; }

 private:
  int capability(int name) {
    return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(name));
  }

  static std::vector<CpuidEntry> to_entries(std::span<const kvm_cpuid_entry2> list) {
    std::vector<CpuidEntry> entries;
    entries.reserve(list.size());
    for (const kvm_cpuid_entry2& entry : list) {
      entries.push_back({.function = entry.function,
                         .index = entry.index,
                         .index_significant = (entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                         .eax = entry.eax,
                         .ebx = entry.ebx,
                         .ecx = entry.ecx,
                         .edx = entry.edx});
    }
    return entries;
  }

  Fd fd_;
  std::string path_;
  size_t run_size_ = 0;
};

}  // namespace
}  // namespace kvm

Result<std::unique_ptr<x86_64::Hypervisor>> open_kvm(const std::string& path) {
  auto fd = open_path(path, O_RDWR);
  if (!fd) return fail(kvm::explain_open(path, std::move(fd).error()));
  auto hypervisor = std::make_unique<kvm::KvmHypervisor>(*std::move(fd), path);
  TRY(hypervisor->check());
  return hypervisor;
}

}  // namespace crosvm

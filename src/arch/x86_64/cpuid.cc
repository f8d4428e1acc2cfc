#include "arch/x86_64/cpuid.h"

#include <cpuid.h>

#include <algorithm>

#include "arch/x86_64/cpu_topology.h"

namespace crosvm::x86_64 {
namespace {

// Leaves: Intel SDM volume 2A, CPUID; AMD64 APM volume 3, appendix E.
constexpr uint32_t kMaxBasic = 0;
constexpr uint32_t kFeatures = 1;
constexpr uint32_t kCacheDescriptors = 2;
constexpr uint32_t kCacheParameters = 4;
constexpr uint32_t kTopology = 0xB;
constexpr uint32_t kTscFrequency = 0x15;
constexpr uint32_t kHybrid = 0x1A;
constexpr uint32_t kTopologyV2 = 0x1F;
constexpr uint32_t kExtendedFeatures = 0x80000001;
constexpr uint32_t kFirstBrand = 0x80000002;
constexpr uint32_t kLastAmdCache = 0x80000006;
constexpr uint32_t kAddressSizes = 0x80000008;
constexpr uint32_t kAmdCacheTopology = 0x8000001D;
constexpr uint32_t kAmdProcessorTopology = 0x8000001E;

constexpr uint32_t kVmx = 1u << 5;              // leaf 1 ECX
constexpr uint32_t kX2apic = 1u << 21;          // leaf 1 ECX
constexpr uint32_t kTscDeadline = 1u << 24;     // leaf 1 ECX
constexpr uint32_t kHypervisor = 1u << 31;      // leaf 1 ECX
constexpr uint32_t kHyperThreading = 1u << 28;  // leaf 1 EDX
constexpr uint32_t kSvm = 1u << 2;              // leaf 0x80000001 ECX
constexpr uint32_t kCacheLineQwords = 8;        // 64 bytes, for CLFLUSH

/// A bit field of `width` bits at `shift`, replaced by `value` or the most it holds.
void set_field(uint32_t& word, uint32_t shift, uint32_t width, uint32_t value) {
  const uint32_t most = (1u << width) - 1;
  word = (word & ~(most << shift)) | (std::min(value, most) << shift);
}

uint32_t get_field(uint32_t word, uint32_t shift, uint32_t width) {
  return word >> shift & ((1u << width) - 1);
}

void assign(CpuidEntry& entry, const CpuidRegisters& registers) {
  entry.eax = registers.eax;
  entry.ebx = registers.ebx;
  entry.ecx = registers.ecx;
  entry.edx = registers.edx;
}

void set_features(CpuidEntry& entry, const CpuidOptions& options) {
  entry.ecx |= kHypervisor;
  entry.ecx = options.x2apic ? entry.ecx | kX2apic : entry.ecx & ~kX2apic;
  if (options.tsc_deadline) entry.ecx |= kTscDeadline;
  if (options.nested == Nested::kOff) entry.ecx &= ~kVmx;
  entry.ebx = options.vcpu_id << 24 | kCacheLineQwords << 8;
  entry.edx &= ~kHyperThreading;
  if (options.vcpu_count > 1) {
    set_field(entry.ebx, 16, 8, options.vcpu_count);
    entry.edx |= kHyperThreading;
  }
}

/// A cache is shared at least by the threads of a core: a host with fewer threads a core would have
/// a guest kernel complain of a broken topology.
void widen_sharing(CpuidEntry& entry, const CpuTopology& topology) {
  const uint32_t sharing = get_field(entry.eax, 14, 12);
  set_field(entry.eax, 14, 12, std::max(sharing, topology.threads_per_core - 1));
}

void set_cache_parameters(CpuidEntry& entry, const CpuTopology& topology,
                          const CpuidFunction& host) {
  assign(entry, host(kCacheParameters, entry.index));
  const bool is_cache = get_field(entry.eax, 0, 5) != 0;  // never on AMD, nor after the last one
  if (!is_cache) return;
  set_field(entry.eax, 26, 6, topology.cores() - 1);
  widen_sharing(entry, topology);
}

/// ECX is zero on Intel. AMD counts threads of the package there, and the APIC id bits they take.
void set_address_sizes(CpuidEntry& entry, const CpuTopology& topology, bool is_amd) {
  if (!is_amd) return;
  set_field(entry.ecx, 0, 8, topology.vcpus - 1);
  set_field(entry.ecx, 12, 4, topology.package_shift);
}

void set_amd_processor_topology(CpuidEntry& entry, uint32_t vcpu_id, const CpuTopology& topology) {
  entry.eax = vcpu_id;
  entry.ebx = 0;
  set_field(entry.ebx, 0, 8, vcpu_id / topology.threads_per_core);
  set_field(entry.ebx, 8, 8, topology.threads_per_core - 1);
  entry.ecx = 0;  // one node, number 0
  entry.edx = 0;
}

/// Sub-leaves of 0x0B or 0x1F: threads of a core, cores of the package, end of the list.
void append_topology(std::vector<CpuidEntry>& entries, uint32_t leaf, uint32_t vcpu_id,
                     const CpuTopology& topology) {
  constexpr uint32_t kThreadLevel = 1 << 8;
  constexpr uint32_t kCoreLevel = 2 << 8;
  const CpuidEntry common{.function = leaf, .index_significant = true, .edx = vcpu_id};
  CpuidEntry threads = common;
  threads.eax = topology.core_shift;
  threads.ebx = topology.threads_per_core;
  threads.ecx = kThreadLevel;
  CpuidEntry cores = common;
  cores.index = 1;
  cores.eax = topology.package_shift;
  cores.ebx = topology.vcpus;
  cores.ecx = kCoreLevel | cores.index;
  CpuidEntry end = common;
  end.index = 2;
  end.ecx = end.index;
  entries.insert(entries.end(), {threads, cores, end});
}

bool is_topology(const CpuidEntry& entry) {
  return entry.function == kTopology || entry.function == kTopologyV2;
}

void rewrite(CpuidEntry& entry, const CpuidOptions& options, const CpuTopology& topology,
             bool is_amd, const CpuidFunction& host) {
  switch (entry.function) {
    case kFeatures:
      set_features(entry, options);
      break;
    case kCacheDescriptors:
      assign(entry, host(entry.function, 0));
      break;
    case kCacheParameters:
      set_cache_parameters(entry, topology, host);
      break;
    case kTscFrequency:  // not measured, so not told
    case kHybrid:        // all vCPUs are alike
      assign(entry, {});
      break;
    case kExtendedFeatures:
      if (options.nested == Nested::kOff) entry.ecx &= ~kSvm;
      break;
    case kAddressSizes:
      set_address_sizes(entry, topology, is_amd);
      break;
    case kAmdCacheTopology:
      if (get_field(entry.eax, 0, 5) != 0) widen_sharing(entry, topology);
      break;
    case kAmdProcessorTopology:
      set_amd_processor_topology(entry, options.vcpu_id, topology);
      break;
    default:
      if (entry.function >= kFirstBrand && entry.function <= kLastAmdCache) {
        assign(entry, host(entry.function, 0));
      }
  }
}

/// "AuthenticAMD" or "HygonGenuine", whose leaves are alike.
bool is_amd_vendor(const CpuidRegisters& vendor) {
  return (vendor.ebx == 0x68747541 && vendor.edx == 0x69746E65 && vendor.ecx == 0x444D4163) ||
         (vendor.ebx == 0x6F677948 && vendor.edx == 0x6E65476E && vendor.ecx == 0x656E6975);
}

Result<void> check_nested(std::span<const CpuidEntry> supported) {
  if ((lookup_cpuid(supported, kFeatures, 0).ecx & kVmx) != 0) return {};
  if ((lookup_cpuid(supported, kExtendedFeatures, 0).ecx & kSvm) != 0) return {};
  return fail(Error(std::errc::not_supported,
                    "nested virtualisation: this host's KVM offers neither VMX nor SVM to guests; "
                    "load kvm_intel or kvm_amd with nested=1, or do not ask for it"));
}

}  // namespace

CpuidRegisters host_cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters r;
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

uint32_t physical_address_bits(const CpuidFunction& cpuid) {
  constexpr uint32_t kWithoutLeaf = 36;
  if (cpuid(0x80000000, 0).eax < kAddressSizes) return kWithoutLeaf;
  const uint32_t bits = get_field(cpuid(kAddressSizes, 0).eax, 0, 8);
  return bits == 0 ? kWithoutLeaf : bits;
}

CpuidRegisters lookup_cpuid(std::span<const CpuidEntry> entries, uint32_t leaf, uint32_t subleaf) {
  for (const CpuidEntry& e : entries) {
    if (e.function == leaf && (!e.index_significant || e.index == subleaf)) {
      return {e.eax, e.ebx, e.ecx, e.edx};
    }
  }
  return {};
}

Result<std::vector<CpuidEntry>> filter_cpuid(std::span<const CpuidEntry> supported,
                                             const CpuidOptions& options,
                                             const CpuidFunction& host) {
  if (options.nested == Nested::kOn) TRY(check_nested(supported));
  const CpuTopology topology = cpu_topology(options.vcpu_count, options.smt);
  const CpuidRegisters basic = lookup_cpuid(supported, kMaxBasic, 0);
  std::vector<CpuidEntry> entries;
  entries.reserve(supported.size() + 6);
  for (const CpuidEntry& entry : supported) {
    if (is_topology(entry)) continue;  // whatever sub-leaves there were: replaced below
    entries.push_back(entry);
    rewrite(entries.back(), options, topology, is_amd_vendor(basic), host);
  }
  for (uint32_t leaf : {kTopology, kTopologyV2}) {
    if (basic.eax >= leaf) append_topology(entries, leaf, options.vcpu_id, topology);
  }
  return entries;
}

}  // namespace crosvm::x86_64

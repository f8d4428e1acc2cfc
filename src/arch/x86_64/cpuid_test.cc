#include "arch/x86_64/cpuid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "arch/x86_64/cpu_topology.h"

namespace crosvm::x86_64 {
namespace {

using testing::HasSubstr;

CpuidEntry leaf(uint32_t function, CpuidRegisters r = {}) {
  return {.function = function, .eax = r.eax, .ebx = r.ebx, .ecx = r.ecx, .edx = r.edx};
}
CpuidEntry subleaf(uint32_t function, uint32_t index, CpuidRegisters r = {}) {
  CpuidEntry entry = leaf(function, r);
  entry.index = index;
  entry.index_significant = true;
  return entry;
}

/// A cache entry of leaf 4: level 1 data, 12 bits of sharing, 6 bits of cores.
uint32_t cache(uint32_t sharing, uint32_t cores) {
  return cores << 26 | sharing << 14 | 1 << 5 | 1;
}

CpuidRegisters intel_host(uint32_t function, uint32_t index) {
  if (function == 2) return {.eax = 0x00FEFF01};
  if (function == 4 && index == 0) return {.eax = cache(0, 31), .ebx = 0x1234};
  if (function >= 0x80000002 && function <= 0x80000006) return {.eax = function, .ebx = 0xB0};
  return {};
}

std::vector<CpuidEntry> intel() {
  return {leaf(0, {0x1F, 0x756E6547, 0x6C65746E, 0x49656E69}),
          leaf(1, {.eax = 0x806F8, .ebx = 0x05200800, .ecx = 1u << 5, .edx = 1u << 28}),
          leaf(2),
          subleaf(4, 0, {.eax = cache(1, 7)}),
          subleaf(4, 1),
          subleaf(0xB, 0, {9, 9, 9, 9}),
          subleaf(0xB, 1, {9, 9, 9, 9}),
          leaf(0x15, {1, 2, 3, 0}),
          subleaf(0x1F, 0),
          leaf(0x80000001, {.ecx = 1u << 2}),
          leaf(0x80000002),
          leaf(0x80000006),
          leaf(0x80000008, {.eax = 0x302E})};
}

std::vector<CpuidEntry> amd() {
  return {leaf(0, {0xD, 0x68747541, 0x444D4163, 0x69746E65}),
          leaf(1),
          leaf(0x80000001, {.ecx = 1u << 2}),
          leaf(0x80000008, {.eax = 0x3028, .ecx = 0x7777}),
          subleaf(0x8000001D, 0, {.eax = 0x4121}),
          subleaf(0x8000001D, 1, {.eax = 0}),
          leaf(0x8000001E, {5, 6, 7, 8})};
}

std::vector<CpuidEntry> filter(const std::vector<CpuidEntry>& supported,
                               const CpuidOptions& options) {
  auto entries = filter_cpuid(supported, options, intel_host);
  EXPECT_TRUE(entries.has_value());
  return *entries;
}

bool has(uint32_t word, int bit) { return (word >> bit & 1) != 0; }

TEST(Cpuid, FeaturesOfAnInnerVcpu) {
  const auto r = lookup_cpuid(filter(intel(), {.vcpu_id = 3, .vcpu_count = 4}), 1, 0);
  EXPECT_EQ(r.ebx, 3u << 24 | 4u << 16 | 8u << 8);
  EXPECT_TRUE(has(r.ecx, 31)) << "hypervisor";
  EXPECT_TRUE(has(r.ecx, 21)) << "x2APIC";
  EXPECT_TRUE(has(r.ecx, 24)) << "TSC deadline";
  EXPECT_TRUE(has(r.edx, 28)) << "HTT";
}

TEST(Cpuid, ASingleVcpuHasNoSiblings) {
  const auto r = lookup_cpuid(filter(intel(), {.vcpu_count = 1}), 1, 0);
  EXPECT_EQ(r.ebx, 8u << 8);
  EXPECT_FALSE(has(r.edx, 28));
}

TEST(Cpuid, TscDeadlineIsNeverClearedAndX2apicFollowsTheChip) {
  auto supported = intel();
  supported[1].ecx |= 1u << 24 | 1u << 21;
  const auto r = lookup_cpuid(filter(supported, {.x2apic = false, .tsc_deadline = false}), 1, 0);
  EXPECT_TRUE(has(r.ecx, 24));
  EXPECT_FALSE(has(r.ecx, 21));
}

TEST(Cpuid, NestedVirtualisation) {
  for (Nested nested : {Nested::kOff, Nested::kAuto, Nested::kOn}) {
    const auto entries = filter(intel(), {.nested = nested});
    EXPECT_EQ(has(lookup_cpuid(entries, 1, 0).ecx, 5), nested != Nested::kOff);
    EXPECT_EQ(has(lookup_cpuid(entries, 0x80000001, 0).ecx, 2), nested != Nested::kOff);
  }
  auto without = intel();
  without[1].ecx = 0;
  EXPECT_TRUE(filter_cpuid(without, {.nested = Nested::kOn}, intel_host).has_value()) << "SVM left";
  without[9].ecx = 0;
  EXPECT_TRUE(filter_cpuid(without, {.nested = Nested::kAuto}, intel_host).has_value());
  auto refused = filter_cpuid(without, {.nested = Nested::kOn}, intel_host);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().what(), HasSubstr("nested=1"));
}

struct TopologyCase {
  uint32_t vcpus;
  bool smt;
  uint32_t thread_shift, threads, package_shift, cores;
};

class CpuidTopology : public testing::TestWithParam<TopologyCase> {};

TEST_P(CpuidTopology, LeavesAgree) {
  const TopologyCase c = GetParam();
  for (uint32_t id = 0; id < c.vcpus; ++id) {
    const auto entries = filter(intel(), {.vcpu_id = id, .vcpu_count = c.vcpus, .smt = c.smt});
    for (uint32_t function : {0xBu, 0x1Fu}) {
      const auto threads = lookup_cpuid(entries, function, 0);
      EXPECT_EQ(threads.eax, c.thread_shift);
      EXPECT_EQ(threads.ebx, c.threads);
      EXPECT_EQ(threads.ecx, 0x100u);
      EXPECT_EQ(threads.edx, id);
      const auto cores = lookup_cpuid(entries, function, 1);
      EXPECT_EQ(cores.eax, c.package_shift);
      EXPECT_EQ(cores.ebx, c.vcpus);
      EXPECT_EQ(cores.ecx, 0x201u);
      const auto end = lookup_cpuid(entries, function, 2);
      EXPECT_EQ(end.eax, 0u);
      EXPECT_EQ(end.ebx, 0u);
    }
    EXPECT_EQ(lookup_cpuid(entries, 4, 0).eax >> 26, c.cores - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Counts, CpuidTopology,
    testing::Values(TopologyCase{1, true, 0, 1, 0, 1}, TopologyCase{2, true, 1, 2, 1, 1},
                    TopologyCase{4, true, 1, 2, 2, 2}, TopologyCase{6, true, 1, 2, 3, 3},
                    TopologyCase{3, true, 2, 3, 2, 1}, TopologyCase{4, false, 0, 1, 2, 4},
                    TopologyCase{3, false, 0, 1, 2, 3}));

TEST(Cpuid, CachesAreTheHostsButSharedByTheThreadsOfACore) {
  const auto entries = filter(intel(), {.vcpu_count = 4});
  const auto r = lookup_cpuid(entries, 4, 0);
  EXPECT_EQ(r.eax, cache(1, 1)) << "the host has one thread a core, the guest two";
  EXPECT_EQ(r.ebx, 0x1234u);
  EXPECT_EQ(lookup_cpuid(entries, 4, 1).eax, 0u) << "the end of the list stays empty";
  EXPECT_EQ(lookup_cpuid(entries, 2, 0).eax, 0x00FEFF01u);
}

TEST(Cpuid, BrandComesFromTheHost) {
  const auto entries = filter(intel(), {});
  EXPECT_EQ(lookup_cpuid(entries, 0x80000002, 0).eax, 0x80000002u);
  EXPECT_EQ(lookup_cpuid(entries, 0x80000006, 0).ebx, 0xB0u);
}

TEST(Cpuid, TscFrequencyIsNotTold) {
  EXPECT_EQ(lookup_cpuid(filter(intel(), {}), 0x15, 0).ebx, 0u);
}

TEST(Cpuid, IntelHasNoCoreCountInTheAddressLeaf) {
  const auto r = lookup_cpuid(filter(intel(), {.vcpu_count = 4}), 0x80000008, 0);
  EXPECT_EQ(r.ecx, 0u);
  EXPECT_EQ(r.eax, 0x302Eu);
}

TEST(Cpuid, AmdTopologyLeaves) {
  const auto entries = filter(amd(), {.vcpu_id = 3, .vcpu_count = 4});
  const auto sizes = lookup_cpuid(entries, 0x80000008, 0);
  EXPECT_EQ(sizes.ecx & 0xFF, 3u) << "threads of the package, less one";
  EXPECT_EQ(sizes.ecx >> 12 & 0xF, 2u) << "APIC id bits";
  const auto topology = lookup_cpuid(entries, 0x8000001E, 0);
  EXPECT_EQ(topology.eax, 3u) << "APIC id";
  EXPECT_EQ(topology.ebx, 1u << 8 | 1u) << "two threads, core 1";
  EXPECT_EQ(topology.ecx, 0u) << "one node";
  EXPECT_EQ(lookup_cpuid(entries, 0x8000001D, 0).eax >> 14 & 0xFFF, 1u);
  EXPECT_EQ(lookup_cpuid(entries, 0x8000001D, 1).eax, 0u);
  EXPECT_EQ(lookup_cpuid(entries, 0xB, 1).ebx, 4u);
}

TEST(Cpuid, LeavesBeyondTheHighestAreNotInvented) {
  for (const CpuidEntry& entry : filter(amd(), {})) EXPECT_NE(entry.function, 0x1Fu);
}

TEST(Cpuid, AddressBits) {
  auto with = [](uint32_t highest, uint32_t eax) {
    return physical_address_bits([=](uint32_t function, uint32_t) {
      return CpuidRegisters{.eax = function == 0x80000000 ? highest : eax};
    });
  };
  EXPECT_EQ(with(0x80000008, 0x302E), 46u);
  EXPECT_EQ(with(0x80000004, 0x302E), 36u);
}

}  // namespace
}  // namespace crosvm::x86_64

#include "arch/x86_64/cpu_topology.h"

#include <bit>

#include "base/result.h"

namespace crosvm::x86_64 {

CpuTopology cpu_topology(uint32_t vcpus, bool smt) {
  CHECK(vcpus != 0);
  const auto bits = static_cast<uint32_t>(std::bit_width(vcpus - 1));
  if (!smt || vcpus == 1) return {vcpus, 1, 0, bits};
  if (vcpus % 2 == 0) return {vcpus, 2, 1, bits};
  return {vcpus, vcpus, bits, bits};
}

}  // namespace crosvm::x86_64

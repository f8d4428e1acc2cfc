#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm::kvm {

/// An ioctl with a value or a pointer; returns what the kernel returned. Errors: its errno, with
/// "DOING OBJECT" before it.
template <class Arg>
Result<int> call(const Fd& fd, unsigned long request, Arg argument, std::string_view doing,
                 std::string_view object) {
  static_assert(std::is_pointer_v<Arg> || std::is_same_v<Arg, unsigned long>);
  const int result = ::ioctl(fd.get(), request, argument);
  if (result < 0) return fail(Error::from_errno(doing, object));
  return result;
}

/// A kernel structure of a count, 32 bits of padding or flags (0), and `Entry`s: kvm_cpuid2,
/// kvm_msrs, kvm_irq_routing. Ours, since in kernel headers before 6.7 their flexible arrays stand,
/// in C++ only, behind an empty structure of one byte, which also spoils the ioctl numbers made of
/// their size.
template <class Entry>
class EntryList {
 public:
  struct Header {
    uint32_t count;
    uint32_t reserved;
  };

  explicit EntryList(size_t count)
      : bytes_(sizeof(Header) + count * sizeof(Entry)), capacity_(count) {
    header()->count = static_cast<uint32_t>(count);
  }

  Header* header() { return reinterpret_cast<Header*>(bytes_.data()); }
  /// Room for all entries asked for; the kernel may have set a smaller `header()->count`.
  std::span<Entry> entries() {
    return {reinterpret_cast<Entry*>(bytes_.data() + sizeof(Header)), capacity_};
  }

 private:
  std::vector<std::byte> bytes_;  // aligned for any entry by the allocator
  size_t capacity_;
};

using CpuidList = EntryList<kvm_cpuid_entry2>;
using MsrList = EntryList<kvm_msr_entry>;
using RouteList = EntryList<kvm_irq_routing_entry>;

inline constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CpuidList::Header);
inline constexpr unsigned long kSetGsiRouting = _IOW(KVMIO, 0x6a, RouteList::Header);
inline constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, MsrList::Header);
inline constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, MsrList::Header);
inline constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CpuidList::Header);

}  // namespace crosvm::kvm

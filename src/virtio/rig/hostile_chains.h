#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "virtio/rig/rig.h"

namespace crosvm {

/// What is unusual or wrong about a generated chain.
enum class ChainFault {
  // Well-formed ones.
  kNone,
  kZeroLengthInside,  // buffers of no bytes between others
  kAcrossBorder,      // a buffer that begins in one RAM region and ends in the adjacent one
  kReservedFlags,     // packed: bits that a device must not look at
  kWriteOnTable,      // the descriptor of an indirect table marked as writable
  // Malformed ones.
  kAllZeroLength,
  kPastRam,
  kInHole,
  kAcrossHole,
  kWrapsAround,
  kFourGiB,
  kReadableAfterWritable,
  kLoop,
  kNextOutOfRange,  // packed: the next one is not available
  kHeadOutOfRange,
  kUnknownFlags,
  kIndirectNext,
  kIndirectInList,  // packed
  kNestedIndirect,
  kTableOddLength,
  kTableEmpty,
  kTableOutside,
  kTableLoop,
  kTableNextOutOfRange,
  kTableTooLong,
  kIndirectUnasked,
  kIndexAhead,
  kIndexBehind,
};
inline constexpr ChainFault kLastChainFault = ChainFault::kIndexBehind;

std::string_view name_of(ChainFault fault);
bool is_malformed(ChainFault fault);

/// A chain that was put into a ring.
struct HostileChain {
  ChainFault fault = ChainFault::kNone;
  std::vector<DriverBuffer> buffers;  // as the device must see them, if well-formed
  uint16_t id = 0;                    // under which it comes back
};

/// Writes chains with and without faults into a driver's ring.
class HostileChains {
 public:
  using Random = std::mt19937_64;
  using Fill = std::function<void(std::span<std::byte> readable, Random& random)>;

  /// The driver's ring must not be used for anything else until it is restarted. `fill` makes what
  /// each readable buffer holds; random bytes without it.
  HostileChains(RigDriver& driver, uint64_t seed, Fill fill = {});
  ~HostileChains();

  /// Whether this kind of ring, with its features, can have the fault.
  bool can(ChainFault fault) const;
  /// Puts a chain into the ring and shows it, without a kick. After a malformed one the ring cannot
  /// be used any more until the driver was restarted.
  HostileChain offer(ChainFault fault);
  /// The same with a fault by chance.
  HostileChain offer();

 private:
  uint64_t pick(uint64_t below) { return random_() % below; }
  GuestAddress place(uint64_t bytes);
  std::vector<DriverBuffer> make_buffers();
  void spoil_buffers(ChainFault fault, std::vector<DriverBuffer>& buffers);
  void fill_readable(const std::vector<DriverBuffer>& buffers);
  bool wants_table(ChainFault fault);
  void offer_split(HostileChain& chain);
  void offer_packed(HostileChain& chain);
  std::vector<RingDescriptor> split_table(const HostileChain& chain,
                                          std::span<const DriverBuffer> buffers);
  std::vector<RingDescriptor> packed_table(const HostileChain& chain);
  RingDescriptor table_descriptor(const HostileChain& chain,
                                  const std::vector<RingDescriptor>& table);

  RigDriver& driver_;
  RigMemory& memory_;
  Random random_;
  Fill fill_;
  GuestAddress arena_;  // buffers and tables of the present chain
  uint64_t arena_used_ = 0;
};

/// How `play_hostile_chains` goes about it.
struct HostileOptions {
  uint16_t queue = 0;
  unsigned chains = 5000;
  uint64_t seed = 1;
  bool answers = true;  ///< false: a queue that may keep its chains, such as one to receive with
  HostileChains::Fill fill = {};
  /// Judges a well-formed chain that came back; a sentence if something is wrong with it.
  std::function<std::string(const HostileChain&, const DriverRing::Used&)> judge = {};
  /// Whether a well-formed chain may lead to a reset; devices may refuse what they read in it.
  bool may_refuse = true;
  std::optional<ChainFault> only = {};  ///< every chain has this fault
};

struct HostileResult {
  unsigned well_formed = 0;
  unsigned malformed = 0;
  unsigned answered = 0;
  unsigned resets = 0;
  std::string failure;  ///< empty if the device held
};

/// Plays generated chains to one queue of a rig: the device must give each back or need a reset,
/// which it gets. Stops at the first failure, which names the chain's number, fault and seed.
HostileResult play_hostile_chains(Rig& rig, const HostileOptions& options);

}  // namespace crosvm

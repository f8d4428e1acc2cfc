#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// For tests that cut a disk off in the middle of its work.
namespace crosvm::test {

inline constexpr uint64_t kSector = 512;

/// Something that was asked of a disk, or the end of it. Plain bytes: a process that is to be
/// killed leaves them in memory that it shares.
struct DiskEvent {
  enum class Kind : uint8_t { kWrite, kWriteZeroes, kDiscard, kFlush, kResize, kEnd };
  Kind kind = Kind::kEnd;
  int32_t error = 0;    ///< kEnd: 0 or an errno
  uint64_t id = 0;      ///< of the request; of kEnd the one that has ended
  uint64_t first = 0;   ///< sectors
  uint64_t count = 0;   ///< sectors; kResize: of the disk from then on
  uint64_t number = 0;  ///< kWrite: what the first sector holds, the next one that plus 1, …
};

/// What each sector of a disk may hold, and how large it may be, when all that is known are the
/// events. A written sector holds one number again and again, so that a torn one is seen; no two
/// writes have the same.
class SectorModel {
 public:
  /// All zeroes. The disk grows to at most `most` sectors.
  SectorModel(uint64_t sectors, uint64_t most);

  /// What a write that has ended well has written stays, without a flush.
  void writes_stay() { writes_stay_ = true; }
  void apply(const DiskEvent& event);
  /// Sectors of the disk, when no resize is on its way.
  uint64_t sectors() const { return sectors_; }
  bool is_busy(uint64_t first, uint64_t count) const;
  bool may_hold(uint64_t index, uint64_t number) const;
  bool may_have_sectors(uint64_t sectors) const;
  /// What may be there, for messages.
  std::string describe(uint64_t index) const;
  /// Nothing is on its way any more, and the disk has that many sectors.
  void restart(uint64_t sectors);
  /// The sector holds that, for good.
  void adopt(uint64_t index, uint64_t number);

  static void fill(std::span<std::byte> sector, uint64_t number);
  /// None when the sector is torn.
  static std::optional<uint64_t> number_in(std::span<const std::byte> sector);

 private:
  struct Sector {
    std::vector<uint64_t> now = {0};      ///< one of these is read
    std::vector<uint64_t> allowed = {0};  ///< one of these is read after the disk was cut off
    uint64_t version = 0;                 ///< of `now`
    uint64_t changing = 0;                ///< requests on their way
  };
  struct Running {
    DiskEvent event;
    std::vector<uint64_t> versions = {};  ///< kFlush: of the sectors that nothing changes
  };

  void begin_change(const DiskEvent& event);
  void begin_flush(Running& running) const;
  void begin_resize(const DiskEvent& event);
  void end_change(const DiskEvent& event, int error);
  void end_flush(const Running& running);
  void end_resize(const DiskEvent& event, int error);
  static uint64_t number_of(const DiskEvent& event, uint64_t index);

  std::vector<Sector> all_;
  std::map<uint64_t, Running> running_;
  uint64_t sectors_;
  std::optional<uint64_t> perhaps_sectors_;  ///< while, or after, a resize did not end well
  bool writes_stay_ = false;
};

}  // namespace crosvm::test

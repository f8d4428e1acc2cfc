#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qemu_img.h"
#include "disk/sector_model.h"

namespace crosvm::test {

/// A disk image on real files, of a kind chosen at random, and the model of what it holds.
class KillImage {
 public:
  static constexpr uint64_t kLeastSectors = 300;
  static constexpr uint64_t kMostSectors = 6000;

  /// Fails the test when it cannot be made.
  explicit KillImage(uint64_t seed);

  std::string path() const { return qemu_.path("disk"); }
  bool is_raw() const { return kind_ == Kind::kRaw; }
  bool is_direct() const { return direct_; }
  /// Numbers that no sector holds yet: `count` of them, the first.
  uint64_t take_numbers(uint64_t count);
  SectorModel& model() { return model_; }
  /// As it is called in messages.
  std::string text() const;

  /// qemu-img finds nothing that is wrong, but perhaps leaks. Nothing without qemu-img.
  void expect_sound(bool may_leak);
  /// The internal snapshot, if there is one, holds what it held. The image is that snapshot then.
  void expect_snapshot();
  /// The file of the data, where it is a raw image of its own, may hold what it does.
  void expect_raw_data();

 private:
  enum class Kind : uint8_t { kRaw, kPlain, kBacking, kData, kCompressed };
  uint64_t below(uint64_t limit) { return random_() % limit; }
  void choose();
  void make();
  void make_backing();
  void make_with_qemu();
  void make_file(const std::string& name, uint64_t bytes) const;
  std::vector<std::byte> numbered(uint64_t sectors);

  std::mt19937_64 random_;
  QemuImg qemu_;
  Kind kind_;
  bool direct_ = false;
  bool snapshot_ = false;
  Qcow2CreateOptions options_;
  uint64_t next_ = 1;
  SectorModel model_;
};

}  // namespace crosvm::test

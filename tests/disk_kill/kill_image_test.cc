#include "kill_image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "base/format.h"

namespace crosvm::test {
namespace {

constexpr std::array<std::string_view, 5> kKinds = {"raw", "plain", "backing", "data",
                                                    "compressed"};

}  // namespace

KillImage::KillImage(uint64_t seed)
    : random_(seed),
      kind_(static_cast<Kind>(below(QemuImg::is_there() ? 5 : 4))),
      model_(kLeastSectors + below(kMostSectors - kLeastSectors), kMostSectors) {
  choose();
  make();
  // A file system without direct I/O refuses it.
  if (below(3) == 0) direct_ = open_path(path(), O_RDWR | O_DIRECT).has_value();
}

void KillImage::make() {
  const uint64_t bytes = model_.sectors() * kSector;
  if (is_raw()) {
    make_file("disk", bytes);
    model_.writes_stay();
  } else if (kind_ == Kind::kCompressed) {
    make_with_qemu();
  } else {
    if (kind_ == Kind::kBacking) make_backing();
    make_file("disk", 0);
    auto file =
        make_sync_file(std::make_shared<const Fd>(std::move(*open_path(path(), O_RDWR))), path());
    ASSERT_TRUE(file);
    const auto made = create_qcow2(**file, options_, path());
    ASSERT_TRUE(made) << made.error().what();
  }
}

void KillImage::choose() {
  options_.size = model_.sectors() * kSector;
  options_.cluster_size = 512ULL << below(9);
  options_.version = kind_ != Kind::kData && below(5) == 0 ? 2 : 3;
  if (options_.version == 3) {
    options_.refcount_bits = 1U << below(7);
    options_.extended_l2 = options_.cluster_size >= 16384 && below(2) == 0;
    options_.lazy_refcounts = below(3) == 0;
  }
  if (kind_ == Kind::kBacking) {
    options_.backing_name = "backing";
    options_.backing_format = "raw";
  } else if (kind_ == Kind::kPlain) {
    options_.preallocation = static_cast<Qcow2Preallocation>(below(4));
  } else if (kind_ == Kind::kData) {
    options_.data_file_name = "data";
    options_.raw_data = below(2) == 0;
    make_file("data", options_.raw_data ? options_.size : 0);
  }
}

uint64_t KillImage::take_numbers(uint64_t count) { return std::exchange(next_, next_ + count); }

std::string KillImage::text() const {
  return format_text(
      "{}{}: version {} cluster {} refcount {} extended {} lazy {} preallocation {} raw data {} "
      "snapshot {} size {}",
      kKinds[static_cast<size_t>(kind_)], direct_ ? " direct" : "", options_.version,
      options_.cluster_size, options_.refcount_bits, options_.extended_l2, options_.lazy_refcounts,
      static_cast<int>(options_.preallocation), options_.raw_data, snapshot_, options_.size);
}

void KillImage::make_file(const std::string& name, uint64_t bytes) const {
  const auto file = open_path(qemu_.path(name), O_RDWR | O_CREAT | O_TRUNC);
  ASSERT_TRUE(file) << file.error().what();
  ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>(bytes)), 0);
}

/// Some sectors with numbers, which the model knows as far as they are of the disk.
std::vector<std::byte> KillImage::numbered(uint64_t sectors) {
  std::vector<std::byte> bytes(sectors * kSector);
  for (uint64_t i = 0; i < sectors; ++i) {
    if (i / 16 % 3 == 0) continue;
    const uint64_t number = take_numbers(1);
    SectorModel::fill(std::span(bytes).subspan(i * kSector, kSector), number);
    if (i < model_.sectors()) model_.adopt(i, number);
  }
  return bytes;
}

void KillImage::make_backing() { qemu_.save("backing", numbered(1 + below(kMostSectors))); }

void KillImage::make_with_qemu() {
  const bool compressed = below(2) == 0;
  qemu_.save("start", numbered(model_.sectors()));
  std::string options = format_text("compat={},cluster_size={}",
                                    options_.version == 2 ? "0.10" : "1.1", options_.cluster_size);
  if (options_.version == 3) {
    options += format_text(",refcount_bits={}", options_.refcount_bits);
    if (options_.extended_l2) options += ",extended_l2=on";
    if (options_.lazy_refcounts) options += ",lazy_refcounts=on";
    if (compressed && below(2) == 0) options += ",compression_type=zstd";
  }
  ASSERT_EQ(qemu_.run(format_text("convert {} -f raw -O qcow2 -o {} start disk",
                                  compressed ? "-c" : "", options)),
            0)
      << qemu_.said();
  // Few bits do not count the uses of a cluster twice, above all one of many compressed ones. A
  // disk of version 2 with snapshots keeps its size.
  snapshot_ = options_.refcount_bits > (compressed ? 8 : 1) && options_.version == 3;
  if (!snapshot_) return;
  ASSERT_EQ(qemu_.run("snapshot -c before disk"), 0) << qemu_.said();
}

void KillImage::expect_sound(bool may_leak) {
  constexpr int kLeaks = 3;
  if (is_raw() || !QemuImg::is_there()) return;
  const int status = qemu_.run("check -f qcow2 disk");
  ASSERT_TRUE(status == 0 || (may_leak && status == kLeaks)) << qemu_.said();
}

void KillImage::expect_snapshot() {
  if (!snapshot_) return;
  ASSERT_EQ(qemu_.run("snapshot -a before disk"), 0) << qemu_.said();
  ASSERT_EQ(qemu_.run("convert -f qcow2 -O raw disk now"), 0) << qemu_.said();
  ASSERT_TRUE(qemu_.load("now") == qemu_.load("start"));
}

void KillImage::expect_raw_data() {
  if (!options_.raw_data) return;
  const std::vector<std::byte> bytes = qemu_.load("data");
  ASSERT_GE(bytes.size(), model_.sectors() * kSector);
  for (uint64_t i = 0; i < model_.sectors(); ++i) {
    const auto number = SectorModel::number_in(std::span(bytes).subspan(i * kSector, kSector));
    ASSERT_TRUE(number) << "sector " << i << " of the data file is torn";
    ASSERT_TRUE(model_.may_hold(i, *number))
        << "sector " << i << " of the data file: " << *number << ", not" << model_.describe(i);
  }
}

}  // namespace crosvm::test

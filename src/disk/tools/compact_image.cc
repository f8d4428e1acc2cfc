#include "disk/tools/compact_image.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/fd.h"
#include "base/format.h"
#include "disk/disk.h"
#include "disk/image_file.h"
#include "disk/image_format.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/sync_file.h"
#include "disk/tools/copy_image.h"
#include "disk/tools/qcow2_facts.h"
#include "disk/tools/qcow2_target.h"
#include "disk/tools/stoppable_file.h"
#include "disk/tools/target_file.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {
namespace {

constexpr size_t kBlock = 4096;
constexpr size_t kReadBytes = 1 << 20;

std::unexpected<Error> refuse(const CompactPlan& plan, std::string_view what) {
  return fail(Error(std::errc::not_supported, format_text("{}: {}", plan.path, what)));
}

Result<uint64_t> host_bytes(const Fd& file, const std::string& object) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("looking at", object));
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

// ---- raw

bool is_zero(std::span<const std::byte> bytes) {
  return bytes[0] == std::byte{0} &&
         std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

Result<void> punch(const Fd& file, uint64_t offset, uint64_t length, const std::string& object) {
  if (::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) {
    return {};
  }
  Error failed = Error::from_errno("making holes in", object);
  if (failed.code() != std::errc::operation_not_supported) return fail(std::move(failed));
  return fail(Error(failed.code(), failed.what() + "; its file system has none: use crosvm disk "
                                                   "convert to write it elsewhere, or as qcow2"));
}

/// Whole blocks of zeroes within `bytes`, which lie at `offset` of the file.
Result<void> punch_zeroes(const Fd& file, uint64_t offset, std::span<const std::byte> bytes,
                          const std::string& object) {
  for (size_t at = 0; at + kBlock <= bytes.size();) {
    size_t end = at;
    while (end + kBlock <= bytes.size() && is_zero(bytes.subspan(end, kBlock))) end += kBlock;
    if (end > at) TRY(punch(file, offset + at, end - at, object));
    at = end + kBlock;
  }
  return {};
}

/// It is whole at any moment: what is interrupted can be done again.
Result<CompactOutcome> compact_raw(const Fd& file, const CompactPlan& plan,
                                   ToolProgress& progress) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("looking at", plan.path));
  if (!S_ISREG(status.st_mode)) {
    return refuse(plan, "is no file, and has no holes; discard what is free from within the guest");
  }
  CompactOutcome outcome{.before = TRY(host_bytes(file, plan.path))};
  const auto size = static_cast<uint64_t>(status.st_size);
  std::vector<std::byte> buffer(kReadBytes);
  for (uint64_t at = 0; at < size;) {
    const off_t data = ::lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole to its end
    if (data > 0) at = std::max(at, static_cast<uint64_t>(data) / kBlock * kBlock);
    const size_t length = TRY(read_full_at(file, at, buffer, plan.path));
    if (length == 0) break;
    TRY(punch_zeroes(file, at, std::span(buffer).first(length), plan.path));
    at += length;
    TRY(progress.tell(std::min(at, size), size));
  }
  outcome.after = TRY(host_bytes(file, plan.path));
  return outcome;
}

// ---- qcow2

/// What cannot be written anew as it is.
Result<void> refuse_what_would_be_lost(SyncFile& file, const Qcow2Header& header,
                                       const CompactPlan& plan) {
  if (header.snapshots > 0) {
    const auto snapshots = TRY(read_qcow2_snapshots(file, header, plan.path));
    return refuse(plan, format_text("it has {} internal snapshot{}, the first is '{}'; delete them "
                                    "first with qemu-img snapshot -d, or make an image without "
                                    "them by crosvm disk convert",
                                    snapshots.size(), snapshots.size() == 1 ? "" : "s",
                                    snapshots.front().name));
  }
  const auto bitmaps = TRY(read_qcow2_bitmaps(file, header, plan.path));
  if (!bitmaps.empty()) {
    return refuse(
        plan, format_text("it has {} dirty bitmap{} of another program, the first is "
                          "'{}'; when they are not needed for backups any more, remove "
                          "them with qemu-img bitmap --remove",
                          bitmaps.size(), bitmaps.size() == 1 ? "" : "s", bitmaps.front().name));
  }
  if (header.has_data_file()) {
    return refuse(plan, format_text("its bytes are in the data file {}; give that one to crosvm "
                                    "disk compact",
                                    header.data_file_name.value_or("that its VM is given")));
  }
  if (header.is_corrupt()) {
    return refuse(plan,
                  "it is marked as corrupt; see crosvm disk check, or save what can be read "
                  "with crosvm disk convert");
  }
  return {};
}

/// Nothing would tell of damage in the new image, and the old one is gone then.
Result<Qcow2Report> refuse_damage(SyncFile& file, const Qcow2Header& header,
                                  const CompactPlan& plan) {
  if (header.is_dirty()) TRY(rebuild_qcow2_refcounts(file, plan.path));
  Qcow2Report report = TRY(check_qcow2(file, plan.path, Qcow2Repair::kNothing));
  if (report.errors == 0) return report;
  return refuse(plan, format_text("it is damaged: {}; see crosvm disk check, or save what can be "
                                  "read with crosvm disk convert",
                                  report.messages.front()));
}

/// As the old one, without what is for an image in use.
Qcow2Header new_header(const Qcow2Header& old) {
  Qcow2Header header;
  header.version = old.version;
  header.cluster_bits = old.cluster_bits;
  header.size = old.size;
  header.refcount_order = old.refcount_order;
  header.compression = old.compression;
  header.incompatible =
      old.incompatible & (kQcow2IncompatibleCompression | kQcow2IncompatibleExtendedL2);
  header.compatible = old.compatible & kQcow2CompatibleLazyRefcounts;
  header.backing_name = old.backing_name;
  header.backing_format = old.backing_format;
  return header;
}

Result<CompactOutcome> compact_qcow2(std::shared_ptr<const Fd> locked, const CompactPlan& plan,
                                     ToolProgress& progress) {
  CompactOutcome outcome{.before = TRY(host_bytes(*locked, plan.path))};
  auto file = std::make_unique<StoppableFile>(TRY(make_sync_file(locked, plan.path)), progress);
  const Qcow2Header header = TRY(read_qcow2_header(*file, plan.path));
  TRY(refuse_what_would_be_lost(*file, header, plan));
  const Qcow2Report report = TRY(refuse_damage(*file, header, plan));
  ToolImage image = TRY(ToolImage::open(
      plan.path, {.format = ImageFormat::kQcow2, .allowed = plan.allowed, .file = locked}));
  TargetFile target = TRY(TargetFile::replace(*locked, plan.path));
  auto writer = TRY(make_qcow2_target(target.fd(), new_header(header),
                                      report.compressed_clusters > 0, plan.path));
  TRY(copy_image(image, plan.path, *writer, progress));
  TRY(target.commit());
  outcome.after = TRY(host_bytes(target.fd(), plan.path));
  return outcome;
}

}  // namespace

Result<CompactOutcome> compact_image(const CompactPlan& plan) {
  ToolProgress progress(plan.path, plan.show_progress);
  auto image = std::make_shared<const Fd>(TRY(open_image_file(plan.path, {.for_tool = true})));
  const ImageFormat format = TRY(detect_image_format(*image, plan.path));
  if (format == ImageFormat::kRaw) return compact_raw(*image, plan, progress);
  if (format == ImageFormat::kQcow2) return compact_qcow2(std::move(image), plan, progress);
  return refuse(plan, format_text("{} images are not written to; only raw and qcow2 images can be "
                                  "compacted",
                                  name_of(format)));
}

}  // namespace crosvm

#include "disk/open_disk.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/format.h"
#include "disk/android_sparse/android_sparse_disk.h"
#include "disk/composite/composite_disk.h"
#include "disk/guarded_disk.h"
#include "disk/image_reader.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_disk.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/raw_disk.h"
#include "disk/zstd/zstd_disk.h"

namespace crosvm {
namespace {

Result<Qcow2Header> read_qcow2_header(const Fd& image, const std::string& object) {
  ImageReader reader = TRY(ImageReader::create(image, object));
  // The first cluster, the size of which stands at its start.
  constexpr size_t kClusterBitsEnd = 24;
  std::vector<std::byte> first(std::min<uint64_t>(reader.size(), kClusterBitsEnd));
  TRY(reader.read(0, first));
  if (first.size() == kClusterBitsEnd) {
    const auto bits = std::min<unsigned>(static_cast<unsigned>(first.back()), 21);
    first.resize(std::min<uint64_t>(reader.size(), std::max<uint64_t>(uint64_t{1} << bits, 512)));
    TRY(reader.read(0, first));
  }
  return parse_qcow2_header(first, reader.size(), object);
}

/// A backing file is never asked what it is: a guest that once wrote to it may have made it lie.
Result<ImageFormat> backing_format(const Qcow2Header& header, const std::string& object) {
  const std::string name = header.backing_format.value_or("");
  for (const ImageFormat format : {ImageFormat::kRaw, ImageFormat::kQcow2, ImageFormat::kZstd,
                                   ImageFormat::kAndroidSparse, ImageFormat::kComposite}) {
    if (name == name_of(format)) return format;
  }
  if (name.empty()) {
    return fail(Error::invalid(format_text(
        "{}: it does not say which format its backing file has; say so with qemu-img rebase -u -b "
        "FILE -F FORMAT",
        object)));
  }
  return fail(Error(std::errc::not_supported,
                    format_text("{}: its backing file has a format that is not known here; convert "
                                "that with qemu-img convert, and name it with qemu-img rebase -u",
                                object)));
}

/// One image with all that it names; a named one is opened by the same rules.
class Opener {
 public:
  Opener(AsyncFiles& files, FileBroker* broker) : files_(files), broker_(broker) {}

  Result<std::unique_ptr<Disk>> open(std::shared_ptr<const Fd> image, const DiskOptions& options) {
    const ImageFormat format =
        options.format ? *options.format : TRY(detect_image_format(*image, options.object));
    switch (format) {
      case ImageFormat::kRaw:
        return open_raw(std::move(image), options);
      case ImageFormat::kAndroidSparse:
        return open_android_sparse(std::move(image), options);
      case ImageFormat::kComposite:
        return open_composite(*image, options);
      case ImageFormat::kZstd:
        return open_zstd(std::move(image), options);
      case ImageFormat::kQcow2:
        return open_qcow2(std::move(image), options);
    }
    CHECK(false);
  }

 private:
  Result<std::unique_ptr<Disk>> open_raw(std::shared_ptr<const Fd> image,
                                         const DiskOptions& options) {
    auto disk = TRY(raw_disk(std::move(image), options));
    if (options.format || options.read_only) return disk;
    return std::make_unique<GuardedDisk>(std::move(disk), options.object);
  }

  Result<std::unique_ptr<Disk>> raw_disk(std::shared_ptr<const Fd> image,
                                         const DiskOptions& options) {
    const RawImageFacts facts = TRY(inspect_raw_image(*image, options.object));
    auto file = TRY(files_.make(std::move(image)));
    return TRY(RawDisk::create(
        std::move(file), facts,
        {.read_only = options.read_only, .sparse = options.sparse, .dontcache = options.dontcache},
        options.object));
  }

  Result<std::unique_ptr<Disk>> open_android_sparse(std::shared_ptr<const Fd> image,
                                                    const DiskOptions& options) {
    TRY(require_read_only(ImageFormat::kAndroidSparse, options));
    ImageReader reader = TRY(ImageReader::create(*image, options.object));
    SparseMap map = TRY(SparseMap::read(reader));
    return std::make_unique<AndroidSparseDisk>(std::move(map),
                                               TRY(raw_disk(std::move(image), options)));
  }

  Result<std::unique_ptr<Disk>> open_zstd(std::shared_ptr<const Fd> image,
                                          const DiskOptions& options) {
    TRY(require_read_only(ImageFormat::kZstd, options));
    ImageReader reader = TRY(ImageReader::create(*image, options.object));
    ZstdIndex index = TRY(ZstdIndex::read(reader));
    return TRY(ZstdDisk::create(std::move(index), TRY(raw_disk(std::move(image), options)),
                                files_.loop(), options.object));
  }

  Result<std::unique_ptr<Disk>> open_qcow2(std::shared_ptr<const Fd> image,
                                           const DiskOptions& options) {
    if (options.restarts && !options.read_only) {
      // The tables are in memory until the guest flushes: after a kill, writes that it was told
      // have ended would be lost, and no flush would tell it so.
      return fail(Error(std::errc::not_supported,
                        options.object +
                            ": a qcow2 disk that is written to cannot be started anew; leave block "
                            "out of --restart-devices, or convert the disk to raw"));
    }
    const Qcow2Header header = TRY(read_qcow2_header(*image, options.object));
    Qcow2Parts parts;
    parts.read_only = options.read_only;
    parts.object = options.object;
    if (header.backing_name) {
      const ImageFormat format = TRY(backing_format(header, options.object));
      parts.backing = TRY(open_named(*header.backing_name, false, format, options));
    }
    if (header.has_data_file()) {
      if (!header.data_file_name) {
        return fail(Error::invalid(format_text(
            "{}: its data file is not named in it; name it with qemu-img amend -o data_file=NAME",
            options.object)));
      }
      parts.data_file =
          TRY(open_named(*header.data_file_name, !options.read_only, ImageFormat::kRaw, options));
    }
    parts.sync = TRY(make_sync_file(image, options.object));
    if (!options.read_only) {
      // The raw disk is told the file's size once: what lies behind the end comes before.
      if (header.is_dirty() && !header.is_corrupt()) TRY(count_anew(*parts.sync, options.object));
      TRY(fill_last_block(*image, *parts.sync, options.object));
    }
    parts.file = TRY(raw_disk(std::move(image), options));
    return TRY(Qcow2Disk::create(std::move(parts)));
  }

  static Result<void> count_anew(SyncFile& file, const std::string& object) {
    return with_context(rebuild_qcow2_refcounts(file, object), "repairing refcounts");
  }

  /// A file of another program ends where its last bytes end; direct I/O writes whole blocks. What
  /// is added belongs to no cluster, or to the last one, which then is there as a whole.
  static Result<void> fill_last_block(const Fd& image, SyncFile& file, const std::string& object) {
    const RawImageFacts facts = TRY(inspect_raw_image(image, object));
    const uint64_t over = facts.size % facts.alignment.offset;
    if (over == 0 || facts.is_block_device) return {};
    return file.resize(facts.size + facts.alignment.offset - over);
  }

  Result<std::unique_ptr<Disk>> open_composite(const Fd& image, const DiskOptions& options) {
    const CompositeDescriptor descriptor = TRY(read_composite(image, options.object));
    std::vector<std::unique_ptr<Disk>> components;
    for (const CompositeComponent& part : descriptor.components) {
      const bool writable = part.writable && !options.read_only;
      components.push_back(TRY(open_named(part.path, writable, std::nullopt, options)));
    }
    return TRY(CompositeDisk::create(descriptor, std::move(components), options.read_only,
                                     options.object));
  }

  /// An image that the present one names.
  Result<std::unique_ptr<Disk>> open_named(const std::string& name, bool writable,
                                           std::optional<ImageFormat> format,
                                           const DiskOptions& options) {
    if (!broker_) {
      return fail(Error(std::errc::permission_denied,
                        options.object + ": it names other files, and nobody opens them here"));
    }
    FileBroker::File file = TRY(with_context(
        broker_->open({.from = from_, .name = name, .writable = writable}), options.object));
    DiskOptions named = options;
    named.object = file.object;
    named.read_only = !writable;
    named.format = format;
    const uint32_t from = std::exchange(from_, file.number);
    auto disk = open(std::make_shared<const Fd>(std::move(file.fd)), named);
    from_ = from;
    return disk;
  }

  /// A format that cannot be written.
  static Result<void> require_read_only(ImageFormat format, const DiskOptions& options) {
    if (options.read_only) return {};
    return fail(Error(std::errc::read_only_file_system,
                      format_text("{}: {} images cannot be written; add ro, or convert it with "
                                  "crosvm disk convert",
                                  options.object, name_of(format))));
  }

  AsyncFiles& files_;
  FileBroker* broker_;
  uint32_t from_ = 0;  // what the broker calls the image that is being opened
};

}  // namespace

Result<std::unique_ptr<Disk>> open_disk(std::shared_ptr<const Fd> image, const DiskOptions& options,
                                        AsyncFiles& files, FileBroker* broker) {
  return Opener(files, broker).open(std::move(image), options);
}

}  // namespace crosvm

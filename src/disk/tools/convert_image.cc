#include "disk/tools/convert_image.h"

#include <array>
#include <bit>
#include <memory>
#include <utility>
#include <variant>

#include "base/format.h"
#include "disk/image_file.h"
#include "disk/tools/copy_image.h"
#include "disk/tools/qcow2_target.h"
#include "disk/tools/raw_target.h"
#include "disk/tools/sparse_target.h"
#include "disk/tools/stream_zstd.h"
#include "disk/tools/target_file.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"
#include "disk/tools/zstd_target.h"

namespace crosvm {
namespace {

constexpr std::array<std::pair<std::string_view, ImageFormat>, 9> kNameEnds = {{
    {".img", ImageFormat::kRaw},
    {".raw", ImageFormat::kRaw},
    {".bin", ImageFormat::kRaw},
    {".iso", ImageFormat::kRaw},
    {".qcow2", ImageFormat::kQcow2},
    {".zst", ImageFormat::kZstd},
    {".zstd", ImageFormat::kZstd},
    {".simg", ImageFormat::kAndroidSparse},
    {".sparse", ImageFormat::kAndroidSparse},
}};

Result<ImageFormat> target_format(const ConvertPlan& plan) {
  const auto format = plan.format ? plan.format : format_of_name(plan.target);
  if (!format) {
    return fail(Error::invalid(
        format_text("{}: its name does not say what it is to be; give --format raw, qcow2, zstd "
                    "or android-sparse",
                    plan.target)));
  }
  if (*format == ImageFormat::kComposite) {
    return fail(Error::invalid(format_text(
        "{}: a composite disk is made of partitions; use crosvm create_composite", plan.target)));
  }
  if (*format != ImageFormat::kQcow2 && (plan.compression || plan.cluster_size)) {
    return fail(Error::invalid(
        format_text("{}: --compress, --compression-type and --cluster-size are for qcow2 images; "
                    "leave them out for {}",
                    plan.target, name_of(*format))));
  }
  return *format;
}

Result<Qcow2Header> qcow2_header(const ConvertPlan& plan, uint64_t size) {
  const uint64_t cluster = plan.cluster_size.value_or(64 << 10);
  if (!std::has_single_bit(cluster) || cluster < 512 || cluster > (2 << 20)) {
    return fail(Error::invalid(
        format_text("--cluster-size {}: use a power of two from 512 to 2097152", cluster)));
  }
  Qcow2Header header;
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(cluster));
  header.size = (size + 511) / 512 * 512;
  header.compression = plan.compression.value_or(Qcow2Compression::kZlib);
  if (header.compression != Qcow2Compression::kZlib) {
    header.incompatible |= kQcow2IncompatibleCompression;
  }
  return header;
}

Result<std::unique_ptr<ImageTarget>> make_target(const ConvertPlan& plan, ImageFormat format,
                                                 const Fd& file, uint64_t size) {
  switch (format) {
    case ImageFormat::kQcow2:
      return make_qcow2_target(file, TRY(qcow2_header(plan, size)), plan.compression.has_value(),
                               plan.target);
    case ImageFormat::kZstd:
      return make_zstd_target(file, size, plan.target);
    case ImageFormat::kAndroidSparse:
      return make_sparse_target(file, size, plan.target);
    default:
      return make_raw_target(file, size, plan.format ? RawStart::kWarnedOf : RawStart::kRefused,
                             plan.target);
  }
}

/// What is converted: a disk, or a zstd file of which none can be made, which is only read from
/// start to end.
class Source {
 public:
  static Result<Source> open(const ConvertPlan& plan, ToolProgress& progress) {
    auto file = std::make_shared<const Fd>(
        TRY(open_image_file(plan.source, {.read_only = true, .for_tool = true})));
    const ImageFormat format =
        plan.source_format ? *plan.source_format : TRY(detect_image_format(*file, plan.source));
    auto image =
        ToolImage::open(plan.source, {.format = format, .allowed = plan.allowed, .file = file});
    if (image) return Source(std::move(file), std::move(*image));
    if (format != ImageFormat::kZstd || image.error().code() != std::errc::not_supported) {
      return fail(std::move(image.error()));
    }
    auto stream = TRY(ZstdStream::open(*file, plan.source, progress));
    return Source(std::move(file), std::move(stream));
  }

  uint64_t size() {
    auto* image = std::get_if<ToolImage>(&bytes_);
    return image ? image->disk().size() : std::get<ZstdStream>(bytes_).size();
  }
  /// A file of the chain; a stream has but its own.
  bool consists_of(const std::string& path) const {
    const auto* image = std::get_if<ToolImage>(&bytes_);
    return image && image->consists_of(path);
  }
  Result<void> copy_to(ImageTarget& target, const ConvertPlan& plan, ToolProgress& progress) {
    auto* image = std::get_if<ToolImage>(&bytes_);
    return image ? copy_image(*image, plan.source, target, progress)
                 : std::get<ZstdStream>(bytes_).copy_to(target);
  }

 private:
  Source(std::shared_ptr<const Fd> file, std::variant<ToolImage, ZstdStream> bytes)
      : file_(std::move(file)), bytes_(std::move(bytes)) {}

  std::shared_ptr<const Fd> file_;
  std::variant<ToolImage, ZstdStream> bytes_;
};

}  // namespace

std::optional<ImageFormat> format_of_name(std::string_view path) {
  for (const auto& [end, format] : kNameEnds) {
    if (path.ends_with(end)) return format;
  }
  return std::nullopt;
}

Result<void> check_plan(const ConvertPlan& plan) {
  if (TRY(target_format(plan)) == ImageFormat::kQcow2) (void)TRY(qcow2_header(plan, 0));
  return {};
}

Result<void> convert_image(const ConvertPlan& plan) {
  ToolProgress progress(plan.source, plan.show_progress);
  const ImageFormat format = TRY(target_format(plan));
  auto source = TRY(Source::open(plan, progress));
  if (is_same_file(plan.source, plan.target)) {
    return fail(Error::invalid(format_text(
        "{}: is the source as well as the target; give the target another name", plan.target)));
  }
  if (source.consists_of(plan.target)) {
    return fail(Error::invalid(
        format_text("{}: {} needs what is in it, as one of its files; give the target another name",
                    plan.target, plan.source)));
  }
  TargetFile file = TRY(TargetFile::create(plan.target));
  auto target = TRY(make_target(plan, format, file.fd(), source.size()));
  TRY(source.copy_to(*target, plan, progress));
  return file.commit();
}

}  // namespace crosvm

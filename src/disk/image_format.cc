#include "disk/image_format.h"

#include <array>
#include <cstring>
#include <string_view>

namespace crosvm {
namespace {

using namespace std::string_view_literals;

constexpr size_t kLooked = 4096;
constexpr std::string_view kCompositeMagic = "composite_disk\x1d"sv;
constexpr std::string_view kQcow2Magic = "QFI\xfb"sv;
constexpr uint32_t kAndroidSparseMagic = 0xED26FF3A;
constexpr uint32_t kZstdMagic = 0xFD2FB528;
constexpr uint32_t kZstdSkippableMagic = 0x184D2A50;  // the last four bits are free

uint32_t little_endian_word(std::string_view start) {
  uint32_t value = 0;
  for (size_t i = 0; i < sizeof(value) && i < start.size(); ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(start[i])) << (8 * i);
  }
  return value;
}

ImageFormat format_of(std::string_view start) {
  if (start.starts_with(kCompositeMagic)) return ImageFormat::kComposite;
  if (start.starts_with(kQcow2Magic)) return ImageFormat::kQcow2;
  uint32_t word = little_endian_word(start);
  if (word == kAndroidSparseMagic) return ImageFormat::kAndroidSparse;
  if (word == kZstdMagic || (word & ~0xFU) == kZstdSkippableMagic) return ImageFormat::kZstd;
  return ImageFormat::kRaw;
}

}  // namespace

ImageFormat image_format_of(std::span<const std::byte> start) {
  return format_of({reinterpret_cast<const char*>(start.data()), start.size()});
}

std::string_view name_of(ImageFormat format) {
  switch (format) {
    case ImageFormat::kQcow2:
      return "qcow2";
    case ImageFormat::kZstd:
      return "zstd";
    case ImageFormat::kAndroidSparse:
      return "android-sparse";
    case ImageFormat::kComposite:
      return "composite";
    case ImageFormat::kRaw:
      break;
  }
  return "raw";
}

Result<ImageFormat> detect_image_format(const Fd& image, const std::string& object) {
  alignas(kLooked) std::array<std::byte, kLooked> start;  // as direct I/O may want it
  size_t length = TRY(read_full_at(image, 0, start, object));
  return image_format_of(std::span(start).first(length));
}

}  // namespace crosvm

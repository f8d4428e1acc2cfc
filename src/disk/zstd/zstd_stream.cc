#include "disk/zstd/zstd_stream.h"

#include <zstd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/format.h"
#include "disk/zstd/zstd_format.h"

namespace crosvm {

Result<void> decode_zstd(ImageReader& image, uint64_t offset, uint64_t length,
                         const ZstdSink& sink) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  if (!context) return fail(Error::from_errno("decoding", image.object(), ENOMEM));
  std::vector<std::byte> from(ZSTD_DStreamInSize());
  std::vector<std::byte> to(ZSTD_DStreamOutSize());
  size_t left_in_frame = 0;
  while (length > 0) {
    ZSTD_inBuffer in{.src = from.data(), .size = std::min<uint64_t>(from.size(), length), .pos = 0};
    TRY(image.read(offset, std::span(from).first(in.size)));
    offset += in.size;
    length -= in.size;
    // A full buffer may leave some inside that needs no more of the file.
    bool full = false;
    while (in.pos < in.size || full) {
      ZSTD_outBuffer out{.dst = to.data(), .size = to.size(), .pos = 0};
      left_in_frame = ZSTD_decompressStream(context.get(), &out, &in);
      if (ZSTD_isError(left_in_frame) != 0) {
        return fail(Error::invalid(format_text(
            "{}: zstd says: {}; the file is damaged or needs more memory than `zstd -d` "
            "takes: test it with `zstd -t`",
            image.object(), ZSTD_getErrorName(left_in_frame))));
      }
      full = out.pos == out.size && left_in_frame != 0;
      TRY(sink(std::span(to).first(out.pos)));
    }
  }
  if (left_in_frame == 0) return {};
  return fail(Error::invalid(format_text(
      "{}: the file ends in the middle of a zstd frame; copy it again", image.object())));
}

Error zstd_frame_too_large(const std::string& object) {
  return Error(std::errc::not_supported,
               format_text("{0}: it has zstd frames of more than {1} MiB, too large for random "
                           "access; convert it once with `crosvm disk convert {0} OUT.zst`, or "
                           "unpack it with `zstd -d {0} -o OUT.img`",
                           object, zstd::kMostFrame >> 20));
}

}  // namespace crosvm

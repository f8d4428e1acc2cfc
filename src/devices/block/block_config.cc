#include "devices/block/block_config.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/format.h"
#include "pci/pci_address.h"

namespace crosvm {
namespace {

constexpr std::array<KvName<AsyncExecutor>, 3> kExecutors = {{{"auto", AsyncExecutor::kAuto},
                                                              {"uring", AsyncExecutor::kUring},
                                                              {"epoll", AsyncExecutor::kEpoll}}};

Result<void> check(const BlockConfig& config) {
  uint32_t size = config.block_size;
  if (size == 0 || size % BlockConfig::kSectorSize != 0) {
    return fail(Error::invalid(format_text("block-size={}: not a multiple of {}; use 512 or 4096",
                                           size, BlockConfig::kSectorSize)));
  }
  if (config.id && config.id->size() > BlockConfig::kIdBytes) {
    return fail(Error::invalid(format_text("id={}: {} bytes; a disk's id has at most {}",
                                           *config.id, config.id->size(), BlockConfig::kIdBytes)));
  }
  if (config.pci_address) {
    TRY(with_context(PciAddress::parse(*config.pci_address), "pci-address"));
  }
  return {};
}

/// A value that is read back as it was, whatever it holds.
std::string quoted(std::string_view value) {
  std::string text = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

std::string_view name_of(AsyncExecutor executor) {
  return std::ranges::find(kExecutors, executor, &KvName<AsyncExecutor>::value)->name;
}

constexpr std::array<KvName<ImageFormat>, 5> kFormats = {
    {{"raw", ImageFormat::kRaw},
     {"qcow2", ImageFormat::kQcow2},
     {"zstd", ImageFormat::kZstd},
     {"android-sparse", ImageFormat::kAndroidSparse},
     {"composite", ImageFormat::kComposite}}};

}  // namespace

static std::span<const KvName<AsyncExecutor>> kv_names(AsyncExecutor) { return kExecutors; }
static std::span<const KvName<ImageFormat>> kv_names(ImageFormat) { return kFormats; }

namespace {
/// One path, or a list of them.
struct Paths {
  std::vector<std::string>& paths;
};
Result<void> read_kv(const KvValue& value, Paths& out) {
  if (value.read(out.paths)) return {};
  out.paths.resize(1);
  return value.read(out.paths.front());
}

/// A key that is known and refused: reading it is the error.
struct BootIndex {};
Result<void> read_kv(const KvValue&, BootIndex&) {
  return fail(
      Error::invalid("for firmware, by fw_cfg, and this build has neither yet; leave it "
                     "out: a kernel given to crosvm is booted without it"));
}
}  // namespace

Result<AsyncExecutor> parse_async_executor(std::string_view text) {
  auto found = std::ranges::find(kExecutors, text, &KvName<AsyncExecutor>::name);
  if (found != kExecutors.end()) return found->value;
  return fail(Error::invalid(
      format_text("`{}` is not an executor of this build; use auto, uring or epoll", text)));
}

Result<BlockConfig> BlockConfig::parse(const KeyValues& text) {
  BlockConfig config;
  BootIndex bootindex;
  Paths allow_backing{config.allow_backing};
  TRY(text.read({kv_key("path", config.path).require(), kv_key("ro", config.read_only),
                 kv_key("root", config.root), kv_key("sparse", config.sparse),
                 kv_key("direct", config.direct).or_alias("o_direct"), kv_key("lock", config.lock),
                 kv_key("block-size", config.block_size).or_alias("block_size"),
                 kv_key("id", config.id), kv_key("multiple-workers", config.multiple_workers),
                 kv_key("async-executor", config.async_executor).or_alias("async_executor"),
                 kv_key("packed-queue", config.packed_queue), kv_key("bootindex", bootindex),
                 kv_key("pci-address", config.pci_address), kv_key("dontcache", config.dontcache),
                 kv_key("format", config.format), kv_key("allow-backing", allow_backing)}));
  TRY(check(config));
  return config;
}

std::string BlockConfig::to_text() const {
  std::string text = "path=" + quoted(path);
  if (read_only) text += ",ro=true";
  if (root) text += ",root=true";
  if (!sparse) text += ",sparse=false";
  if (direct) text += ",direct=true";
  if (!lock) text += ",lock=false";
  if (block_size != kSectorSize) text += format_text(",block-size={}", block_size);
  if (id) text += ",id=" + quoted(*id);
  if (multiple_workers) text += ",multiple-workers=true";
  if (async_executor) text += format_text(",async-executor={}", name_of(*async_executor));
  if (packed_queue) text += ",packed-queue=true";
  if (pci_address) text += ",pci-address=" + quoted(*pci_address);
  if (dontcache) text += ",dontcache=true";
  if (format) text += format_text(",format={}", name_of(*format));
  if (!allow_backing.empty()) {
    text += ",allow-backing=[";
    for (const std::string& path : allow_backing) {
      if (&path != &allow_backing.front()) text += ',';
      text += quoted(path);
    }
    text += ']';
  }
  return text;
}

}  // namespace crosvm

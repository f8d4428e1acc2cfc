#include <cstdint>

#include "base/key_value.h"

// Every kind of field in one struct, so that each reader meets each shape of text.
namespace crosvm {
namespace {

enum class Kind { kOne, kTwo };
constexpr std::array<KvName<Kind>, 2> kv_names(Kind) {
  return {{{"one", Kind::kOne}, {"two", Kind::kTwo}}};
}

struct Inner {
  bool flag = false;
  std::vector<Inner> inner;
};
Result<void> read_kv(const KvValue& value, Inner& inner) {
  return value.read_struct({kv_key("flag", inner.flag), kv_key("inner", inner.inner)});
}

void read_struct(const KeyValues& values) {
  std::string path;
  uint8_t small = 0;
  std::optional<int64_t> large;
  std::vector<std::string> names;
  std::array<uint16_t, 2> pair = {};
  Kind kind = Kind::kOne;
  Inner inner;
  (void)values.read({kv_key("path", path), kv_key("s", small).or_alias("small"),
                     kv_key("large", large), kv_key("names", names), kv_key("pair", pair),
                     kv_key("kind", kind), kv_key("inner", inner)});
}

void read_enum(const KeyValues& values) {
  static constexpr std::array<std::string_view, 2> kNames = {"kvm", "windowed"};
  auto value = values.as_enum();
  if (!value) return;
  auto index = value->variant(kNames);
  if (!index) return;
  std::string device;
  uint32_t width = 0;
  uint32_t height = 0;
  if (*index == 0) (void)value->read_variant_fields({kv_key("device", device)});
  if (*index == 1) (void)value->read_variant_values(width, height);
  (void)value->expect_plain();
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto values = crosvm::KeyValues::parse({reinterpret_cast<const char*>(data), size});
  if (values) {
    crosvm::read_struct(*values);
    crosvm::read_enum(*values);
  }
  return 0;
}

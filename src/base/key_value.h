#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"

/// The key-value grammar of option values: `path=disk.img,ro,id=root` (cli.md 1.2).
///
///     struct Options { std::string path; bool ro = false; std::optional<uint32_t> size; };
///     Result<Options> parse(const KeyValues& text) {
///       Options options;
///       TRY(text.read({kv_key("path", options.path).require(),  // first: may go without its name
///                      kv_key("ro", options.ro), kv_key("size", options.size)}));
///       return options;
///     }
///
/// A text is cut into nested items without knowing types; reading gives them types. The order of
/// `read`'s fields is the order of declaration: the first may be written without its key.
namespace crosvm {

struct KvNode;   // one item of the text, private to key_value.cc
struct KvField;  // one key of a struct, see kv_key

/// One spelling of an enumerator. An enumeration E is readable when `kv_names(E)` is found by
/// argument-dependent lookup and returns a span (or array) of these, in the order of messages.
template <class E>
struct KvName {
  std::string_view name;
  E value;
};

/// How the items of a struct are taken.
struct KvRules {
  bool positional = true;       ///< the first item may leave out its key (cli.md 1.2.4)
  bool ignore_unknown = false;  ///< unknown keys are skipped rather than refused
};

/// One value of a text; valid while its KeyValues is. Every read reports `… at position N`, a byte
/// offset in the text, or the name of a field or variant; all errors are invalid_argument.
class KvValue {
 public:
  /// Reads bool, integers, std::string, enumerations with kv_names, and std::optional, std::vector
  /// and std::array (a tuple) of these. Other types through a free function found by
  /// argument-dependent lookup: `Result<void> read_kv(const KvValue&, T&)`.
  template <class T>
  Result<void> read(T& out) const;

  /// Reads a (bracketed) struct. A key that stands for itself reads as all defaults.
  Result<void> read_struct(std::initializer_list<KvField> fields, KvRules rules = {}) const;

  /// The index in `names` of this enum value's variant. Its fields, if any, are left to
  /// `read_variant_fields` or `read_variant_values`; a plain variant goes on with `expect_plain`.
  Result<size_t> variant(std::span<const std::string_view> names) const;
  /// The named fields of `variant[key=value,…]`; the brackets may be missing.
  Result<void> read_variant_fields(std::initializer_list<KvField> fields) const;
  /// The positional fields of `variant[a,b]`, exactly as many as there are arguments.
  template <class... Ts>
  Result<void> read_variant_values(Ts&... outs) const {
    TRY(expect_values(sizeof...(Ts)));
    size_t index = 0;
    Result<void> result;
    ((result = result ? element(index++).read(outs) : std::move(result)), ...);
    return result;
  }
  /// Refuses brackets after a plain variant.
  Result<void> expect_plain() const;

  /// A sentence about this value: "WHAT at position N".
  Error error(std::string_view what) const;

 private:
  friend class KeyValues;
  enum class Form { kValue, kFlag };
  struct Integer {
    bool negative;
    uint64_t magnitude;
  };
  explicit KvValue(const KvNode& node, size_t skip = 0, Form form = Form::kValue)
      : node_(&node), skip_(skip), form_(form) {}

  std::string_view text() const;
  Result<bool> boolean() const;
  Result<Integer> integer(uint64_t lowest_magnitude, uint64_t highest) const;
  Result<std::string> string() const;
  Result<size_t> list_size() const;
  KvValue element(size_t index) const;
  Result<void> expect_values(size_t count) const;
  Result<void> expect_length(size_t found, size_t expected) const;
  Result<void> read_items(std::span<const KvField> fields, KvRules rules) const;

  const KvNode* node_;
  size_t skip_;  // bytes of the node's text that are the key and its `=`
  Form form_;
};

/// A key of a struct and where its value goes.
struct KvField {
  std::string_view name;
  std::string_view alias;
  bool required = false;
  void* target = nullptr;
  Result<void> (*read)(const KvValue& value, void* target) = nullptr;

  KvField or_alias(std::string_view other) const {
    KvField field = *this;
    field.alias = other;
    return field;
  }
  KvField require() const {
    KvField field = *this;
    field.required = true;
    return field;
  }
};

template <class T>
KvField kv_key(std::string_view name, T& target) {
  return {.name = name,
          .alias = {},
          .required = false,
          .target = &target,
          .read = [](const KvValue& value, void* to) { return value.read(*static_cast<T*>(to)); }};
}

/// A whole option value.
class KeyValues {
 public:
  /// At most this many brackets inside one another.
  static constexpr size_t kMaxDepth = 16;

  /// Cuts a text into items. Errors: invalid_argument, for text that no type could make valid.
  static Result<KeyValues> parse(std::string_view text);
  KeyValues(KeyValues&&) noexcept;
  KeyValues& operator=(KeyValues&&) noexcept;
  ~KeyValues();

  /// Reads the text as one struct.
  Result<void> read(std::initializer_list<KvField> fields, KvRules rules = {}) const;
  /// The text as one enum value; errors when it is anything but one item.
  Result<KvValue> as_enum() const;

 private:
  explicit KeyValues(std::unique_ptr<const KvNode> root);
  std::unique_ptr<const KvNode> root_;
};

/// A text read as one struct.
inline Result<void> read_key_values(std::string_view text, std::initializer_list<KvField> fields,
                                    KvRules rules = {}) {
  return TRY(KeyValues::parse(text)).read(fields, rules);
}

namespace kv_detail {
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsArray : std::false_type {};
template <class T, size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};
}  // namespace kv_detail

template <class T>
Result<void> KvValue::read(T& out) const {
  if constexpr (std::same_as<T, bool>) {
    out = TRY(boolean());
  } else if constexpr (std::integral<T>) {
    constexpr uint64_t kHighest = std::numeric_limits<T>::max();
    Integer number = TRY(integer(std::is_signed_v<T> ? kHighest + 1 : 0, kHighest));
    out = static_cast<T>(number.negative ? -number.magnitude : number.magnitude);
  } else if constexpr (std::same_as<T, std::string>) {
    out = TRY(string());
  } else if constexpr (std::is_enum_v<T>) {
    std::vector<std::string_view> names;
    for (const KvName<T>& entry : kv_names(T())) names.push_back(entry.name);
    size_t index = TRY(variant(names));
    TRY(expect_plain());
    out = kv_names(T())[index].value;
  } else if constexpr (kv_detail::IsOptional<T>::value) {
    TRY(read(out.emplace()));
  } else if constexpr (kv_detail::IsVector<T>::value) {
    size_t size = TRY(list_size());
    out.clear();
    for (size_t i = 0; i < size; ++i) {
      typename T::value_type value{};
      TRY(element(i).read(value));
      out.push_back(std::move(value));
    }
  } else if constexpr (kv_detail::IsArray<T>::value) {
    size_t size = TRY(list_size());
    TRY(expect_length(size, out.size()));
    for (size_t i = 0; i < size; ++i) TRY(element(i).read(out[i]));
  } else {
    TRY(read_kv(*this, out));
  }
  return {};
}

}  // namespace crosvm

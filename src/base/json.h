#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace crosvm {

/// One JSON value. Objects keep the order of their members. An integer that is not negative is held
/// as uint64_t, a negative one as int64_t.
class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  /// What `parse` accepts at most, so that a hostile text costs bounded memory and stack.
  struct Limits {
    size_t max_bytes = size_t{1} << 20;
    size_t max_depth = 64;  ///< of nested arrays and objects
  };

  Json() = default;  ///< null
  Json(std::same_as<bool> auto value) : value_(value) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Json(T value) {
    if (value < 0) {
      value_ = static_cast<int64_t>(value);
    } else {
      value_ = static_cast<uint64_t>(value);
    }
  }
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}
  static Json array(Array items = {}) { return Json(std::move(items)); }
  static Json object(Object members = {}) { return Json(std::move(members)); }

  /// The value of one whole JSON document (RFC 8259, UTF-8). Errors: invalid_argument saying what
  /// is wrong and at which byte: bad syntax, a member named twice, a limit exceeded.
  static Result<Json> parse(std::string_view text, const Limits& limits);
  static Result<Json> parse(std::string_view text) { return parse(text, Limits()); }
  /// On one line without spaces. Bytes that are not UTF-8 come out as U+FFFD, a number that JSON
  /// cannot express as null.
  std::string dump() const;
  /// Indented by two spaces, without a newline at the end.
  std::string dump_pretty() const;

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  /// The value as a C++ type. Errors: invalid_argument, "expected …, found …".
  Result<bool> as_bool() const;
  Result<uint64_t> as_uint(uint64_t max = UINT64_MAX) const;
  Result<int64_t> as_int(int64_t min = INT64_MIN, int64_t max = INT64_MAX) const;
  Result<double> as_double() const;  ///< any number
  Result<std::string> as_string() const;
  Result<std::span<const Json>> items() const;      ///< of an array
  Result<std::span<const Member>> members() const;  ///< of an object

  /// The member of that name; nullptr when there is none or this is no object.
  const Json* find(std::string_view name) const;
  /// The same, where its absence is an error. Never nullptr.
  Result<const Json*> at(std::string_view name) const;

  /// Appends to an array; a null value becomes one first.
  void push_back(Json item);
  /// Appends a member to an object; a null value becomes one first. `name` must be new.
  void set(std::string_view name, Json value);

  bool operator==(const Json&) const = default;

 private:
  friend class JsonWriter;
  Error mismatch(std::string_view expected) const;
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

}  // namespace crosvm

#include "base/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/format.h"
#include "base/utf8.h"

namespace crosvm {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

/// Builds the value from the parser's events, which stop it at the first limit or duplicate. The
/// names are those the parser calls.
class Builder {
 public:
  explicit Builder(const Json::Limits& limits) : limits_(limits) {}

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(int64_t value) { return add(Json(value)); }
  bool number_unsigned(uint64_t value) { return add(Json(value)); }
  bool number_float(double value, const std::string&) { return add(Json(value)); }
  bool string(std::string& value) { return add(Json(std::move(value))); }
  bool binary(std::vector<uint8_t>&) { return false; }  // no such thing in text
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    stack_.back().name = std::move(name);
    return true;
  }
  bool end_object() {
    std::vector<std::string_view> names;
    auto members = stack_.back().value.members();
    for (const auto& member : *members) names.push_back(member.first);
    std::sort(names.begin(), names.end());
    auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return close();
    problem_ = format_text("member \"{}\" is named twice", *twice);
    return false;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    // The library's sentence starts with a tag of its own and the position.
    std::string_view why = error.what();
    if (size_t colon = why.find(": "); colon != std::string_view::npos)
      why.remove_prefix(colon + 2);
    problem_ = format_text("byte {}: {}", position, why);
    return false;
  }

  Json take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

 private:
  struct Level {
    Json value;
    std::string name;  // of the member being read, in an object
  };

  bool add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (Level& level = stack_.back(); level.value.is_array()) {
      level.value.push_back(std::move(value));
    } else {
      level.value.set(level.name, std::move(value));
    }
    return true;
  }
  bool open(Json empty) {
    if (stack_.size() == limits_.max_depth) {
      problem_ = format_text("nested deeper than {} levels", limits_.max_depth);
      return false;
    }
    stack_.push_back({std::move(empty), {}});
    return true;
  }
  bool close() {
    Json done = std::move(stack_.back().value);
    stack_.pop_back();
    return add(std::move(done));
  }

  const Json::Limits& limits_;
  std::vector<Level> stack_;
  Json root_;
  std::string problem_;
};

void append_quoted(std::string& out, std::string_view text) {
  constexpr std::string_view kSpecial = "\"\\\b\f\n\r\t";
  constexpr std::string_view kShort = "\"\\bfnrt";
  out += '"';
  while (!text.empty()) {
    char c = text.front();
    size_t length = utf8_length(text);
    if (size_t at = kSpecial.find(c); at != std::string_view::npos) {
      out += '\\';
      out += kShort[at];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += format_text("\\u{:04x}", static_cast<int>(c));
    } else {
      out += length == 0 ? kReplacement : text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  out += '"';
}

void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const std::string text = format_text("{}", value);  // the shortest that is read as the same
  out += text;
  if (text.find_first_of(".e") == std::string::npos) out += ".0";  // stays a double when read
}

}  // namespace

/// Writes compactly, or indented when `pretty`.
class JsonWriter {
 public:
  explicit JsonWriter(bool pretty) : pretty_(pretty) {}

  void write(const Json& json) {
    std::visit([this](const auto& value) { put(value); }, json.value_);
  }
  std::string take() { return std::move(out_); }

 private:
  void put(std::monostate) { out_ += "null"; }
  void put(bool value) { out_ += value ? "true" : "false"; }
  void put(int64_t value) { out_ += std::to_string(value); }
  void put(uint64_t value) { out_ += std::to_string(value); }
  void put(double value) { append_double(out_, value); }
  void put(const std::string& value) { append_quoted(out_, value); }
  void put(const Json::Array& items) {
    list('[', ']', items, [this](const Json& item) { write(item); });
  }
  void put(const Json::Object& members) {
    list('{', '}', members, [this](const Json::Member& member) {
      append_quoted(out_, member.first);
      out_ += pretty_ ? ": " : ":";
      write(member.second);
    });
  }

  template <class List>
  void list(char open, char close, const List& list, auto put_one) {
    out_ += open;
    ++depth_;
    bool first = true;
    for (const auto& one : list) {
      if (!std::exchange(first, false)) out_ += ',';
      new_line();
      put_one(one);
    }
    --depth_;
    if (!first) new_line();
    out_ += close;
  }
  void new_line() {
    if (pretty_) out_.append("\n").append(2 * depth_, ' ');
  }

  bool pretty_;
  size_t depth_ = 0;
  std::string out_;
};

Result<Json> Json::parse(std::string_view text, const Limits& limits) {
  if (text.size() > limits.max_bytes) {
    return fail(Error::invalid(format_text("JSON text of {} bytes is longer than the {} allowed",
                                           text.size(), limits.max_bytes)));
  }
  Builder builder(limits);
  if (!nlohmann::json::sax_parse(text, &builder)) {
    return fail(Error::invalid("not valid JSON: " + builder.problem()));
  }
  return builder.take();
}

std::string Json::dump() const {
  JsonWriter writer(/*pretty=*/false);
  writer.write(*this);
  return writer.take();
}

std::string Json::dump_pretty() const {
  JsonWriter writer(/*pretty=*/true);
  writer.write(*this);
  return writer.take();
}

Error Json::mismatch(std::string_view expected) const {
  constexpr std::array<std::string_view, 8> kFound = {"null", "a boolean", "",         "",
                                                      "",     "a string",  "an array", "an object"};
  std::string found(kFound[value_.index()]);
  if (found.empty()) found = dump();  // numbers are short and say more
  return Error::invalid(format_text("expected {}, found {}", expected, found));
}

Result<bool> Json::as_bool() const {
  if (auto* value = std::get_if<bool>(&value_)) return *value;
  return fail(mismatch("a boolean"));
}

Result<uint64_t> Json::as_uint(uint64_t max) const {
  auto* value = std::get_if<uint64_t>(&value_);
  if (value != nullptr && *value <= max) return *value;
  return fail(mismatch(format_text("an integer from 0 to {}", max)));
}

Result<int64_t> Json::as_int(int64_t min, int64_t max) const {
  auto* negative = std::get_if<int64_t>(&value_);
  if (negative != nullptr && *negative >= min && *negative <= max) return *negative;
  auto* positive = std::get_if<uint64_t>(&value_);
  if (positive != nullptr && std::in_range<int64_t>(*positive)) {
    auto value = static_cast<int64_t>(*positive);
    if (value >= min && value <= max) return value;
  }
  return fail(mismatch(format_text("an integer from {} to {}", min, max)));
}

Result<double> Json::as_double() const {
  if (auto* value = std::get_if<double>(&value_)) return *value;
  if (auto* value = std::get_if<uint64_t>(&value_)) return static_cast<double>(*value);
  if (auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  return fail(mismatch("a number"));
}

Result<std::string> Json::as_string() const {
  if (auto* value = std::get_if<std::string>(&value_)) return *value;
  return fail(mismatch("a string"));
}

Result<std::span<const Json>> Json::items() const {
  if (auto* value = std::get_if<Array>(&value_)) return std::span<const Json>(*value);
  return fail(mismatch("an array"));
}

Result<std::span<const Json::Member>> Json::members() const {
  if (auto* value = std::get_if<Object>(&value_)) return std::span<const Member>(*value);
  return fail(mismatch("an object"));
}

const Json* Json::find(std::string_view name) const {
  auto* object = std::get_if<Object>(&value_);
  if (object == nullptr) return nullptr;
  auto found = std::ranges::find(*object, name, &Member::first);
  return found == object->end() ? nullptr : &found->second;
}

Result<const Json*> Json::at(std::string_view name) const {
  TRY(members());
  if (const Json* member = find(name)) return member;
  return fail(Error::invalid(format_text("member \"{}\" is missing", name)));
}

void Json::push_back(Json item) {
  if (is_null()) value_ = Array();
  CHECK(is_array());
  std::get_if<Array>(&value_)->push_back(std::move(item));
}

void Json::set(std::string_view name, Json value) {
  if (is_null()) value_ = Object();
  CHECK(is_object());
  std::get_if<Object>(&value_)->emplace_back(std::string(name), std::move(value));
}

}  // namespace crosvm

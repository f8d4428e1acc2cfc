#include "base/key_value.h"

#include <algorithm>
#include <charconv>

#include "base/format.h"

namespace crosvm {

/// An item as written: unquoted text, then perhaps a quoted string or bracketed items. What the
/// text means (`key=`, a variant's name, a whole string with `=` in it) depends on the type read
/// from it.
struct KvNode {
  enum class Body { kNone, kQuoted, kBrackets };

  size_t offset = 0;  // in the whole text, bytes
  std::string text;
  Body body = Body::kNone;
  std::string quoted;         // kQuoted, escapes resolved
  std::vector<KvNode> items;  // kBrackets
  bool trailing_comma = false;

  size_t body_offset() const { return offset + text.size(); }
};

namespace {

constexpr std::string_view kMisplaced =
    "quotes and brackets can only stand inside a quoted string; invalid char in string";

Error error_at(std::string_view what, size_t position) {
  return Error::invalid(format_text("{} at position {}", what, position));
}

bool starts_identifier(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

size_t identifier_length(std::string_view text) {
  if (text.empty() || !starts_identifier(text[0])) return 0;
  auto end = std::ranges::find_if(text, [](char c) { return !starts_identifier(c) && c != '-'; });
  return static_cast<size_t>(end - text.begin());
}

/// Cuts the text into nodes.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Result<std::unique_ptr<const KvNode>> whole() {
    if (size_t nul = text_.find('\0'); nul != std::string_view::npos) {
      return fail(error_at("a NUL byte is an invalid char in string", nul));
    }
    auto root = std::make_unique<KvNode>();
    root->body = KvNode::Body::kBrackets;
    TRY(items(*root, 0));
    if (!at_end()) return fail(error_at("`]` without a `[`: remaining characters", position_));
    return root;
  }

 private:
  bool at_end() const { return position_ >= text_.size(); }
  bool at(char c) const { return !at_end() && text_[position_] == c; }
  bool at_separator() const { return at_end() || at(',') || at(']'); }

  Result<void> items(KvNode& parent, size_t depth) {
    while (!at_end() && !at(']')) {
      parent.items.push_back(TRY(item(depth)));
      parent.trailing_comma = at(',');
      if (parent.trailing_comma) ++position_;
    }
    return {};
  }

  Result<KvNode> item(size_t depth) {
    KvNode node;
    node.offset = position_;
    node.text = text_.substr(position_, text_.find_first_of(",[]\"'", position_) - position_);
    position_ += node.text.size();
    if (at('[')) {
      TRY(brackets(node, depth + 1));
      if (!at_separator()) return fail(error_at("expected `,`", position_));
    } else if (at('"') || at('\'')) {
      node.body = KvNode::Body::kQuoted;
      node.quoted = TRY(at('"') ? escaped_string() : raw_string());
      if (!at_separator()) return fail(error_at(kMisplaced, position_));
    } else if (node.text.empty()) {
      return fail(error_at("nothing stands before `,`: expected an identifier", position_));
    }
    return node;
  }

  Result<void> brackets(KvNode& node, size_t depth) {
    if (depth > KeyValues::kMaxDepth) {
      return fail(error_at(format_text("more than {} brackets inside one another: unexpected `[`",
                                       KeyValues::kMaxDepth),
                           position_));
    }
    node.body = KvNode::Body::kBrackets;
    ++position_;
    TRY(items(node, depth));
    if (at_end()) return fail(error_at("expected `]`: end of input", position_));
    ++position_;
    return {};
  }

  Result<std::string> raw_string() {
    size_t end = text_.find('\'', position_ + 1);
    if (end == std::string_view::npos) {
      return fail(error_at("expected `'`: end of input", text_.size()));
    }
    std::string value(text_.substr(position_ + 1, end - position_ - 1));
    position_ = end + 1;
    return value;
  }

  Result<std::string> escaped_string() {
    std::string value;
    ++position_;
    while (!at_end() && !at('"')) {
      if (at('\\')) {
        ++position_;
        if (at_end()) break;
        if (!at('"') && !at('\\')) {
          return fail(
              error_at("only \\\" and \\\\ are escapes: invalid char in string", position_ - 1));
        }
      }
      value.push_back(text_[position_++]);
    }
    if (at_end()) return fail(error_at("expected `\"`: end of input", position_));
    ++position_;
    return value;
  }

  std::string_view text_;
  size_t position_ = 0;
};

std::string quoted_list(std::span<const std::string_view> names) {
  std::string list;
  for (std::string_view name : names) {
    if (!list.empty()) list += ", ";
    list += format_text("`{}`", name);
  }
  return list;
}

Error unknown_field(std::string_view name, std::span<const KvField> fields) {
  std::vector<std::string_view> names;
  for (const KvField& field : fields) {
    names.push_back(field.name);
    if (!field.alias.empty()) names.push_back(field.alias);
  }
  if (names.empty()) {
    return Error::invalid(format_text("unknown field `{}`, there are no fields", name));
  }
  return Error::invalid(
      format_text("unknown field `{}`, expected one of {}", name, quoted_list(names)));
}

const KvField* find_field(std::span<const KvField> fields, std::string_view name) {
  auto found = std::ranges::find_if(fields, [&](const KvField& field) {
    return field.name == name || (!field.alias.empty() && field.alias == name);
  });
  return found == fields.end() ? nullptr : &*found;
}

/// Radix of a number by its prefix, which is taken off.
int take_radix(std::string_view& digits) {
  if (digits.starts_with("0x")) return digits.remove_prefix(2), 16;
  if (digits.starts_with("0o")) return digits.remove_prefix(2), 8;
  if (digits.starts_with("0b")) return digits.remove_prefix(2), 2;
  return 10;
}

}  // namespace

std::string_view KvValue::text() const { return std::string_view(node_->text).substr(skip_); }

Error KvValue::error(std::string_view what) const { return error_at(what, node_->offset + skip_); }

Result<bool> KvValue::boolean() const {
  if (form_ == Form::kFlag) return true;
  if (node_->body == KvNode::Body::kNone && text() == "true") return true;
  if (node_->body == KvNode::Body::kNone && text() == "false") return false;
  return fail(error("use true or false: expected a boolean"));
}

Result<KvValue::Integer> KvValue::integer(uint64_t lowest_magnitude, uint64_t highest) const {
  if (form_ == Form::kFlag) return fail(error("a number is needed: expected `=`"));
  std::string_view digits = text();
  bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  int radix = take_radix(digits);
  uint64_t magnitude = 0;
  const char* end = digits.data() + digits.size();
  auto [stopped, code] = std::from_chars(digits.data(), end, magnitude, radix);
  bool is_number = node_->body == KvNode::Body::kNone && stopped == end && !digits.empty() &&
                   code != std::errc::invalid_argument;
  if (!is_number) {
    return fail(error(format_text(
        "`{}` is not decimal, 0x, 0o or 0b digits (sizes take no suffix): invalid number",
        text())));
  }
  if (code != std::errc() || magnitude > (negative ? lowest_magnitude : highest)) {
    return fail(error(format_text("`{}` is not within {}{} to {}: invalid number", text(),
                                  lowest_magnitude ? "-" : "", lowest_magnitude, highest)));
  }
  return Integer{.negative = negative, .magnitude = magnitude};
}

Result<std::string> KvValue::string() const {
  if (form_ == Form::kFlag) return fail(error("a string is needed: expected `=`"));
  if (node_->body == KvNode::Body::kQuoted && text().empty()) return node_->quoted;
  if (node_->body != KvNode::Body::kNone) return fail(error_at(kMisplaced, node_->body_offset()));
  if (text().empty()) return fail(error("expected a string"));
  return std::string(text());
}

Result<size_t> KvValue::list_size() const {
  if (form_ == Form::kFlag) return fail(error("a list is needed: expected `=`"));
  if (node_->body != KvNode::Body::kBrackets || !text().empty()) {
    return fail(error("a list is written [a,b]: expected `[`"));
  }
  return node_->items.size();
}

KvValue KvValue::element(size_t index) const { return KvValue(node_->items[index]); }

Result<void> KvValue::expect_values(size_t count) const {
  if (node_->body != KvNode::Body::kBrackets) {
    return fail(error_at("expected `[`", node_->body_offset()));
  }
  return expect_length(node_->items.size(), count);
}

Result<void> KvValue::expect_length(size_t found, size_t expected) const {
  if (found == expected) return {};
  return fail(
      Error::invalid(format_text("invalid length {}, expected {} values", found, expected)));
}

Result<size_t> KvValue::variant(std::span<const std::string_view> names) const {
  if (form_ == Form::kFlag) return fail(error("a variant is needed: expected `=`"));
  if (text().empty()) {
    return fail(
        error(format_text("one of {} without quotes: expected an identifier", quoted_list(names))));
  }
  auto found = std::ranges::find(names, text());
  if (found == names.end()) {
    return fail(Error::invalid(
        format_text("unknown variant `{}`, expected one of {}", text(), quoted_list(names))));
  }
  if (node_->body == KvNode::Body::kQuoted) {
    return fail(error_at(kMisplaced, node_->body_offset()));
  }
  return static_cast<size_t>(found - names.begin());
}

Result<void> KvValue::expect_plain() const {
  if (node_->body == KvNode::Body::kNone) return {};
  return fail(error_at(format_text("`{}` has no fields: remaining characters", text()),
                       node_->body_offset()));
}

Result<void> KvValue::read_variant_fields(std::initializer_list<KvField> fields) const {
  // The elements of a plain variant are none, so required fields are reported missing.
  if (node_->body == KvNode::Body::kNone) {
    KvNode empty;
    return KvValue(empty).read_items(fields, {.positional = false});
  }
  return read_items(fields, {.positional = false});
}

Result<void> KvValue::read_struct(std::initializer_list<KvField> fields, KvRules rules) const {
  bool brackets = node_->body == KvNode::Body::kBrackets && text().empty();
  bool nothing = node_->body == KvNode::Body::kNone && text().empty();  // `key=`
  if (form_ == Form::kFlag || nothing) {
    KvNode empty;
    return KvValue(empty).read_items(fields, rules);
  }
  if (!brackets) return fail(error("fields are written [key=value,…]: expected `[`"));
  return read_items(fields, rules);
}

Result<void> KvValue::read_items(std::span<const KvField> fields, KvRules rules) const {
  std::vector<bool> seen(fields.size());
  bool first = true;
  for (const KvNode& item : node_->items) {
    size_t length = identifier_length(item.text);
    std::string_view name = std::string_view(item.text).substr(0, length);
    bool has_value = length > 0 && length < item.text.size() && item.text[length] == '=';
    const KvField* field = length > 0 ? find_field(fields, name) : nullptr;
    KvValue value(item, has_value ? length + 1 : 0, has_value ? Form::kValue : Form::kFlag);
    bool may_be_keyless = first && rules.positional && !has_value && !fields.empty();
    bool keyless = may_be_keyless && !field;
    first = false;
    if (keyless) {
      field = fields.data();
      value = KvValue(item);
    } else if (length == 0) {
      return fail(value.error("a key is needed: expected an identifier"));
    } else if (!field) {
      if (rules.ignore_unknown) continue;
      return fail(unknown_field(name, fields));
    } else if (!has_value && (length < item.text.size() || item.body != KvNode::Body::kNone)) {
      const std::string way_out =
          may_be_keyless
              ? format_text(" (write {}={} if it begins a value)", fields[0].name, item.text)
              : "";
      return fail(error_at(format_text("`{}` is a key{}: expected `=`", name, way_out),
                           item.offset + length));
    }
    size_t index = static_cast<size_t>(field - fields.data());
    if (seen[index]) {
      return fail(Error::invalid(format_text("duplicate field `{}`", field->name)));
    }
    seen[index] = true;
    TRY(with_context(field->read(value, field->target), field->name));
  }
  for (size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].required && !seen[i]) {
      return fail(Error::invalid(format_text("missing field `{}`", fields[i].name)));
    }
  }
  return {};
}

KeyValues::KeyValues(std::unique_ptr<const KvNode> root) : root_(std::move(root)) {}
KeyValues::KeyValues(KeyValues&&) noexcept = default;
KeyValues& KeyValues::operator=(KeyValues&&) noexcept = default;
KeyValues::~KeyValues() = default;

Result<KeyValues> KeyValues::parse(std::string_view text) {
  return KeyValues(TRY(Lexer(text).whole()));
}

Result<void> KeyValues::read(std::initializer_list<KvField> fields, KvRules rules) const {
  return KvValue(*root_).read_items(fields, rules);
}

Result<KvValue> KeyValues::as_enum() const {
  if (root_->items.empty()) return fail(error_at("expected an identifier", 0));
  if (root_->items.size() > 1 || root_->trailing_comma) {
    return fail(error_at(
        "one value is expected: remaining characters",
        root_->items.size() > 1 ? root_->items[1].offset - 1 : root_->items[0].body_offset()));
  }
  return KvValue(root_->items[0]);
}

}  // namespace crosvm

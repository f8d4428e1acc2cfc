#pragma once

#include <charconv>
#include <concepts>
#include <limits>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "base/format.h"
#include "base/json.h"
#include "control/requests.h"

/// Writes and reads the types of control/requests.h and responses.h as the JSON they describe. Only
/// protocol.cc includes this.
namespace crosvm::control {

template <class T, template <class...> class Template>
inline constexpr bool kIsA = false;
template <template <class...> class Template, class... Args>
inline constexpr bool kIsA<Template<Args...>, Template> = true;
template <class T>
inline constexpr bool kIsArray = false;
template <class T, size_t N>
inline constexpr bool kIsArray<std::array<T, N>> = true;

template <class T>
concept HasValue = requires(T& t) { t.value; };
template <class T>
concept HasElements = requires(T& t) { t.elements(); };
template <class T, class F>
concept HasFields = requires(T& t, F& f) { t.fields(f); };

/// What a peer named, short enough for a log record.
inline std::string_view clip(std::string_view name) { return name.substr(0, 64); }

/// Collects descriptors in order of appearance; takes them out of the message.
class Encoder {
 public:
  explicit Encoder(std::vector<Fd>& fds) : fds_(fds) {}

  template <class T>
  Json encode(T& value) {
    if constexpr (std::same_as<T, Fd>) {
      fds_.push_back(std::move(value));
      return Json(fds_.size() - 1);
    } else if constexpr (std::is_enum_v<T>) {
      return Json(names_of(value)[static_cast<size_t>(value)]);
    } else if constexpr (std::integral<T> || std::same_as<T, std::string>) {
      return Json(value);
    } else if constexpr (kIsA<T, std::optional>) {
      return value ? encode(*value) : Json();
    } else if constexpr (kIsA<T, std::vector> || kIsArray<T>) {
      Json array = Json::array();
      for (auto& item : value) array.push_back(encode(item));
      return array;
    } else if constexpr (kIsA<T, std::map>) {
      Json object = Json::object();
      for (auto& [key, item] : value) object.set(std::to_string(key), encode(item));
      return object;
    } else if constexpr (kIsA<T, std::variant>) {
      return std::visit([this](auto& message) { return this->encode_tagged(message); }, value);
    } else {
      return encode_members(value);
    }
  }

 private:
  struct FieldWriter {
    Encoder& encoder;
    Json object = Json::object();
    template <class T>
    void operator()(std::string_view name, T& member) {
      object.set(name, encoder.encode(member));
    }
    template <class T>
    void defaulted(std::string_view name, T& member) {
      (*this)(name, member);
    }
  };

  template <class T>
  Json encode_members(T& value) {
    FieldWriter writer{*this};
    value.fields(writer);
    return std::move(writer.object);
  }

  template <class T>
  Json encode_tagged(T& message) {
    Json payload;
    if constexpr (HasElements<T>) {
      payload = std::apply(
          [this](auto&... parts) {
            Json array = Json::array();
            (array.push_back(this->encode(parts)), ...);
            return array;
          },
          message.elements());
    } else if constexpr (HasFields<T, FieldWriter>) {
      payload = encode_members(message);
    } else if constexpr (HasValue<T>) {
      payload = encode(message.value);
    } else {
      return Json(T::kTag);
    }
    Json tagged;
    tagged.set(T::kTag, std::move(payload));
    return tagged;
  }

  std::vector<Fd>& fds_;
};

/// Takes descriptors out of the packet, each once. Errors: invalid_argument naming the member.
class Decoder {
 public:
  explicit Decoder(std::vector<Fd>& fds) : fds_(fds) {}

  template <class T>
  Result<void> decode(const Json& json, T& value) {
    if constexpr (std::same_as<T, Fd>) {
      return decode_fd(json, value);
    } else if constexpr (std::same_as<T, bool>) {
      value = TRY(json.as_bool());
    } else if constexpr (std::same_as<T, std::string>) {
      value = TRY(json.as_string());
    } else if constexpr (std::is_enum_v<T>) {
      return decode_name(json, value);
    } else if constexpr (std::unsigned_integral<T>) {
      value = static_cast<T>(TRY(json.as_uint(std::numeric_limits<T>::max())));
    } else if constexpr (std::signed_integral<T>) {
      using Range = std::numeric_limits<T>;
      value = static_cast<T>(TRY(json.as_int(Range::min(), Range::max())));
    } else if constexpr (kIsA<T, std::optional>) {
      value.reset();
      if (!json.is_null()) return decode(json, value.emplace());
    } else if constexpr (kIsA<T, std::vector>) {
      for (const Json& item : TRY(json.items())) TRY(decode(item, value.emplace_back()));
    } else if constexpr (kIsArray<T>) {
      return decode_array(json, value);
    } else if constexpr (kIsA<T, std::map>) {
      return decode_map(json, value);
    } else if constexpr (kIsA<T, std::variant>) {
      return decode_variant(json, value);
    } else {
      return decode_members(json, value);
    }
    return {};
  }

 private:
  /// Stops at the first error. An optional member may be missing, a defaulted one keeps its value
  /// then; members nobody asks for are ignored.
  struct FieldReader {
    Decoder& decoder;
    const Json& object;
    Result<void> result;

    template <class T>
    void operator()(std::string_view name, T& member) {
      read(name, member, kIsA<T, std::optional>);
    }
    template <class T>
    void defaulted(std::string_view name, T& member) {
      read(name, member, /*may_be_missing=*/true);
    }

   private:
    template <class T>
    void read(std::string_view name, T& member, bool may_be_missing) {
      if (!result) return;
      const Json* found = object.find(name);
      if (found == nullptr && may_be_missing) return;
      if (found == nullptr) {
        result = fail(Error::invalid(format_text("member \"{}\" is missing", name)));
        return;
      }
      result = with_context(decoder.decode(*found, member), name);
    }
  };

  template <class T>
  Result<void> decode_members(const Json& json, T& value) {
    TRY(json.members());
    FieldReader reader{*this, json, {}};
    value.fields(reader);
    return std::move(reader.result);
  }

  Result<void> decode_fd(const Json& json, Fd& value) {
    uint64_t index = TRY(json.as_uint());
    if (index >= fds_.size() || !fds_[index]) {
      return fail(
          Error::invalid(format_text("descriptor {} did not come with the message", index)));
    }
    value = std::move(fds_[index]);
    return {};
  }

  template <class T>
  Result<void> decode_name(const Json& json, T& value) {
    std::string name = TRY(json.as_string());
    const auto names = names_of(value);
    for (size_t i = 0; i < names.size(); ++i) {
      if (names[i] != name) continue;
      value = static_cast<T>(i);
      return {};
    }
    return fail(Error::invalid(format_text("\"{}\" is not known", clip(name))));
  }

  template <class T, size_t N>
  Result<void> decode_array(const Json& json, std::array<T, N>& value) {
    auto items = TRY(json.items());
    if (items.size() != N) {
      return fail(Error::invalid(format_text("expected {} items, found {}", N, items.size())));
    }
    for (size_t i = 0; i < N; ++i) TRY(decode(items[i], value[i]));
    return {};
  }

  template <class K, class V>
  Result<void> decode_map(const Json& json, std::map<K, V>& value) {
    for (const auto& [text, item] : TRY(json.members())) {
      K key{};
      auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), key);
      if (error != std::errc() || end != text.data() + text.size()) {
        return fail(Error::invalid(format_text("\"{}\" is not a number", text)));
      }
      TRY(with_context(decode(item, value[key]), text));
    }
    return {};
  }

  template <class... T>
  Result<void> decode_variant(const Json& json, std::variant<T...>& value) {
    std::string tag;
    const Json* payload = nullptr;  // stays so for the form without one
    if (json.is_string()) {
      tag = TRY(json.as_string());
    } else {
      auto members = TRY(json.members());
      if (members.size() != 1) {
        return fail(Error::invalid(
            format_text("expected an object with one member, found {}", members.size())));
      }
      tag = members[0].first;
      payload = &members[0].second;
    }
    Result<void> result = fail(Error::invalid(format_text("\"{}\" is not known", clip(tag))));
    auto try_one = [&]<class One>(std::type_identity<One>) {
      if (One::kTag != tag) return false;
      result = with_context(decode_payload(payload, value.template emplace<One>()), tag);
      return true;
    };
    (void)(try_one(std::type_identity<T>()) || ...);
    return result;
  }

  template <class T>
  Result<void> decode_payload(const Json* payload, T& message) {
    constexpr bool kPlain = !HasElements<T> && !HasFields<T, FieldReader> && !HasValue<T>;
    if constexpr (kPlain) {
      if (payload == nullptr || payload->is_null()) return {};
      return fail(Error::invalid("takes no value"));
    } else {
      if (payload == nullptr) return fail(Error::invalid("its value is missing"));
      if constexpr (HasElements<T>) {
        return decode_elements(*payload, message.elements());
      } else if constexpr (HasFields<T, FieldReader>) {
        return decode_members(*payload, message);
      } else {
        return decode(*payload, message.value);
      }
    }
  }

  template <class... T>
  Result<void> decode_elements(const Json& json, std::tuple<T&...> elements) {
    auto items = TRY(json.items());
    if (items.size() != sizeof...(T)) {
      return fail(
          Error::invalid(format_text("expected {} items, found {}", sizeof...(T), items.size())));
    }
    Result<void> result;
    size_t next = 0;
    std::apply(
        [&](auto&... parts) {
          auto one = [&](auto& part) {
            result = decode(items[next++], part);
            return result.has_value();
          };
          (void)(one(parts) && ...);
        },
        elements);
    return result;
  }

  std::vector<Fd>& fds_;
};

}  // namespace crosvm::control

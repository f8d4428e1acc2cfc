#include "devices/net/net_config.h"

#include "base/format.h"

namespace crosvm {
namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// FNV-1a, 64 bits: short texts differ in all of its bits but the topmost few, which are not used.
uint64_t hash(std::string_view text) {
  uint64_t value = 0xcbf29ce484222325;
  for (char c : text) {
    value ^= static_cast<uint8_t>(c);
    value *= 0x100000001b3;
  }
  return value ^ value >> 32;
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

}  // namespace

Result<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac;
  constexpr size_t kLength = 3 * sizeof(MacAddress) - 1;
  bool good = text.size() == kLength;
  for (size_t i = 0; good && i < mac.size(); ++i) {
    const int high = digit_of(text[3 * i]);
    const int low = digit_of(text[3 * i + 1]);
    good = high >= 0 && low >= 0 && (i + 1 == mac.size() || text[3 * i + 2] == ':');
    mac[i] = static_cast<uint8_t>(high * 16 + low);
  }
  const bool group = good && (mac[0] & 1) != 0;
  if (group || (good && mac == MacAddress{})) {
    return fail(Error::invalid(format_text(
        "`{}` is the address of {}; a card has one like 02:00:00:00:00:01, its first byte even",
        text, group ? "a group" : "nobody")));
  }
  if (good) return mac;
  return fail(
      Error::invalid(format_text("`{}` is not a MAC address like 02:00:00:00:00:01", text)));
}

std::string mac_text(const MacAddress& mac) {
  return format_text("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                     mac[4], mac[5]);
}

Result<bool> mergeable_buffers(std::optional<bool> asked, bool packed_queue) {
  if (packed_queue && asked.value_or(false)) {
    return fail(Error::invalid(
        "mrg-rxbuf and packed-queue cannot both be given; leave out one of the two"));
  }
  return asked.value_or(!packed_queue);
}

MacAddress stable_mac(std::string_view text) {
  uint64_t value = hash(text);
  MacAddress mac;
  for (uint8_t& byte : mac) {
    byte = static_cast<uint8_t>(value);
    value >>= 8;
  }
  mac[0] = static_cast<uint8_t>((mac[0] & ~1U) | 2U);  // of one card, locally administered
  return mac;
}

namespace {
struct MacText {
  MacAddress& mac;
};
Result<void> read_kv(const KvValue& value, MacText& out) {
  std::string text;
  TRY(value.read(text));
  out.mac = TRY(parse_mac(text));
  return {};
}
}  // namespace

Result<NetConfig> NetConfig::parse(const KeyValues& text) {
  NetConfig config;
  MacText mac{config.mac};
  TRY(text.read({kv_key("network", config.network).require(), kv_key("mac", mac).require(),
                 kv_key("vq-pairs", config.vq_pairs), kv_key("mtu", config.mtu),
                 kv_key("mrg-rxbuf", config.mrg_rxbuf),
                 kv_key("packed-queue", config.packed_queue)}));
  if (config.vq_pairs == 0 || config.vq_pairs > kMostPairs) {
    return fail(Error::invalid(
        format_text("vq-pairs={}: a card has 1 to {} queue pairs", config.vq_pairs, kMostPairs)));
  }
  return config;
}

std::string NetConfig::to_text() const {
  return format_text("network={},mac={},vq-pairs={},mtu={},mrg-rxbuf={},packed-queue={}",
                     quoted(network), mac_text(mac), vq_pairs, mtu, mrg_rxbuf, packed_queue);
}

}  // namespace crosvm

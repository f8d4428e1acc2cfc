#include "cli/vsock_options.h"

#include <charconv>
#include <utility>

#include "base/fd.h"
#include "base/format.h"
#include "base/key_value.h"

namespace crosvm {
namespace {

template <class T>
Result<T> parse_decimal(std::string_view text) {
  T number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, code] = std::from_chars(text.data(), end, number);
  if (code == std::errc() && stopped == end) return number;
  return fail(Error::invalid(format_text("`{}` is not a decimal number", text)));
}

}  // namespace

Result<VsockConfig> parse_vsock(std::string_view text) {
  return VsockConfig::parse(TRY(KeyValues::parse(text)));
}

Result<uint64_t> parse_cid(std::string_view text) { return parse_decimal<uint64_t>(text); }

Result<uint32_t> parse_vsock_fd(std::string_view text) { return parse_decimal<uint32_t>(text); }

Result<VsockConfig> kernel_vsock(uint64_t cid, std::optional<std::string> path) {
  TRY(check_guest_cid(cid));
  VsockConfig config;
  config.cid = cid;
  if (path) config.device = *std::move(path);
  return config;
}

Result<std::optional<VsockConfig>> choose_vsock(std::optional<VsockConfig> vsock,
                                                const OldVsockOptions& old) {
  if (vsock && old.cid) {
    return fail(Error::invalid(
        "--vsock and --cid cannot both be given: a VM has one socket device; use --vsock cid=N"));
  }
  if (!old.cid) {
    if (!old.device && !old.fd) return vsock;
    return fail(Error::invalid(
        format_text("{} is for --cid, which is not given; use --vsock cid=N,device=PATH",
                    old.device ? "--vhost-vsock-device" : "--vhost-vsock-fd")));
  }
  if (old.device && old.fd) {
    return fail(
        Error::invalid("--vhost-vsock-device and --vhost-vsock-fd cannot both be given: leave out "
                       "one, or use --vsock cid=N,device=PATH"));
  }
  std::optional<std::string> path = old.device;
  if (old.fd) path = format_text("{}{}", kOwnDescriptors, *old.fd);
  return TRY(with_context(kernel_vsock(*old.cid, std::move(path)), "--cid"));
}

}  // namespace crosvm

#include "cli/restart_devices.h"

#include "base/format.h"
#include "devices/all_devices.h"

namespace crosvm {
namespace {

std::string idempotent_kinds() {
  std::string kinds;
  for (const DeviceType& type : all_devices()) {
    if (type.idempotent) kinds += format_text("{}{}", kinds.empty() ? "" : ", ", type.name);
  }
  return kinds;
}

Result<void> check_kind(std::string_view kind) {
  const DeviceType* type = find_device(kind);
  if (!type) {
    return fail(Error::invalid(
        format_text("unknown kind of device `{}`, expected some of {}", kind, idempotent_kinds())));
  }
  if (type->idempotent) return {};
  return fail(Error::invalid(
      format_text("{} cannot be started anew: what its process had begun would be done twice, and "
                  "bytes would be doubled or lost; give some of {}",
                  kind, idempotent_kinds())));
}

}  // namespace

Result<std::vector<std::string>> parse_restart_devices(std::string_view value) {
  std::vector<std::string> kinds;
  while (true) {
    const size_t comma = value.find(',');
    const std::string_view kind = value.substr(0, comma);
    TRY(check_kind(kind));
    kinds.emplace_back(kind);
    if (comma == std::string_view::npos) return kinds;
    value.remove_prefix(comma + 1);
  }
}

}  // namespace crosvm

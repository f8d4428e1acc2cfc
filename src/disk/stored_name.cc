#include "disk/stored_name.h"

#include <filesystem>
#include <system_error>

namespace crosvm {

Result<std::string> stored_name(const std::string& image, const std::string& name) {
  const std::filesystem::path file(name);
  const std::filesystem::path folder = std::filesystem::path(image).parent_path();
  if (file.is_absolute() || folder.empty()) return name;
  std::error_code error;
  const std::filesystem::path here = std::filesystem::current_path(error);
  if (error) {
    return fail(Error::from_errno("looking for", "the working directory", error.value()));
  }
  std::filesystem::path led = (here / file).lexically_normal();
  if (!folder.is_absolute()) led = led.lexically_relative((here / folder).lexically_normal());
  return led.string();
}

}  // namespace crosvm

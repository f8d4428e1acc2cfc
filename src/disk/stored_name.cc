#include "disk/stored_name.h"

#include <filesystem>
#include <system_error>
#include <utility>

namespace crosvm {
namespace {

/// Without symbolic links, as far as there is something: what leads up from behind one leads to
/// where the host says, not to where the name says.
Result<std::filesystem::path> real_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::path real = std::filesystem::absolute(folder, error);
  if (!error) real = std::filesystem::weakly_canonical(real, error);
  if (error) return fail(Error::from_errno("looking for", folder.string(), error.value()));
  return real;
}

}  // namespace

std::string as_file_name(std::string name) {
  const bool has_colon = name.substr(0, name.find('/')).find(':') != std::string::npos;
  return has_colon ? "./" + std::move(name) : name;
}

Result<std::string> stored_name(const std::string& image, const std::string& name) {
  const std::filesystem::path file(name);
  const std::filesystem::path folder = std::filesystem::path(image).parent_path();
  if (file.is_absolute() || folder.empty()) return as_file_name(name);
  const std::filesystem::path file_folder = file.has_parent_path() ? file.parent_path() : ".";
  std::filesystem::path led = TRY(real_folder(file_folder)) / file.filename();
  if (!folder.is_absolute()) led = led.lexically_relative(TRY(real_folder(folder)));
  return as_file_name(led.string());
}

}  // namespace crosvm

#include "disk/image_names.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr std::string_view kOwnDescriptors = "/proc/self/fd/";
constexpr size_t kLongestName = 4096;

std::string folder_of(std::string_view path) {
  if (path.starts_with(kOwnDescriptors)) return {};
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(path.substr(0, slash == 0 ? 1 : slash));
}

struct Free {
  void operator()(char* text) const { std::free(text); }
};

/// Without symbolic links; empty where there is no such file.
std::string real_path(const std::string& path) {
  const std::unique_ptr<char, Free> real(::realpath(path.c_str(), nullptr));
  return real ? real.get() : std::string();
}

/// `path` as seen from `root`, if it lies there; both real. Empty: it does not.
std::string_view below(std::string_view path, std::string_view root) {
  if (!path.starts_with(root)) return {};
  path.remove_prefix(root.size());
  if (root.ends_with('/')) return path;
  if (!path.starts_with('/')) return {};
  return path.substr(1);
}

FileIdentity identity_of(const struct stat& status) { return {status.st_dev, status.st_ino}; }

/// For a log: what an image says may hold anything.
std::string shown_name(std::string_view name) {
  constexpr size_t kMostShown = 256;
  std::string text;
  for (const char c : name.substr(0, kMostShown)) {
    const bool plain = static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
    text += plain ? c : '?';
  }
  return name.size() > kMostShown ? text + "..." : text;
}

/// "nbd:…", "json:…": what other programs take for something else than a file.
bool has_protocol(std::string_view name) {
  const size_t colon = name.find(':');
  return colon != std::string_view::npos &&
         name.substr(0, colon).find('/') == std::string_view::npos;
}

Result<Fd> open_beneath(const std::string& root, std::string_view rest, int flags,
                        const std::string& object) {
  const Fd folder = TRY(open_path(root, O_PATH | O_DIRECTORY));
  open_how how{};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  Fd file(static_cast<int>(
      ::syscall(SYS_openat2, folder.get(), std::string(rest).c_str(), &how, sizeof(how))));
  if (!file) return fail(Error::from_errno("opening", object));
  return file;
}

}  // namespace

ImageNames::ImageNames(Options options) : options_(std::move(options)) {
  const std::string folder = folder_of(options_.path);
  struct stat status{};
  files_.push_back({.folder = folder, .is_written = !options_.read_only});
  if (::stat(options_.path.c_str(), &status) == 0) files_[0].file = identity_of(status);
  if (!folder.empty()) roots_.push_back(real_path(folder));
  for (const std::string& path : options_.allowed) roots_.push_back(real_path(path));
}

Result<void> ImageNames::check_allowed() const {
  for (const std::string& path : options_.allowed) {
    if (!real_path(path).empty()) continue;
    Error failed = Error::from_errno("looking for", path);
    return fail(Error(failed.code(),
                      format_text("{}{}: {}; name a file or a folder that is there",
                                  options_.for_tool ? "--allow-backing " : "allow-backing=", path,
                                  failed.what())));
  }
  return {};
}

/// Else its own lock would keep it out, and it would be told of another process.
Result<void> ImageNames::check_only_once(const FileIdentity& file, const ImageFileOptions& how,
                                         const std::string& shown) const {
  for (const Known& known : files_) {
    if (known.file != file || (how.read_only && !known.is_written)) continue;
    return fail(Error::invalid(format_text(
        "an image names '{}', which is a file of this disk already; what is written to can be "
        "only one of its files: make a copy, or a disk where each is named once",
        shown)));
  }
  return {};
}

/// The path of what is asked for. Errors: there is no such file, or it cannot be said to be one.
Result<std::string> ImageNames::find(const Request& request, const std::string& shown) const {
  const std::string& name = request.name;
  if (request.from >= files_.size()) {
    return fail(Error::invalid(format_text("{}: named by a file that nobody knows", shown)));
  }
  const Known& from = files_[request.from];
  if (from.depth + 1 > kMostDeep) {
    return fail(Error::invalid(format_text(
        "{}: more than {} images name each other, perhaps in a circle; shorten the chain with "
        "qemu-img convert",
        shown, kMostDeep)));
  }
  if (files_.size() > kMostFiles) {
    return fail(Error::invalid(
        format_text("{}: its images name more than {} files", options_.path, kMostFiles)));
  }
  if (name.empty() || name.size() >= kLongestName || name.find('\0') != std::string::npos) {
    return fail(Error::invalid(format_text("an image names a file '{}': this is no path", shown)));
  }
  if (has_protocol(name)) {
    return fail(
        Error(std::errc::not_supported,
              format_text("an image names '{}', which is no path but something for other "
                          "programs to interpret; name a file instead, with qemu-img rebase "
                          "-u (./ before a name with a colon)",
                          shown)));
  }
  if (name.starts_with('/')) return name;
  if (!from.folder.empty()) return from.folder + '/' + name;
  return fail(Error::invalid(format_text(
      "an image names '{}' relative to its own folder, and {} has none; give the disk by its path",
      shown, options_.path)));
}

Result<Fd> ImageNames::open_below_roots(const std::string& path, const std::string& shown,
                                        const ImageFileOptions& how) const {
  const std::string real = real_path(path);
  if (real.empty()) return fail(Error::from_errno("an image names a file: opening", shown));
  for (const std::string& root : roots_) {
    if (root.empty()) continue;
    if (real == root) return open_path(root, image_file_flags(how) | O_NOFOLLOW);
    const std::string_view rest = below(real, root);
    if (!rest.empty()) return open_beneath(root, rest, image_file_flags(how), shown);
  }
  return fail(Error(
      std::errc::permission_denied,
      format_text("an image names '{}', which lies outside the folder of {}; if that "
                  "is meant, give {}{}",
                  shown, options_.path,
                  options_.for_tool ? "--allow-backing " : "allow-backing=", shown_name(real))));
}

Result<FileBroker::File> ImageNames::open(const Request& request) {
  const std::string shown = shown_name(request.name);
  const std::string path = TRY(find(request, shown));
  const ImageFileOptions how{.read_only = options_.read_only || !request.writable,
                             .direct = options_.direct,
                             .lock = options_.lock,
                             .for_tool = options_.for_tool};
  Fd file = TRY(open_below_roots(path, shown, how));
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno("looking at", shown));
  if (how.lock) TRY(check_only_once(identity_of(status), how, shown));
  File opened{.number = static_cast<uint32_t>(files_.size()),
              .object = shown_name(path),
              .fd = TRY(prepare_image_file(std::move(file), shown_name(path), how))};
  files_.push_back({.folder = folder_of(path),
                    .depth = files_[request.from].depth + 1,
                    .file = identity_of(status),
                    .is_written = !how.read_only});
  return opened;
}

}  // namespace crosvm

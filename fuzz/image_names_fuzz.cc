// The names of files in images, which nobody trusts: whatever they are, nothing is opened but what
// lies below the folder of the disk or what the user has let in. The input: a byte (whether the
// disk is read-only, whether a folder is let in), then requests, each a byte (by which file,
// whether for writing) and a name, which ends with a zero. In names, 0x01 stands for the path of
// the test's folder.

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "disk/image_names.h"
#include "fuzz_input.h"

namespace crosvm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostRequests = 16;

void make_file(const fs::path& path) {
  auto file = open_path(path, O_WRONLY | O_CREAT | O_TRUNC);
  CHECK(file.has_value());
}

FileIdentity identity(const std::string& path) {
  struct stat status{};
  CHECK(::stat(path.c_str(), &status) == 0);
  return {status.st_dev, status.st_ino};
}

/// images/disk, images/base, images/sub/inner, outside/secret, let-in/file, and links of all kinds.
struct Files {
  Files() {
    (void)log::configure({.filter = "off", .use_syslog = false});
    std::string name = "/tmp/image_names_XXXXXX";
    CHECK(::mkdtemp(name.data()) != nullptr);
    root = name;
    for (const char* folder : {"images/sub", "outside", "let-in"}) {
      fs::create_directories(root / folder);
    }
    for (const char* file : {"images/disk", "images/base", "images/sub/inner"}) {
      make_file(root / file);
      own.push_back(identity(root / file));
    }
    make_file(root / "outside/secret");
    make_file(root / "let-in/file");
    let_in = identity(root / "let-in/file");
    fs::create_symlink("../outside/secret", root / "images/escape");
    fs::create_symlink(root / "outside", root / "images/out");
    fs::create_symlink("../let-in/file", root / "images/leave");
    fs::create_symlink("../base", root / "images/sub/link");
    fs::create_symlink("loop", root / "images/loop");
    fs::create_symlink("../..", root / "images/sub/up");
    fs::create_symlink("images", root / "same");
    CHECK(::mkfifo((root / "images/pipe").c_str(), 0600) == 0);
  }
  ~Files() { fs::remove_all(root); }

  fs::path root;
  std::vector<FileIdentity> own;
  FileIdentity let_in;
};

const Files& files() {
  static const Files made;
  return made;
}

std::string name_from(FuzzInput& input) {
  std::string name;
  while (!input.empty()) {
    const uint8_t byte = input.byte();
    if (byte == 0) break;
    // A zero that is not the end of the name.
    if (byte == 2) {
      name += '\0';
    } else if (byte == 1) {
      name += files().root;
    } else {
      name += static_cast<char>(byte);
    }
  }
  return name;
}

void check_refusal(const std::string& what) {
  CHECK(!what.empty() && what.size() < 20'000);
  // Nothing that would write to a terminal by itself.
  CHECK(std::ranges::none_of(what, [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  FuzzInput input({data, size});
  const uint8_t how = input.byte();
  const bool read_only = (how & 1) != 0;
  const bool lets_in = (how & 2) != 0;
  ImageNames names({.path = files().root / ((how & 4) != 0 ? "same/disk" : "images/disk"),
                    .allowed = lets_in ? std::vector<std::string>{files().root / "let-in"}
                                       : std::vector<std::string>{},
                    .read_only = read_only,
                    .for_tool = (how & 8) != 0});
  std::vector<FileBroker::File> opened;
  std::vector<std::pair<FileIdentity, bool>> uses = {{files().own[0], !read_only}};
  for (size_t i = 0; i < kMostRequests && !input.empty(); ++i) {
    const uint8_t what = input.byte();
    const bool writable = (what & 1) != 0;
    auto file = names.open({.from = static_cast<uint32_t>(what >> 1) % 20,
                            .name = name_from(input),
                            .writable = writable});
    if (!file) {
      check_refusal(file.error().what());
      continue;
    }
    struct stat status{};
    CHECK(::fstat(file->fd.get(), &status) == 0);
    const FileIdentity found(status.st_dev, status.st_ino);
    CHECK(std::ranges::find(files().own, found) != files().own.end() ||
          (lets_in && found == files().let_in));
    const int access = ::fcntl(file->fd.get(), F_GETFL) & O_ACCMODE;
    CHECK(access == (writable && !read_only ? O_RDWR : O_RDONLY));
    // One that is written to has no second use.
    for (const auto& [other, is_written] : uses) {
      CHECK(other != found || (!is_written && access == O_RDONLY));
    }
    uses.emplace_back(found, access == O_RDWR);
    CHECK(file->number == opened.size() + 1);
    opened.push_back(std::move(*file));
  }
  return 0;
}

#include "disk/qcow2/qemu_img.h"

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/result.h"

namespace crosvm::test {

QemuImg::QemuImg() : folder_(std::filesystem::temp_directory_path() / "qcow2_XXXXXX") {
  CHECK(::mkdtemp(folder_.data()) != nullptr);
}

QemuImg::~QemuImg() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

bool QemuImg::is_there() {
  static const bool there = std::system("command -v qemu-img >/dev/null 2>&1") == 0;
  return there;
}

int QemuImg::run(const std::string& arguments) {
  const std::string command =
      "cd " + folder_ + " && exec qemu-img " + arguments + " 2>&1 </dev/null";
  said_.clear();
  std::FILE* pipe = ::popen(command.c_str(), "re");
  CHECK(pipe != nullptr);
  std::array<char, 4096> text;
  while (const size_t length = std::fread(text.data(), 1, text.size(), pipe)) {
    said_.append(text.data(), length);
  }
  const int status = ::pclose(pipe);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void QemuImg::save(const std::string& name, std::span<const std::byte> bytes) const {
  std::ofstream(path(name), std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::byte> QemuImg::load(const std::string& name) const {
  std::ifstream file(path(name), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace crosvm::test

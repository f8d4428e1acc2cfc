#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace crosvm::test {

/// A folder for images on their way to and from qemu-img, which judges ours and makes some for us.
class QemuImg {
 public:
  QemuImg();
  ~QemuImg();
  QemuImg(const QemuImg&) = delete;
  QemuImg& operator=(const QemuImg&) = delete;

  static bool is_there();
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  /// Runs `qemu-img ARGUMENTS` in the folder. Its exit status; `said` is what it wrote.
  int run(const std::string& arguments);
  const std::string& said() const { return said_; }
  void save(const std::string& name, std::span<const std::byte> bytes) const;
  std::vector<std::byte> load(const std::string& name) const;

 private:
  std::string folder_;
  std::string said_;
};

}  // namespace crosvm::test

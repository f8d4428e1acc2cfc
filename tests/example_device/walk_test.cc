// docs/adding-a-device.md shows these files: each block of code there, which names its file, is
// that file, to the letter.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace crosvm {
namespace {

const std::string kRoot = CROSVM_SOURCE_DIR;

std::string contents(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The blocks of the walk by the file that stands in the line before each.
std::map<std::string, std::string> blocks() {
  std::map<std::string, std::string> found;
  std::ifstream walk(kRoot + "/docs/adding-a-device.md");
  std::string caption, line;
  while (std::getline(walk, line)) {
    if (!line.starts_with("```")) {
      if (!line.empty()) caption = line;
      continue;
    }
    const size_t from = caption.find("`tests/example_device/");
    std::string* block = nullptr;
    if (from != std::string::npos) {
      block = &found[caption.substr(from + 1, caption.find('`', from + 1) - from - 1)];
    }
    while (std::getline(walk, line) && line != "```") {
      if (block != nullptr) *block += line + "\n";
    }
    caption.clear();
  }
  return found;
}

TEST(AddingADeviceTest, TheWalkShowsTheFilesAsTheyAre) {
  const auto shown = blocks();
  for (const char* name : {"CMakeLists.txt", "shout_config.h", "shout_config.cc", "shout_device.h",
                           "shout_device.cc", "shout_device_test.cc"}) {
    const std::string path = std::string("tests/example_device/") + name;
    ASSERT_TRUE(shown.contains(path)) << path << " is not in the walk";
    EXPECT_EQ(shown.at(path), contents(kRoot + "/" + path)) << path;
  }
}

}  // namespace
}  // namespace crosvm

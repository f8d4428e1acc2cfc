#include "base/unix_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace crosvm {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class UnixAddressTest : public testing::Test {
 protected:
  UnixAddressTest() {
    std::string name = "/tmp/unix_address_test.XXXXXX";
    directory_ = ::mkdtemp(name.data());
  }
  ~UnixAddressTest() override { fs::remove_all(directory_); }

  static bool binds(const Result<UnixAddress>& address) {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return address && ::bind(socket.get(), address->get(), address->size()) == 0;
  }

  std::string directory_;
};

TEST_F(UnixAddressTest, NamesAPathThatFits) {
  const std::string path = directory_ + "/" + std::string(107 - 1 - directory_.size(), 's');
  EXPECT_TRUE(binds(UnixAddress::of(path)));
  EXPECT_TRUE(fs::is_socket(path));
  EXPECT_TRUE(binds(UnixAddress::of_long(directory_ + "/short")));
  EXPECT_TRUE(fs::is_socket(directory_ + "/short"));
}

TEST_F(UnixAddressTest, RefusesWhatDoesNotFit) {
  const auto refusal = [](const std::string& path) {
    auto address = UnixAddress::of(path);
    return address ? "no error" : address.error().what();
  };
  EXPECT_THAT(refusal(std::string(108, 'a')),
              AllOf(HasSubstr("1 to 107 bytes"), HasSubstr("shorter")));
  EXPECT_THAT(refusal(""), AllOf(HasSubstr("empty"), Not(HasSubstr("shorter"))));
  EXPECT_THAT(refusal(std::string("a\0b", 3)), AllOf(HasSubstr("NUL"), Not(HasSubstr("shorter"))));
}

TEST_F(UnixAddressTest, ReachesALongPathThroughItsDirectory) {
  const std::string deep = directory_ + "/" + std::string(200, 'd');
  fs::create_directory(deep);
  EXPECT_TRUE(binds(UnixAddress::of_long(deep + "/" + std::string(80, 's'))));
  EXPECT_TRUE(fs::is_socket(deep + "/" + std::string(80, 's')));
}

TEST_F(UnixAddressTest, NamesWhatIsWrongWithALongPath) {
  const std::string missing = directory_ + "/" + std::string(200, 'd') + "/";
  EXPECT_THAT(UnixAddress::of_long(missing + "s").error().what(), HasSubstr("opening directory"));
  fs::create_directory(missing);
  for (size_t length : {0, 101}) {
    auto address = UnixAddress::of_long(missing + std::string(length, 's'));
    ASSERT_FALSE(address.has_value()) << length;
    EXPECT_THAT(address.error().what(), AllOf(HasSubstr(missing), HasSubstr("1 to 80 bytes")));
  }
  EXPECT_FALSE(UnixAddress::of_long("").has_value());
}

}  // namespace
}  // namespace crosvm

#include "base/user_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/unix_address.h"

namespace crosvm {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

class UserFileTest : public testing::Test {
 protected:
  UserFileTest() { CHECK(::mkdtemp(directory_.data()) != nullptr); }
  ~UserFileTest() override {
    for (const char* name : {"file", "fifo", "socket"}) ::unlink(path(name).c_str());
    ::rmdir(directory_.c_str());
  }
  std::string path(std::string_view name) const { return directory_ + "/" + std::string(name); }
  static std::string error_of(const Result<Fd>& file) {
    return file ? "no error" : file.error().what();
  }

  std::string directory_ = ::testing::TempDir() + "user_file_XXXXXX";
};

TEST_F(UserFileTest, ErrorsEndWithWhatHelps) {
  EXPECT_EQ(error_of(open_user_file(path("none"), O_RDONLY)),
            "opening " + path("none") + ": No such file or directory; check the path");
  EXPECT_THAT(error_of(open_user_file(path("none/out"), O_WRONLY | O_CREAT)),
              EndsWith("No such file or directory; make its directory first"));
  Fd file(::open(path("file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  EXPECT_THAT(error_of(open_user_file(path("file/x"), O_RDONLY)),
              EndsWith("Not a directory; check the path"));
  EXPECT_THAT(error_of(open_user_file(directory_, O_RDWR)),
              EndsWith("Is a directory; name a file in it"));
  EXPECT_THAT(error_of(open_user_file("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY)),
              EndsWith("Bad file descriptor; start crosvm with that descriptor open, and not "
                       "close-on-exec"));
  EXPECT_TRUE(open_user_file(path("file"), O_RDONLY));
}

TEST_F(UserFileTest, ASocketIsNoFile) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const UnixAddress address = *UnixAddress::of_long(path("socket"));
  ASSERT_EQ(::bind(socket.get(), address.get(), address.size()), 0);
  EXPECT_THAT(error_of(open_user_file(path("socket"), O_RDWR)), HasSubstr("it is a socket"));
}

TEST_F(UserFileTest, ADirectoryIsNoInput) {
  EXPECT_EQ(error_of(open_user_input(directory_)),
            "opening " + directory_ + ": it is a directory; name a file, FIFO or device");
}

TEST_F(UserFileTest, AnInputIsOpenedWithoutWaiting) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  ::alarm(30);  // else the test would wait as long as the program
  auto input = open_user_input(path("fifo"));
  ::alarm(0);
  ASSERT_TRUE(input);
  EXPECT_NE(::fcntl(input->get(), F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace crosvm

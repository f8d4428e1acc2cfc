#include "base/system_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <cstring>
#include <optional>

namespace crosvm {
namespace {

using testing::EndsWith;
using testing::MatchesRegex;
using testing::StartsWith;

/// A syslogd, as far as one is needed.
class Receiver {
 public:
  explicit Receiver(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    ::unlink(path.c_str());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
  }
  std::string next() const {
    std::string record(1000, '\0');
    const ssize_t got = ::recv(socket_.get(), record.data(), record.size(), 0);
    record.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return record;
  }

 private:
  Fd socket_;
};

class SystemLogTest : public testing::Test {
 protected:
  void TearDown() override { ::unlink(path_.c_str()); }
  std::string path_ = testing::TempDir() + "log-" + std::to_string(::getpid());
};

TEST_F(SystemLogTest, WritesRecordsOfTheOldForm) {
  Receiver receiver(path_);
  SystemLog log("crosvm", path_);
  log.write(LOG_WARNING, "something");
  const std::string record = receiver.next();
  EXPECT_THAT(record, StartsWith("<12>"));
  EXPECT_THAT(record, EndsWith("crosvm[" + std::to_string(::getpid()) + "]: something"));
  EXPECT_THAT(record.substr(4, 15),
              MatchesRegex("[A-Z][a-z][a-z] [ 0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]"));
}

TEST_F(SystemLogTest, FindsAReceiverThatComesOrIsStartedAnew) {
  SystemLog log("t", path_);
  log.write(LOG_ERR, "nobody is there");
  std::optional<Receiver> receiver(path_);
  log.write(LOG_ERR, "one");
  EXPECT_THAT(receiver->next(), EndsWith(": one"));
  receiver.reset();
  receiver.emplace(path_);
  log.write(LOG_ERR, "two");
  EXPECT_THAT(receiver->next(), EndsWith(": two"));
}

TEST_F(SystemLogTest, OnceSealedItDoesNotConnect) {
  SystemLog log("t", path_);
  log.seal();
  Receiver receiver(path_);
  log.write(LOG_ERR, "one");
  EXPECT_EQ(receiver.next(), "");
}

TEST_F(SystemLogTest, AReceiverThatReadsNothingKeepsNobodyWaiting) {
  Receiver receiver(path_);
  SystemLog log("t", path_);
  for (int i = 0; i < 5000; ++i) log.write(LOG_ERR, std::string(500, 'x'));
  EXPECT_THAT(receiver.next(), EndsWith("x"));
}

}  // namespace
}  // namespace crosvm

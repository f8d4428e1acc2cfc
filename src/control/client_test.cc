#include "control/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "control/socket.h"

namespace crosvm::control {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Outcome {
  int status;
  std::string out;
  std::string log;
};

class ClientTest : public testing::Test {
 protected:
  ClientTest() {
    std::string name = "/tmp/control_test.XXXXXX";
    directory_ = ::mkdtemp(name.data());
    path_ = directory_ / "vm.sock";
  }
  ~ClientTest() override { fs::remove_all(directory_); }

  Outcome run_client() const {
    char* text = nullptr;
    size_t size = 0;
    std::FILE* out = ::open_memstream(&text, &size);
    testing::internal::CaptureStderr();
    int status = run_simple_client("powerbtn", path_, Powerbtn(), out);
    std::fclose(out);
    Outcome outcome{status, text, testing::internal::GetCapturedStderr()};
    std::free(text);
    return outcome;
  }

  /// A VM that answers one request with `text`, or hangs up when it is empty.
  Outcome run_against(const std::string& text) {
    Listener listener = std::move(Listener::open(path_).value());
    std::string heard;
    std::thread vm([&] {
      std::optional<PacketSocket> socket;
      while (!socket) socket = std::move(listener.accept().value());
      auto packet = socket->receive();
      while (!packet) packet = socket->receive();
      heard = (*packet)->text;
      if (text.empty()) return;
      EXPECT_TRUE(socket->send({.text = text, .fds = {}}));
    });
    Outcome outcome = run_client();
    vm.join();
    EXPECT_EQ(heard, "\"Powerbtn\"");
    return outcome;
  }

  fs::path directory_;
  std::string path_;
};

TEST_F(ClientTest, OkIsSilentSuccess) {
  Outcome outcome = run_against("\"Ok\"");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.log, HasSubstr("exiting with success"));
}

TEST_F(ClientTest, AnotherAnswerIsPrintedAndFails) {
  Outcome outcome = run_against(R"({"Err":95})");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "unexpected response: error: Operation not supported (os error 95)\n");
  EXPECT_THAT(outcome.log, HasSubstr("powerbtn subcommand failed"));
}

TEST_F(ClientTest, FailuresOfTheConnectionAreOnTheLogOnly) {
  for (const char* text : {"", "{", "\"Nonsense\""}) {
    Outcome outcome = run_against(text);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.log, HasSubstr("powerbtn subcommand failed"));
  }
}

TEST_F(ClientTest, MissingVmIsNamed) {
  Outcome outcome = run_client();
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.log,
              HasSubstr("connecting to control socket " + path_ + ": No such file or directory"));
}

}  // namespace
}  // namespace crosvm::control

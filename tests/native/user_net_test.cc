// The networks without privilege of VMs with a kernel of a few instructions: what their processes
// are, what listens, and what is left, in a network namespace of the test's own.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/unix_address.h"
#include "devices/net/net_namespace.h"
#include "devices/net/user/rig/listening_sockets.h"
#include "sandboxed_vm.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::seconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

bool comes(const std::function<bool()>& what) {
  for (int tries = 0; tries < 3000 && !what(); ++tries) std::this_thread::sleep_for(10ms);
  return what();
}

/// As passt does: takes one connection after the other.
class Listener {
 public:
  explicit Listener(const std::string& path) : path_(path) {
    auto address = UnixAddress::of(path);
    EXPECT_EQ(::bind(socket_.get(), address->get(), address->size()), 0);
    EXPECT_EQ(::listen(socket_.get(), 1), 0);
  }
  ~Listener() { ::unlink(path_.c_str()); }
  Fd accept() const {
    pollfd waiting{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&waiting, 1, 30'000);
    EXPECT_EQ(ready, 1);
    if (ready != 1) return {};
    return Fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  const std::string path_;
  Fd socket_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
};

class NativeUserNetTest : public NativeWorkerTest {
 protected:
  void SetUp() override {
    if (!namespace_.missing().empty()) GTEST_SKIP() << namespace_.missing();
    ASSERT_TRUE(set_interface_up("lo", true));
    NativeWorkerTest::SetUp();
  }
  TestNamespace namespace_;
};

TEST_F(NativeUserNetTest, ItsProcessAloneIsInTheNetworkOfTheCaller) {
  VmProcess vm(arguments({"--net", "user,forward=[tcp:8080-:80]"}));
  start(vm);
  for (pid_t pid : workers_) {
    const bool same = namespace_of(pid, "net") == namespace_of(vm.pid(), "net");
    EXPECT_EQ(same, name_of(pid) == "net0") << name_of(pid);
    EXPECT_EQ(status_of(pid)["Seccomp"], "2");
    EXPECT_EQ(status_of(pid)["CapPrm"], "0000000000000000");
  }
  EXPECT_NE(namespace_of(spawner_, "net"), namespace_of(vm.pid(), "net"));
}

TEST_F(NativeUserNetTest, WhatListensIsWhatWasAskedForAndGoesWithTheVm) {
  enum class End { kSignal, kKilled, kSpawnerKilled };
  for (const End end : {End::kSignal, End::kKilled, End::kSpawnerKilled}) {
    SCOPED_TRACE(static_cast<int>(end));
    VmProcess vm(arguments({"--net", "user,forward=[tcp:8080-:80]"}));
    start(vm);
    EXPECT_THAT(listening_sockets(), ElementsAre("tcp 0100007F:1F90"));
    ::kill(end == End::kSpawnerKilled ? spawner_ : vm.pid(),
           end == End::kSignal ? SIGTERM : SIGKILL);
    EXPECT_TRUE(vm.wait_exit(seconds(30)));
    EXPECT_TRUE(comes([] { return listening_sockets().empty(); }));
    EXPECT_TRUE(ends_soon(all_));
    (void)::unlink(socket_.c_str());
  }
}

TEST_F(NativeUserNetTest, TheEndOfItsProcessIsThatOfTheVm) {
  VmProcess vm(arguments({"--net", "user"}));
  start(vm);
  EXPECT_THAT(listening_sockets(), IsEmpty());
  ::kill(worker("net0"), SIGKILL);
  EXPECT_EQ(vm.wait_exit(seconds(30)), 33);
  EXPECT_THAT(vm.errors(), HasSubstr("net0: its process was killed by SIGKILL"));
}

TEST_F(NativeUserNetTest, SaysWhatIsWrong) {
  EXPECT_THAT(refusal({"--net", "user", "--disable-sandbox"}),
              AllOf(HasSubstr("--net user"), HasSubstr("--disable-sandbox")));
  const Fd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(8080);
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  EXPECT_THAT(refusal({"--net", "user,forward=[tcp:8080-:80]"}),
              AllOf(HasSubstr("net0"), HasSubstr("127.0.0.1:8080"), HasSubstr("another port")));
  EXPECT_THAT(refusal({"--net", "user,forward=[tcp:192.0.2.77:8080-:80]"}),
              AllOf(HasSubstr("192.0.2.77:8080"), HasSubstr("this host has no such address")));
  EXPECT_THAT(refusal({"--net", "passt,socket=" + scratch_.path() + "/none"}),
              AllOf(HasSubstr("net0"), HasSubstr("start passt there first")));
  EXPECT_THAT(refusal({"--net", "passt,vhost-user,socket=" + scratch_.path() + "/none"}),
              AllOf(HasSubstr("net0"), HasSubstr("first: passt --vhost-user --socket ")));
}

/// A crosvm at another place, with a program for the card of the test's own beside it.
class OtherCrosvm {
 public:
  explicit OtherCrosvm(std::string folder) : folder_(std::move(folder)), former_(crosvm_binary()) {
    std::filesystem::copy(former_, folder_ + "/crosvm");
    ::setenv("CROSVM_BIN", (folder_ + "/crosvm").c_str(), 1);
  }
  ~OtherCrosvm() {
    ::setenv("CROSVM_BIN", former_.c_str(), 1);
    std::filesystem::remove(folder_ + "/crosvm");
    std::filesystem::remove(program());
  }
  std::string program() const { return folder_ + "/crosvm-worker-net-user"; }
  void write_program(const std::string& text) const {
    std::ofstream(program()) << text;
    std::filesystem::permissions(program(), std::filesystem::perms(0755));
  }
  /// The true one, which looks for a library that there is not.
  void write_program_without_library() const {
    std::ifstream file(std::filesystem::path(former_).replace_filename("crosvm-worker-net-user"));
    std::string text{std::istreambuf_iterator<char>(file), {}};
    const size_t name = text.find("libslirp.so");
    ASSERT_NE(name, std::string::npos);
    text.replace(name, 8, "libnone0");
    write_program(text);
  }

 private:
  const std::string folder_;
  const std::string former_;
};

TEST_F(NativeUserNetTest, AProgramThatDoesNotStartIsAMistakeThatIsNamed) {
  const OtherCrosvm other(scratch_.path());
  EXPECT_THAT(refusal({"--net", "user"}),
              AllOf(HasSubstr("net0: crosvm-worker-net-user is neither"), HasSubstr("install it")));
  other.write_program("no program\n");
  EXPECT_THAT(refusal({"--net", "user"}),
              AllOf(HasSubstr("net0: its process could not be started: executing " +
                              other.program() + ": Exec format error"),
                    HasSubstr("; install " + other.program())));
  other.write_program_without_library();
  EXPECT_THAT(refusal({"--net", "user"}),
              AllOf(HasSubstr("net0: its process ended with status 127 before it could begin"),
                    HasSubstr("`ldd " + other.program() + "`"), HasSubstr("libnone0.so")));
  VmProcess doctor({"doctor"});
  EXPECT_TRUE(doctor.wait_exit(seconds(60)));
  EXPECT_THAT(doctor.output(), AllOf(HasSubstr("--net user cannot be had: "),
                                     HasSubstr("libnone0.so"), HasSubstr("libslirp0")));
}

TEST_F(NativeUserNetTest, PasstMayGoAndComeBack) {
  for (const bool sandbox : {true, false}) {
    SCOPED_TRACE(sandbox);
    const std::string path = scratch_.path() + "/passt";
    std::vector<std::string> flags = {"--net", "passt,socket=" + path};
    if (!sandbox) flags.emplace_back("--disable-sandbox");
    auto passt = std::make_unique<Listener>(path);
    VmProcess vm(arguments(flags));
    Fd connection = passt->accept();
    ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
    for (int round = 0; round < 2; ++round) {
      connection = Fd();
      passt.reset();
      std::this_thread::sleep_for(700ms);  // in which it is asked for once or more
      passt = std::make_unique<Listener>(path);
      connection = passt->accept();
      ASSERT_TRUE(connection) << vm.errors();
    }
    vm.signal(SIGTERM);
    EXPECT_TRUE(vm.wait_exit(seconds(30)));
    EXPECT_THAT(vm.errors(), AllOf(HasSubstr("the link is down"), HasSubstr("the link is up")));
    (void)::unlink(socket_.c_str());
  }
}

// It looks into nothing then that its filter would keep it from.
TEST_F(NativeUserNetTest, WhatKeepsItFromPasstIsSaidAndTheVmGoesOn) {
  const std::string path = scratch_.path() + "/passt";
  auto passt = std::make_unique<Listener>(path);
  VmProcess vm(arguments({"--net", "passt,socket=" + path}));
  Fd connection = passt->accept();
  ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
  connection = Fd();
  passt.reset();
  const UnixAddress address = *UnixAddress::of(path);
  {
    const Fd other(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(other.get(), address.get(), address.size()), 0);
    std::this_thread::sleep_for(1500ms);
    (void)::unlink(path.c_str());
  }
  passt = std::make_unique<Listener>(path);
  connection = passt->accept();
  ASSERT_TRUE(connection) << vm.errors();
  vm.signal(SIGTERM);
  EXPECT_TRUE(vm.wait_exit(seconds(30)));
  EXPECT_THAT(vm.errors(), AllOf(HasSubstr("it is no stream socket"), HasSubstr("the link is up")));
  (void)::unlink(socket_.c_str());
}

/// A card of ours on a tap stands for passt: its socket's file goes when somebody has come.
TEST_F(NativeUserNetTest, PasstByVhostUserMayGoAndComeBack) {
  for (const bool sandbox : {true, false}) {
    SCOPED_TRACE(sandbox);
    const std::string path = scratch_.path() + "/passt";
    const auto start_passt = [&path] {
      auto passt = std::make_unique<VmProcess>(
          std::vector<std::string>{"--no-syslog", "device", "net", "--device",
                                   path + ",10.0.0.1,255.255.255.0,02:00:00:00:00:01"});
      EXPECT_TRUE(comes([&path] { return ::access(path.c_str(), F_OK) == 0; }));
      return passt;
    };
    const auto is_taken = [&path] {
      return comes([&path] { return ::access(path.c_str(), F_OK) != 0; });
    };
    std::vector<std::string> flags = {"--net", "passt,vhost-user,socket=" + path};
    if (!sandbox) flags.emplace_back("--disable-sandbox");
    auto passt = start_passt();
    VmProcess vm(arguments(flags));
    ASSERT_TRUE(vm.wait_for("!", seconds(30))) << vm.errors();
    EXPECT_TRUE(is_taken());
    for (int round = 0; round < 2; ++round) {
      passt->signal(SIGKILL);
      EXPECT_TRUE(passt->wait_exit(seconds(30)));
      passt = start_passt();
      EXPECT_TRUE(is_taken());
    }
    vm.signal(SIGTERM);
    EXPECT_TRUE(vm.wait_exit(seconds(30)));
    EXPECT_EQ(passt->wait_exit(seconds(30)), 0) << passt->errors();
    EXPECT_THAT(vm.errors(), AllOf(HasSubstr("the link is down"), HasSubstr("the link is up")));
    (void)::unlink(socket_.c_str());
  }
}

/// Somebody has the socket and says nothing: a signal ends the wait for an answer.
TEST_F(NativeUserNetTest, ASignalEndsTheWaitForPasst) {
  const std::string path = scratch_.path() + "/passt";
  const Listener silent(path);
  VmProcess vm(arguments({"--net", "passt,vhost-user,socket=" + path}));
  const Fd connection = silent.accept();
  ASSERT_TRUE(connection);
  vm.signal(SIGTERM);
  EXPECT_TRUE(vm.wait_exit(seconds(5))) << "it waits for ten";
}

}  // namespace
}  // namespace crosvm::test

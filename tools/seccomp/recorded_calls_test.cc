#include "tools/seccomp/recorded_calls.h"

#include <gmock/gmock.h>

#include <sstream>

namespace crosvm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

/// "POLICY: CALL" of all that counts.
std::vector<std::string> counted(const std::string& trace) {
  std::istringstream lines(trace);
  std::vector<std::string> names;
  for (const auto& [policy, calls] : read_recorded_calls(lines)) {
    for (const RecordedCall& call : calls) names.push_back(policy + ": " + call.name);
  }
  return names;
}

TEST(RecordedCallsTest, CountsFromTheFilterOn) {
  EXPECT_THAT(counted("1<crosvm> execve(\"crosvm\") = 0\n"
                      "1<block0> getuid() = 0\n"
                      "1<block0> seccomp(0x1, 0, 0x7) = -1 EINVAL (Invalid argument)\n"
                      "1<block0> getgid() = 0\n"
                      "1<block0> seccomp(0x1, 0, 0x7 <unfinished ...>\n"
                      "1<block0> <... seccomp resumed>) = 0\n"
                      "1<block0> lseek(0x3, 0, 0x2) = 0\n"),
              ElementsAre("block_device: lseek"));
}

TEST(RecordedCallsTest, ThreadsHaveTheFilterOfTheirMaker) {
  // A number of its own namespace, and calls before the maker's call has returned.
  EXPECT_THAT(
      counted("1<test> execve(\"test\") = 0\n"
              "1<block> clone3({flags=CLONE_VM} => {parent_tid=[2]}, 88) = 2<block>\n"
              "2<block> kill(0x1, 0x9) = 0\n"
              "2<block0> seccomp(0x1, 0, 0x7) = 0\n"
              "2<block0> clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD <unfinished ...>\n"
              "9<block0> lseek(0x3, 0, 0x2) = 0\n"
              "9<block0> +++ exited with 0 +++\n"
              "2<block0> <... clone resumed>, tls=0x7f) = 2<block0> /* 9 in strace's PID NS */\n"
              "1<block> clone3({flags=CLONE_VM} <unfinished ...>\n"
              "3<block> kill(0x1, 0x9) = 0\n"
              "1<block> <... clone3 resumed> => {parent_tid=[3]}, 88) = 3<block>\n"),
      ElementsAre("block_device: clone", "block_device: lseek"));
}

TEST(RecordedCallsTest, AnUnknownMakerIsWaitedFor) {
  EXPECT_THAT(counted("1<test> execve(\"test\") = 0\n"
                      "1<rng> seccomp(0x1, 0, 0x7) = 0\n"
                      "1<rng> fork( <unfinished ...>\n"
                      "2<rng> fork() = 3<rng>\n"
                      "3<rng> read(0x1) = 0\n"
                      "1<rng> <... fork resumed>) = 2<rng>\n"),
              ElementsAre("rng_device: fork", "rng_device: read"));
  EXPECT_THAT(counted("4<rng> read(0x1) = 0\n"), IsEmpty());
}

TEST(RecordedCallsTest, FlagsOfCloneAreNumbers) {
  std::istringstream trace(
      "1<test> execve(\"test\") = 0\n"
      "1<rng> seccomp(0x1, 0, 0x7) = 0\n"
      "1<rng> clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD|SIGCHLD, tls=0x7) = 2<rng>\n");
  EXPECT_THAT(read_recorded_calls(trace),
              ElementsAre(Pair("rng_device",
                               ElementsAre(testing::Field(&RecordedCall::arguments,
                                                          ElementsAre(0x10111, 0, 0, 0, 0, 0))))));
}

TEST(RecordedCallsTest, AFilterForAllThreadsIsThatOfTheProcess) {
  EXPECT_THAT(counted("1<crosvm> execve(\"crosvm\") = 0\n"
                      "1<crosvm> clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 2<crosvm>\n"
                      "1<crosvm> clone3({flags=CLONE_VM}, 88) = 3<crosvm>\n"
                      "1<crosvm> seccomp(0x1, 0x1, 0x7) = 0\n"
                      "2<block-0> read(0x1) = 0\n"
                      "3<rng> read(0x1) = 0\n"),
              ElementsAre("block_device_vhost_user: read"));
}

TEST(RecordedCallsTest, AServiceIsKnownByItsCommandLine) {
  EXPECT_THAT(counted("1<crosvm> execve(\"crosvm\", [\"crosvm\", \"device\", \"block\"]) = 0\n"
                      "1<crosvm> seccomp(0x1, 0, 0x7) = 0\n"
                      "1<crosvm> read(0x1) = 0\n"),
              ElementsAre("block_device_vhost_user: read"));
}

}  // namespace
}  // namespace crosvm

// Devices by vhost-user between processes: ours for the front-end of a test, and those of others
// for our VM, which has a kernel of a few instructions.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "base/unix_address.h"
#include "other_program.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/rig.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

struct BlockHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool comes(const std::function<bool()>& what) {
  for (int tries = 0; tries < 3000; ++tries) {
    if (what()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::istringstream list(text_of("/proc/" + id + "/task/" + id + "/children"));
  std::vector<pid_t> children;
  for (pid_t child; list >> child;) children.push_back(child);
  return children;
}

/// Whether a process is there that has not ended.
bool lives(pid_t pid) {
  const std::string stat = text_of("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat[name_end + 2] != 'Z' && stat[name_end + 2] != 'X';
}

Fd connect_to(const std::string& path) {
  auto address = UnixAddress::of(path);
  CHECK(address);
  Fd socket;
  comes([&] {
    socket = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return ::connect(socket.get(), address->get(), address->size()) == 0;
  });
  return socket;
}

/// A front-end played by the test, until it goes.
class Frontend {
 public:
  Frontend(Fd socket, uint32_t device_type) {
    VhostUserOptions options;
    options.name = "test";
    options.device_type = device_type;
    options.max_queue_size = 64;
    auto backend = VhostUserBackend::create(thread_.loop(), std::move(socket), std::move(options));
    if (!backend) ADD_FAILURE() << backend.error().what();
    if (backend) rig_.emplace(Rig::attach(std::move(*backend)));
  }
  bool connected() const { return rig_.has_value(); }
  Rig& rig() { return *rig_; }
  RigUsed ask(uint16_t queue, std::vector<RigBuffer> buffers) {
    RigDriver& driver = rig_->driver(queue);
    RigUsed used = driver.wait_used(driver.send(std::move(buffers)));
    EXPECT_TRUE(used.arrived);
    return used;
  }
  int write(uint64_t sector, std::string_view text) {
    return ask(0, {readable(BlockHeader{VIRTIO_BLK_T_OUT, 0, sector}), readable(text), writable(1)})
        .last_byte();
  }
  std::string read(uint64_t sector, size_t bytes) {
    const RigUsed used =
        ask(0, {readable(BlockHeader{VIRTIO_BLK_T_IN, 0, sector}), writable(bytes), writable(1)});
    EXPECT_EQ(used.last_byte(), VIRTIO_BLK_S_OK);
    return {reinterpret_cast<const char*>(used.bytes.data()), bytes};
  }
  bool offers(unsigned feature) { return (rig_->info().features >> feature & 1) != 0; }

 private:
  LoopThread thread_;
  std::optional<Rig> rig_;
};

std::string sector(char fill) { return std::string(512, fill); }

class NativeVhostUserTest : public testing::Test {
 protected:
  void SetUp() override {
    // A process under a policy cannot be looked through for leaks.
    const char* given = std::getenv("ASAN_OPTIONS");
    const std::string options = std::string(given ? given : "") + ":detect_leaks=0";
    ::setenv("ASAN_OPTIONS", options.c_str(), 1);
    std::ofstream(disk_) << std::string(64 << 10, 'x');
  }

  std::vector<std::string> device(const std::vector<std::string>& rest) const {
    std::vector<std::string> all = {"--no-syslog", "device"};
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  }
  std::vector<std::string> at_socket(std::vector<std::string> rest) const {
    rest.insert(rest.end(), {"--socket-path", socket_});
    return device(rest);
  }
  std::vector<std::string> disk_at_socket() const { return at_socket({"block", "--file", disk_}); }
  std::string refusal(const std::vector<std::string>& arguments, int status = 1) const {
    VmProcess process(arguments);
    EXPECT_EQ(process.wait_exit(60s), status);
    return process.errors();
  }

  ScratchDirectory scratch_;
  std::string disk_ = scratch_.path() + "/disk";
  std::string socket_ = scratch_.path() + "/device.sock";
};

TEST_F(NativeVhostUserTest, ADiskIsServedUntilItsFrontendGoes) {
  for (const char* executor : {"auto", "epoll"}) {
    SCOPED_TRACE(executor);
    VmProcess process({"--no-syslog", "device", "--async-executor", executor, "block", "--file",
                       disk_, "--socket-path", socket_});
    {
      Frontend frontend(connect_to(socket_), VIRTIO_ID_BLOCK);
      ASSERT_TRUE(frontend.connected());
      EXPECT_EQ(frontend.write(3, sector('a')), VIRTIO_BLK_S_OK);
      EXPECT_EQ(frontend.read(3, 512), sector('a'));
      EXPECT_EQ(frontend.read(4, 512), sector('x'));
      EXPECT_FALSE(frontend.offers(VIRTIO_BLK_F_DISCARD));
      EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk")) << "nobody else may come";
    }
    EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
    EXPECT_EQ(text_of(disk_).substr(3 * 512, 512), sector('a'));
    std::ofstream(disk_) << std::string(64 << 10, 'x');
  }
}

/// Its process may open nothing any more when it learns what the disk is made of.
TEST_F(NativeVhostUserTest, ADiskMadeOfOtherFilesIsServed) {
  using namespace std::string_literals;
  const std::string composite = scratch_.path() + "/composite";
  // Version 2; one part, "disk", writable; 64 KiB.
  std::ofstream(composite) << "composite_disk\x1d\x08\x02\x12\x08\x0a\x04"s << "disk"
                           << "\x18\x01\x18\x80\x80\x04"s;
  VmProcess process(at_socket({"block", "--file", composite}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(frontend.connected());
    EXPECT_EQ(frontend.read(4, 512), sector('x'));
    EXPECT_EQ(frontend.write(3, sector('a')), VIRTIO_BLK_S_OK);
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_EQ(text_of(disk_).substr(3 * 512, 512), sector('a'));
}

TEST_F(NativeVhostUserTest, AReadOnlyDiskIsNotWritten) {
  VmProcess process(at_socket({"block", "--file", disk_ + ":read-only"}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(frontend.connected());
    EXPECT_TRUE(frontend.offers(VIRTIO_BLK_F_RO));
    EXPECT_EQ(frontend.write(0, sector('a')), VIRTIO_BLK_S_IOERR);
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_EQ(text_of(disk_).substr(0, 512), sector('x'));
}

TEST_F(NativeVhostUserTest, EntropyIsServed) {
  VmProcess process(at_socket({"rng"}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_RNG);
    ASSERT_TRUE(frontend.connected());
    const RigUsed used = frontend.ask(0, {writable(64)});
    EXPECT_EQ(used.written, 64u);
    EXPECT_NE(used.bytes, std::vector(64, kRigFiller));
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
}

TEST_F(NativeVhostUserTest, AConsoleIsServed) {
  const std::string output = scratch_.path() + "/output";
  const std::string input = scratch_.path() + "/input";
  std::ofstream(input) << "typed";
  VmProcess process(at_socket({"console", "--output-file", output, "--input-file", input}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(frontend.connected());
    frontend.ask(1, {readable(std::string_view("said"))});
    const RigUsed used = frontend.ask(0, {writable(5)});
    EXPECT_EQ(std::memcmp(used.bytes.data(), "typed", 5), 0);
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_EQ(text_of(output), "said");
}

TEST_F(NativeVhostUserTest, AConsoleIsOnStdoutByItself) {
  VmProcess process(at_socket({"console"}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(frontend.connected());
    frontend.ask(1, {readable(std::string_view("said"))});
    EXPECT_TRUE(process.wait_for("said", 30s));
    process.send("typed");
    EXPECT_EQ(std::memcmp(frontend.ask(0, {writable(5)}).bytes.data(), "typed", 5), 0);
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
}

TEST_F(NativeVhostUserTest, TheLogOfAConsoleIsWrittenUnderNoPolicy) {
  VmProcess process(at_socket({"console", "--syslog"}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(frontend.connected());
    frontend.ask(1, {readable(std::string_view("said\n"))});
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_THAT(process.errors(), HasSubstr("said"));
}

TEST_F(NativeVhostUserTest, APortForEachOfSeveral) {
  const std::string first = scratch_.path() + "/first";
  const std::string second = scratch_.path() + "/second";
  VmProcess process(at_socket({"console", "--port", "type=file,console,path=" + first, "--port",
                               "type=file,name=agent,path=" + second}));
  {
    Frontend frontend(connect_to(socket_), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(frontend.connected());
    EXPECT_EQ(frontend.rig().info().queue_sizes.size(), 6u);
    frontend.ask(1, {readable(std::string_view("one"))});
    frontend.ask(5, {readable(std::string_view("two"))});
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_EQ(text_of(first), "one");
  EXPECT_EQ(text_of(second), "two");
}

TEST_F(NativeVhostUserTest, AConnectedSocketIsTakenByItsNumber) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  Fd ours(ends[0]);
  ::fcntl(ours.get(), F_SETFD, FD_CLOEXEC);
  VmProcess process(device({"block", "--file", disk_, "--fd", std::to_string(ends[1])}));
  ::close(ends[1]);
  {
    Frontend frontend(std::move(ours), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(frontend.connected());
    EXPECT_EQ(frontend.read(0, 512), sector('x'));
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_THAT(refusal(device({"rng", "--fd", "0"})), HasSubstr("no connected stream socket"));
  EXPECT_THAT(refusal(device({"rng", "--fd", "777"})), HasSubstr("777"));
}

TEST_F(NativeVhostUserTest, AStaleSocketIsReplacedAndALiveOneIsNot) {
  {
    VmProcess killed(disk_at_socket());
    ASSERT_TRUE(comes([&] { return std::filesystem::exists(socket_); }));
    EXPECT_THAT(refusal(at_socket({"rng"})), AllOf(HasSubstr(socket_), HasSubstr("running")));
    killed.signal(SIGKILL);
    killed.wait_exit(60s);
    EXPECT_TRUE(comes([&] { return !std::filesystem::exists(socket_); })) << "nobody listens";
  }
  {
    auto address = UnixAddress::of(socket_);
    const Fd gone(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(gone.get(), address->get(), address->size()), 0);
  }
  VmProcess process(at_socket({"rng"}));
  EXPECT_TRUE(Frontend(connect_to(socket_), VIRTIO_ID_RNG).connected());
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_THAT(refusal(device({"rng", "--socket-path", disk_})), HasSubstr("is no socket"));
  EXPECT_EQ(text_of(disk_).size(), 64u << 10);
}

TEST_F(NativeVhostUserTest, ASignalEndsItInOrder) {
  VmProcess process(disk_at_socket());
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(socket_); }));
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait_exit(60s), 0);
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, AFrontendThatTalksNonsenseIsLeft) {
  VmProcess process(disk_at_socket());
  {
    Fd socket = connect_to(socket_);
    const std::string nonsense(64, '\xff');
    ASSERT_EQ(::write(socket.get(), nonsense.data(), nonsense.size()), 64);
    EXPECT_EQ(process.wait_exit(60s), 1);
  }
  EXPECT_THAT(process.errors(), HasSubstr("block: "));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, MistakesAreRefusedBeforeAFrontendCanCome) {
  EXPECT_THAT(refusal(at_socket({"block", "--file", scratch_.path() + "/none"})),
              HasSubstr("No such file"));
  EXPECT_THAT(refusal(device({"rng", "--socket-path", std::string(200, 'x')})),
              HasSubstr("80 bytes"));
  EXPECT_THAT(refusal(device({"rng"})), HasSubstr("exactly one of"));
  EXPECT_THAT(refusal(device({"block", "--fd", "3"}), 35), HasSubstr("--file"));
  VmProcess help({"--no-syslog", "devices"});
  EXPECT_EQ(help.wait_exit(60s), 0);
  EXPECT_THAT(help.output(), HasSubstr("Usage"));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, ManyDevicesEachInAProcessOfItsOwn) {
  const std::string output = scratch_.path() + "/output";
  const std::string other = scratch_.path() + "/other.sock";
  VmProcess process({"--no-syslog", "devices", "--block", "vhost=" + socket_ + "," + disk_,
                     "--serial", "vhost=" + other + ",type=file,path=" + output});
  std::vector<pid_t> all;
  {
    Frontend disk(connect_to(socket_), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(disk.connected());
    EXPECT_EQ(disk.write(1, sector('b')), VIRTIO_BLK_S_OK);
    ASSERT_EQ(children_of(process.pid()).size(), 1u);
    const pid_t spawner = children_of(process.pid()).front();
    EXPECT_TRUE(comes([&] { return children_of(spawner).size() == 2; }));  // before its front-end
    std::string worker;
    for (pid_t pid : children_of(spawner)) {
      const std::string folder = "/proc/" + std::to_string(pid);
      if (text_of(folder + "/comm") == "block-0\n") worker = folder;
    }
    ASSERT_NE(worker, "");
    EXPECT_TRUE(std::filesystem::is_empty(worker + "/root"));
    EXPECT_THAT(text_of(worker + "/status"), HasSubstr("Seccomp:\t2"));
    Frontend console(connect_to(other), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(console.connected());
    console.ask(1, {readable(std::string_view("said"))});
    all = children_of(spawner);
    EXPECT_EQ(all.size(), 2u);
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_THAT(process.errors(), AllOf(HasSubstr("block-0: its front-end has gone"),
                                      HasSubstr("serial-0: its front-end has gone")));
  EXPECT_EQ(text_of(output), "said");
  EXPECT_TRUE(std::ranges::none_of(all, lives));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk", "output"));
}

TEST_F(NativeVhostUserTest, WhatBecomesOfADeviceIsOnlyLogged) {
  const std::string other = scratch_.path() + "/other.sock";
  const std::string other_disk = scratch_.path() + "/other";
  std::ofstream(other_disk) << std::string(64 << 10, 'y');
  VmProcess process({"--no-syslog", "devices", "--block", "vhost=" + socket_ + "," + disk_,
                     "--block", "vhost=" + other + "," + other_disk});
  {
    Frontend second(connect_to(other), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(second.connected());
    {
      Frontend first(connect_to(socket_), VIRTIO_ID_BLOCK);
      ASSERT_TRUE(first.connected());
      const pid_t spawner = children_of(process.pid()).front();
      for (pid_t pid : children_of(spawner)) {
        if (text_of("/proc/" + std::to_string(pid) + "/comm") == "block-0\n") ::kill(pid, SIGKILL);
      }
      ASSERT_TRUE(comes([&] { return children_of(spawner).size() == 1; }));
    }
    EXPECT_EQ(second.read(0, 512), sector('y'));
  }
  EXPECT_EQ(process.wait_exit(60s), 0);
  EXPECT_THAT(process.errors(), HasSubstr("block-0: its process was killed by SIGKILL"));
}

TEST_F(NativeVhostUserTest, NothingOfKilledDevicesRemains) {
  const std::string other = scratch_.path() + "/other.sock";
  VmProcess process({"--no-syslog", "devices", "--block", "vhost=" + socket_ + "," + disk_,
                     "--serial", "vhost=" + other + ",type=sink"});
  Frontend disk(connect_to(socket_), VIRTIO_ID_BLOCK);
  ASSERT_TRUE(disk.connected());
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(other); }));
  const pid_t spawner = children_of(process.pid()).front();
  std::vector<pid_t> all = children_of(spawner);
  all.push_back(spawner);
  process.signal(SIGKILL);
  EXPECT_TRUE(comes([&] { return std::ranges::none_of(all, lives); }));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, AJailThatCannotBeIsRefusedBeforeAnythingListens) {
  const auto jail_refusal = [&](const std::string& jail) {
    return refusal(
        {"--no-syslog", "devices", "--jail", jail, "--block", "vhost=" + socket_ + "," + disk_});
  };
  EXPECT_THAT(jail_refusal("bogus"), HasSubstr("--jail pivot-root bogus: "));
  EXPECT_THAT(jail_refusal("pivot-root=/"), HasSubstr("--jail pivot-root /: "));
  EXPECT_THAT(jail_refusal("pivot-root=" + disk_), HasSubstr("not a directory"));
  EXPECT_THAT(jail_refusal("pivot-root=" + disk_ + "no"), HasSubstr("No such file"));
  EXPECT_THAT(jail_refusal("pivot-root=" + scratch_.path()), HasSubstr("is not empty"));
  EXPECT_THAT(jail_refusal("seccomp-policy-dir=" + disk_),
              AllOf(HasSubstr("--jail seccomp-policy-dir: "), HasSubstr("Not a directory")));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, ADamagedImageIsRefusedBeforeAFrontendCanCome) {
  const std::string bad = scratch_.path() + "/bad.qcow2";
  std::ofstream(bad) << std::string("QFI\xfb\0\0\0\3", 8) << std::string(600, '\0');
  const std::string other = scratch_.path() + "/other.sock";
  EXPECT_THAT(refusal(at_socket({"block", "--file", bad})),
              AllOf(HasSubstr("block: "), HasSubstr("bad.qcow2"), HasSubstr("cluster")));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk", "bad.qcow2"));
  for (const bool sandbox : {true, false}) {
    SCOPED_TRACE(sandbox);
    std::vector<std::string> arguments = {"--no-syslog", "devices",
                                          "--block",     "vhost=" + other + "," + disk_,
                                          "--block",     "vhost=" + socket_ + ",path=" + bad};
    if (!sandbox) arguments.emplace_back("--disable-sandbox");
    EXPECT_THAT(refusal(arguments),
                AllOf(HasSubstr("block-1"), HasSubstr("bad.qcow2"), HasSubstr("cluster")));
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk", "bad.qcow2"));
  }
}

TEST_F(NativeVhostUserTest, ADeviceWhoseProcessDiesBeforeItsFrontendIsAFailure) {
  const std::string other = scratch_.path() + "/other.sock";
  VmProcess process({"--no-syslog", "devices", "--block", "vhost=" + socket_ + "," + disk_,
                     "--serial", "vhost=" + other + ",type=sink"});
  ASSERT_TRUE(Frontend(connect_to(other), VIRTIO_ID_CONSOLE).connected());
  const pid_t spawner = children_of(process.pid()).front();
  ASSERT_TRUE(comes([&] { return children_of(spawner).size() == 1; }));
  ::kill(children_of(spawner).front(), SIGKILL);
  EXPECT_EQ(process.wait_exit(60s), 1);
  EXPECT_THAT(process.errors(), AllOf(HasSubstr("killed by SIGKILL"), HasSubstr("block-0 ")));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, WithoutItsSpawnerNothingIsListenedFor) {
  VmProcess process({"--no-syslog", "devices", "--block", "vhost=" + socket_ + "," + disk_});
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(socket_); }));
  ::kill(children_of(process.pid()).front(), SIGKILL);
  EXPECT_EQ(process.wait_exit(60s), 1);
  EXPECT_THAT(process.errors(), HasSubstr("the spawner of device processes has died"));
  EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
}

TEST_F(NativeVhostUserTest, WhatASandboxWouldTakeIsNamedWhereThereIsNone) {
  VmProcess process({"--no-syslog", "devices", "--disable-sandbox", "--jail",
                     "pivot-root=/none,seccomp-policy-dir=/none", "--block",
                     "vhost=" + socket_ + "," + disk_});
  ASSERT_TRUE(comes([&] { return std::filesystem::exists(socket_); }));
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait_exit(60s), 0);
  EXPECT_THAT(process.errors(), AllOf(HasSubstr("--jail pivot-root has no effect"),
                                      HasSubstr("--jail seccomp-policy-dir has no effect")));
}

TEST_F(NativeVhostUserTest, WithoutASandboxOneProcessServesAll) {
  const std::string other = scratch_.path() + "/other.sock";
  VmProcess process({"--no-syslog", "devices", "--disable-sandbox", "--block",
                     "vhost=" + socket_ + "," + disk_, "--serial",
                     "vhost=" + other + ",type=sink"});
  {
    Frontend disk(connect_to(socket_), VIRTIO_ID_BLOCK);
    ASSERT_TRUE(disk.connected());
    Frontend console(connect_to(other), VIRTIO_ID_CONSOLE);
    ASSERT_TRUE(console.connected());
    EXPECT_EQ(disk.read(0, 512), sector('x'));
    EXPECT_THAT(children_of(process.pid()), IsEmpty());
  }
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
}

class NativeStorageDaemonTest : public NativeVhostUserTest {
 protected:
  void SetUp() override {
    NativeVhostUserTest::SetUp();
    if (::access("/usr/bin/qemu-storage-daemon", X_OK) != 0) {
      GTEST_SKIP() << "qemu-storage-daemon is not installed";
    }
  }
  std::vector<std::string> daemon() const {
    return {"qemu-storage-daemon", "--blockdev", "driver=file,node-name=disk,filename=" + disk_,
            "--export",
            "type=vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,addr.type=unix,"
            "addr.path=" +
                socket_};
  }
};

TEST_F(NativeStorageDaemonTest, OurFrontendReadsAndWrites) {
  OtherProgram daemon(this->daemon());
  Frontend frontend(connect_to(socket_), VIRTIO_ID_BLOCK);
  ASSERT_TRUE(frontend.connected());
  EXPECT_EQ(frontend.rig().info().queue_sizes.size(), 2u);
  EXPECT_EQ(frontend.write(5, sector('q')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(frontend.read(5, 512), sector('q'));
  EXPECT_EQ(frontend.read(6, 512), sector('x'));
  frontend.rig().reset();
  EXPECT_EQ(frontend.read(5, 512), sector('q'));
}

/// A VM whose guest does nothing, with a device of another process.
class NativeVhostUserVmTest : public NativeVhostUserTest {
 protected:
  void SetUp() override {
    NativeVhostUserTest::SetUp();
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm does not open: " << std::strerror(errno);
  }
  std::vector<std::string> vm(const std::vector<std::string>& flags) const {
    std::vector<std::string> all = {"--no-syslog", "--extended-status", "run", "-m", "64"};
    all.insert(all.end(), {"--serial", "type=stdout,hardware=debugcon"});
    all.insert(all.end(), {"--serial", "type=sink,num=1"});
    all.insert(all.end(), flags.begin(), flags.end());
    all.emplace_back(CROSVM_PAYLOADS "/payload_spin");
    return all;
  }
  std::string device_flag(const std::string& type = "block") const {
    return type + ",socket=" + socket_;
  }
  Fd listen_at_socket() const {
    auto address = UnixAddress::of(socket_);
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener.get(), address->get(), address->size()), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    return listener;
  }
};

TEST_F(NativeVhostUserVmTest, AVmEndsWithItsBackend) {
  for (const char* sandbox : {"", "--disable-sandbox"}) {
    SCOPED_TRACE(sandbox);
    VmProcess backend(disk_at_socket());
    std::vector<std::string> flags = {"--vhost-user", device_flag(),
                                      "--vhost-user-connect-timeout-ms", "30000"};
    if (*sandbox != '\0') flags.emplace_back(sandbox);
    VmProcess process(vm(flags));
    ASSERT_TRUE(process.wait_for("!", 60s)) << process.errors();
    backend.signal(SIGKILL);
    EXPECT_EQ(process.wait_exit(60s), 33);
    EXPECT_THAT(process.errors(), AllOf(HasSubstr("vu-block"), HasSubstr(socket_)));
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("disk"));
  }
}

TEST_F(NativeVhostUserVmTest, ABackendEndsWithItsVm) {
  VmProcess backend(disk_at_socket());
  VmProcess process(vm({"--vhost-user-blk", socket_, "--vhost-user-connect-timeout-ms", "30000"}));
  ASSERT_TRUE(process.wait_for("!", 60s)) << process.errors();
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait_exit(60s), 0);
  EXPECT_EQ(backend.wait_exit(60s), 0) << backend.errors();
}

TEST_F(NativeVhostUserVmTest, ALateBackendIsWaitedFor) {
  VmProcess process(
      vm({"--vhost-user", device_flag("rng"), "--vhost-user-connect-timeout-ms", "60000"}));
  std::this_thread::sleep_for(200ms);
  VmProcess backend(at_socket({"rng"}));
  EXPECT_TRUE(process.wait_for("!", 60s)) << process.errors();
}

TEST_F(NativeVhostUserVmTest, WhoeverWaitsForABackendCanBeEnded) {
  VmProcess process(vm(
      {"--vhost-user", device_flag(), "--vhost-user-connect-timeout-ms", "18446744073709551615"}));
  std::this_thread::sleep_for(300ms);
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
  EXPECT_THAT(process.errors(), HasSubstr("ending the VM on SIGTERM before it runs"));
}

TEST_F(NativeVhostUserVmTest, ABackendThatNeverAnswersDoesNotHoldUpASignal) {
  for (int number : {SIGTERM, SIGINT}) {
    const Fd listener = listen_at_socket();
    VmProcess process(vm({"--vhost-user", device_flag(), "--no-rng"}));
    const Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::byte request;
    ASSERT_EQ(::recv(peer.get(), &request, sizeof(request), MSG_PEEK), 1);
    process.signal(number);
    EXPECT_EQ(process.wait_exit(60s), 0) << process.errors();
    EXPECT_THAT(process.errors(), AllOf(HasSubstr("before it runs"), HasSubstr("vu-block"),
                                        HasSubstr("interrupted"), Not(HasSubstr("no answer"))))
        << "it is not the time that was up";
    EXPECT_THAT(scratch_.entries(), UnorderedElementsAre("device.sock", "disk"));
    std::filesystem::remove(socket_);
  }
}

TEST_F(NativeVhostUserVmTest, AMissingBackendIsNamed) {
  EXPECT_THAT(refusal(vm({"--vhost-user", device_flag()})),
              AllOf(HasSubstr("vu-block"), HasSubstr(socket_), HasSubstr("start the back-end")));
  EXPECT_THAT(
      refusal(vm({"--vhost-user", device_flag("fs"), "--vhost-user-connect-timeout-ms", "20"})),
      AllOf(HasSubstr("vu-fs"), HasSubstr("20 ms")));
  EXPECT_THAT(refusal(vm({"--vhost-user", "net,socket=" + disk_})),
              AllOf(HasSubstr("vu-net"), HasSubstr(disk_)));
  EXPECT_THAT(refusal(vm({"--vhost-user", "net,socket=/proc/self/fd/777"})), HasSubstr("777"));
}

TEST_F(NativeVhostUserVmTest, ABackendThatHangsUpInTheHandshakeIsNamed) {
  const Fd listener = listen_at_socket();
  VmProcess process(vm({"--vhost-user", device_flag()}));
  {
    Fd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  EXPECT_EQ(process.wait_exit(60s), 1);
  EXPECT_THAT(process.errors(), AllOf(HasSubstr("vu-block"), Not(HasSubstr("needs a reset"))));
}

}  // namespace
}  // namespace crosvm::test

// A vhost-user back-end of others, qemu-storage-daemon, which is killed at random moments: under
// the load of a front-end that the test plays, and with a VM of ours. ./dev soak kill does it more
// often.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "base/unix_address.h"
#include "other_program.h"
#include "sandboxed_vm.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/rig.h"
#include "virtio/rig/rig_load.h"

namespace crosvm::test {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct BlockHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

class NativeBackendKillTest : public NativeWorkerTest {
 protected:
  void SetUp() override {
    if (::access("/usr/bin/qemu-storage-daemon", X_OK) != 0) {
      GTEST_SKIP() << "qemu-storage-daemon is not installed";
    }
    NativeWorkerTest::SetUp();
  }

  /// Each on the same path, where the socket file of the one that was killed before still is.
  std::vector<std::string> daemon() const {
    return {"qemu-storage-daemon", "--blockdev",
            "driver=file,node-name=disk,filename=" + scratch_.path() + "/disk", "--export",
            "type=vhost-user-blk,id=disk,node-name=disk,writable=on,addr.type=unix,addr.path=" +
                backend_};
  }
  Fd connect() const {
    auto address = UnixAddress::of(backend_);
    CHECK(address);
    for (int tries = 0; tries < 3000; ++tries) {
      Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(socket.get(), address->get(), address->size()) == 0) return socket;
      ::usleep(10'000);
    }
    return {};
  }
  std::chrono::microseconds moment(uint64_t most_us) {
    return std::chrono::microseconds(random_() % most_us);
  }

  const uint64_t rounds_ = number_from("CROSVM_TEST_KILLS", 5);
  const uint64_t seed_ = number_from("CROSVM_TEST_SEED", 7);
  std::mt19937_64 random_{seed_};
  std::string backend_ = scratch_.path() + "/backend.sock";
};

/// Reads and writes of one block each, which go round.
std::vector<RigLoad::Slot> disk_load(Rig& rig) {
  constexpr uint64_t kBlock = 4096;
  RigMemory& memory = rig.memory();
  std::vector<RigLoad::Slot> slots;
  for (uint32_t i = 0; i < 8; ++i) {
    const bool reads = i % 2 != 0;
    RigLoad::Slot slot;
    slot.buffers = {{memory.allocate(sizeof(BlockHeader)), sizeof(BlockHeader), false},
                    {memory.allocate(kBlock, kBlock), kBlock, reads},
                    {memory.allocate(1), 1, true}};
    const uint32_t type = reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
    CHECK(memory.guest().write(slot.buffers[0].address, BlockHeader{type, 0, i * (kBlock / 512)}));
    slots.push_back(std::move(slot));
  }
  return slots;
}

TEST_F(NativeBackendKillTest, UnderLoadTheFrontendIsToldAndStopsWaiting) {
  uint64_t completed = 0;
  for (uint64_t round = 0; round < rounds_; ++round) {
    SCOPED_TRACE(round);
    OtherProgram daemon(this->daemon());
    LoopThread control;
    std::promise<std::string> gone;
    VhostUserOptions options;
    options.name = "disk";
    options.device_type = VIRTIO_ID_BLOCK;
    options.max_queue_size = 64;
    options.disconnected = [&gone](const Error& cause) {
      gone.set_value(cause.what());
      return AfterLoss::kGiveUp;
    };
    auto backend = VhostUserBackend::create(control.loop(), connect(), std::move(options));
    ASSERT_TRUE(backend) << backend.error().what();
    Rig rig = Rig::attach(std::move(*backend));
    std::thread killer([&daemon, pause = moment(20'000)] {
      std::this_thread::sleep_for(pause);
      ::kill(daemon.pid(), SIGKILL);
    });
    const RigLoad::Report report =
        RigLoad(rig.driver(0), disk_load(rig)).run({.duration = seconds(60)});
    killer.join();
    EXPECT_TRUE(report.stalled);
    EXPECT_EQ(report.failed, 0u);
    completed += report.completed;
    EXPECT_TRUE(rig.wait_needs_reset());
    EXPECT_THAT(gone.get_future().get(),
                AnyOf(HasSubstr("closed the connection"), HasSubstr("Connection reset"),
                      HasSubstr("Broken pipe")));
    // A driver that tries again is told once more, and nothing waits.
    rig.reset();
    EXPECT_TRUE(rig.wait_needs_reset());
  }
  EXPECT_GT(completed, 0u);
  std::printf("a foreign back-end under load: %lu kills, %lu requests before, seed %lu\n", rounds_,
              completed, seed_);
}

TEST_F(NativeBackendKillTest, AVmNamesItAndEndsAndNothingRemains) {
  for (uint64_t round = 0; round < rounds_; ++round) {
    SCOPED_TRACE(round);
    OtherProgram daemon(this->daemon());
    VmProcess vm({"--no-syslog", "--extended-status", "run", "-m", "64", "--serial",
                  "type=stdout,hardware=debugcon", "--serial", "type=sink,num=1", "--vhost-user",
                  "block,socket=" + backend_, "--vhost-user-connect-timeout-ms", "30000", "-s",
                  socket_, CROSVM_PAYLOADS "/payload_spin"});
    ASSERT_TRUE(vm.wait_for("!", seconds(60))) << vm.errors();
    std::vector<pid_t> all = children_of(vm.pid());
    for (size_t i = 0; i < all.size(); ++i) {
      for (pid_t child : children_of(all[i])) all.push_back(child);
    }
    all.push_back(vm.pid());
    std::this_thread::sleep_for(moment(20'000));
    daemon.end();
    ASSERT_EQ(vm.wait_exit(seconds(60)), 33) << vm.errors();
    ASSERT_THAT(vm.errors(), AllOf(HasSubstr("vu-block"), HasSubstr(backend_),
                                   HasSubstr("closed the connection")));
    ASSERT_TRUE(ends_soon(all));
    // The file is the back-end's own, which could not remove it.
    ASSERT_THAT(scratch_.entries(), ElementsAre("backend.sock", "disk"));
  }
  std::printf("a VM's foreign back-end: %lu kills, seed %lu\n", rounds_, seed_);
}

}  // namespace
}  // namespace crosvm::test

// The control socket of a running VM, with a kernel that shows whether its vCPU runs.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "control/client.h"
#include "control/socket.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using control::Request;
using control::Response;
using std::chrono::seconds;
namespace response = control::response;

class NativeControlTest : public testing::Test {
 protected:
  void SetUp() override {
    Fd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm) GTEST_SKIP() << "/dev/kvm does not open: " << std::strerror(errno);
    vm_.emplace(std::vector<std::string>{"--no-syslog", "run", "-m", "64", "-c", "2", "-s", socket_,
                                         "--serial", "type=stdout,hardware=debugcon", "--serial",
                                         "type=sink,num=1", CROSVM_PAYLOADS "/payload_count"});
    ASSERT_TRUE(vm_->wait_for("..", seconds(30)));
  }
  void TearDown() override {
    if (!vm_) return;
    EXPECT_TRUE(is_ok(ask(control::Exit{})));
    EXPECT_EQ(vm_->wait_exit(seconds(30)), 0);
  }

  Response ask(Request request) {
    Result<Response> answer = control::ask(socket_, std::move(request));
    EXPECT_TRUE(answer.has_value()) << answer.error().what();
    return answer ? std::move(*answer) : Response(response::ErrString{"no answer"});
  }
  static bool is_ok(const Response& answer) { return std::holds_alternative<response::Ok>(answer); }
  static int error_of(const Response& answer) {
    auto* error = std::get_if<response::Err>(&answer);
    return error != nullptr ? error->value : 0;
  }
  /// Whether the guest wrote anything in a tenth of a second, after all that it wrote before.
  bool vcpu_runs() {
    vm_->discard_output();
    return vm_->has_output(std::chrono::milliseconds(100));
  }

  ScratchDirectory scratch_;
  std::string socket_ = scratch_.path() + "/vm.sock";
  std::optional<VmProcess> vm_;
};

TEST_F(NativeControlTest, SuspendStopsTheVcpusAndResumeLetsThemRun) {
  EXPECT_TRUE(vcpu_runs());
  EXPECT_TRUE(is_ok(ask(control::SuspendVcpus{})));
  EXPECT_FALSE(vcpu_runs());
  EXPECT_TRUE(is_ok(ask(control::SuspendVcpus{}))) << "idempotent";
  EXPECT_TRUE(is_ok(ask(control::ResumeVcpus{})));
  EXPECT_TRUE(is_ok(ask(control::ResumeVcpus{}))) << "idempotent";
  EXPECT_TRUE(vcpu_runs());
}

TEST_F(NativeControlTest, ASuspensionHeldUpByAReaderHoldsUpNobodyElse) {
  // Nobody reads the guest's output: its vCPU soon waits in a write.
  ::usleep(500'000);
  auto waiting = control::connect(socket_);
  ASSERT_TRUE(waiting.has_value());
  ASSERT_TRUE(waiting->send(control::encode(Request(control::SuspendVcpus{}))));
  EXPECT_TRUE(is_ok(ask(control::MakeRT{})));
  vm_->discard_output();  // the write goes on, and the vCPU comes out
  auto packet = waiting->receive();
  ASSERT_TRUE(packet.has_value() && packet->has_value());
  EXPECT_TRUE(is_ok(*control::decode_response(std::move(**packet))));
  EXPECT_FALSE(vcpu_runs());
}

TEST_F(NativeControlTest, VcpuPidTidNamesTheThreads) {
  Response answer = ask(control::VcpuPidTid{});
  auto* ids = std::get_if<response::VcpuPidTidResponse>(&answer);
  ASSERT_NE(ids, nullptr);
  ASSERT_EQ(ids->pid_tid_map.size(), 2U);
  for (const auto& [vcpu, id] : ids->pid_tid_map) {
    EXPECT_EQ(id[0], static_cast<uint32_t>(vm_->pid()));
    std::string task =
        "/proc/" + std::to_string(id[0]) + "/task/" + std::to_string(id[1]) + "/comm";
    EXPECT_TRUE(std::filesystem::exists(task)) << task;
  }
}

TEST_F(NativeControlTest, GetVmDescriptorHandsOutTheVm) {
  Response answer = ask(control::GetVmDescriptor{});
  auto* vm = std::get_if<response::VmDescriptor>(&answer);
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(vm->hypervisor, response::HypervisorKind::kKvm);
  // KVM answers its calls in the VMM's own address space only, so its name must do.
  std::string link = "/proc/self/fd/" + std::to_string(vm->vm_fd.get());
  EXPECT_EQ(std::filesystem::read_symlink(link), "anon_inode:kvm-vm");
}

TEST_F(NativeControlTest, ButtonsAndEventsAreTakenAndAnEventOutOfRangeIsOnlyLogged) {
  EXPECT_TRUE(is_ok(ask(control::Powerbtn{})));
  EXPECT_TRUE(is_ok(ask(control::Sleepbtn{})));
  EXPECT_TRUE(is_ok(ask(control::Rtc{.clear_evt = *make_eventfd()})));
  EXPECT_TRUE(is_ok(ask(control::Gpe{.gpe = 3, .clear_evt = std::nullopt})));
  EXPECT_TRUE(is_ok(ask(control::Gpe{.gpe = 100'000, .clear_evt = std::nullopt})));
}

TEST_F(NativeControlTest, WhatTheVmLacksIsSaidSo) {  // cli.md 4.4
  EXPECT_EQ(error_of(ask(control::BalloonCommand{control::balloon_command::Stats{}})), ENOTSUP);
  EXPECT_EQ(error_of(ask(control::Swap{control::swap::Status{}})), ENOTSUP);
}

}  // namespace
}  // namespace crosvm::test

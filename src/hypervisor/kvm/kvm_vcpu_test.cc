#include "hypervisor/kvm/test_rig.h"

namespace crosvm::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = Access::Kind;

class KvmVcpuTest : public KvmTest {};

TEST_F(KvmVcpuTest, PortAccessesOfEverySize) {
  io_.answers = {0xa1, 0xb2b1, 0xc4c3c2c1};
  load(ports_payload());
  run_to_done();
  EXPECT_THAT(io_.accesses, ElementsAre(Access{Kind::kPortWrite, TEST_PORT, 1, 0x11},
                                        Access{Kind::kPortWrite, TEST_PORT, 2, 0x2211},
                                        Access{Kind::kPortWrite, TEST_PORT, 4, 0x44332211},
                                        Access{Kind::kPortRead, TEST_PORT, 1, 0xa1},
                                        Access{Kind::kPortWrite, TEST_PORT, 1, 0xa1},
                                        Access{Kind::kPortRead, TEST_PORT, 2, 0xb2b1},
                                        Access{Kind::kPortWrite, TEST_PORT, 2, 0xb2b1},
                                        Access{Kind::kPortRead, TEST_PORT, 4, 0xc4c3c2c1},
                                        Access{Kind::kPortWrite, TEST_PORT, 4, 0xc4c3c2c1}));
}

TEST_F(KvmVcpuTest, AStringInstructionIsOneAccessPerElement) {
  const GuestAddress source = x86_64::kBareData;
  const GuestAddress target = x86_64::kBareData + 0x100;
  must(memory_.write<uint32_t>(source, 0x64636261));
  io_.answers = {0x31, 0x32, 0x33};
  x86_64::Registers registers;
  registers.rsi = source.value;
  registers.rdi = target.value;
  load(string_io_payload(), registers);
  run_to_done();
  EXPECT_THAT(io_.accesses, ElementsAre(Access{Kind::kPortWrite, TEST_PORT, 1, 0x61},
                                        Access{Kind::kPortWrite, TEST_PORT, 1, 0x62},
                                        Access{Kind::kPortWrite, TEST_PORT, 1, 0x63},
                                        Access{Kind::kPortWrite, TEST_PORT, 1, 0x64},
                                        Access{Kind::kPortRead, TEST_PORT, 1, 0x31},
                                        Access{Kind::kPortRead, TEST_PORT, 1, 0x32},
                                        Access{Kind::kPortRead, TEST_PORT, 1, 0x33}));
  EXPECT_EQ(must(memory_.read<uint32_t>(target)), 0x333231u);
}

TEST_F(KvmVcpuTest, MmioAccessesOfEverySize) {
  io_.answers = {0x1122334455667788, 0x99};
  x86_64::Registers registers;
  registers.rdi = TEST_MMIO;
  load(mmio_payload(), registers);
  run_to_done();
  EXPECT_THAT(io_.accesses,
              ElementsAre(Access{Kind::kMmioWrite, TEST_MMIO, 1, 0x11},
                          Access{Kind::kMmioWrite, TEST_MMIO + 2, 2, 0x2211},
                          Access{Kind::kMmioWrite, TEST_MMIO + 4, 4, 0x44332211},
                          Access{Kind::kMmioWrite, TEST_MMIO + 8, 8, 0x8877665544332211},
                          Access{Kind::kMmioRead, TEST_MMIO + 16, 8, 0x1122334455667788},
                          Access{Kind::kMmioWrite, TEST_MMIO + 24, 8, 0x1122334455667788},
                          Access{Kind::kMmioRead, TEST_MMIO + 32, 1, 0x99},
                          Access{Kind::kMmioWrite, TEST_MMIO + 33, 1, 0x99}));
}

TEST_F(KvmVcpuTest, ATripleFaultIsAShutdown) {
  load(triple_fault_payload());
  EXPECT_EQ(run().kind, VcpuExit::Kind::kShutdown);
}

TEST_F(KvmVcpuTest, HltExitsWithoutAnIrqchip) {
  load(ports_payload());
  run_to_done();
  EXPECT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kHlt);
}

TEST_F(KvmVcpuTest, AnImmediateExitKeepsTheGuestFromRunning) {
  load(ports_payload());
  vcpu_->set_immediate_exit(true);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kInterrupted);
  }
  EXPECT_EQ(must(vcpu_->registers()).rip, x86_64::kBareCode.value);
  vcpu_->set_immediate_exit(false);
  run_to_done();
}

TEST_F(KvmVcpuTest, AnAnswerIsNotLostInAnImmediateExit) {
  io_.answers = {0x5a};
  load(ports_payload());
  run([this] { return io_.accesses.back().kind == Kind::kPortRead; });
  vcpu_->set_immediate_exit(true);
  EXPECT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kInterrupted);
  EXPECT_EQ(must(vcpu_->registers()).rax & 0xff, 0x5au);
}

TEST_F(KvmVcpuTest, RegistersRoundTrip) {
  x86_64::Registers in = {.rax = 1, .rbx = 2, .rcx = 3, .rdx = 4, .rsi = 5, .rdi = 6, .rsp = 7};
  in.rbp = 8, in.r8 = 9, in.r9 = 10, in.r10 = 11, in.r11 = 12, in.r12 = 13, in.r13 = 14;
  in.r14 = 15, in.r15 = uint64_t{1} << 63, in.rip = 0x12345, in.rflags = 0x202;
  must(vcpu_->set_registers(in));
  const auto out = must(vcpu_->registers());
  EXPECT_EQ(std::memcmp(&in, &out, sizeof(in)), 0);
  EXPECT_THAT(vcpu_->describe(), HasSubstr("rip=0x12345 rsp=0x7 rflags=0x202"));
}

TEST_F(KvmVcpuTest, SystemRegistersRoundTrip) {
  load(ports_payload());
  const auto in = must(vcpu_->system_registers());
  EXPECT_TRUE(in.cs.l);
  EXPECT_EQ(in.cs.selector, 0x08);
  EXPECT_EQ(in.ds.selector, 0x10);
  EXPECT_EQ(in.tr.limit, 0x67u);
  EXPECT_EQ(in.idt.limit, 0xfff);
  EXPECT_EQ(in.efer, 0x500u);
  EXPECT_EQ(in.cr3, 0x1000u);
  auto changed = in;
  changed.fs.base = 0x7000;
  changed.cr2 = 0xdead000;
  changed.gdt = {.base = 0x9000, .limit = 0x37};
  must(vcpu_->set_system_registers(changed));
  const auto out = must(vcpu_->system_registers());
  EXPECT_EQ(out.fs.base, 0x7000u);
  EXPECT_EQ(out.cr2, 0xdead000u);
  EXPECT_EQ(out.gdt.base, 0x9000u);
  EXPECT_EQ(out.gdt.limit, 0x37);
  EXPECT_EQ(out.cs.limit, in.cs.limit);
}

TEST_F(KvmVcpuTest, MsrsRoundTripInOrder) {
  constexpr uint32_t kPat = 0x277, kSysenterEip = 0x176, kLstar = 0xc0000082;
  constexpr x86_64::Msr kValues[] = {
      {kPat, 0x0007040600070406}, {kSysenterEip, 0x1000}, {kLstar, 0x2000}};
  must(vcpu_->set_msrs(kValues));
  constexpr uint32_t kIndexes[] = {kLstar, kPat};
  const auto out = must(vcpu_->msrs(kIndexes));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].index, kLstar);
  EXPECT_EQ(out[0].value, 0x2000u);
  EXPECT_EQ(out[1].value, 0x0007040600070406u);
}

TEST_F(KvmVcpuTest, NamesTheFirstMsrThatIsRefused) {
  constexpr uint32_t kPat = 0x277, kUnknown = 0x12345678;
  const auto read = vcpu_->msrs(std::vector{kPat, kUnknown, kUnknown + 1});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), std::errc::not_supported);
  EXPECT_THAT(read.error().what(), HasSubstr("read MSR 0x12345678"));

  const std::vector<x86_64::Msr> many(300, {kPat, 0x0007040600070406});
  auto values = many;
  values[200] = {kUnknown, 0xabc};
  const auto written = vcpu_->set_msrs(values);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::not_supported);
  EXPECT_THAT(written.error().what(), HasSubstr("set MSR 0x12345678 to 0xabc"));
  EXPECT_TRUE(vcpu_->set_msrs(many));
}

TEST_F(KvmVcpuTest, AKickFromAnotherThreadEndsARun) {
  load(spin_payload());
  const ScopedVcpuKick kick(*vcpu_);
  ASSERT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kIo);
  const KickTimer timer(std::chrono::milliseconds(20));  // kicks from a thread of its own
  EXPECT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kInterrupted);
  EXPECT_TRUE(timer.expired());
}

TEST_F(KvmVcpuTest, AKickBeforeTheRunIsNotLost) {
  load(spin_payload());
  const ScopedVcpuKick kick(*vcpu_);
  kick_vcpu_thread(::pthread_self());
  EXPECT_EQ(must(vcpu_->run(io_)).kind, VcpuExit::Kind::kInterrupted);
  EXPECT_TRUE(io_.accesses.empty());
}

TEST_F(KvmVcpuTest, AKickOfAThreadWithoutAVcpuIsHarmless) {
  load(ports_payload());
  kick_vcpu_thread(::pthread_self());
  run_to_done();
}

}  // namespace
}  // namespace crosvm::test

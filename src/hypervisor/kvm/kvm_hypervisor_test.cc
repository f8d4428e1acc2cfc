#include <fcntl.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <set>

#include "hypervisor/kvm/probe.h"
#include "hypervisor/kvm/test_rig.h"

namespace crosvm::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(OpenKvm, SaysWhatLoadsAMissingDevice) {
  const auto kvm = open_kvm("/nowhere/kvm");
  ASSERT_FALSE(kvm);
  EXPECT_EQ(kvm.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(kvm.error().what(), AllOf(HasSubstr("/nowhere/kvm"), HasSubstr("modprobe kvm_intel"),
                                        HasSubstr("firmware")));
}

TEST(OpenKvm, SaysWhichGroupIsMissing) {
  std::string path = testing::TempDir() + "kvm_XXXXXX";
  const Fd file(::mkstemp(path.data()));
  ASSERT_TRUE(file);
  ASSERT_EQ(::fchmod(file.get(), 0), 0);
  const int before = ::setfsuid(65534);  // root could open it all the same
  const auto kvm = open_kvm(path);
  ::setfsuid(static_cast<uid_t>(before));
  ::unlink(path.c_str());
  ASSERT_FALSE(kvm);
  EXPECT_EQ(kvm.error().code(), std::errc::permission_denied);
  EXPECT_THAT(kvm.error().what(), AllOf(HasSubstr(path), HasSubstr("usermod -aG kvm")));
}

TEST(OpenKvm, RefusesWhatIsNotKvm) {
  const auto kvm = open_kvm("/dev/null");
  ASSERT_FALSE(kvm);
  EXPECT_THAT(kvm.error().what(), AllOf(HasSubstr("/dev/null"), HasSubstr("not a KVM device")));
}

class KvmHypervisorTest : public KvmTest {};

TEST_F(KvmHypervisorTest, SupportsTheLeavesOfEveryCpu) {
  std::set<uint32_t> functions;
  for (const auto& entry : must(hypervisor_->supported_cpuid())) functions.insert(entry.function);
  for (const uint32_t function : {0u, 1u, 7u, 0x80000000u, 0x80000001u}) {
    EXPECT_TRUE(functions.contains(function)) << std::hex << function;
  }
  EXPECT_GE(hypervisor_->max_vcpus(), 1u);
}

TEST_F(KvmHypervisorTest, GivesTheGuestTheCpuidWeSet) {
  constexpr uint32_t kLeaf = 0x40000000;
  auto entries = must(hypervisor_->supported_cpuid());
  std::erase_if(entries, [](const auto& entry) { return entry.function == kLeaf; });
  entries.push_back({.function = kLeaf, .ebx = 0x1badcafe});
  must(vcpu_->set_cpuid(entries));
  x86_64::Registers registers;
  registers.rdi = kLeaf;
  load(cpuid_payload(), registers);
  run_to_done();
  EXPECT_THAT(io_.accesses,
              testing::ElementsAre(Access{Access::Kind::kPortWrite, TEST_PORT, 4, 0x1badcafe}));
}

TEST_F(KvmHypervisorTest, MachinesAreSeparate) {
  const auto second = must(hypervisor_->create_vm());
  EXPECT_TRUE(second->map_ram(memory_));
  EXPECT_TRUE(second->create_vcpu(0));
  EXPECT_EQ(second->backend_name(), "Kvm");
  EXPECT_NE(must(second->duplicate_descriptor()).get(), -1);
}

TEST_F(KvmHypervisorTest, RefusesASecondVcpuOfTheSameId) {
  const auto again = vm_->create_vcpu(0);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), std::errc::file_exists);
  EXPECT_THAT(again.error().what(), HasSubstr("vCPU 0"));
}

TEST_F(KvmHypervisorTest, ProbeRunsThroughOrNamesTheInstruction) {
  const auto probe = must(probe_stock_guest(*hypervisor_));
  if (probe.can_run) {
    EXPECT_THAT(probe.instruction, IsEmpty());
    EXPECT_THAT(probe.cause, IsEmpty());
  } else {
    EXPECT_THAT(probe.instruction,
                AnyOf("cmpxchg16b", "xsetbv", "xsave", "xrstor", "int3", "iretq"));
    EXPECT_THAT(probe.cause, AllOf(Not(IsEmpty()), HasSubstr("rip=0x10")));
  }
}

}  // namespace
}  // namespace crosvm::test

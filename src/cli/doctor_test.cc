#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/json.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_host.h"

namespace crosvm::doctor {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A host where everything is well; tests spoil one thing.
class DoctorTest : public testing::Test {
 protected:
  DoctorTest() {
    std::string name = testing::TempDir() + "doctor.XXXXXX";
    root_ = ::mkdtemp(name.data());
    host_.root = root_;
    host_.groups = {1000};
    host_.may_lock_memory = false;
    host_.memlock_bytes = UINT64_MAX;
    host_.open_device = [this](const std::string& node) { return devices_[node]; };
    host_.make_namespaces = [this] { return namespaces_; };
    host_.seccomp_user_notif = [this] { return seccomp_; };
    host_.set_up_io_uring = [this] { return io_uring_; };
    host_.find_program = [this](std::string_view name) -> Result<std::string> {
      if (programs_) return "/usr/bin/" + std::string(name);
      return fail(Error(std::errc::no_such_file_or_directory, "it is in neither place"));
    };
    host_.start_program = [this](const std::string& path) -> Result<void> {
      if (path.starts_with("/usr/bin/") && starts_) return {};
      return fail(Error(std::errc::io_error, "libslirp.so.0: cannot open shared object file"));
    };
    host_.probe_stock_guest = [this]() -> Result<StockGuestProbe> { return probe_; };
    cpu("fpu vmx sse2");
    write("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never\n");
    write("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n");
  }
  ~DoctorTest() override { fs::remove_all(root_); }

  void write(const std::string& path, std::string_view text) {
    fs::create_directories(fs::path(host_.root + path).parent_path());
    std::ofstream(host_.root + path) << text;
  }
  void cpu(const std::string& flags) {
    write("/proc/cpuinfo", "processor\t: 0\nflags\t\t: " + flags + "\nbugs\t\t:\n");
  }
  Check find(const std::string& id) {
    for (const Check& check : run_checks(host_)) {
      if (check.id == id) return check;
    }
    ADD_FAILURE() << "no check " << id;
    return {};
  }
  int status() { return verdict(run_checks(host_)); }

  fs::path root_;
  Host host_;
  bool programs_ = true;
  bool starts_ = true;
  std::map<std::string, int> devices_;
  int namespaces_ = 0;
  int seccomp_ = 0;
  int io_uring_ = 0;
  StockGuestProbe probe_{.can_run = true};
};

TEST_F(DoctorTest, GoodHostIsOk) {
  EXPECT_EQ(status(), 0);
  for (const Check& check : run_checks(host_)) {
    EXPECT_EQ(check.status, Status::kOk) << check.id;
    EXPECT_FALSE(check.cause.empty()) << check.id;
    EXPECT_EQ(check.fix, "") << check.id;
  }
}

TEST_F(DoctorTest, KvmModuleNotLoaded) {
  devices_["/dev/kvm"] = ENOENT;
  EXPECT_EQ(find("kvm-device").fix, "sudo modprobe kvm_intel");
  cpu("fpu svm");
  EXPECT_EQ(find("kvm-device").fix, "sudo modprobe kvm_amd");
  EXPECT_EQ(status(), 1);
}

TEST_F(DoctorTest, KvmMissingInAContainer) {
  devices_["/dev/kvm"] = ENOENT;
  write("/sys/module/kvm_intel/refcnt", "0");
  EXPECT_THAT(find("kvm-device").cause, HasSubstr("container"));
  EXPECT_THAT(find("kvm-device").fix, HasSubstr("--device /dev/kvm"));
}

TEST_F(DoctorTest, KvmNotPermitted) {
  devices_["/dev/kvm"] = EACCES;
  write("/dev/kvm", "");
  EXPECT_EQ(find("kvm-device").cause, "this user may not open it");
  fs::permissions(host_.root + "/dev/kvm", fs::perms(0600));
  EXPECT_EQ(find("kvm-device").fix, "sudo chown \"$USER\" /dev/kvm");
  EXPECT_EQ(status(), 1);
}

TEST_F(DoctorTest, KvmForAGroupNamesTheGroup) {
  devices_["/dev/kvm"] = EACCES;
  write("/dev/kvm", "");
  write("/etc/group", "root:x:0:\nother:x:1061:\nkvm:x:106:somebody\n");
  if (::chown((host_.root + "/dev/kvm").c_str(), ::getuid(), 106) != 0) {
    GTEST_SKIP() << "only root can give a file to any group";
  }
  fs::permissions(host_.root + "/dev/kvm", fs::perms(0660));
  EXPECT_EQ(find("kvm-device").fix, "sudo usermod -aG kvm \"$USER\", then log in again");
}

TEST_F(DoctorTest, NoNestedVirtualization) {
  devices_["/dev/kvm"] = ENOENT;
  cpu("fpu hypervisor");
  Check check = find("cpu-virtualization");
  EXPECT_EQ(check.status, Status::kFail);
  EXPECT_THAT(check.cause, HasSubstr("VM without nested virtualization"));
  EXPECT_THAT(check.fix, HasSubstr("nested=1"));
  EXPECT_THAT(find("kvm-device").fix, HasSubstr("cpu-virtualization"));
}

TEST_F(DoctorTest, FirmwareDisablesVirtualization) {
  devices_["/dev/kvm"] = ENOENT;
  cpu("fpu svm_lock vmxless");
  EXPECT_THAT(find("cpu-virtualization").fix, HasSubstr("firmware"));
}

TEST_F(DoctorTest, KvmThatStopsAtAnInstruction) {
  cpu("fpu hypervisor");
  write("/sys/module/kvm_pvm/refcnt", "0");
  probe_ = {.can_run = false, .instruction = "cmpxchg16b", .cause = "internal error"};
  Check check = find("stock-guest");
  EXPECT_EQ(check.status, Status::kFail);
  EXPECT_THAT(check.cause, HasSubstr("stopped at cmpxchg16b (internal error)"));
  EXPECT_THAT(check.cause, HasSubstr("kvm_pvm"));
  EXPECT_THAT(check.fix, HasSubstr("hardware virtualization"));
  EXPECT_EQ(find("cpu-virtualization").status, Status::kNote);
  EXPECT_EQ(status(), 1);
}

TEST_F(DoctorTest, KvmWhereNoGuestCanBeBuilt) {
  host_.probe_stock_guest = []() -> Result<StockGuestProbe> {
    return fail(Error::from_errno("creating", "a VM", EBUSY));
  };
  EXPECT_THAT(find("stock-guest").cause, HasSubstr("creating a VM: Device or resource busy"));
  EXPECT_EQ(status(), 1);
}

TEST_F(DoctorTest, ParavirtualKvmThatIsGoodEnoughIsFine) {
  cpu("fpu hypervisor");
  EXPECT_EQ(status(), 0);
}

TEST_F(DoctorTest, UserNamespacesNameTheSettingThatForbidsThem) {
  namespaces_ = EPERM;
  EXPECT_THAT(find("user-namespaces").fix, HasSubstr("--security-opt"));
  write("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
  EXPECT_EQ(find("user-namespaces").fix,
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
  write("/proc/sys/kernel/unprivileged_userns_clone", "0\n");
  EXPECT_EQ(find("user-namespaces").fix, "sudo sysctl -w kernel.unprivileged_userns_clone=1");
  write("/proc/sys/user/max_user_namespaces", "0\n");
  EXPECT_EQ(find("user-namespaces").fix, "sudo sysctl -w user.max_user_namespaces=16384");
  EXPECT_THAT(find("user-namespaces").cause, HasSubstr("--disable-sandbox"));
  EXPECT_EQ(status(), 2);
}

TEST_F(DoctorTest, SettingsThatDoNotHinderAreNotBlamed) {
  write("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
  EXPECT_EQ(find("user-namespaces").status, Status::kOk);
}

TEST_F(DoctorTest, SeccompTooOldOrMissing) {
  seccomp_ = EOPNOTSUPP;
  EXPECT_THAT(find("seccomp").fix, HasSubstr("Linux 5.0"));
  seccomp_ = ENOSYS;
  EXPECT_THAT(find("seccomp").fix, HasSubstr("CONFIG_SECCOMP_FILTER"));
  EXPECT_EQ(status(), 2);
}

TEST_F(DoctorTest, IoUringDisabledOrFiltered) {
  io_uring_ = EPERM;
  EXPECT_THAT(find("io-uring").fix, HasSubstr("seccomp policy"));
  write("/proc/sys/kernel/io_uring_disabled", "2\n");
  EXPECT_THAT(find("io-uring").cause, HasSubstr("io_uring_disabled is 2"));
  EXPECT_EQ(find("io-uring").fix, "sudo sysctl -w kernel.io_uring_disabled=0");
  EXPECT_EQ(status(), 0);  // slower, not less
}

TEST_F(DoctorTest, MissingNodesAreLimits) {
  const std::pair<const char*, const char*> kNodes[] = {{"tun", "/dev/net/tun"},
                                                        {"vhost-net", "/dev/vhost-net"},
                                                        {"vhost-vsock", "/dev/vhost-vsock"}};
  for (auto [id, node] : kNodes) {
    devices_[node] = ENOENT;
    EXPECT_EQ(status(), 2) << id;
    EXPECT_EQ(find(id).object, node);
    EXPECT_THAT(find(id).fix, HasSubstr("sudo modprobe ")) << id;
    devices_[node] = EACCES;
    EXPECT_THAT(find(id).fix, HasSubstr(std::string("sudo chown \"$USER\" ") + node));
    devices_.erase(node);
  }
  EXPECT_EQ(status(), 0);
}

TEST_F(DoctorTest, HugePagesPingAndLocksAreNotes) {
  write("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "always advise [never]\n");
  write("/proc/sys/net/ipv4/ping_group_range", "1\t0\n");
  host_.memlock_bytes = 8 << 20;
  EXPECT_THAT(find("shmem-huge-pages").fix, HasSubstr("echo advise | sudo tee /sys/kernel/mm"));
  EXPECT_THAT(find("ping").fix, HasSubstr("net.ipv4.ping_group_range=\"0 2147483647\""));
  EXPECT_THAT(find("memory-locks").cause, HasSubstr("8192 KiB"));
  EXPECT_THAT(find("memory-locks").fix, HasSubstr("memlock unlimited"));
  EXPECT_EQ(find("user-network").status, Status::kOk);
  starts_ = false;
  EXPECT_THAT(find("user-network").cause, HasSubstr("libslirp.so.0: cannot open"));
  EXPECT_THAT(find("user-network").fix, HasSubstr("apt install libslirp0"));
  programs_ = false;
  EXPECT_THAT(find("user-network").cause, HasSubstr("in neither place"));
  for (const char* id : {"shmem-huge-pages", "user-network", "ping", "memory-locks"}) {
    EXPECT_EQ(find(id).status, Status::kNote) << id;
  }
  EXPECT_EQ(status(), 0);
  host_.may_lock_memory = true;
  EXPECT_EQ(find("memory-locks").status, Status::kOk);
}

TEST_F(DoctorTest, JsonReportKeepsItsContract) {
  devices_["/dev/net/tun"] = ENOENT;
  auto report = Json::parse(report_json(run_checks(host_)));
  ASSERT_TRUE(report) << report.error().what();
  EXPECT_EQ((*report->at("version"))->as_uint().value(), 1u);
  EXPECT_EQ((*report->at("verdict"))->as_string().value(), "limited");
  auto checks = (*report->at("checks"))->items();
  ASSERT_TRUE(checks);
  for (const Json& check : *checks) {
    for (const char* member : {"id", "status", "object", "cause", "fix"}) {
      EXPECT_TRUE(check.find(member) != nullptr && check.find(member)->is_string()) << member;
    }
    bool is_tun = check.find("id")->as_string() == "tun";
    EXPECT_EQ(check.find("status")->as_string().value(), is_tun ? "limit" : "ok");
  }
  devices_["/dev/kvm"] = ENOENT;
  EXPECT_THAT(report_json(run_checks(host_)), HasSubstr("\"verdict\": \"no\""));
}

TEST_F(DoctorTest, TextReportNamesWhatToDo) {
  devices_["/dev/net/tun"] = ENOENT;
  std::string text = report_text(run_checks(host_));
  EXPECT_THAT(text,
              HasSubstr("limit  tun                 /dev/net/tun: No such file or directory"));
  EXPECT_THAT(text, HasSubstr("\n                           fix: sudo modprobe tun\n"));
  EXPECT_THAT(text, HasSubstr("ok     cpu-virtualization  CPU: has vmx\n"));
  EXPECT_THAT(text, testing::EndsWith("This host runs stock guests, with limits: tun.\n"));
}

TEST(DoctorThisHost, ReportsAndItsStatusAgreeWithTheVerdict) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = ::open_memstream(&text, &size);
  int status = run_doctor({.json = true}, out);
  std::fclose(out);
  auto report = Json::parse(text);
  std::free(text);
  ASSERT_TRUE(report) << report.error().what();
  const char* kNames[] = {"ok", "no", "limited"};
  ASSERT_TRUE(status >= 0 && status <= 2);
  EXPECT_EQ((*report->at("verdict"))->as_string().value(), kNames[status]);
}

}  // namespace
}  // namespace crosvm::doctor

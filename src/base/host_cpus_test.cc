#include "base/host_cpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace crosvm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class HostCpusTest : public testing::Test {
 protected:
  HostCpusTest() {
    std::string name = testing::TempDir() + "host_cpus.XXXXXX";
    root_ = ::mkdtemp(name.data());
  }
  ~HostCpusTest() override { fs::remove_all(root_); }

  void write(const std::string& name, std::string_view text) {
    fs::create_directories(fs::path(root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  std::vector<uint32_t> online(uint32_t configured = 8) {
    return HostCpus::read(root_, configured).online_ids();
  }

  fs::path root_;
};

TEST_F(HostCpusTest, ReadsTheList) {
  write("online", "0-1,4, 6 - 7 \n");
  EXPECT_THAT(online(), ElementsAre(0, 1, 4, 6, 7));
}

TEST_F(HostCpusTest, SkipsWhatIsMalformed) {
  write("online", "x,2,3-,-4,5-4,1-2-3,,6\n");
  EXPECT_THAT(online(), ElementsAre(2, 6));
}

TEST_F(HostCpusTest, EmptyListMeansAllOfflineWithoutAskingFurther) {
  write("online", "\n");
  write("cpu0/online", "1\n");
  EXPECT_THAT(online(), IsEmpty());
}

TEST_F(HostCpusTest, ALongListIsReadToItsEnd) {
  std::string list;
  std::vector<uint32_t> ids;
  for (uint32_t id = 0; id < 8192; id += 2) {
    list += std::to_string(id) + ",";
    ids.push_back(id);
  }
  write("online", list + "\n");
  EXPECT_EQ(online(8192), ids);
  // As long as a piece of reading.
  write("online", std::string(1023, ' ') + "7");
  EXPECT_THAT(online(), ElementsAre(7));
}

TEST_F(HostCpusTest, HugeRangeCostsNothing) {
  write("online", "0-4294967295\n");
  EXPECT_TRUE(HostCpus::read(root_, 1).is_online(4294967295));
}

TEST_F(HostCpusTest, IdsPastTheConfiguredOnesCanBeOnline) {
  write("online", "0-9\n");
  HostCpus cpus = HostCpus::read(root_, 4);
  EXPECT_TRUE(cpus.is_online(9));
  EXPECT_FALSE(cpus.is_online(10));
  EXPECT_THAT(cpus.online_ids(), ElementsAre(0, 1, 2, 3));
}

TEST_F(HostCpusTest, WithoutAListEachCpuIsAskedAndDoubtMeansOnline) {
  write("cpu1/online", "0\n");
  write("cpu2/online", "1\n");
  write("cpu3/online", "yes\n");
  write("cpu4/online", "7\n");
  testing::internal::CaptureStderr();
  EXPECT_THAT(online(6), ElementsAre(0, 2, 3, 5));
  std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("host CPU 0: "));
  EXPECT_THAT(said, HasSubstr("host CPU 3: "));
  EXPECT_THAT(said, testing::Not(HasSubstr("host CPU 1: ")));
}

TEST_F(HostCpusTest, ThisMachineHasOneOnline) {
  EXPECT_FALSE(host_cpus().online_ids().empty());
  EXPECT_GE(host_cpus().configured(), online_cpu_count());
  EXPECT_EQ(&host_cpus(), &host_cpus());
}

}  // namespace
}  // namespace crosvm

#include "disk/tools/check_image.h"

#include <gmock/gmock.h>

#include <csignal>
#include <filesystem>

#include "disk/disk_driver.h"
#include "disk/tools/compact_image.h"
#include "disk/tools/convert_image.h"
#include "disk/tools/held_signals.h"
#include "disk/tools/image_info.h"
#include "disk/tools/make_composite.h"
#include "disk/tools/make_qcow2.h"
#include "disk/tools/tool_image.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CheckImageTest : public testing::Test {
 protected:
  CheckOutcome check(const std::string& name, bool repair = false) const {
    const auto outcome = check_image({.path = folder_.path(name), .repair = repair});
    EXPECT_TRUE(outcome) << outcome.error().what();
    return outcome.value_or(CheckOutcome{.errors = 99, .messages = {}});
  }

  test::TemporaryFolder folder_;
};

TEST_F(CheckImageTest, NothingIsLeakedOfADiskWithoutBytes) {
  ASSERT_TRUE(make_qcow2({.path = folder_.path("a.qcow2"), .size = 0}));
  folder_.write("empty.img", "");
  ASSERT_TRUE(
      convert_image({.source = folder_.path("empty.img"), .target = folder_.path("b.qcow2")}));
  for (const char* name : {"a.qcow2", "b.qcow2"}) {
    const CheckOutcome outcome = check(name);
    EXPECT_EQ(outcome.errors, 0u) << name;
    EXPECT_EQ(outcome.leaks, 0u) << name;
    const auto info = image_info(folder_.path(name), {});
    ASSERT_TRUE(info) << info.error().what();
    EXPECT_EQ(info->front().virtual_size, 0u) << name;
  }
}

TEST_F(CheckImageTest, ASignalEndsCheckAndCompact) {
  const std::string path = folder_.path("a.qcow2");
  ASSERT_TRUE(make_qcow2({.path = path, .size = 1 << 20}));
  const HeldSignals held;
  ::raise(SIGTERM);
  const auto checked = check_image({.path = path});
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code(), std::errc::interrupted);
  const auto compacted = compact_image({.path = path});
  ASSERT_FALSE(compacted);
  EXPECT_EQ(compacted.error().code(), std::errc::interrupted);
  sigset_t term;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  const timespec now{};
  EXPECT_EQ(::sigtimedwait(&term, nullptr, &now), SIGTERM);
}

TEST_F(CheckImageTest, ASignalEndsWhatMakesImages) {
  folder_.write("part.img", std::string(8192, 'p'));
  const std::string part = "part:" + folder_.path("part.img");
  const HeldSignals held;
  ::raise(SIGTERM);
  const auto made = make_qcow2({.path = folder_.path("a.qcow2"), .size = 1 << 20});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), std::errc::interrupted);
  const auto composite = make_composite(folder_.path("disk"), std::vector<std::string_view>{part});
  ASSERT_FALSE(composite);
  EXPECT_EQ(composite.error().code(), std::errc::interrupted);
  std::filesystem::directory_iterator files(folder_.path(""));
  EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "part.img";
  sigset_t term;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  const timespec now{};
  EXPECT_EQ(::sigtimedwait(&term, nullptr, &now), SIGTERM);
}

TEST_F(CheckImageTest, CheckNamesWhatIsWrongWithTheChain) {
  const std::string base = folder_.path("base.qc2");
  ASSERT_TRUE(make_qcow2({.path = base, .size = 1 << 20}));
  ASSERT_TRUE(make_qcow2({.path = folder_.path("a.qcow2"), .backing_file = base}));
  EXPECT_EQ(check("a.qcow2").chain_problem, "");
  const std::string whole = folder_.read("a.qcow2");
  const size_t name = whole.find("base.qc2");
  ASSERT_NE(name, std::string::npos);

  std::filesystem::remove(base);
  CheckOutcome outcome = check("a.qcow2");
  EXPECT_EQ(outcome.errors + outcome.leaks, 0u) << "its own tables are whole";
  EXPECT_THAT(outcome.chain_problem, AllOf(HasSubstr("base.qc2"), HasSubstr("No such file")));

  for (const char* refused : {"nbd:host", "../a.img"}) {
    folder_.write("a.qcow2", std::string(whole).replace(name, 8, refused));
    EXPECT_THAT(check("a.qcow2").chain_problem, HasSubstr(refused));
  }

  folder_.write("loop.qc2", std::string(whole).replace(name, 8, "loop.qc2"));
  outcome = check("loop.qc2", true);  // which has it locked
  EXPECT_EQ(outcome.errors + outcome.leaks, 0u);
  EXPECT_THAT(outcome.chain_problem, HasSubstr("in a circle"));
}

}  // namespace
}  // namespace crosvm

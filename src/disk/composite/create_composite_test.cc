#include "disk/composite/create_composite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "disk/composite/composite_disk.h"
#include "disk/disk_driver.h"
#include "disk/image_file.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::string_view kGuid = "01234567-89ab-cdef-FEDC-BA9876543210";

class CreateCompositeTest : public testing::Test {
 protected:
  CompositePartition partition(const std::string& label, size_t size, bool writable = false) {
    const std::string bytes = test::mixed_bytes(driver_.random(), size, 512);
    return {
        .label = label, .path = folder_.write(label, bytes), .size = size, .writable = writable};
  }
  std::string refusal(const CompositePlan& plan) {
    auto made = plan_composite(plan);
    return made ? "made" : made.error().what();
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path(""))) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  /// The whole disk, opened as its file says.
  std::string contents(const std::string& path) {
    auto file = open_path(path, O_RDONLY);
    auto descriptor = read_composite(*file, path);
    EXPECT_TRUE(descriptor) << descriptor.error().what();
    std::vector<std::unique_ptr<Disk>> files;
    for (const CompositeComponent& component : descriptor->components) {
      const auto named = std::filesystem::path(path).parent_path() / component.path;
      files.push_back(driver_.open_raw(named.string(), !component.writable));
    }
    auto disk = CompositeDisk::create(*descriptor, std::move(files), false, path);
    EXPECT_TRUE(disk) << disk.error().what();
    return driver_.read(**disk, 0, (*disk)->size());
  }

  test::TemporaryFolder folder_;
  test::DiskDriver driver_;
};

TEST_F(CreateCompositeTest, SgdiskFindsNothingWrong) {
  if (!test::has_program("sgdisk")) GTEST_SKIP() << "sgdisk is missing: install the package gdisk";
  CompositePlan plan{.path = folder_.path("disk"), .partitions = {}, .disk_guid = {}};
  plan.partitions = {partition("root", 1 << 20, true), partition("odd", 5000),
                     partition("\xc3\xbc\xf0\x9f\x92\xbe", 4096)};
  plan.partitions[0].guid = *gpt::parse_guid(kGuid);
  auto created = create_composite(plan);
  ASSERT_TRUE(created) << created.error().what();
  const std::string disk = contents(plan.path);
  ASSERT_EQ(disk.size() % 4096, 0u);
  const std::string image = folder_.write("flat", disk);

  const test::Ran verified = test::run_program("sgdisk -v " + image);
  EXPECT_EQ(verified.status, 0);
  EXPECT_THAT(verified.output, HasSubstr("No problems found"));
  EXPECT_THAT(test::run_program("LC_ALL=C sgdisk -i 1 " + image).output,
              AllOf(HasSubstr("Linux filesystem"), HasSubstr("First sector: 40 "),
                    HasSubstr("Last sector: 2087 "), HasSubstr("Partition name: 'root'"),
                    HasSubstr("unique GUID: 01234567-89AB-CDEF-FEDC-BA9876543210")));
  EXPECT_THAT(test::run_program("LC_ALL=C sgdisk -i 2 " + image).output,
              AllOf(HasSubstr("First sector: 2088 "), HasSubstr("Last sector: 2103 ")));
  EXPECT_THAT(test::run_program("LC_ALL=C.UTF-8 sgdisk -i 3 " + image).output,
              HasSubstr("Partition name: '\xc3\xbc"));  // it garbles what takes two units
  EXPECT_EQ(disk.substr(1024 + 2 * 128 + 56, 8), std::string("\xfc\0\x3d\xd8\xbe\xdc\0\0", 8));
  EXPECT_EQ(disk.substr(40 * 512, 1 << 20), folder_.read("root"));
  EXPECT_EQ(disk.substr(2088 * 512, 8192), folder_.read("odd") + std::string(3192, '\0'));
}

TEST_F(CreateCompositeTest, FilesAreAsSpecified) {
  auto made = plan_composite(
      {.path = "folder/disk",
       .partitions = {{.label = "a", .path = "folder/a.img", .size = 4096, .writable = true},
                      {.label = "b", .path = "/b.img", .size = 100}},
       .disk_guid = {}});
  ASSERT_TRUE(made) << made.error().what();
  EXPECT_EQ(made->header.size(), 40u * 512);
  EXPECT_EQ(made->footer.size(), 40u * 512);
  EXPECT_EQ(made->filler, std::string(4096, '\0'));
  auto parsed = parse_composite(std::as_bytes(std::span(made->descriptor)), "disk");
  ASSERT_TRUE(parsed);
  const auto& parts = parsed->components;
  ASSERT_EQ(parts.size(), 5u);
  EXPECT_EQ(parts[0].path, "disk.header");
  EXPECT_EQ(parts[1].path, "a.img");
  EXPECT_TRUE(parts[1].writable);
  EXPECT_EQ(parts[1].offset, 20480u);
  EXPECT_EQ(parts[2].path, "/b.img");
  EXPECT_EQ(parts[2].length, 100u);
  EXPECT_EQ(parts[3].path, "disk.filler");
  EXPECT_EQ(parts[3].length, 3996u);
  EXPECT_EQ(parts[4].path, "disk.footer");
  EXPECT_EQ(parts[4].offset, 28672u);
  EXPECT_EQ(parsed->length, 28672u + 20480);
}

TEST_F(CreateCompositeTest, NamesLeadFromTheFolderOfTheDisk) {
  auto stored = [](const std::string& disk, const std::string& file) {
    auto made = plan_composite({.path = disk,
                                .partitions = {{.label = "a", .path = file, .size = 4096}},
                                .disk_guid = {}});
    EXPECT_TRUE(made);
    auto parsed = parse_composite(std::as_bytes(std::span(made->descriptor)), "disk");
    EXPECT_TRUE(parsed);
    return parsed->components[1].path;
  };
  EXPECT_EQ(stored("disk", "a.img"), "a.img");
  EXPECT_EQ(stored("disk", "./x/../a.img"), "./x/../a.img");
  EXPECT_EQ(stored("x/disk", "x/y/a.img"), "y/a.img");
  EXPECT_EQ(stored("x/disk", "a.img"), "../a.img");
  EXPECT_EQ(stored("../disk", "a.img"),
            (std::filesystem::current_path().filename() / "a.img").string());
  EXPECT_EQ(stored("x/disk", "/y/a.img"), "/y/a.img");
  EXPECT_EQ(stored("disk", "a:b.img"), "./a:b.img");
  EXPECT_EQ(stored("x/disk", "x/a:b.img"), "./a:b.img");
  EXPECT_EQ(stored("x/disk", "x/y/a:b.img"), "y/a:b.img");
  EXPECT_EQ(stored("/x/disk", "a.img"), (std::filesystem::current_path() / "a.img").string());
}

TEST_F(CreateCompositeTest, RefusesWhatCannotBe) {
  const CompositePartition fine{.label = "a", .path = "a.img", .size = 4096};
  auto with = [&](auto change) {
    CompositePlan plan{.path = "disk", .partitions = {fine}, .disk_guid = {}};
    change(plan.partitions);
    return refusal(plan);
  };
  EXPECT_THAT(with([](auto& all) { all.clear(); }), HasSubstr("1 to 128 partitions, not 0"));
  EXPECT_THAT(with([](auto& all) { all.resize(129); }), HasSubstr("not 129"));
  EXPECT_THAT(with([](auto& all) { all.push_back(all[0]); }), HasSubstr("have the label a"));
  EXPECT_THAT(with([](auto& all) { all[0].size = 0; }), HasSubstr("a.img: is empty"));
  EXPECT_THAT(with([](auto& all) { all[0].size = UINT64_MAX; }), HasSubstr("too large"));
  EXPECT_THAT(with([](auto& all) { all[0].label = std::string(37, 'l'); }),
              AllOf(HasSubstr("disk: label"), HasSubstr("longer than 36")));
  EXPECT_EQ(with([](auto& all) { all[0].label = std::string(36, 'l'); }), "made");
  EXPECT_THAT(with([](auto& all) { all[0].label = "\xff"; }), HasSubstr("no UTF-8"));
  EXPECT_THAT(with([](auto& all) {
                all[0].writable = true;
                all[0].size = 4097;
              }),
              AllOf(HasSubstr("a.img: its size of 4097 bytes"), HasSubstr("truncate")));
  EXPECT_EQ(with([](auto& all) {
              for (int i = 1; i < 128; ++i) all.push_back({std::to_string(i), "b", 512, false, {}});
            }),
            "made");
}

TEST_F(CreateCompositeTest, GuidsAreGivenOrRandom) {
  EXPECT_FALSE(gpt::parse_guid("01234567-89ab-cdef-FEDC-BA987654321"));
  EXPECT_FALSE(gpt::parse_guid("01234567-89ab-cdef-FEDC-BA987654321g"));
  EXPECT_FALSE(gpt::parse_guid("01234567-89ab-cdef-FEDC0BA9876543210"));
  EXPECT_FALSE(*gpt::random_guid() == *gpt::random_guid());
}

TEST_F(CreateCompositeTest, WhatFailsLeavesNothingBehind) {
  std::filesystem::create_directory(folder_.path("disk.footer"));
  auto made = create_composite(
      {.path = folder_.path("disk"), .partitions = {partition("a", 4096)}, .disk_guid = {}});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what(), HasSubstr("disk.footer"));
  EXPECT_THAT(files(), ElementsAre("a", "disk.footer"));
}

TEST_F(CreateCompositeTest, AFileThatCannotGetItsNameTakesTheOthersAlong) {
  // What replaces a file has another name for a moment: one that is too long for the host here.
  const std::string name(248, 'd');
  folder_.write(name + ".header", "old");
  auto made = create_composite(
      {.path = folder_.path(name), .partitions = {partition("a", 4096)}, .disk_guid = {}});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().what(), HasSubstr(".header"));
  EXPECT_THAT(files(), ElementsAre("a", name + ".header"));
  EXPECT_EQ(folder_.read(name + ".header"), "old");
}

TEST_F(CreateCompositeTest, WhatWasReplacedAlreadyComesBack) {
  const std::string name(250, 'd');  // as above
  folder_.write(name, "old header");
  std::filesystem::create_symlink(name, folder_.path("disk.header"));
  folder_.write("disk.filler", "old filler");
  auto made = create_composite(
      {.path = folder_.path("disk"), .partitions = {partition("a", 4096)}, .disk_guid = {}});
  ASSERT_FALSE(made);
  EXPECT_THAT(files(), ElementsAre("a", name, "disk.filler", "disk.header"));
  EXPECT_EQ(folder_.read("disk.filler"), "old filler");
  EXPECT_EQ(folder_.read("disk.header"), "old header");
}

TEST_F(CreateCompositeTest, ReplacesWhatNobodyUses) {
  CompositePlan plan{
      .path = folder_.path("disk"), .partitions = {partition("a", 4096)}, .disk_guid = {}};
  ASSERT_TRUE(create_composite(plan));
  const std::string first = contents(plan.path);
  ASSERT_TRUE(create_composite(plan));
  EXPECT_EQ(contents(plan.path).size(), first.size());
  EXPECT_NE(contents(plan.path), first) << "the disk has another identity";
  for (const std::string& name : composite_names(plan.path)) {
    auto vm = open_image_file(name, {.read_only = true});
    ASSERT_TRUE(vm) << vm.error().what();
    const auto made = create_composite(plan);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().what(), AllOf(HasSubstr(name), HasSubstr("in use")));
  }
}

}  // namespace
}  // namespace crosvm

#include "virtio/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>

namespace crosvm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const auto kPage = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));

struct Shown : SharedMemoryListener {
  Result<void> map(const SharedPlace& place, SharedFile file) override {
    if (refuses) return fail(Error::invalid("not today"));
    offset = file.offset;
    places.push_back(place);
    return {};
  }
  void unmap(const SharedPlace& place) override { std::erase(places, place); }
  bool refuses = false;
  uint64_t offset = 0;
  std::vector<SharedPlace> places;
};

class SharedMemoryTest : public testing::Test {
 protected:
  std::string map(uint8_t id, uint64_t offset, uint64_t length, uint64_t file_offset = 0) {
    const auto mapped = table->map({.id = id, .offset = offset, .length = length},
                                   {.file = Fd(), .offset = file_offset, .writable = true});
    return mapped ? "" : mapped.error().what();
  }
  bool unmap(uint8_t id, uint64_t offset, uint64_t length) {
    return table->unmap({.id = id, .offset = offset, .length = length}).has_value();
  }
  Shown shown;
  std::optional<SharedMemoryTable> table{std::in_place,
                                         std::vector<uint64_t>{0, 16 * kPage, 1 << 30}, shown};
};

TEST_F(SharedMemoryTest, MapsAndUnmaps) {
  EXPECT_EQ(map(1, 2 * kPage, 4 * kPage, 3 * kPage), "");
  EXPECT_EQ(shown.offset, 3 * kPage);
  EXPECT_EQ(map(1, 6 * kPage, 10 * kPage), "");
  EXPECT_EQ(map(1, 0, 2 * kPage), "");
  EXPECT_EQ(map(2, 2 * kPage, 4 * kPage), "") << "another region";
  EXPECT_TRUE(unmap(1, 2 * kPage, 4 * kPage));
  EXPECT_FALSE(unmap(1, 2 * kPage, 4 * kPage));
  EXPECT_EQ(table->mappings(), 3u);
  EXPECT_EQ(shown.places.size(), 3u);
  table->clear();
  EXPECT_EQ(table->mappings(), 0u);
  EXPECT_EQ(map(1, 0, 16 * kPage), "");
  table.reset();
  EXPECT_THAT(shown.places, ElementsAre());
}

TEST_F(SharedMemoryTest, RefusesPlacesThatCannotBe) {
  EXPECT_THAT(map(0, 0, kPage), HasSubstr("there is no such region"));
  EXPECT_THAT(map(3, 0, kPage), HasSubstr("there is no such region"));
  EXPECT_THAT(map(255, 0, kPage), HasSubstr("there is no such region"));
  EXPECT_THAT(map(1, 0, 0), HasSubstr("nothing"));
  EXPECT_THAT(map(1, 1, kPage), HasSubstr("no whole pages"));
  EXPECT_THAT(map(1, 0, kPage - 1), HasSubstr("no whole pages"));
  EXPECT_THAT(map(1, 0, 17 * kPage), HasSubstr("past its end"));
  EXPECT_THAT(map(1, 16 * kPage, kPage), HasSubstr("past its end"));
  EXPECT_THAT(map(1, -kPage, kPage), HasSubstr("past its end"));
  EXPECT_THAT(map(1, kPage, -kPage), HasSubstr("past its end"));
  EXPECT_THAT(map(1, 0, kPage, 1), HasSubstr("no place in a file"));
  EXPECT_THAT(map(1, 0, kPage, -kPage), HasSubstr("no place in a file"));
  EXPECT_THAT(map(1, 0, kPage, (uint64_t{1} << 63) - kPage), HasSubstr("no place in a file"));
  EXPECT_THAT(shown.places, ElementsAre());
}

TEST_F(SharedMemoryTest, RefusesWhatOverlaps) {
  ASSERT_EQ(map(1, 4 * kPage, 4 * kPage), "");
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint64_t>>{
           {4, 1}, {7, 1}, {3, 2}, {7, 2}, {0, 16}, {5, 2}}) {
    EXPECT_THAT(map(1, offset * kPage, length * kPage), HasSubstr("something is mapped there"));
    EXPECT_EQ(unmap(1, offset * kPage, length * kPage), false) << "not just this";
  }
  EXPECT_EQ(map(1, 3 * kPage, kPage), "");
  EXPECT_EQ(map(1, 8 * kPage, kPage), "");
}

TEST_F(SharedMemoryTest, WhatTheListenerRefusesIsNotMapped) {
  shown.refuses = true;
  EXPECT_EQ(map(1, 0, kPage), "not today");
  EXPECT_FALSE(unmap(1, 0, kPage));
  shown.refuses = false;
  EXPECT_EQ(map(1, 0, kPage), "");
}

TEST_F(SharedMemoryTest, MappingsAreBounded) {
  for (uint64_t i = 0; i < SharedMemoryTable::kMostMappings; ++i) {
    ASSERT_EQ(map(2, i * kPage, kPage), "");
  }
  EXPECT_THAT(map(1, 0, kPage), HasSubstr("as much is mapped as may be"));
  EXPECT_TRUE(unmap(2, 0, kPage));
  EXPECT_EQ(map(1, 0, kPage), "");
}

}  // namespace
}  // namespace crosvm

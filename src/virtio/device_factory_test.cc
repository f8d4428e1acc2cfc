#include "virtio/device_factory.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace crosvm {
namespace {

struct TwoKinds {
  Fd image;
  std::vector<Fd> ports;
  template <class V>
  void visit(V&& each) {
    each(image);
    each(ports);
  }
};

/// Eventfds can be told apart by their counts.
Fd marked(uint64_t mark) {
  Fd fd = make_eventfd().value();
  for (uint64_t i = 0; i < mark; ++i) signal_eventfd(fd);
  return fd;
}

TwoKinds unpack(PackedResources packed, bool& fits) {
  TwoKinds received;
  factory_detail::Unpacker unpacker(std::move(packed));
  received.visit(unpacker);
  fits = unpacker.fits();
  return received;
}

TEST(PackedResourcesTest, EveryDescriptorComesBackInItsPlace) {
  TwoKinds sent{.image = marked(1), .ports = {}};
  sent.ports.push_back(marked(2));
  sent.ports.push_back(marked(3));
  factory_detail::Packer packer;
  sent.visit(packer);
  EXPECT_FALSE(sent.image);
  EXPECT_EQ(packer.packed.counts, (std::vector<size_t>{1, 2}));

  bool fits = false;
  TwoKinds received = unpack(std::move(packer.packed), fits);
  EXPECT_TRUE(fits);
  EXPECT_EQ(drain_eventfd(received.image), 1u);
  ASSERT_EQ(received.ports.size(), 2u);
  EXPECT_EQ(drain_eventfd(received.ports[0]), 2u);
  EXPECT_EQ(drain_eventfd(received.ports[1]), 3u);
}

TEST(PackedResourcesTest, AMemberMayBeEmpty) {
  TwoKinds sent;
  factory_detail::Packer packer;
  sent.visit(packer);
  bool fits = false;
  TwoKinds received = unpack(std::move(packer.packed), fits);
  EXPECT_TRUE(fits);
  EXPECT_FALSE(received.image);
  EXPECT_TRUE(received.ports.empty());
}

TEST(PackedResourcesTest, DescriptorsThatDoNotFitAreRefused) {
  const std::vector<std::pair<std::vector<size_t>, size_t>> wrong = {
      {{}, 0}, {{1}, 1}, {{2, 0}, 2}, {{1, 1}, 1}, {{1, 0}, 2}, {{0, 0, 0}, 0}, {{0, SIZE_MAX}, 1}};
  for (const auto& [counts, descriptors] : wrong) {
    PackedResources packed{.counts = counts, .fds = {}};
    for (size_t i = 0; i < descriptors; ++i) packed.fds.push_back(marked(0));
    bool fits = true;
    unpack(std::move(packed), fits);
    EXPECT_FALSE(fits) << counts.size() << " counts, " << descriptors << " descriptors";
  }
}

}  // namespace
}  // namespace crosvm

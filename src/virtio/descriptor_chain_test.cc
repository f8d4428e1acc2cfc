#include "virtio/descriptor_chain.h"

#include <gtest/gtest.h>

#include <array>

#include "virtio/rig/queue_bench.h"

namespace crosvm {
namespace {

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(ChainBuffers, AreOneRunOfBytesAcrossDescriptors) {
  QueueBench bench({});
  bench.driver().send({readable("abc"), readable("d"), readable("efgh"), writable(2), writable(5)});
  DescriptorChain chain = bench.pop();
  const ChainBuffers from = chain.device_readable();
  EXPECT_EQ(from.size(), 8u);
  EXPECT_EQ(from.slices().size(), 3u);
  for (uint64_t offset = 0; offset <= 8; ++offset) {
    for (uint64_t length = 0; offset + length <= 8; ++length) {
      std::vector<std::byte> out(length);
      ASSERT_TRUE(from.read_bytes(offset, out));
      EXPECT_EQ(text_of(out), std::string("abcdefgh").substr(offset, length));
    }
  }
  EXPECT_EQ(*from.read<uint32_t>(2), 0x66656463u);

  const ChainBuffers to = chain.device_writable();
  EXPECT_EQ(to.size(), 7u);
  ASSERT_TRUE(to.write_bytes(1, std::as_bytes(std::span("xyz", 3))));
  ASSERT_TRUE(to.write(6, uint8_t{'!'}));
  bench.queue().push_used(std::move(chain), 7);
  const RigUsed used = bench.driver().wait_used();
  EXPECT_EQ(used.written, 7u);
  EXPECT_EQ(text_of(used.bytes), "\xccxyz\xcc\xcc!");
}

TEST(ChainBuffers, RefuseWhatLiesPastTheEnd) {
  QueueBench bench({});
  bench.driver().send({readable("abc"), readable("d"), writable(2)});
  const DescriptorChain chain = bench.pop();
  std::array<std::byte, 3> out;
  for (const uint64_t offset : {uint64_t{2}, uint64_t{4}, uint64_t{5}, UINT64_MAX - 1}) {
    const auto result = chain.device_readable().read_bytes(offset, out);
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code(), std::errc::result_out_of_range);
    EXPECT_FALSE(chain.device_writable().write_bytes(offset, out));
    EXPECT_FALSE(chain.device_readable().cut(offset, 3));
  }
  EXPECT_FALSE(chain.device_readable().cut(1, UINT64_MAX));
  EXPECT_TRUE(chain.device_readable().read_bytes(4, {}));
}

TEST(ChainBuffers, AreCutForSystemCalls) {
  QueueBench bench({});
  bench.driver().send({readable("abcd"), readable("efgh"), readable("ijkl")});
  const DescriptorChain chain = bench.pop();
  const auto parts = chain.device_readable().cut(2, 7);
  ASSERT_TRUE(parts.has_value());
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_EQ((*parts)[0].size(), 2u);
  EXPECT_EQ((*parts)[1].size(), 4u);
  EXPECT_EQ((*parts)[2].size(), 1u);
  EXPECT_EQ(*(*parts)[2].read<uint8_t>(), 'i');
  EXPECT_TRUE(chain.device_readable().cut(12, 0)->empty());
}

}  // namespace
}  // namespace crosvm

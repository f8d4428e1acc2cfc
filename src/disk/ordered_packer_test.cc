#include "disk/ordered_packer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <span>
#include <thread>

namespace crosvm {
namespace {

using Bytes = OrderedPacker::Bytes;

Bytes reversed(std::span<const std::byte> piece) { return {piece.rbegin(), piece.rend()}; }

class OrderedPackerTest : public ::testing::TestWithParam<size_t> {};

INSTANTIATE_TEST_SUITE_P(, OrderedPackerTest, testing::Values(0, 1, 3, 7));

TEST_P(OrderedPackerTest, PiecesComeBackInOrder) {
  std::atomic<unsigned> packs = 0;
  OrderedPacker packer({.helpers = GetParam(), .piece_bytes = 8}, [&] {
    return [&packs](std::span<const std::byte> piece) {
      // The later the faster, so that they would overtake one another.
      std::this_thread::sleep_for(std::chrono::microseconds(packs++ % 3 == 0 ? 300 : 1));
      return reversed(piece);
    };
  });
  uint64_t next = 0;
  auto check = [&] {
    const OrderedPacker::Packed packed = packer.take();
    ASSERT_EQ(packed.tag, next);
    const auto digit = static_cast<std::byte>(next);
    if (next % 5 == 4) {
      ASSERT_EQ(packed.packed, Bytes{digit}) << "known before";
    } else {
      ASSERT_EQ(packed.piece, (Bytes{digit, std::byte{1}}));
      ASSERT_EQ(packed.packed, (Bytes{std::byte{1}, digit}));
    }
    ++next;
  };
  for (uint64_t tag = 0; tag < 500; ++tag) {
    while (packer.is_full()) check();
    const auto digit = static_cast<std::byte>(tag);
    if (tag % 5 == 4) {
      packer.give_packed(tag, {digit});
    } else {
      packer.give(tag, {digit, std::byte{1}});
    }
  }
  while (!packer.is_empty()) check();
  EXPECT_EQ(next, 500u);
  EXPECT_EQ(packs, 400u);
}

TEST_P(OrderedPackerTest, MemoryIsBounded) {
  OrderedPacker packer({.helpers = GetParam(), .piece_bytes = 32 << 20}, [] { return reversed; });
  size_t held = 0;
  for (; !packer.is_full(); ++held) packer.give(held, {});
  EXPECT_LE(held, 2u);
  EXPECT_GE(held, 1u);
}

TEST_P(OrderedPackerTest, WhatIsNotTakenIsGivenUp) {
  OrderedPacker packer({.helpers = GetParam(), .piece_bytes = 8}, [] { return reversed; });
  for (uint64_t tag = 0; !packer.is_full(); ++tag) packer.give(tag, {std::byte{7}});
}

/// Each thread has a Pack of its own: what it keeps needs no lock.
TEST_P(OrderedPackerTest, NoTwoThreadsShareAPack) {
  unsigned made = 0;
  OrderedPacker packer({.helpers = GetParam(), .piece_bytes = 8}, [&made] {
    ++made;
    auto inside = std::make_shared<std::atomic<int>>(0);
    return [inside](std::span<const std::byte> piece) {
      EXPECT_EQ(inside->fetch_add(1), 0);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      inside->fetch_sub(1);
      return reversed(piece);
    };
  });
  EXPECT_EQ(made, GetParam() + 1);
  for (uint64_t tag = 0; tag < 200; ++tag) {
    if (packer.is_full()) (void)packer.take();
    packer.give(tag, {std::byte{1}});
  }
}

}  // namespace
}  // namespace crosvm

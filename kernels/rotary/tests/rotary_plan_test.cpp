#include "rotary/rotary_plan.h"

#include <gtest/gtest.h>

namespace fla::detail {
namespace {

RotaryExtent extent(int64_t rows, int64_t tokens, int64_t heads, int64_t channels, int64_t pairs) {
  return {rows, tokens, channels, heads, pairs};
}

TEST(RotaryPlan, OneHeadOf128ChannelsTakesEightThreads) {
  const RotaryPlan p = plan_rotary(extent(4, 8192, 32, 128, 64), 0, 8, true);
  EXPECT_EQ(p.vector, 8);
  EXPECT_EQ(p.threads_per_head, 8);
  EXPECT_EQ(p.heads_per_block, 16);
  EXPECT_EQ(p.tokens_per_block, 1);
  EXPECT_EQ(p.grid(4), 4 * 8192 * 2);
}

TEST(RotaryPlan, HeadsAreDividedEvenly) {
  const RotaryPlan p = plan_rotary(extent(1, 100, 40, 128, 64), 0, 8, false);
  EXPECT_EQ(p.head_blocks, 3);
  EXPECT_EQ(p.heads_per_block, 14);
}

TEST(RotaryPlan, FewHeadsShareABlockWithOtherTokens) {
  const RotaryPlan p = plan_rotary(extent(1, 100, 1, 64, 32), 0, 8, false);
  EXPECT_EQ(p.threads_per_head, 4);
  EXPECT_EQ(p.tokens_per_block, 32);
  EXPECT_EQ(p.token_blocks, 4);
  EXPECT_EQ(p.chunk_log2, 0);
}

TEST(RotaryPlan, ChunksLeaveFewBlocksIdle) {
  for (const int64_t tokens : {1, 2, 15, 16, 65, 1000, 1025, 8192}) {
    const RotaryPlan p = plan_rotary(extent(4, tokens, 32, 128, 64), 0, 8, true);
    EXPECT_GE(p.token_blocks, tokens);
    EXPECT_LE(p.token_blocks, tokens + tokens / 8) << tokens;
    EXPECT_EQ(p.token_blocks % (int64_t{1} << p.chunk_log2), 0);
  }
}

TEST(RotaryPlan, ChannelsThatAreNotRotatedAreCopiedOutOfPlaceOnly) {
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 256, 32), 0, 8, true).items, 4 + 12);
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 256, 32), 0, 8, false).items, 4);
}

TEST(RotaryPlan, WhatDoesNotFitVectorsGoesByElements) {
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 72, 36), 0, 8, true).vector, 1);
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 128, 32), 4, 8, true).vector, 1);
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 100, 8), 0, 8, true).vector, 1);
  EXPECT_EQ(plan_rotary(extent(1, 10, 4, 1024, 511), 0, 8, true).item_blocks, 4);
}

TEST(RotaryPlan, BlocksHoldAtMostTheirThreads) {
  for (const int64_t pairs : {1, 3, 8, 24, 100, 512, 5000})
    for (const int64_t heads : {1, 2, 7, 33, 200})
      for (const int64_t tokens : {1, 2, 65}) {
        const RotaryPlan p = plan_rotary(extent(1, tokens, heads, 2 * pairs, pairs), 0, 8, true);
        EXPECT_LE(p.threads_per_head * p.heads_per_block * p.tokens_per_block, kRotaryThreads);
        EXPECT_GE(p.threads_per_head * p.item_blocks, p.items);
        EXPECT_GE(p.heads_per_block * p.head_blocks, heads);
        EXPECT_GE(p.tokens_per_block * p.token_blocks, tokens);
      }
}

}  // namespace
}  // namespace fla::detail

#include "conv/conv_plan.h"

#include <gtest/gtest.h>

namespace fla::detail {
namespace {

void* const kAligned = reinterpret_cast<void*>(0x10000);

CausalConv1dForward forward_case(int64_t b, int64_t t, int64_t d, int64_t w, DType type = DType::bf16) {
  CausalConv1dForward a;
  a.x = a.y = dense(kAligned, type, {b, t, d});
  a.weight = dense(kAligned, DType::f32, {d, w});
  return a;
}

CausalConv1dBackward backward_case(int64_t b, int64_t t, int64_t d, int64_t w, DType type = DType::bf16) {
  CausalConv1dBackward a;
  a.x = a.dy = a.dx = dense(kAligned, type, {b, t, d});
  a.weight = dense(kAligned, DType::f32, {d, w});
  return a;
}

// Every (row, segment, channel vector) is some thread's, and no more blocks are launched than that needs.
void expect_exact_cover(const WalkPlan& p, const ConvExtent& e) {
  const int64_t segments = e.b * p.segments, lanes_wide = int64_t{p.vector} << p.lane_bits;
  EXPECT_GE(p.segments * p.steps, e.t);
  EXPECT_LT((p.segments - 1) * p.steps, e.t);
  EXPECT_GE(p.groups * p.walks, segments);
  EXPECT_LT((p.groups - 1) * p.walks, segments);
  EXPECT_GE(p.channel_blocks * lanes_wide, e.d);
  EXPECT_LT((p.channel_blocks - 1) * lanes_wide, e.d);
}

TEST(ConvPlan, CoversEveryTokenAndChannelOnce) {
  for (int64_t b : {1, 3})
    for (int64_t t : {1, 7, 8, 9, 127, 128, 129, 8192})
      for (int64_t d : {8, 16, 40, 256, 264, 4096}) {
        const auto forward = forward_case(b, t, d, 4);
        const auto backward = backward_case(b, t, d, 4);
        expect_exact_cover(plan(forward), extent_of(forward));
        expect_exact_cover(plan(backward), extent_of(backward));
        EXPECT_EQ(plan(forward).walks << plan(forward).lane_bits, kForwardThreads);
        EXPECT_EQ(plan(backward).walks << plan(backward).lane_bits, kBackwardThreads);
      }
}

TEST(ConvPlan, KeepsTheModelShapeOnTheMeasuredMapping) {
  const WalkPlan forward = plan(forward_case(4, 8192, 4096, 4));
  EXPECT_TRUE(forward.vectors);
  EXPECT_EQ(forward.vector, 8);
  EXPECT_EQ(forward.walks, 2);
  EXPECT_EQ(forward.steps, kForwardSteps);
  const WalkPlan backward = plan(backward_case(4, 8192, 4096, 4));
  EXPECT_TRUE(backward.vectors);
  EXPECT_EQ(backward.steps, kLongestBackward);
  EXPECT_EQ(backward.groups, 32);  // rows of partial sums
}

TEST(ConvPlan, ShortensSegmentsOfSmallProblems) {
  EXPECT_EQ(backward_steps(extent_of(backward_case(1, 128, 256, 4))), kShortestBackward);
  EXPECT_EQ(backward_steps(extent_of(backward_case(8, 8192, 4096, 4))), kLongestBackward);
}

// A walk shorter than the ring would leave the refilling of slots to large problems, which the emulator never sees.
TEST(ConvPlan, ShortestWalksRefillTheRing) {
  EXPECT_GT(kShortestBackward, kBackwardBatch * kBackwardBatches);
}

TEST(ConvPlan, LeavesTheWindowForOtherTapCounts) {
  EXPECT_FALSE(plan(forward_case(1, 64, 64, 1)).vectors);
  for (int64_t w : {2, 3, 4}) EXPECT_TRUE(plan(forward_case(1, 64, 64, w)).vectors);
  EXPECT_FALSE(plan(forward_case(1, 64, 64, 5)).vectors);
  EXPECT_FALSE(plan(backward_case(1, 64, 64, 5)).vectors);
}

TEST(ConvPlan, LeavesTheWindowForLayoutsThatVectorsDoNotFit) {
  EXPECT_FALSE(plan(forward_case(1, 64, 100, 4)).vectors);             // 100 % 8
  EXPECT_FALSE(plan(forward_case(1, 1, 100, 4)).vectors);              // also where no stride tells
  EXPECT_TRUE(plan(forward_case(1, 64, 100, 4, DType::f32)).vectors);  // 100 % 4
  EXPECT_TRUE(plan(backward_case(1, 64, 100, 4)).vectors);             // four channels per thread
  auto shifted = forward_case(1, 64, 64, 4);
  shifted.x.data = static_cast<char*>(kAligned) + 2;
  EXPECT_FALSE(plan(shifted).vectors);
  auto sliced = forward_case(1, 64, 64, 4);  // a third of a fused projection
  sliced.x.stride[1] = 192;
  EXPECT_TRUE(plan(sliced).vectors);
  sliced.x.stride[1] = 193;
  EXPECT_FALSE(plan(sliced).vectors);
  auto transposed = forward_case(1, 64, 64, 4);
  transposed.y.stride[2] = 64;
  EXPECT_FALSE(plan(transposed).vectors);
  auto broadcast = backward_case(1, 64, 64, 4);
  for (int64_t& stride : broadcast.dy.stride) stride = 0;
  EXPECT_FALSE(plan(broadcast).vectors);
  auto mixed = backward_case(1, 64, 64, 4);
  mixed.dy.dtype = DType::f32;
  EXPECT_FALSE(plan(mixed).vectors);
  auto padded_filter = forward_case(1, 64, 64, 4);
  padded_filter.weight.stride[0] = 8;
  EXPECT_FALSE(plan(padded_filter).vectors);
}

TEST(ConvPlan, LeavesTheWindowForMoreSegmentsThan32BitsCount) {
  EXPECT_TRUE(plan(forward_case(1, int64_t{1} << 34, 8, 4)).vectors);
  EXPECT_FALSE(plan(forward_case(1, int64_t{1} << 36, 8, 4)).vectors);
}

TEST(ConvPlan, ReadsExtentsOfPackedAndBatchlessTensors) {
  CausalConv1dForward a = forward_case(1, 100, 32, 3);
  a.x = dense(kAligned, DType::bf16, {100, 32});
  a.cu_seqlens = dense(kAligned, DType::i32, {6});
  a.final_state = dense(kAligned, DType::bf16, {5, 32, 7});
  const ConvExtent e = extent_of(a);
  EXPECT_EQ(e.b, 1);
  EXPECT_EQ(e.t, 100);
  EXPECT_EQ(e.d, 32);
  EXPECT_EQ(e.w, 3);
  EXPECT_EQ(e.n, 5);
  EXPECT_EQ(e.s, 7);
  EXPECT_EQ(extent_of(forward_case(2, 100, 32, 3)).n, 2);
}

}  // namespace
}  // namespace fla::detail

#include "norm/row_plan.h"

#include <gtest/gtest.h>

namespace fla::detail {
namespace {

TEST(RowPlan, EveryVectorOfARowHasAnOwner) {
  for (int64_t vectors = 1; vectors < 20000; vectors += vectors < 300 ? 1 : 97) {
    for (bool plain : {false, true}) {
      const RowPlan plan = plan_row_forward(vectors, false, plain);
      if (plan.unit == RowUnit::streamed) continue;
      const int64_t threads = plan.unit == RowUnit::lanes ? int64_t{1} << plan.lanes_log2 : plan.threads;
      EXPECT_GE(threads * plan.vectors + plan.shared_vectors, vectors) << vectors;
      EXPECT_LE(plan.shared_vectors * 16, kSharedPerMultiprocessor);
      EXPECT_LE(threads, plan.unit == RowUnit::lanes ? 32 : 512);
    }
  }
}

TEST(RowPlan, SixtyFiveThousandElementsStayOnChipInEveryDtype) {
  EXPECT_EQ(plan_row_forward(65536 * 2 / 16, false, true).unit, RowUnit::block);
  EXPECT_EQ(plan_row_forward(65536 * 4 / 16, false, true).unit, RowUnit::block);
}

BackwardShape shape_of(int64_t rows, int64_t chunks, int64_t streams = 2) {
  return {.rows = rows, .chunks = chunks, .row_bytes = chunks * 16 * streams, .bulk = true};
}

TEST(RowPlan, ARowsBitsDoNotDependOnHowManyRowsThereAre) {
  for (int64_t chunks : {1, 8, 64, 128, 256, 512, 1024, 2048, 8192}) {
    const BackwardPlan one = plan_row_backward(shape_of(1, chunks));
    for (int64_t rows : {2, 100, 16384, 1 << 20}) {
      BackwardPlan many = plan_row_backward(shape_of(rows, chunks));
      many.parts = one.parts;  // parts decide sums over rows only
      EXPECT_EQ(one, many) << chunks << " chunks, " << rows << " rows";
    }
  }
}

TEST(RowPlan, TheRingFitsAMultiprocessorAndKeepsTwoStages) {
  for (int64_t chunks = 65; chunks <= 8192; chunks += chunks < 2048 ? 1 : 13) {
    for (int64_t streams : {2, 3}) {
      BackwardShape shape = shape_of(100000, chunks, streams);
      shape.gated = streams == 3;
      const BackwardPlan plan = plan_row_backward(shape);
      ASSERT_EQ(plan.unit, RowUnit::block) << chunks << " chunks, " << streams << " streams";
      EXPECT_GE(plan.stages, 2);
      EXPECT_LE(plan.stages * plan.slice_chunks * 16 * streams + plan.gate_bytes, kSharedPerMultiprocessor - 2048);
      EXPECT_EQ(plan.gate_bytes > 0, shape.gated && plan.vectors > 1);
      EXPECT_GE(int64_t{plan.threads} * plan.vectors, plan.slice_chunks);
      EXPECT_GE(plan.slice_chunks * plan.cluster, chunks);
      EXPECT_LT(plan.slice_chunks * (plan.cluster - 1), chunks);
    }
  }
}

TEST(RowPlan, APartMeetsTheSameGroupsInEveryTurn) {
  for (int64_t chunks : {1, 8, 32, 64, 128, 256, 1024}) {
    for (int64_t groups : {1, 2, 3, 8, 32, 40, 1000}) {
      BackwardShape shape = shape_of(groups * 5000, chunks);
      shape.parameter_groups = groups;
      const BackwardPlan plan = plan_row_backward(shape);
      const int64_t slots = plan.unit == RowUnit::lanes ? plan.threads >> plan.lanes_log2 : 1;
      if (plan.unit == RowUnit::streamed) continue;
      EXPECT_EQ(plan.parts * slots % groups, 0) << chunks << " " << groups;
      EXPECT_EQ(plan.parts * plan.sums_per_part % groups, 0) << chunks << " " << groups;
    }
  }
}

TEST(RowPlan, StepsOfLanesStayWithin32Bits) {
  for (int64_t groups : {1, 1000, 4097, 4099, 1 << 20, (1 << 24) + 1}) {
    for (int64_t chunks : {1, 8, 64}) {
      BackwardShape shape = shape_of(groups * 3, chunks);
      shape.parameter_groups = groups;
      const BackwardPlan plan = plan_row_backward(shape);
      if (plan.unit == RowUnit::lanes) {
        EXPECT_LE(kMostRows + 4 * plan.parts * (plan.threads >> plan.lanes_log2), int64_t{1} << 32) << groups;
      }
      if (groups <= 1000) EXPECT_EQ(plan.unit, RowUnit::lanes) << groups << " " << chunks;
      if (groups == (1 << 24) + 1) EXPECT_EQ(plan.unit, RowUnit::streamed) << chunks;
    }
  }
}

TEST(RowPlan, PartsFollowTheRows) {
  EXPECT_EQ(parts_for(0, 1, 264), 1);
  EXPECT_EQ(parts_for(1, 1, 264), 1);
  EXPECT_EQ(parts_for(16, 1, 264), 2);
  EXPECT_EQ(parts_for(1000000, 1, 264), 264);
}

}  // namespace
}  // namespace fla::detail

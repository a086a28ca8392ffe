#include "norm/row_plan.h"

#include <gtest/gtest.h>

namespace fla::detail {
namespace {

TEST(RowPlan, EveryVectorOfARowHasAnOwner) {
  for (int64_t vectors = 1; vectors < 20000; vectors += vectors < 300 ? 1 : 97) {
    const RowPlan plan = plan_row_forward(vectors, false);
    if (plan.unit == RowUnit::streamed) continue;
    const int64_t threads = plan.unit == RowUnit::lanes ? int64_t{1} << plan.lanes_log2 : plan.threads;
    EXPECT_GE(threads * plan.vectors + plan.shared_vectors, vectors) << vectors;
    EXPECT_LE(plan.shared_vectors * 16, kSharedPerMultiprocessor);
    EXPECT_LE(threads, plan.unit == RowUnit::lanes ? 32 : 512);
  }
}

TEST(RowPlan, SixtyFiveThousandElementsStayOnChipInEveryDtype) {
  EXPECT_EQ(plan_row_forward(65536 * 2 / 16, false).unit, RowUnit::block);
  EXPECT_EQ(plan_row_forward(65536 * 4 / 16, false).unit, RowUnit::block);
}

TEST(RowPlan, ARowsBitsDoNotDependOnHowManyRowsThereAre) {
  for (int64_t chunks : {1, 8, 64, 128, 256, 512, 1024, 2048}) {
    const BackwardPlan one = plan_row_backward(1, chunks, chunks * 32, true, false);
    for (int64_t rows : {2, 100, 16384, 1 << 20}) {
      BackwardPlan many = plan_row_backward(rows, chunks, chunks * 32, true, false);
      many.parts = one.parts;  // parts decide sums over rows only
      EXPECT_EQ(one, many) << chunks << " chunks, " << rows << " rows";
    }
  }
}

TEST(RowPlan, TwoRowsOfEveryBlockFitAMultiprocessor) {
  for (int64_t chunks = 65; chunks <= 2048; ++chunks) {
    for (int64_t streams : {2, 3}) {
      const int64_t row_bytes = chunks * 16 * streams;
      const BackwardPlan plan = plan_row_backward(1 << 20, chunks, row_bytes, true, streams == 3);
      if (plan.unit != RowUnit::block) continue;
      const int64_t blocks = plan.parts / 132;
      EXPECT_LE(blocks, ring_blocks(plan.threads));
      EXPECT_LE(blocks * (2 * row_bytes + 2048), kSharedPerMultiprocessor) << chunks << " chunks, " << streams;
      EXPECT_GE(int64_t{plan.threads} * plan.vectors, chunks);
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

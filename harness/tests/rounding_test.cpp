// Storage dtypes on the host.
#include <gtest/gtest.h>

#include <cmath>

#include "harness/problem.h"

namespace fla::harness {
namespace {

TEST(Rounding, IsToNearestEven) {
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x1p-8), 1);
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x3p-8), 1 + 0x1p-6);
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x1p-8 + 0x1p-40), 1 + 0x1p-7);
  EXPECT_EQ(round_to(DType::f16, 0x1p-25), 0);
  EXPECT_EQ(round_to(DType::f16, 0x1.8p-25), 0x1p-24);
  EXPECT_EQ(round_to(DType::f32, 1 + 0x1p-24), 1);
  EXPECT_TRUE(std::signbit(round_to(DType::bf16, -0.0)));
}

TEST(Rounding, OverflowsToInfinityAtTheRightPlace) {
  EXPECT_EQ(round_to(DType::f16, 65519.99), 65504);
  EXPECT_EQ(round_to(DType::f16, 65520), HUGE_VAL);
  EXPECT_EQ(round_to(DType::bf16, -0x1.fep127), -0x1.fep127);
  EXPECT_EQ(round_to(DType::bf16, -0x1.ffp127), -HUGE_VAL);
}

TEST(Rounding, SpacingGrowsWithTheBinade) {
  EXPECT_EQ(spacing(DType::bf16, 1), 0x1p-7);
  EXPECT_EQ(spacing(DType::bf16, 1.99), 0x1p-7);
  EXPECT_EQ(spacing(DType::f16, 0), 0x1p-24);
  EXPECT_EQ(spacing(DType::f32, 0x1p-130), 0x1p-149);
}

TEST(Rounding, EverySixteenBitPatternSurvives) {
  for (const DType type : {DType::f16, DType::bf16})
    for (int bits = 0; bits < 65536; ++bits) {
      const auto pattern = static_cast<uint16_t>(bits);
      HostTensor t;
      t.real.resize(1);
      decode(type, &pattern, 1, t, 0);
      if (std::isnan(t.real[0])) continue;
      uint16_t back = 0;
      encode_real(type, t.real[0], &back, 0);
      ASSERT_EQ(back, pattern) << name_of(type);
    }
}

}  // namespace
}  // namespace fla::harness

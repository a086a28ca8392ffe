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

// There is no infinity in 8 bits: what lies beyond the largest number becomes it.
TEST(Rounding, EightBitsSaturate) {
  EXPECT_EQ(round_to(DType::f8e4m3, 1e9), 448);
  EXPECT_EQ(round_to(DType::f8e4m3, -HUGE_VAL), -448);
  EXPECT_EQ(round_to(DType::f8e4m3, 432), 448);  // a tie, to even
  EXPECT_EQ(round_to(DType::f8e4m3, 431.9), 416);
  EXPECT_EQ(round_to(DType::f8e4m3, 0x1p-10), 0);
  EXPECT_EQ(round_to(DType::f8e4m3, 0x1.8p-10), 0x1p-9);
  EXPECT_TRUE(std::isnan(round_to(DType::f8e4m3, NAN)));
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

TEST(Rounding, EveryEightBitPatternSurvives) {
  double before = -1;
  for (int bits = 0; bits < 256; ++bits) {
    const auto pattern = static_cast<uint8_t>(bits);
    HostTensor t;
    t.real.resize(1);
    decode(DType::f8e4m3, &pattern, 1, t, 0);
    ASSERT_EQ(std::isnan(t.real[0]), (bits & 0x7f) == 0x7f);
    if (std::isnan(t.real[0])) continue;
    if (bits < 0x7f) {
      ASSERT_GT(t.real[0], before);
    }
    before = t.real[0];
    uint8_t back = 0;
    encode_real(DType::f8e4m3, t.real[0], &back, 0);
    ASSERT_EQ(back, pattern);
  }
}

}  // namespace
}  // namespace fla::harness

// The 8-bit conversion against its definition: nearest code, ties to the even one, saturating.
#include "common/fp8.cuh"

#include <gtest/gtest.h>

#include <cmath>

namespace fla::detail {
namespace {

// What the code means (the largest of either sign is NaN).
double value_of(int code) {
  const int exponent = (code >> 3) & 15, fraction = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(1 + fraction / 8.0, exponent - 7);
  return code & 0x80 ? -magnitude : magnitude;
}

int nearest_code(float value) {
  if (std::isnan(value)) return 0x7f;
  int best = 0;
  for (int code = 1; code <= 0x7e; ++code) {
    const double now = std::abs(std::abs(static_cast<double>(value)) - value_of(code));
    const double then = std::abs(std::abs(static_cast<double>(value)) - value_of(best));
    if (now < then || (now == then && code % 2 == 0)) best = code;
  }
  if (std::isinf(value)) best = 0x7e;
  return best | (std::signbit(value) ? 0x80 : 0);
}

TEST(Fp8, EveryCodeSurvives) {
  for (int code = 0; code < 256; ++code)
    if ((code & 0x7f) != 0x7f) EXPECT_EQ(f8e4m3_bits_of(static_cast<float>(value_of(code))), code);
}

TEST(Fp8, EveryBf16BecomesTheNearestCode) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = float_of_bits(bits << 16);
    ASSERT_EQ(f8e4m3_bits_of(value), nearest_code(value)) << value;
  }
}

// Ties, and the fp32 numbers beside them.
TEST(Fp8, NeighboursOfEveryTie) {
  for (int code = 0; code < 0x7e; ++code) {
    const auto tie = static_cast<float>((value_of(code) + value_of(code + 1)) / 2);
    for (const float value : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, 1e9f), -tie})
      EXPECT_EQ(f8e4m3_bits_of(value), nearest_code(value)) << value;
  }
}

TEST(Fp8, SaturatesAndKeepsNaN) {
  for (const float value : {448.0f, 463.9f, 464.0f, 480.0f, 1e30f, HUGE_VALF}) {
    EXPECT_EQ(f8e4m3_bits_of(value), 0x7e);
    EXPECT_EQ(f8e4m3_bits_of(-value), 0xfe);
  }
  EXPECT_EQ(f8e4m3_bits_of(NAN), 0x7f);
  EXPECT_EQ(pack_f8e4m3(1.0f, -2.0f, NAN, 1e9f), 0x7e7fc038u);
}

}  // namespace
}  // namespace fla::detail

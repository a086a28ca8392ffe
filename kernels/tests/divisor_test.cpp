#include "common/divisor.h"

#include <gtest/gtest.h>

namespace fla::detail {
namespace {

TEST(Divisor, DividesEveryIndexOfAGridExactly) {
  constexpr int64_t kIndices = int64_t{1} << 31;
  for (int64_t d : {1, 2, 3, 5, 6, 7, 14, 28, 127, 128, 129, 641, 65535, 65537, 1 << 30, (1 << 30) + 1, INT32_MAX - 1, INT32_MAX}) {
    const Divisor divisor(d);
    // On both sides of every multiple, or of as many as there is time for; the largest ones err first.
    const int64_t multiples = kIndices / d, step = multiples / 5000 + 1;
    for (int64_t multiple = 0; multiple <= multiples; multiple += step) {
      for (const int64_t n : {multiple * d - 1, multiple * d, (multiples - multiple) * d - 1, (multiples - multiple) * d}) {
        if (n < 0 || n >= kIndices) continue;
        ASSERT_EQ(divisor.quotient(static_cast<uint32_t>(n)), n / d) << n << " / " << d;
      }
    }
    ASSERT_EQ(divisor.quotient(INT32_MAX), INT32_MAX / d) << d;
  }
  EXPECT_EQ(Divisor().quotient(INT32_MAX), static_cast<uint32_t>(INT32_MAX));
  EXPECT_EQ(Divisor(int64_t{1} << 33).quotient(INT32_MAX), 0u);
}

}  // namespace
}  // namespace fla::detail

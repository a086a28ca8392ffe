// The errors that the device functions' comments state, where no operator shows them by themselves.
#include "common/math.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "common/vector.cuh"
#include "loss/policy_terms.cuh"
#include "reference/scalar/function_error.h"

namespace fla {
namespace {

TEST(Math, ShortLog1pIsAsGoodAsTheReferenceAllows) {
  for (uint32_t bits = 0x00800000u; bits <= 0x3f800000u; bits += 4099) {
    const float e = detail::float_of_bits(bits);
    const double exact = std::log1p(static_cast<double>(e)), got = static_cast<double>(math::log1p_for_16_bits(e));
    ASSERT_LE(std::abs(got - exact), reference::kShortLog1pError * exact) << e;
  }
}

// Below -88 the exponential is infinite: no NaN, and each half as far as the other does not need it.
TEST(Math, ShortSigmoidEndsInZeros) {
  for (const float x : {-87.5f, -88.0f, -88.8f, -104.0f, -1e4f, -3e38f, -HUGE_VALF}) {
    EXPECT_LT(math::sigmoid_for_16_bits(x).plus, 1e-37f) << x;
    EXPECT_LE(math::sigmoid_for_16_bits(x).minus, 1.0f) << x;  // 0 or 1, NaN never
    EXPECT_EQ(math::sigmoid_for_16_bits(-x).plus, 1.0f) << x;
  }
  EXPECT_TRUE(std::isnan(math::sigmoid_for_16_bits(NAN).plus) && std::isnan(math::sigmoid_for_16_bits(NAN).minus));
}

// The exponential of the KL estimators: as good as the reference allows up to where fp32 ends, infinite from there.
TEST(Math, AnyExpHoldsToTheEndOfFp32) {
  for (float x = 87.0f; x < 88.7f; x = std::nextafter(x, 100.0f) + 1e-4f) {
    const double exact = std::exp(static_cast<double>(x)), got = static_cast<double>(detail::any_exp(x));
    ASSERT_LE(std::abs(got - exact), reference::kFunctionError.exp * 2 * reference::kRounding * exact) << x;
  }
  for (const float x : {89.0f, 104.0f, 1e4f, 3e38f, HUGE_VALF}) EXPECT_EQ(detail::any_exp(x), HUGE_VALF) << x;
  EXPECT_EQ(detail::any_exp(0), 1.0f);
  EXPECT_EQ(detail::any_exp(-HUGE_VALF), 0.0f);
  EXPECT_TRUE(std::isnan(detail::any_exp(NAN)));
}

}  // namespace
}  // namespace fla

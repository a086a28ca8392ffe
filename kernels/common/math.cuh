// The device functions that formulas are written with. Each states its error; the references allow exactly that
// (reference/scalar/function_error.h), and nothing else in kernels/ calls the math library. u = 2^-24.
#pragma once

#include <cmath>

#include "common/gpu.h"

namespace fla::math {

inline constexpr float kLog2E = 1.4426950408889634f;         // rounded to fp32
inline constexpr float kLog2ERest = 1.9259629911266175e-8f;  // log2(e) - kLog2E
inline constexpr float kLn2 = 0.6931471805599453f;

// 2^x, relative error 2^-22.7 (measured exhaustively on an H200); subnormal results are kept.
FLA_DEVICE float exp2_approx(float x) {
#if defined(FLA_GPU)
  float y;
  asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

// The same with subnormal results flushed to zero: one instruction. For sums of exponentials near 1.
FLA_DEVICE float exp2_flushed(float x) {
#if defined(FLA_GPU)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return std::fabs(y) < 1.17549435e-38f ? 0.0f : y;
#endif
}

// Natural logarithm, 1 ulp; once per row, not per element.
FLA_DEVICE float log(float x) {
#if defined(FLA_GPU)
  return logf(x);
#else
  return std::log(x);
#endif
}

// 1/x, relative error 2^-23.3; 1/0 = inf, 1/inf = 0, NaN stays.
FLA_DEVICE float reciprocal(float x) {
#if defined(FLA_GPU)
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// 1/sqrt(x), relative error 2^-22.9.
FLA_DEVICE float rsqrt(float x) {
#if defined(FLA_GPU)
  float y;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / std::sqrt(x);
#endif
}

// e^x, relative error below 4 u at any x: the rounding of x log2(e) is put back by one FMA. Without it the error
// grows to |x| u, which the checker sees.
FLA_DEVICE float exp(float x) {
  const float t = x * kLog2E;
  const float rest = fmaf(x, kLog2ERest, fmaf(x, kLog2E, -t));
  const float y = exp2_approx(t);
  // Outside, y is 0, infinite or NaN already, and rest may be NaN.
  return x > -110.0f && x < 88.7f ? fmaf(y, rest * kLn2, y) : y;
}

// sigmoid(x) and sigmoid(-x) from one exponential, both to a few u relative: 1 - sigmoid(x) would cancel.
struct Sigmoid {
  float plus, minus;
};
FLA_DEVICE Sigmoid sigmoid(float x) {
  const float e = exp(-fabsf(x));
  const float r = reciprocal(1.0f + e);
  const float small = e * r;
  return x >= 0.0f ? Sigmoid{r, small} : Sigmoid{small, x < 0.0f ? r : x};  // NaN: both NaN
}

// tanh as 1 - 2 / (1 + e^2|x|), absolute error 3e-7. The hardware tanh is good to 2^-11 only.
FLA_DEVICE float tanh(float x) {
  const float e = exp2_approx(2.0f * kLog2E * fabsf(x));
  const float t = 1.0f - 2.0f * reciprocal(1.0f + e);
  return x != x ? x : copysignf(t, x);
}

// max that does not lose a NaN, as hardware max does.
FLA_DEVICE float max_with_nan(float a, float b) {
#if defined(FLA_GPU)
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a != a ? a : b != b ? b : a > b ? a : b;
#endif
}

}  // namespace fla::math

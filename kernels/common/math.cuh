// The device functions that formulas are written with. Each states its error; the references allow exactly that
// (reference/scalar/function_error.h), and nothing else in kernels/ calls the math library. u = 2^-24.
#pragma once

#include <cmath>

#include "common/gpu.h"

namespace fla::math {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;           // rounded to fp32
inline constexpr float kLn2Rest = -1.904654323148236e-9f;    // ln 2 - kLn2

// 2^x, relative error 2^-22.7 (measured exhaustively on an H200); results below 2^-126 are flushed to zero, which makes it
// one instruction instead of four.
FLA_DEVICE float exp2(float x) {
#if defined(FLA_GPU)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
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

// 1/x, relative error 2^-23.3, for normal x whose reciprocal is normal; 1/inf = 0, NaN stays.
FLA_DEVICE float reciprocal(float x) {
#if defined(FLA_GPU)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
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

// The same for normal x alone: one instruction instead of four.
FLA_DEVICE float rsqrt_of_normal(float x) {
#if defined(FLA_GPU)
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / std::sqrt(x);
#endif
}

// log2(x) of normal x: absolute error 2^-22 on (1/2, 2), relative elsewhere.
FLA_DEVICE float log2(float x) {
#if defined(FLA_GPU)
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::log2(x);
#endif
}

// max and min that do not lose a NaN, as the plain hardware ones do.
FLA_DEVICE float max_with_nan(float a, float b) {
#if defined(FLA_GPU)
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a != a ? a : b != b ? b : a > b ? a : b;
#endif
}

FLA_DEVICE float min_with_nan(float a, float b) {
#if defined(FLA_GPU)
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a != a ? a : b != b ? b : a < b ? a : b;
#endif
}

// log(1 + e) for e in [0, 1], within 1.5 ulp: e times a polynomial of degree 9 (minimax, relative error 0.5 u with its
// coefficients rounded). log2(1 + e) would lose a small e.
FLA_DEVICE float log1p(float e) {
  float p = -0.003244024468585849f;
  p = fmaf(p, e, 0.019851459190249443f);
  p = fmaf(p, e, -0.05695952847599983f);
  p = fmaf(p, e, 0.10603654384613037f);
  p = fmaf(p, e, -0.15305592119693756f);
  p = fmaf(p, e, 0.1967593878507614f);
  p = fmaf(p, e, -0.24954134225845337f);
  p = fmaf(p, e, 0.3332996368408203f);
  p = fmaf(p, e, -0.4999990165233612f);
  p = fmaf(p, e, 1.0f);
  return e * p;
}

// e^x for x <= 88, relative error below 4 u at any x, results below 2^-126 flushed to zero. What x log2(e) lost to
// rounding, x - t ln 2, is put back by one FMA; without it the error grows to |x| u, which the checker sees.
FLA_DEVICE float exp(float x) {
  x = max_with_nan(x, -104.0f);  // e^-104 is zero already, and x stays finite
  const float t = x * kLog2E;
  const float lost = fmaf(-t, kLn2Rest, fmaf(-t, kLn2, x));
  const float y = exp2(t);
  return fmaf(y, lost, y);
}

// sigmoid(x) and sigmoid(-x) from one exponential, both to a few u relative: 1 - sigmoid(x) would cancel.
struct Sigmoid {
  float plus, minus;
};
FLA_DEVICE Sigmoid sigmoid(float x) {
  const float e = exp(-fabsf(x));
  const float r = reciprocal(1.0f + e);
  const float small = e * r;
  return x >= 0.0f ? Sigmoid{r, small} : Sigmoid{small, r};  // NaN: both NaN
}

// The same for results that are stored in 16 bits: the exponent in one part, so that its relative error grows to |x| u,
// for half the instructions. Below -87.3 plus is zero (so is the full form's, from flushing), and minus too: the minimum
// keeps it from infinity times zero. Whoever needs sigmoid(-x) alone asks for plus at -x.
FLA_DEVICE Sigmoid sigmoid_for_16_bits(float x) {
  const float e = exp2(x * -kLog2E);
  const float r = reciprocal(1.0f + e);
  return {r, fminf(e, 0x1p127f) * r};
}

// log(1 + e) for e in [0, 1] and results that are stored in 16 bits: relative error below 9e-6 (8.5e-6 measured on all
// of fp32), e times a minimax polynomial of degree 5.
FLA_DEVICE float log1p_for_16_bits(float e) {
  float p = -0.023869143798947334f;
  p = fmaf(p, e, 0.10122226923704147f);
  p = fmaf(p, e, -0.21004867553710938f);
  p = fmaf(p, e, 0.3252066671848297f);
  p = fmaf(p, e, -0.4993613660335541f);
  p = fmaf(p, e, 0.9999915957450867f);
  return e * p;
}

// What a formula is written with when the dtype of its signal decides how exactly: kShort for 16 bits.
template <bool kShort>
struct Forms {
  static FLA_DEVICE float exp(float x) { return kShort ? exp2(x * kLog2E) : math::exp(x); }
  static FLA_DEVICE float log1p(float e) { return kShort ? log1p_for_16_bits(e) : math::log1p(e); }
  static FLA_DEVICE Sigmoid sigmoid(float x) { return kShort ? sigmoid_for_16_bits(x) : math::sigmoid(x); }
};

// The same decided at run time.
struct AnyForms {
  bool is_short;

  FLA_DEVICE float exp(float x) const { return is_short ? Forms<true>::exp(x) : Forms<false>::exp(x); }
  FLA_DEVICE float log1p(float e) const { return is_short ? Forms<true>::log1p(e) : Forms<false>::log1p(e); }
  FLA_DEVICE Sigmoid sigmoid(float x) const { return is_short ? Forms<true>::sigmoid(x) : Forms<false>::sigmoid(x); }
};

// tanh of each as 1 - 2 / (1 + e^2|x|), absolute error 5.6e-7: four share a reciprocal, since special functions are what bounds
// a soft-cap (2^30 stands for whatever is larger, so that their product is finite). Where one is NaN, the other three may be too.
// The hardware tanh is good to 2^-11 only.
template <int N>
FLA_DEVICE void tanh_each(float (&x)[N]) {
  FLA_UNROLL
  for (int i = 0; i < N; i += 4) {
    float d[4];
    FLA_UNROLL
    for (int k = 0; k < 4; ++k)
      d[k] = i + k < N ? 1.0f + exp2(min_with_nan(2.0f * kLog2E * fabsf(x[i + k]), 30.0f)) : 1.0f;
    const float low = d[0] * d[1], high = d[2] * d[3], shared = -2.0f * reciprocal(low * high);
    const float of_low = shared * high, of_high = shared * low;
    FLA_UNROLL
    for (int k = 0; k < 4; ++k)
      if (i + k < N) x[i + k] = copysignf(fmaf(k < 2 ? of_low : of_high, d[k ^ 1], 1.0f), x[i + k]);
  }
}

// cos(2 pi turns) and sin(2 pi turns), absolute error 2^-23 for any number of turns: whole ones are taken off exactly.
struct CosineSine {
  float cosine, sine;
};
FLA_DEVICE CosineSine cosine_sine_of_turns(float turns) {
  CosineSine r;
#if defined(FLA_GPU)
  sincospif(2.0f * turns, &r.sine, &r.cosine);
#else
  const double angle = 6.283185307179586 * static_cast<double>(turns);
  r = {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
#endif
  return r;
}

// The error function, 2 ulp.
FLA_DEVICE float erf(float x) {
#if defined(FLA_GPU)
  return erff(x);
#else
  return std::erf(x);
#endif
}

}  // namespace fla::math

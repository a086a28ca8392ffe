// The one table of errors that a good fp32 kernel may make in a single operation. Everything a tolerance is
// made of stands here, in sum.h (reduction depth) and in the formulas; there is no other constant.
#pragma once

#include <cmath>
#include <cstdint>

namespace fla::reference {

// u: half an ulp of fp32, relative.
inline constexpr double kRounding = 0x1p-24;
// Kernels flush results of exp below this to zero, which makes it one instruction instead of four.
inline constexpr double kExpFlush = 0x1p-126;
// Half the distance between fp32 subnormals: what a rounding costs near zero, where u |v| says nothing.
inline constexpr double kUnderflow = 0x1p-150;
// Larger magnitudes are infinite in a kernel.
inline constexpr double kLargest = 0x1.fffffep127;

// Errors of functions in fp32 ulps (1 ulp = 2u), as kernels may form them:
struct FunctionError {
  double exp = 2;  // ex2.approx of x log2(e) in two parts; a one-part product would err by |x| u more
  double exp2 = 2;  // ex2.approx
  double log = 2;  // accurate log, once per row
  double log1p = 2;
  double rsqrt = 2;  // rsqrt.approx
  double sqrt = 1;   // sqrt.approx
  // Both halves from one exponential e: its own 2, 0.5 of 1 + e, 1 of the reciprocal, 0.5 of the product,
  // and what e does to 1 + e, 1.
  double sigmoid = 5;
  double cosine = 2;  // and sine; absolute
  double erf = 2;    // accurate erf
  double divide = 1;  // also as a product with a rounded reciprocal
};
inline constexpr FunctionError kFunctionError;

// log1p by a polynomial of degree 5, for results that are stored in 16 bits; relative; f16 itself rounds by 50 times as much.
inline constexpr double kShortLog1pError = 9e-6;

// lg2.approx: absolute on (1/2, 2), relative elsewhere. What a power x^p is made of: there the absolute error counts.
inline constexpr double kLog2Error = 0x1p-22;

// tanh as 1 - 2 / (1 + e^2x) cancels near 0: its error there is that of the 1, not of the result, so a relative bound would be
// wrong and an absolute one is right. In u = 2^-24, 2 / (1 + e) being at most 1: 2.1 from e (2 ulp and its argument's rounding,
// times e / (1 + e)^2), 1 from 1 + e, 5 from a reciprocal that four share (2 products, itself 2, the way back 1), 1 from the
// difference: 9.1. The hardware's tanh (2^-11) is not allowed.
inline constexpr double kTanhAbsoluteError = 5.6e-7;

// Sums of n terms by `lanes` independent accumulators and a tree: depth h, of which roundings that behave
// like noise use 6 sqrt(h) with a failure probability of 3e-8 (reliability-and-numerics.md 2.3).
constexpr double reduction_depth(int64_t n, int64_t lanes) {
  return static_cast<double>((n + lanes - 1) / lanes + 16);
}
constexpr double reduction_factor(int64_t n, int64_t lanes) {
  const double h = reduction_depth(n, lanes);
  return std::fmin(h, 6 * std::sqrt(h));
}

// The number of lanes is contract: block-per-row kernels and parameter gradients, and rows of a vocabulary.
inline constexpr int64_t kBlockLanes = 256;
inline constexpr int64_t kVocabularyLanes = 1024;
inline constexpr int64_t kWarpLanes = 32;
// One accumulator, terms in order: short sums whose order the operator promises.
inline constexpr int64_t kOneLane = 1;

// Sums inside tensor cores: truncation, not rounding, so no square root and twice the unit.
inline constexpr double kTensorCoreRounding = 0x1p-23;
constexpr double tensor_core_factor(int64_t k) { return std::ceil(static_cast<double>(k) / 8); }

}  // namespace fla::reference

// The scalars that every reference can be evaluated on, and the vocabulary its text is written in: + - * /,
// unary -, exp_ exp2_ log_ log2_ log1p_ sqrt_ rsqrt_ tanh_ cos_ sin_ erf_ sigmoid_ abs_ max_ min_, less_ with select_, sum, store_as,
// detach, value, is_nan.
//
//   double          the answer
//   Bound           the answer and the error that a good fp32 kernel may make: the tolerance
//   Dual            the derivative along a direction: the proof of a hand-written backward
//   Single          fp32 with tree sums: a model of a good kernel
//   SingleSerial    fp32 with serial sums, and
//   SingleBf16Sum   with accumulators rounded to bf16: models of bad ones
//
// Numbers enter by S(double), comparisons are the named functions only.
#pragma once

#include "reference/scalar/bound.h"
#include "reference/scalar/dual.h"
#include "reference/scalar/single.h"
#include "reference/scalar/sum.h"

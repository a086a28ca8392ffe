// The vocabulary in which an operator's argument struct declares itself.
//
// Beside each struct stands `template <class V> void describe(V& v, Struct& a)`. It visits every attribute
// and tensor once: attributes first, because shapes and presence may depend on them, then tensors. Validation,
// the harness's allocation, case strings, byte counts and generated bad-argument tests are all visitors of
// that one function. A visitor offers
//
//   Dim  dim(name)                             a named extent, bound by the tensors that carry it
//   Dim  dim(name, fallback)                   the same; cases that do not name it use `fallback`
//   void attribute(name, float|int64_t|bool&, Range = {})
//   void option(name, enum&, names)            an enum with the names of its values, in order from 0
//   void input / output / saved / inout(name, Tensor&, Shape, Rule = {})
//
// `saved` is an output that exists for the backward pass; `inout` is read and overwritten.
// Names wire forward to backward: a field of the backward struct that is named like a forward tensor is that
// tensor, and `d<name>` is the gradient of `<name>`.
//
// What a description cannot say goes into one `Status check(const Struct&)` beside it; validate.h runs both.
#pragma once

#include <initializer_list>
#include <limits>

#include "fla/tensor.h"

namespace fla {

// An extent e: symbol * times / over + plus, or the constant `plus` when symbol < 0; triangular: e (e + 1) / 2, the pairs
// of e things; rounds_up: the division does. Extents of the last two kinds bind nothing: a tensor that carries their
// symbol plainly is visited before.
struct Dim {
  int32_t symbol = -1;
  bool triangular = false;
  bool rounds_up = false;
  bool omittable = false;  // extent 1 where a tensor leaves this dimension out: [M, G, N] given as [M, N]
  int64_t times = 1, over = 1, plus = 0;

  constexpr Dim() = default;
  constexpr Dim(int64_t constant) : plus(constant) {}
  constexpr Dim(int constant) : plus(constant) {}

  // The symbol itself.
  constexpr bool plain() const { return symbol >= 0 && times == 1 && over == 1 && plus == 0 && !triangular; }
  constexpr int64_t extent(int64_t value) const {
    const int64_t e = symbol < 0 ? plus : (value * times + (rounds_up ? over - 1 : 0)) / over + plus;
    return triangular ? static_cast<int64_t>(static_cast<uint64_t>(e) * (static_cast<uint64_t>(e) + 1) / 2) : e;
  }
};

constexpr Dim operator+(Dim d, int64_t k) { d.plus += k; d.omittable = false; return d; }
constexpr Dim operator-(Dim d, int64_t k) { return d + -k; }
constexpr Dim operator*(int64_t k, Dim d) { d.times *= k; d.plus *= k; d.omittable = false; return d; }
constexpr Dim operator/(Dim d, int64_t k) { d.over *= k; d.omittable = false; return d; }
// Blocks of `size` that cover d; the last may be short.
constexpr Dim blocks_of(Dim d, int64_t size) { d.over *= size; d.rounds_up = true; d.omittable = false; return d; }
constexpr Dim triangle(Dim d) { d.triangular = true; d.omittable = false; return d; }

struct Shape {
  Dim dims[kMaxRank];
  int rank = 0;
  constexpr Shape(std::initializer_list<Dim> list) {
    for (const Dim& d : list) dims[rank++] = d;
  }
};

// A set of dtypes, one bit each.
using DTypes = uint32_t;
constexpr DTypes only(DType t) { return 1u << static_cast<int>(t); }
inline constexpr DTypes kFloats = only(DType::f32) | only(DType::f16) | only(DType::bf16);
inline constexpr DTypes kF32 = only(DType::f32);
inline constexpr DTypes kIndex = only(DType::i32) | only(DType::i64);
inline constexpr DTypes kMaskTypes = kFloats | only(DType::u8) | only(DType::i32);

// What the numbers of a tensor mean; the harness fills accordingly and hostile-content tests aim at it.
struct Content {
  enum Kind : int32_t {
    real,      // any number
    labels,    // class ids in [0, bound), or `special` = ignored
    offsets,   // cu_seqlens: rank 1, from 0 to bound, non-decreasing
    mask,      // 0 or 1
    positive,  // any number > 0 (for example a reciprocal standard deviation)
    counters,  // integers that the operator adds to
    slots,     // distinct places in [0, bound), or `special` = none
    groups,    // [B, T]: ids that mostly repeat from token to token; negative ones are padding
  } kind = real;
  Dim bound = {};
  int64_t special = 0;
};

enum class Presence : int32_t {
  required,
  expected,  // may be null; cases have it unless they say otherwise
  optional,  // may be null; cases lack it unless they ask for it
};

struct Rule {
  Presence presence = Presence::required;
  DTypes types = kFloats;
  const Tensor* like = nullptr;    // the same dtype as this tensor when both are present
  const Tensor* with = nullptr;    // may be present only when this tensor is; cases have both or neither
  const Tensor* alias = nullptr;   // outputs: may be exactly this input (same pointer, strides and dtype)
  Content content = {};
  bool any_inner_stride = false;   // the innermost stride need not be 1
};

struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool exclude_min = false;   // value > min instead of value >= min
  bool allow_infinite = false;  // reals: +-inf is a legal value; NaN never is
};

namespace detail {

// A parameter's gradient: written in any float dtype, or added to an f32 main gradient.
template <class V>
void describe_gradient(V& v, const char* name, Tensor& t, const Shape& shape, bool accumulate, Rule rule) {
  if (!accumulate) return v.output(name, t, shape, rule);
  rule.types = kF32;
  v.inout(name, t, shape, rule);
}

}  // namespace detail

}  // namespace fla

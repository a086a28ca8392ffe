// float as a model of a kernel: controls for the checker. Trees of 256 lanes must pass; serial sums and bf16
// accumulators are mutants that long one-sign sums must expose.
#pragma once

#include "reference/scalar/real.h"

namespace fla::reference {

enum class Accumulation { tree, serial, bf16 };

template <Accumulation kAccumulation>
struct SingleBy {
  float v = 0;

  constexpr SingleBy() = default;
  constexpr SingleBy(double value) : v(static_cast<float>(value)) {}
};

using Single = SingleBy<Accumulation::tree>;
using SingleSerial = SingleBy<Accumulation::serial>;
using SingleBf16Sum = SingleBy<Accumulation::bf16>;

namespace single {

template <Accumulation A>
SingleBy<A> of(float value) {
  SingleBy<A> r;
  r.v = value;
  return r;
}

}  // namespace single

// Hidden in a template so that no double converts itself into a candidate.
template <Accumulation A>
SingleBy<A> operator-(SingleBy<A> a) { return single::of<A>(-a.v); }
template <Accumulation A>
SingleBy<A> operator+(SingleBy<A> a, SingleBy<A> b) { return single::of<A>(a.v + b.v); }
template <Accumulation A>
SingleBy<A> operator-(SingleBy<A> a, SingleBy<A> b) { return single::of<A>(a.v - b.v); }
template <Accumulation A>
SingleBy<A> operator*(SingleBy<A> a, SingleBy<A> b) { return single::of<A>(a.v * b.v); }
template <Accumulation A>
SingleBy<A> operator/(SingleBy<A> a, SingleBy<A> b) { return single::of<A>(a.v / b.v); }
template <Accumulation A>
SingleBy<A>& operator+=(SingleBy<A>& a, SingleBy<A> b) { return a = a + b; }

template <Accumulation A>
SingleBy<A> exp_(SingleBy<A> a) { return single::of<A>(std::exp(a.v)); }
template <Accumulation A>
SingleBy<A> log_(SingleBy<A> a) { return single::of<A>(std::log(a.v)); }
template <Accumulation A>
SingleBy<A> exp2_(SingleBy<A> a) { return single::of<A>(std::exp2(a.v)); }
template <Accumulation A>
SingleBy<A> log2_(SingleBy<A> a) { return single::of<A>(std::log2(a.v)); }
template <Accumulation A>
SingleBy<A> log1p_(SingleBy<A> a) { return single::of<A>(std::log1p(a.v)); }
template <Accumulation A>
SingleBy<A> sqrt_(SingleBy<A> a) { return single::of<A>(std::sqrt(a.v)); }
template <Accumulation A>
SingleBy<A> rsqrt_(SingleBy<A> a) { return single::of<A>(1.0f / std::sqrt(a.v)); }
template <Accumulation A>
SingleBy<A> tanh_(SingleBy<A> a) { return single::of<A>(std::tanh(a.v)); }
template <Accumulation A>
SingleBy<A> cos_(SingleBy<A> a) { return single::of<A>(std::cos(a.v)); }
template <Accumulation A>
SingleBy<A> sin_(SingleBy<A> a) { return single::of<A>(std::sin(a.v)); }
template <Accumulation A>
SingleBy<A> erf_(SingleBy<A> a) { return single::of<A>(std::erf(a.v)); }
template <Accumulation A>
SingleBy<A> abs_(SingleBy<A> a) { return single::of<A>(std::abs(a.v)); }
template <Accumulation A>
SingleBy<A> max_(SingleBy<A> a, SingleBy<A> b) {
  return single::of<A>(std::isnan(a.v) || std::isnan(b.v) ? a.v + b.v : a.v > b.v ? a.v : b.v);
}
template <Accumulation A>
SingleBy<A> min_(SingleBy<A> a, SingleBy<A> b) { return -max_(-a, -b); }
template <Accumulation A>
bool less_(SingleBy<A> a, SingleBy<A> b) { return a.v < b.v; }

template <Accumulation A>
Sigmoid<SingleBy<A>> sigmoid_(SingleBy<A> a) {
  const float e = std::exp(-std::abs(a.v)), r = 1.0f / (1.0f + e);
  if (a.v >= 0) return {single::of<A>(r), single::of<A>(e * r)};
  return {single::of<A>(e * r), single::of<A>(r)};
}

template <Accumulation A>
double value(SingleBy<A> a) { return static_cast<double>(a.v); }
template <Accumulation A>
bool is_nan(SingleBy<A> a) { return std::isnan(a.v); }
template <Accumulation A>
SingleBy<A> detach(SingleBy<A> a) { return a; }
template <Accumulation A>
SingleBy<A> store_as(DType type, SingleBy<A> a) {
  return single::of<A>(static_cast<float>(rounded(type, static_cast<double>(a.v))));
}

}  // namespace fla::reference

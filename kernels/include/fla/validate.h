// Host-side validation of an argument struct from its description, before anything is launched or written.
// run() does this first; callers who want to know without running call it themselves.
//
//   Status s = fla::validate(args);   // names the argument: "weight: size 4095 in dimension N, expected 4096"
//
// No allocation, about 100 ns. Order: attributes, then tensors as described, then aliasing, then the operator's
// own check(). Rejects: NaN or out-of-range attributes, unknown enum values, missing tensors, ranks, extents
// (negative, or different from the dimension another tensor set), products that overflow, dtypes, pointers not
// aligned to the element, negative strides, inner stride other than 1, overlapping outputs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>

#include "fla/describe.h"
#include "fla/status.h"

namespace fla {
namespace detail {

class Validator {
 public:
  Status status;

  Dim dim(const char* name) {
    names_[symbols_] = name;
    values_[symbols_] = -1;
    Dim d;
    d.symbol = symbols_++;
    return d;
  }
  Dim dim(const char* name, Dim fallback) {
    Dim d = dim(name);
    d.omittable = fallback.symbol < 0 && fallback.plus == 1;
    return d;
  }

  void attribute(const char* name, const float& value, Range range = {}) { real(name, value, range); }
  void attribute(const char* name, const int64_t& value, Range range = {}) {
    real(name, static_cast<double>(value), range);
  }
  void attribute(const char*, const bool&, Range = {}) {}
  template <class E, int n>
  void option(const char* name, const E& value, const char* const (&)[n]) {
    const int64_t v = static_cast<int64_t>(value);
    if (v < 0 || v >= n) fail(StatusCode::invalid_argument, "%s: unknown value %lld", name, v);
  }

  void input(const char* name, const Tensor& t, const Shape& s, const Rule& r = {}) { tensor(name, t, s, r, false); }
  void output(const char* name, const Tensor& t, const Shape& s, const Rule& r = {}) { tensor(name, t, s, r, true); }
  void saved(const char* name, const Tensor& t, const Shape& s, const Rule& r = {}) { tensor(name, t, s, r, true); }
  void inout(const char* name, const Tensor& t, const Shape& s, const Rule& r = {}) { tensor(name, t, s, r, true); }

  // After describe(): outputs may not overlap anything but the exact alias that their rule allows.
  void check_aliases();

 private:
  struct Seen {
    const char* name;
    const Tensor* tensor;
    const Tensor* alias;
    uintptr_t first, last;  // bytes touched: [first, last)
    bool written;
  };

  template <class... A>
  void fail(StatusCode code, const char* format, A... args) {
    if (!status.ok()) return;
    status.code = code;
    std::snprintf(status.text, sizeof status.text, format, args...);
  }
  void real(const char* name, double value, const Range& range) {
    const bool finite = std::isfinite(value) || (range.allow_infinite && !std::isnan(value));
    const bool above = range.exclude_min ? value > range.min : value >= range.min;
    if (!(finite && above && value <= range.max))
      fail(StatusCode::invalid_argument, "%s: %g is outside what it may be", name, value);
  }
  void tensor(const char* name, const Tensor& t, const Shape& shape, const Rule& rule, bool written);
  bool bind(const char* name, const Dim& dim, int64_t extent);

  static constexpr int kMaxSymbols = 8, kMaxTensors = 20;
  const char* names_[kMaxSymbols];
  int64_t values_[kMaxSymbols];
  int symbols_ = 0;
  Seen seen_[kMaxTensors];
  int tensors_ = 0;
};

inline bool Validator::bind(const char* name, const Dim& dim, int64_t extent) {
  if (dim.symbol < 0) {
    if (extent == dim.extent(0)) return true;
    fail(StatusCode::shape_mismatch, "%s: size %lld, expected %lld", name, static_cast<long long>(extent),
         static_cast<long long>(dim.extent(0)));
    return false;
  }
  int64_t& value = values_[dim.symbol];
  if (value < 0) {
    const int64_t scaled = (extent - dim.plus) * dim.over;
    if (scaled < 0 || scaled % dim.times != 0 || dim.triangular || dim.rounds_up) {
      fail(StatusCode::shape_mismatch, "%s: size %lld does not fit dimension %s", name,
           static_cast<long long>(extent), names_[dim.symbol]);
      return false;
    }
    value = scaled / dim.times;
    return true;
  }
  const int64_t expected = dim.extent(value);
  if (extent == expected) return true;
  fail(StatusCode::shape_mismatch, "%s: size %lld in dimension %s, expected %lld", name,
       static_cast<long long>(extent), names_[dim.symbol], static_cast<long long>(expected));
  return false;
}

inline void Validator::tensor(const char* name, const Tensor& t, const Shape& shape, const Rule& rule, bool written) {
  if (!status.ok()) return;
  if (!t) {
    if (rule.presence == Presence::required) fail(StatusCode::null_pointer, "%s: required", name);
    return;
  }
  if (rule.with && !*rule.with)
    return fail(StatusCode::invalid_argument, "%s: given without the tensor it belongs to", name);
  if (static_cast<uint32_t>(t.dtype) >= kDTypeCount || !(rule.types & only(t.dtype)))
    return fail(StatusCode::unsupported_dtype, "%s: dtype %s is not supported", name, name_of(t.dtype));
  if (rule.like && *rule.like && t.dtype != rule.like->dtype)
    return fail(StatusCode::unsupported_dtype, "%s: dtype %s, expected %s", name, name_of(t.dtype),
                name_of(rule.like->dtype));
  int omitted = shape.rank - t.rank;  // dimensions that may be left out, and are
  int omittable = 0;
  for (int i = 0; i < shape.rank; ++i) omittable += shape.dims[i].omittable;
  if (omitted != 0 && omitted != omittable)
    return fail(StatusCode::shape_mismatch, "%s: rank %d, expected %d", name, t.rank, shape.rank);
  const int64_t element = size_of(t.dtype);
  int64_t elements = 1, reach = 0;
  bool overflow = false, empty = false;
  int axis = 0;
  for (int i = 0; i < shape.rank; ++i) {
    if (omitted && shape.dims[i].omittable) {
      if (!bind(name, shape.dims[i], 1)) return;
      continue;
    }
    const int64_t extent = t.size[axis], stride = t.stride[axis];
    if (extent < 0)
      return fail(StatusCode::shape_mismatch, "%s: negative size %lld", name, static_cast<long long>(extent));
    if (!bind(name, shape.dims[i], extent)) return;
    if (stride < 0)
      return fail(StatusCode::bad_stride, "%s: negative stride %lld", name, static_cast<long long>(stride));
    int64_t span = 0;
    overflow |= __builtin_mul_overflow(elements, extent, &elements);
    overflow |= __builtin_mul_overflow(extent > 0 ? extent - 1 : 0, stride, &span);
    overflow |= __builtin_add_overflow(reach, span, &reach);
    empty |= extent == 0;
    ++axis;
  }
  int64_t bytes = 0;
  overflow |= __builtin_mul_overflow(reach, element, &bytes);
  overflow |= __builtin_add_overflow(bytes, element, &bytes);
  if (overflow) return fail(StatusCode::overflow, "%s: the product of its sizes or strides overflows", name);
  if (empty) return;
  if (!t.data) return fail(StatusCode::null_pointer, "%s: null with %lld elements", name,
                           static_cast<long long>(elements));
  const auto address = reinterpret_cast<uintptr_t>(t.data);
  if (address % static_cast<uintptr_t>(element) != 0)
    return fail(StatusCode::misaligned, "%s: not aligned to its %lld-byte elements", name,
                static_cast<long long>(element));
  const int last = t.rank - 1;
  if (!rule.any_inner_stride && last >= 0 && t.size[last] > 1 && t.stride[last] != 1 &&
      !(t.stride[last] == 0 && !written && last == 0))
    return fail(StatusCode::bad_stride, "%s: inner stride %lld, expected 1", name,
                static_cast<long long>(t.stride[last]));
  if (written) {
    // Distinct elements need distinct addresses: sort dimensions by stride, each must step over the one below.
    bool used[kMaxRank] = {};
    int64_t covered = 1;
    for (int round = 0; round < t.rank; ++round) {
      int pick = -1;
      for (int i = 0; i < t.rank; ++i)
        if (!used[i] && t.size[i] > 1 && (pick < 0 || t.stride[i] < t.stride[pick])) pick = i;
      if (pick < 0) break;
      used[pick] = true;
      if (t.stride[pick] < covered)
        return fail(StatusCode::bad_stride, "%s: stride %lld makes its own elements overlap", name,
                    static_cast<long long>(t.stride[pick]));
      covered = t.stride[pick] * (t.size[pick] - 1) + covered;
    }
  }
  if (tensors_ < kMaxTensors)
    seen_[tensors_++] = {name, &t, rule.alias, address, address + static_cast<uintptr_t>(bytes), written};
}

// A tensor as columns of a row-strided buffer: its inner dimensions lie side by side, the others step by multiples of
// one pitch. 0 columns where it is not that, or is dense throughout.
struct Columns {
  int64_t count = 0, pitch = 0;
};

inline Columns columns_of(const Tensor& t) {
  Columns c{1, 0};
  for (int i = t.rank - 1; i >= 0; --i) {
    if (t.size[i] == 1) continue;
    if (c.pitch == 0 && t.stride[i] == c.count) c.count *= t.size[i];
    else if (c.pitch == 0) c.pitch = t.stride[i];
    else if (t.stride[i] % c.pitch != 0) return {};
  }
  return c.pitch < c.count ? Columns{} : c;
}

// Whether two tensors that share an address range are columns [a, a + n) and [b, b + m) of one row-strided buffer.
inline bool interleaved(const Tensor& p, const Tensor& q) {
  const Columns a = columns_of(p), b = columns_of(q);
  if (p.dtype != q.dtype || a.count == 0 || a.pitch != b.pitch) return false;
  const int64_t apart = (static_cast<const char*>(q.data) - static_cast<const char*>(p.data)) / size_of(p.dtype);
  const int64_t column = ((apart % a.pitch) + a.pitch) % a.pitch;  // where q's columns start, from p's
  return column >= a.count && column + b.count <= a.pitch;
}

inline bool same_view(const Tensor& p, const Tensor& q) {
  if (p.data != q.data || p.dtype != q.dtype || p.rank != q.rank) return false;
  for (int i = 0; i < p.rank; ++i)
    if (p.size[i] != q.size[i] || (p.size[i] > 1 && p.stride[i] != q.stride[i])) return false;
  return true;
}

inline void Validator::check_aliases() {
  for (int i = 0; i < tensors_ && status.ok(); ++i) {
    const Seen& out = seen_[i];
    if (!out.written) continue;
    for (int j = 0; j < tensors_; ++j) {
      const Seen& other = seen_[j];
      if (j == i || (other.written && j < i) || out.last <= other.first || other.last <= out.first) continue;
      if (out.alias == other.tensor && same_view(*out.tensor, *other.tensor)) continue;
      if (other.alias == out.tensor && same_view(*out.tensor, *other.tensor)) continue;
      if (interleaved(*out.tensor, *other.tensor)) continue;
      return fail(StatusCode::aliasing, "%s: overlaps %s", out.name, other.name);
    }
  }
}

template <class A>
concept HasCheck = requires(const A& a) { check(a); };

}  // namespace detail

template <class A>
Status validate(const A& args) {
  detail::Validator v;
  describe(v, const_cast<A&>(args));  // descriptions take a mutable struct; this visitor only reads it
  if (v.status.ok()) v.check_aliases();
  if constexpr (detail::HasCheck<A>) {
    if (v.status.ok()) return check(args);
  }
  return v.status;
}

}  // namespace fla

// Operators made for testing the checker: small, complete, and breakable by name.
#pragma once

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"
#include "fla/validate.h"
#include "reference/scalar/scalars.h"

namespace fla {

// y = x * weight, total = the sum of each row of y. The workspace holds the totals on their way.
struct RowScale {
  Tensor x, weight, y, total;
  float scale = 1;
};

template <class V>
void describe(V& v, RowScale& a) {
  v.attribute("scale", a.scale, {.min = 0});
  const Dim M = v.dim("M"), N = v.dim("N");
  v.input("x", a.x, {M, N});
  v.input("weight", a.weight, {N}, {.presence = Presence::expected});
  v.output("y", a.y, {M, N}, {.like = &a.x, .alias = &a.x});
  v.saved("total", a.total, {M}, {.presence = Presence::expected, .types = kF32});
}

struct RowScaleBackward {
  Tensor x, weight, dy, dtotal, dx, dweight;
  float scale = 1;
};

template <class V>
void describe(V& v, RowScaleBackward& a) {
  v.attribute("scale", a.scale, {.min = 0});
  const Dim M = v.dim("M"), N = v.dim("N");
  constexpr Rule expected{.presence = Presence::expected};
  v.input("x", a.x, {M, N});
  v.input("weight", a.weight, {N}, expected);
  v.input("dy", a.dy, {M, N});
  v.input("dtotal", a.dtotal, {M}, {.presence = Presence::optional, .types = kF32});
  v.output("dx", a.dx, {M, N}, expected);
  v.output("dweight", a.dweight, {N}, {.presence = Presence::expected, .with = &a.weight});
}

// Loss and gradient in one call: loss = sum of x^2 over each row, dx = 2 x dloss. Without dloss it is 1.
struct RowSquares {
  Tensor x, dloss, loss, dx;
};

template <class V>
void describe(V& v, RowSquares& a) {
  const Dim M = v.dim("M"), N = v.dim("N");
  v.input("x", a.x, {M, N});
  v.input("dloss", a.dloss, {M}, {.presence = Presence::optional, .types = kF32});
  v.output("loss", a.loss, {M}, {.types = kF32});
  v.output("dx", a.dx, {M, N}, {.like = &a.x, .alias = &a.x});
}

// What the kernel or the reference under test does wrong; empty when all is right.
inline std::string fault;

inline size_t workspace_bytes(const RowScale& a) { return static_cast<size_t>(a.x.size[0]) * sizeof(float); }
inline size_t workspace_bytes(const RowScaleBackward&) { return 0; }
inline size_t workspace_bytes(const RowSquares&) { return 0; }

namespace row_scale {

inline float load(const Tensor& t, int64_t i) {
  if (t.dtype == DType::f32) return static_cast<const float*>(t.data)[i];
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(t.data)[i]} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline void store(const Tensor& t, int64_t i, float value) {
  if (t.dtype == DType::f32) {
    static_cast<float*>(t.data)[i] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (fault != "truncates") bits += 0x7fff + ((bits >> 16) & 1);
  static_cast<uint16_t*>(t.data)[i] = static_cast<uint16_t>(bits >> 16);
}

inline Status refused(StatusCode code, const char* text) {
  Status s;
  s.code = code;
  std::strncpy(s.text, text, sizeof s.text - 1);
  s.text[sizeof s.text - 1] = 0;
  return s;
}

inline void rows(const RowScale& a, float* partial) {
  const int64_t M = a.x.size[0], N = a.x.size[1];
  for (int64_t m = 0; m < M; ++m) {
    if (fault != "uninitialised workspace") partial[m] = 0;
    for (int64_t n = 0; n < N; ++n) {
      const float y = load(a.x, m * a.x.stride[0] + n) * a.scale * (a.weight ? load(a.weight, n) : 1.0f);
      partial[m] += y;
      const int64_t at = m * a.y.stride[0] + n;
      if (fault == "last element missing" && m == M - 1 && n == N - 1) continue;
      if (fault == "adds to what was there") store(a.y, at, y + 0 * load(a.y, at));
      else if (fault == "one element wrong" && m == M / 2 && n == N / 2) store(a.y, at, -y);
      else if (fault == "writes NaN" && m == 0 && n == 0) store(a.y, at, NAN);
      else if (fault == "depends on the batch") store(a.y, at, y * (M > 1 ? 1.0f : 1.0000001f));
      else store(a.y, at, y);
    }
    if (a.total) static_cast<float*>(a.total.data)[m] = partial[m];
  }
}

inline void misbehave(const RowScale& a) {
  static int calls = 0;
  ++calls;
  const int64_t M = a.x.size[0], N = a.x.size[1];
  if (M == 0 || N == 0) return;
  if (fault == "one past the end") store(a.y, (M - 1) * a.y.stride[0] + N, 1);
  if (fault == "into the gap") store(a.y, a.y.stride[0] - 1, 1);
  if (fault == "changes its input") store(a.x, 0, 3);
  if (fault == "differs every third call" && calls % 3 == 0) store(a.y, 0, 7);
  if (fault == "depends on an optional output" && !a.total) store(a.y, 0, 9);
  if (fault == "throws") throw std::runtime_error("out of bounds read at row_scale.cu:17");
}

}  // namespace row_scale

inline Status run(const RowScale& a, Workspace w, Stream) {
  const bool lenient = fault == "accepts bad arguments";
  if (Status s = validate(a); !s.ok())
    return fault == "names nothing" ? row_scale::refused(s.code, "bad argument") : lenient ? Status() : s;
  if (fault == "refuses empty" && a.x.size[0] == 0)
    return row_scale::refused(StatusCode::unsupported_shape, "too small");
  if (w.bytes < workspace_bytes(a) && fault != "ignores workspace size")
    return row_scale::refused(StatusCode::workspace_too_small, "workspace: too small");
  row_scale::rows(a, static_cast<float*>(w.data));
  row_scale::misbehave(a);
  return {};
}

inline Status run(const RowScaleBackward& a, Workspace, Stream) { return validate(a); }
inline Status run(const RowSquares& a, Workspace, Stream) { return validate(a); }

namespace reference {

template <class S>
void evaluate(const RowScale& a) {
  const auto* x = static_cast<const S*>(a.x.data);
  const auto* weight = static_cast<const S*>(a.weight.data);
  for (int64_t m = 0; m < a.x.size[0]; ++m) {
    S total(0.0);
    for (int64_t n = 0; n < a.x.size[1]; ++n) {
      S y = x[m * a.x.stride[0] + n] * S(static_cast<double>(a.scale));
      if (weight) y = y * weight[n];
      static_cast<S*>(a.y.data)[m * a.y.stride[0] + n] = y;
      total = total + y;
    }
    if (a.total) static_cast<S*>(a.total.data)[m * a.total.stride[0]] = total;
  }
}

// dx = scale * weight * (dy + dtotal), dweight = sum over rows of scale * x * (dy + dtotal).
template <class S>
void evaluate(const RowScaleBackward& a) {
  const auto* x = static_cast<const S*>(a.x.data);
  const auto* dy = static_cast<const S*>(a.dy.data);
  const S scale(static_cast<double>(a.scale));
  const int64_t M = a.x.size[0], N = a.x.size[1];
  for (int64_t n = 0; n < N; ++n) {
    S sum(0.0);
    const S weight = a.weight ? static_cast<const S*>(a.weight.data)[n] : S(1.0);
    for (int64_t m = 0; m < M; ++m) {
      S g = dy[m * N + n] * scale;
      if (a.dtotal && fault != "forgets dtotal") g = g + static_cast<const S*>(a.dtotal.data)[m] * scale;
      sum = sum + g * x[m * N + n];
      if (!a.dx) continue;
      S& dx = static_cast<S*>(a.dx.data)[m * N + n];
      dx = fault == "zero gradient" ? S(0.0) : g * weight;
      if (fault == "one entry off by 1e-8" && m == 0 && n == 0) dx = dx * S(1 + 1e-8);
    }
    if (a.dweight) static_cast<S*>(a.dweight.data)[n] = sum;
  }
}

template <class S>
void evaluate(const RowSquares& a) {
  const int64_t M = a.x.size[0], N = a.x.size[1];
  const S two(fault == "wrong factor" ? 1.0 : 2.0);
  for (int64_t m = 0; m < M; ++m) {
    S loss(0.0);
    const S g = a.dloss ? static_cast<const S*>(a.dloss.data)[m] : S(1.0);
    for (int64_t n = 0; n < N; ++n) {
      const S x = static_cast<const S*>(a.x.data)[m * N + n];
      loss = loss + x * x;
      static_cast<S*>(a.dx.data)[m * N + n] = two * x * g;
    }
    static_cast<S*>(a.loss.data)[m] = loss;
  }
}

}  // namespace reference
}  // namespace fla

#include "harness/case.h"
#include "harness/operator_table.h"

namespace fla::harness {

inline const Direction& row_scale_forward() {
  static const Direction d = direction<RowScale>(
      "row_scale", "fwd", {.sample_dim = "M", .backward_of = "", .batch_invariant = true});
  return d;
}
inline const Direction& row_scale_backward() {
  static const Direction d =
      direction<RowScaleBackward>("row_scale", "bwd", {.sample_dim = "M", .backward_of = ""});
  return d;
}

inline const Direction& row_squares() {
  static const Direction d =
      direction<RowSquares>("row_squares", "fwd_bwd", {.sample_dim = "M", .backward_of = ""});
  return d;
}

// Sets the fault for one scope.
struct WithFault {
  explicit WithFault(const std::string& name) { fault = name; }
  ~WithFault() { fault.clear(); }
};

inline Case row_scale_case(std::map<std::string, std::string> values, bool backward = false) {
  return make_case(backward ? row_scale_backward() : row_scale_forward(), values, "test");
}

}  // namespace fla::harness

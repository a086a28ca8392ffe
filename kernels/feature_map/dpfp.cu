// DPFP: y[(j - 1) 2D + i] = u_i u_{i - j}. A thread owns one 16-byte vector of x and what it makes in both halves of u:
// with nu <= 4 it needs its neighbours' four nearest elements beside its own, which come from the cache, and moves nothing
// through shared memory. (1 + 2 nu) vectors of a thread are in flight forward, 12 nu + 1 backward in 16 bits.
// Other nu, widths and dtypes take one element a thread and read every factor where it lies.
#include <type_traits>

#include "common/alignment.h"
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/workspace.h"
#include "feature_map/expansion.h"
#include "fla/feature_map.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

constexpr int kThreads = 128, kReach = 4;

struct DpfpArgs {
  AnyFloat x, dy, out;  // out: y or dx
  int64_t x_stride = 0, dy_stride = 0, out_stride = 0, items = 0;
  int32_t width = 0, vectors = 0;  // of a row
  int32_t nu = 0;
  bool paper = false;
};

// An element of u: of x in the first half, or in the second.
FLA_DEVICE float of_half(const DpfpArgs& a, float x, bool second) {
  if (!second) return math::max_with_nan(x, 0.0f);
  return a.paper ? math::max_with_nan(-x, 0.0f) : -math::max_with_nan(x, 0.0f);
}

// x[row, column - kReach .. column + V + (kBehind ? kReach : 0)), columns modulo the width, as floats.
template <class T, int V, bool kBehind>
FLA_DEVICE void load_window(const DpfpArgs& a, int64_t row, int column, float (&window)[kReach + V + (kBehind ? kReach : 0)]) {
  const T* x = static_cast<const T*>(a.x.data) + row * a.x_stride;
  const auto before = load<T, kReach>(x + (column > 0 ? column : a.width) - kReach);
  const auto own = load<T, V>(x + column);
  float at[kReach], here[V];
  if constexpr (kBehind) {
    const auto behind = load<T, kReach>(x + (column + V < a.width ? column + V : 0));
    unpack(behind, at);
    FLA_UNROLL
    for (int e = 0; e < kReach; ++e) window[kReach + V + e] = at[e];
  }
  unpack(before, at);
  unpack(own, here);
  FLA_UNROLL
  for (int e = 0; e < kReach; ++e) window[e] = at[e];
  FLA_UNROLL
  for (int e = 0; e < V; ++e) window[kReach + e] = here[e];
}

// The window of u around the columns of half h.
template <int V, int N>
FLA_DEVICE void halve(const DpfpArgs& a, const float (&x)[N], int column, bool second, float (&u)[N]) {
  const bool first_vector = column == 0, last_vector = column + V == a.width;
  FLA_UNROLL
  for (int e = 0; e < N; ++e) {
    const bool wraps = (e < kReach && first_vector) || (e >= kReach + V && last_vector);
    u[e] = of_half(a, x[e], second != wraps);
  }
}

FLA_DEVICE float load_u(const DpfpArgs& a, int64_t row, int64_t i) {
  const int64_t around = 2 * a.width;
  i = (i % around + around) % around;
  const bool second = i >= a.width;
  return of_half(a, load_float(a.x, row * a.x_stride + i - (second ? a.width : 0)), second);
}

template <class T, int V>
FLA_KERNEL void FLA_BOUNDS(kThreads, 6) dpfp_forward_kernel(FLA_PARAMETERS DpfpArgs a) {
  wait_for_predecessor();
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int64_t row = item / a.vectors, at = row * a.out_stride;
  const int column = static_cast<int>(item - row * a.vectors) * V;
  if constexpr (V == 1) {
    for (int half = 0; half < 2; ++half) {
      const int64_t i = half * a.width + column;
      const float u = load_u(a, row, i);
      for (int64_t j = 1; j <= a.nu; ++j)
        store_float(a.out, at + (j - 1) * 2 * a.width + i, u * load_u(a, row, i - j));
    }
  } else {
    float x[kReach + V], u[kReach + V];
    load_window<T, V, false>(a, row, column, x);
    T* out = static_cast<T*>(a.out.data) + at + column;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      halve<V>(a, x, column, half == 1, u);
      FLA_UNROLL
      for (int j = 1; j <= kReach; ++j) {
        if (j > a.nu) break;
        float y[V];
        FLA_UNROLL
        for (int e = 0; e < V; ++e) y[e] = u[kReach + e] * u[kReach + e - j];
        store_floats(out + ((j - 1) * 2 + half) * static_cast<int64_t>(a.width), y);
      }
    }
  }
}

// dx of x from du of both its halves.
FLA_DEVICE float through_halves(const DpfpArgs& a, float x, float first, float second) {
  if (a.paper) return x > 0.0f ? first : x < 0.0f ? -second : x == x ? 0.0f : x;
  return x > 0.0f ? first - second : x == x ? 0.0f : x;
}

template <class T, int V>
FLA_KERNEL void FLA_BOUNDS(kThreads, 4) dpfp_backward_kernel(FLA_PARAMETERS DpfpArgs a) {
  wait_for_predecessor();
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int64_t row = item / a.vectors;
  const int column = static_cast<int>(item - row * a.vectors) * V;
  if constexpr (V == 1) {
    float du[2] = {};
    const int64_t around = 2 * a.width, at = row * a.dy_stride;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t i = half * a.width + column;
      for (int64_t j = 1; j <= a.nu; ++j) {
        const int64_t of_j = at + (j - 1) * around;
        du[half] = fmaf(load_float(a.dy, of_j + i), load_u(a, row, i - j), du[half]);
        du[half] = fmaf(load_float(a.dy, of_j + (i + j) % around), load_u(a, row, i + j), du[half]);
      }
    }
    const float x = load_float(a.x, row * a.x_stride + column);
    store_float(a.out, row * a.out_stride + column, through_halves(a, x, du[0], du[1]));
  } else {
    const T* dy = static_cast<const T*>(a.dy.data) + row * a.dy_stride;
    Vector<T, V> own[2][kReach];
    Vector<T, kReach> behind[2][kReach];
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int i = half * a.width + column, next = i + V < 2 * a.width ? i + V : 0;
      FLA_UNROLL
      for (int j = 0; j < kReach; ++j) {
        const int64_t of_j = static_cast<int64_t>(j < a.nu ? j : 0) * 2 * a.width;
        own[half][j] = load<T, V>(dy + of_j + i);
        behind[half][j] = load<T, kReach>(dy + of_j + next);
      }
    }
    float x[2 * kReach + V], du[2][V] = {};
    load_window<T, V, true>(a, row, column, x);
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      float u[2 * kReach + V];
      halve<V>(a, x, column, half == 1, u);
      FLA_UNROLL
      for (int j = 1; j <= kReach; ++j) {
        if (j > a.nu) break;
        float g[V + kReach], here[V], there[kReach];
        unpack(own[half][j - 1], here);
        unpack(behind[half][j - 1], there);
        FLA_UNROLL
        for (int e = 0; e < V + kReach; ++e) g[e] = e < V ? here[e < V ? e : 0] : there[e < V ? 0 : e - V];
        FLA_UNROLL
        for (int e = 0; e < V; ++e) {
          du[half][e] = fmaf(g[e], u[kReach + e - j], du[half][e]);
          du[half][e] = fmaf(g[e + j], u[kReach + e + j], du[half][e]);
        }
      }
    }
    float dx[V];
    FLA_UNROLL
    for (int e = 0; e < V; ++e) dx[e] = through_halves(a, x[kReach + e], du[0][e], du[1][e]);
    store_floats(static_cast<T*>(a.out.data) + row * a.out_stride + column, dx);
  }
}

template <class A>
DpfpArgs arguments(const A& a, const Tensor& dy, const Tensor& out) {
  return {.x = any_float(a.x),
          .dy = any_float(dy),
          .out = any_float(out),
          .x_stride = row_stride(a.x),
          .dy_stride = row_stride(dy),
          .out_stride = row_stride(out),
          .width = static_cast<int32_t>(a.x.size[1]),
          .nu = static_cast<int32_t>(a.nu),
          .paper = a.variant == DpfpVariant::paper};
}

template <bool kBackward>
Status launch_dpfp(DpfpArgs a, const Tensor& x, const Tensor& dy, const Tensor& out, Stream stream) {
  const int64_t wide = 16 / size_of(x.dtype);
  const bool uniform = out.dtype == x.dtype && (!dy || dy.dtype == x.dtype);
  const bool vectors = uniform && a.nu <= kReach && a.width % wide == 0 && all_rows_allow(wide, x, dy, out);
  a.vectors = vectors ? static_cast<int32_t>(a.width / wide) : a.width;
  a.items = x.size[0] * a.vectors;
  if (a.items == 0) return {};
  const Launch shape{.grid = divide_up(a.items, kThreads), .block = kThreads, .stream = stream, .dependent = true};
  const auto launch_width = [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    if constexpr (kBackward) return launch<&dpfp_backward_kernel<T, kWidth>>(shape, a);
    else return launch<&dpfp_forward_kernel<T, kWidth>>(shape, a);
  };
  if (!vectors) return launch_width(TypeTag<float>{}, std::integral_constant<int, 1>{});
  return dispatch_float(x.dtype, [&](auto tag) {
    return launch_width(tag, std::integral_constant<int, 16 / sizeof(typename decltype(tag)::type)>{});
  });
}

template <class A>
Status check_dpfp(const A& a) {
  if (a.x.size[1] < 1) return error(StatusCode::unsupported_shape, "x: rows of no elements");
  if (a.x.size[1] <= 0x7fffffff / 2 / a.nu) return {};
  return error(StatusCode::unsupported_shape, "x: %lld columns make too many", static_cast<long long>(a.x.size[1]));
}

}  // namespace

Status check(const DpfpMapForward& a) { return check_dpfp(a); }
size_t workspace_bytes(const DpfpMapForward&) { return 0; }
Status run(const DpfpMapForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return launch_dpfp<false>(arguments(a, {}, a.y), a.x, {}, a.y, stream);
}

Status check(const DpfpMapBackward& a) { return check_dpfp(a); }
size_t workspace_bytes(const DpfpMapBackward&) { return 0; }
Status run(const DpfpMapBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return launch_dpfp<true>(arguments(a, a.dy, a.dx), a.x, a.dy, a.dx, stream);
}

}  // namespace fla

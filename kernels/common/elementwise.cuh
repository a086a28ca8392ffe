// The element-wise skeleton: some input streams, some output streams, one formula between them.
//
// A thread takes one 16-byte vector of every stream (measured on an H200: 98-102 % of a copy; grid-stride loops and
// more vectors per thread lose 1-12 %). Dense operands are one long row; strided rows put (row, column block) on grid.x.
// When dtypes differ between streams, or addresses or strides are not vector-aligned, the same formula runs with
// run-time dtypes, one element per thread where it must.
//
// A formula is a trivially copyable functor: operator()(forms, const float (&in)[I], float (&out)[O]), with the
// math::Forms of the first input's dtype, on every path alike. One that is run in place may say changes_nothing().
#pragma once

#include "common/alignment.h"
#include "common/dispatch.h"
#include "common/divisor.h"
#include "common/gpu.h"
#include "common/launch.h"
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/vector.cuh"

namespace fla::detail {

inline constexpr int kElementwiseThreads = 128;

struct ElementwiseOperand {
  AnyFloat data;
  int64_t row_stride = 0;
};

template <int I, int O>
struct ElementwiseOperands {
  ElementwiseOperand in[I];
  ElementwiseOperand out[O];  // absent ones are computed and dropped
  int64_t rows = 0, columns = 0;
  Divisor blocks_per_row;
};

// Streams of one known dtype, or of dtypes known at run time, of which the signal's decides the forms. What is held has
// been asked for but need not have come: unpack() waits for it.
template <class T>
struct TypedStream {
  template <int V>
  using Held = Vector<T, V>;

  static FLA_DEVICE math::Forms<sizeof(T) == 2> forms(const AnyFloat&) { return {}; }

  template <int V>
  static FLA_DEVICE void hold(const AnyFloat& p, int64_t index, Held<V>& held) {
    held = load<T, V>(static_cast<const T*>(p.data) + index);
  }
  template <int V>
  static FLA_DEVICE void write(const AnyFloat& p, int64_t index, const float (&in)[V]) {
    store_floats(static_cast<T*>(p.data) + index, in);
  }
};
struct AnyStream {
  template <int V>
  struct Held {
    float values[V];
    friend FLA_DEVICE void unpack(const Held& held, float (&out)[V]) {
      FLA_UNROLL
      for (int e = 0; e < V; ++e) out[e] = held.values[e];
    }
  };

  static FLA_DEVICE math::AnyForms forms(const AnyFloat& signal) { return {signal.dtype != DType::f32}; }

  template <int V>
  static FLA_DEVICE void hold(const AnyFloat& p, int64_t index, Held<V>& held) {
    load_floats(p, index, held.values);
  }
  template <int V>
  static FLA_DEVICE void write(const AnyFloat& p, int64_t index, const float (&in)[V]) {
    store_floats(p, index, in);
  }
};

template <int V, class Streams, class Formula, int I, int O>
FLA_DEVICE void elementwise_vector(const ElementwiseOperands<I, O>& a, const Formula& formula, int64_t row,
                                   int64_t column) {
  const auto forms = Streams::forms(a.in[0].data);
  typename Streams::template Held<V> held[I];
  float in[I][V], out[O][V];
  FLA_UNROLL
  for (int i = 0; i < I; ++i)
    Streams::template hold<V>(a.in[i].data, row * a.in[i].row_stride + column, held[i]);
  FLA_UNROLL
  for (int i = 0; i < I; ++i) unpack(held[i], in[i]);
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    float x[I], y[O];
    FLA_UNROLL
    for (int i = 0; i < I; ++i) x[i] = in[i][e];
    formula(forms, x, y);
    FLA_UNROLL
    for (int o = 0; o < O; ++o) out[o][e] = y[o];
  }
  FLA_UNROLL
  for (int o = 0; o < O; ++o)
    if (a.out[o].data) Streams::write(a.out[o].data, row * a.out[o].row_stride + column, out[o]);
}

// With 8 blocks, powglu's formula takes 63 registers; 48 hold it in as many instructions, and more warps hide its loads.
template <int V, class Streams, class Formula, int I, int O>
FLA_KERNEL void FLA_BOUNDS(kElementwiseThreads, O == 1 ? 10 : 8)
    elementwise_kernel(FLA_PARAMETERS ElementwiseOperands<I, O> a, FLA_PARAMETERS Formula formula) {
  wait_for_predecessor();
  if constexpr (requires { formula.changes_nothing(); })
    if (formula.changes_nothing()) return;
  const uint32_t block = blockIdx.x, row = a.blocks_per_row.quotient(block);
  const int64_t column =
      (static_cast<int64_t>(block - row * a.blocks_per_row.value()) * kElementwiseThreads + threadIdx.x) * V;
  if (column + V <= a.columns) {
    elementwise_vector<V, Streams>(a, formula, row, column);
  } else {
    for (int64_t c = column; c < a.columns; ++c) elementwise_vector<1, Streams>(a, formula, row, c);
  }
}

// The operand of a [rows, columns] tensor; absent tensors become absent operands.
inline ElementwiseOperand elementwise_operand(const Tensor& t) {
  return {any_float(t), t.rank > 1 && t.size[0] > 1 ? t.stride[0] : 0};
}

// Runs the formula over [rows, columns] operands that validation has accepted: inputs, then outputs (absent allowed).
template <class Formula, int I, int O>
Status elementwise(const Formula& formula, const Tensor* const (&in)[I], const Tensor* const (&out)[O], Stream stream) {
  ElementwiseOperands<I, O> a;
  a.rows = in[0]->size[0];
  a.columns = in[0]->size[1];
  if (a.rows == 0 || a.columns == 0) return {};
  const DType dtype = in[0]->dtype;
  bool uniform = true, is_dense = true;
  const int64_t wide = 16 / size_of(dtype);
  bool aligned = true;
  auto visit = [&](const Tensor& t, ElementwiseOperand& operand) {
    operand = elementwise_operand(t);
    if (!t) return;
    uniform &= t.dtype == dtype;
    is_dense &= a.rows == 1 || t.stride[0] == a.columns;
    aligned &= rows_allow(t, wide);
  };
  for (int i = 0; i < I; ++i) visit(*in[i], a.in[i]);
  for (int o = 0; o < O; ++o) visit(*out[o], a.out[o]);
  if (is_dense) {
    // One long row; only base addresses matter for alignment then.
    a.columns *= a.rows;
    a.rows = 1;
    aligned = true;
    auto base = [&](const Tensor& t) {
      aligned &= !t || reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
    };
    for (int i = 0; i < I; ++i) base(*in[i]);
    for (int o = 0; o < O; ++o) base(*out[o]);
  }
  auto run = [&](auto width, auto streams) {
    constexpr int kWidth = decltype(width)::value;
    const int64_t blocks = divide_up(a.columns, int64_t{kElementwiseThreads} * kWidth);
    a.blocks_per_row = Divisor(blocks);
    int64_t grid = 0;
    if (__builtin_mul_overflow(blocks, a.rows, &grid)) grid = -1;
    return launch<&elementwise_kernel<kWidth, decltype(streams), Formula, I, O>>(
        {.grid = grid, .block = kElementwiseThreads, .stream = stream, .dependent = grid <= 1024}, a, formula);
  };
  if (!aligned) return run(std::integral_constant<int, 1>{}, AnyStream{});
  if (!uniform) return run(std::integral_constant<int, 4>{}, AnyStream{});
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run(std::integral_constant<int, 16 / sizeof(T)>{}, TypedStream<T>{});
  });
}

}  // namespace fla::detail

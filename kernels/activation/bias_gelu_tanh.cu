// GELU of x + bias. A thread owns one vector of columns and walks down rows, a few at a time: the bias is loaded once,
// while the first rows are under way, and the columns' sums for dbias stay in registers. Without dbias a thread takes one
// batch of rows and there are as many blocks as that needs; with dbias the grid is what a GPU holds at once, each block
// leaves one row of partial sums, and common/column_sum adds them up. 4 bytes an element forward, 6 backward in 16 bits.
#include "activation/gates.cuh"
#include "common/column_sum.cuh"
#include "common/elementwise.cuh"
#include "common/warp.cuh"
#include "common/workspace.h"
#include "fla/activation.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

constexpr int kThreads = 128;
// What a kernel computes. Sums need registers: with 6 blocks, and so fewer of them, the compiler waits for the first
// load before it asks for the third.
enum class Pass { forward, backward, backward_with_sums };
template <Pass kPass>
inline constexpr int kBlocksPerMultiprocessor = kPass == Pass::forward ? 8 : kPass == Pass::backward ? 6 : 5;
// 132 multiprocessors whatever the GPU has: the sums' order depends on it.
constexpr int kResidentBlocks = 132 * kBlocksPerMultiprocessor<Pass::backward_with_sums>;

struct ColumnArgs {
  ElementwiseOperand x, dy, out;  // dy: backward only; out: y or dx
  AnyFloat bias;
  float* partials = nullptr;  // [blocks down][columns]
  int64_t rows = 0, columns = 0, blocks_down = 1;
  Divisor column_blocks;
  int lanes_log2 = 7;  // threads side by side; the others of a block stand below them
};

// kBatch rows of every input are asked for before the first is used.
template <Pass kPass>
inline constexpr int kBatch = kPass == Pass::backward_with_sums ? 2 : 4;

template <Pass kPass, int V, class Streams>
FLA_DEVICE void walk(const ColumnArgs& a, int64_t first, int64_t step, int64_t column, float (&sums)[V]) {
  constexpr bool kBackward = kPass != Pass::forward;
  const auto forms = Streams::forms(a.x.data);
  float bias[V];
  for (int64_t base = first; base < a.rows; base += step) {
    typename Streams::template Held<V> held_x[kBatch<kPass>], held_dy[kBatch<kPass>];
    int64_t x_at = base * a.x.row_stride + column, dy_at = base * a.dy.row_stride + column;
    int64_t out_at = base * a.out.row_stride + column;
    FLA_UNROLL
    for (int b = 0; b < kBatch<kPass>; ++b) {
      Streams::template hold<V>(a.x.data, x_at, held_x[b]);
      if constexpr (kBackward) Streams::template hold<V>(a.dy.data, dy_at, held_dy[b]);
      if (base + b + 1 < a.rows) {  // else the last row again
        x_at += a.x.row_stride;
        dy_at += a.dy.row_stride;
      }
    }
    if (base == first) load_floats(a.bias, column, bias);  // branches on its dtype, and so waits for what it loads
    FLA_UNROLL
    for (int b = 0; b < kBatch<kPass>; ++b) {
      if (base + b >= a.rows) break;
      float x[V], out[V];
      unpack(held_x[b], x);
      if constexpr (kBackward) {
        float dy[V];
        unpack(held_dy[b], dy);
        FLA_UNROLL
        for (int e = 0; e < V; ++e) out[e] = gradient(GeluTanhGate{}, forms, x[e] + bias[e], dy[e]);
      } else {
        FLA_UNROLL
        for (int e = 0; e < V; ++e) out[e] = GeluTanhGate{}(forms, x[e] + bias[e]).value;
      }
      if constexpr (kPass == Pass::backward_with_sums) {
        FLA_UNROLL
        for (int e = 0; e < V; ++e) sums[e] += out[e];
      }
      if (a.out.data) Streams::write(a.out.data, out_at, out);
      out_at += a.out.row_stride;
    }
  }
}

template <Pass kPass, int V, class Streams>
FLA_KERNEL void FLA_BOUNDS(kThreads, kBlocksPerMultiprocessor<kPass>) columns_kernel(FLA_PARAMETERS ColumnArgs a) {
  wait_for_predecessor();
  const int lanes = 1 << a.lanes_log2, lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int walker = static_cast<int>(threadIdx.x) >> a.lanes_log2, walkers = kThreads >> a.lanes_log2;
  const uint32_t down = a.column_blocks.quotient(blockIdx.x);
  const int64_t column = (static_cast<int64_t>(blockIdx.x - down * a.column_blocks.value()) * lanes + lane) * V;
  const int64_t batch = kBatch<kPass>, step = a.blocks_down * walkers * batch;
  const int64_t first = (static_cast<int64_t>(down) * walkers + walker) * batch;

  float sums[V] = {};
  if (column + V <= a.columns) {
    walk<kPass, V, Streams>(a, first, step, column, sums);
  } else {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      float sum[1] = {};
      if (column + e < a.columns) walk<kPass, 1, Streams>(a, first, step, column + e, sum);
      sums[e] = sum[0];
    }
  }
  if constexpr (kPass == Pass::backward_with_sums) {
    // The walkers of a block, added up in order.
    float* shared = shared_memory<float>();
    FLA_UNROLL
    for (int e = 0; e < V; ++e) shared[static_cast<int>(threadIdx.x) * V + e] = sums[e];
    block_barrier();
    if (walker > 0) return;
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      FLA_NO_UNROLL
      for (int w = 1; w < walkers; ++w) sums[e] += shared[((w << a.lanes_log2) + lane) * V + e];
      if (column + e < a.columns) store_float(a.partials + static_cast<int64_t>(down) * a.columns + column + e, sums[e]);
    }
  }
}

struct Plan {
  int64_t width = 1;   // elements of a vector
  bool typed = false;  // all streams of x's dtype
  int lanes_log2 = 0;
  int64_t column_blocks = 1, blocks_down = 1;
};

// From shapes, dtypes and alignment. `out` may be absent.
Plan plan(const Tensor& x, const Tensor& dy, const Tensor& bias, const Tensor& out, int batch, bool sums) {
  Plan p;
  const int64_t rows = x.size[0], columns = x.size[1];
  const bool uniform = (!dy || dy.dtype == x.dtype) && (!out || out.dtype == x.dtype);
  const int64_t wide = uniform ? 16 / size_of(x.dtype) : 4;
  if (all_rows_allow(wide, x, dy, bias, out)) {
    p.width = wide;
    p.typed = uniform;
  }
  const int64_t vectors = divide_up(columns, p.width);
  while (p.lanes_log2 < 7 && (int64_t{1} << p.lanes_log2) < vectors) ++p.lanes_log2;
  p.column_blocks = divide_up(vectors, int64_t{1} << p.lanes_log2);
  const int64_t rows_per_pass = batch * (kThreads >> p.lanes_log2);
  p.blocks_down = divide_up(rows, rows_per_pass);
  if (!sums) return p;
  // At least four passes each, or the partial sums would weigh as much as the data.
  const int64_t resident = kResidentBlocks / p.column_blocks, useful = divide_up(rows, 4 * rows_per_pass);
  p.blocks_down = resident < 1 ? 1 : useful < resident ? useful : resident;
  return p;
}

template <Pass kPass>
Status launch_columns(const Plan& p, const Tensor& x, const Tensor& dy, const Tensor& bias, const Tensor& out,
                      float* partials, Stream stream) {
  const ColumnArgs a{.x = elementwise_operand(x),
                     .dy = elementwise_operand(dy),
                     .out = elementwise_operand(out),
                     .bias = any_float(bias),
                     .partials = partials,
                     .rows = x.size[0],
                     .columns = x.size[1],
                     .blocks_down = p.blocks_down,
                     .column_blocks = Divisor(p.column_blocks),
                     .lanes_log2 = p.lanes_log2};
  auto run = [&](auto width, auto streams) {
    constexpr int kWidth = decltype(width)::value;
    const size_t shared = partials ? kThreads * kWidth * sizeof(float) : 0;
    const int64_t grid = p.column_blocks * p.blocks_down;
    return launch<&columns_kernel<kPass, kWidth, decltype(streams)>>(
        {.grid = grid, .block = kThreads, .shared_bytes = shared, .stream = stream, .dependent = grid <= 1024}, a);
  };
  if (p.width == 1) return run(std::integral_constant<int, 1>{}, AnyStream{});
  if (!p.typed) return run(std::integral_constant<int, 4>{}, AnyStream{});
  return dispatch_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run(std::integral_constant<int, 16 / sizeof(T)>{}, TypedStream<T>{});
  });
}

bool empty(const Tensor& x) { return x.size[0] == 0 || x.size[1] == 0; }

// The sums' order must not depend on whether dx is asked for: they are planned without it.
Plan plan_of_sums(const BiasGeluTanhBackward& a) {
  return plan(a.x, a.dy, a.bias, {}, kBatch<Pass::backward_with_sums>, true);
}
Plan plan_of_dx(const BiasGeluTanhBackward& a) {
  return plan(a.x, a.dy, a.bias, a.dx, kBatch<Pass::backward>, false);
}

}  // namespace

size_t workspace_bytes(const BiasGeluTanhForward&) { return 0; }

Status run(const BiasGeluTanhForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (empty(a.x)) return {};
  const Plan p = plan(a.x, {}, a.bias, a.y, kBatch<Pass::forward>, false);
  return launch_columns<Pass::forward>(p, a.x, {}, a.bias, a.y, nullptr, stream);
}

Status check(const BiasGeluTanhBackward& a) {
  if (a.dx || a.dbias) return {};
  return error(StatusCode::invalid_argument, "dx: no output is asked for");
}

size_t workspace_bytes(const BiasGeluTanhBackward& a) {
  if (!a.dbias || empty(a.x)) return 0;
  return align_workspace(static_cast<size_t>(plan_of_sums(a).blocks_down * a.x.size[1]) * sizeof(float));
}

Status run(const BiasGeluTanhBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (empty(a.x)) return finish_columns(column_target(nullptr, a.dbias), 0, stream);
  if (!a.dbias) return launch_columns<Pass::backward>(plan_of_dx(a), a.x, a.dy, a.bias, a.dx, nullptr, stream);
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;

  auto* partials = static_cast<float*>(workspace.data);
  const Plan sums = plan_of_sums(a), dx = plan_of_dx(a);
  const bool together = sums.width == dx.width && sums.typed == dx.typed;
  const Tensor out = together ? a.dx : Tensor{};
  Status done = launch_columns<Pass::backward_with_sums>(sums, a.x, a.dy, a.bias, out, partials, stream);
  if (!done.ok()) return done;
  if (!together)  // last, because dx may be written over dy
    if (Status s = launch_columns<Pass::backward>(dx, a.x, a.dy, a.bias, a.dx, nullptr, stream); !s.ok()) return s;
  return finish_columns(column_target(partials, a.dbias), sums.blocks_down, stream);
}

}  // namespace fla

// What the backward kernels of expansions share: arguments, and the gradients' way into shared memory.
#pragma once

#include "feature_map/expansion_narrow.cuh"

namespace fla::detail {

struct ExpandBackwardArgs {
  ExpansionTile tile;
  AnyFloat dout, ddiagonal, dx, dpartner;
  int64_t dout_stride = 0, ddiagonal_stride = 0, dx_stride = 0, dpartner_stride = 0, tiles = 0;
  int32_t columns = 0;
  bool sum_both = false;
  bool staged = false, vectors = false;  // dout in shared memory; as one run of 16-byte vectors
  bool dx_vectors = false;               // dx of the dtype of x, rows aligned
  float* dgamma = nullptr;               // [blocks][D] partial sums
  float* dbeta = nullptr;
  int32_t dv_at = 0, sums_at = 0, gradients_at = 0;  // words of shared memory
};

// The gradients of a tile's rows: in shared memory once its copies are waited for, or where they are. By `threads` threads, of
// which this one is `thread`.
template <class T>
FLA_DEVICE const T* stage_gradients(const ExpandBackwardArgs& a, int64_t first_row, int rows, T* staged, int thread, int threads) {
  const T* from = static_cast<const T*>(a.dout.data) + first_row * a.dout_stride;
  if (!a.staged) return from;
  constexpr int kWide = 16 / sizeof(T);
  const int elements = rows * a.columns, vectors = a.vectors ? elements / kWide : 0;
  for (int i = thread; i < vectors; i += threads)
    async_copy<16>(staged + i * kWide, from + i * kWide);
  for (int i = vectors * kWide + thread; i < elements; i += threads) {
    const int row = i / a.columns;
    store(staged + i, load<T, 1>(from + row * a.dout_stride + (i - row * a.columns)));
  }
  async_commit();
  return staged;
}

// Rows of 16 elements in 16 bits, x and dout of one dtype, in tiles of kNarrowRows.
Status run_narrow(const ExpandBackwardArgs&, DType, Stream);

}  // namespace fla::detail

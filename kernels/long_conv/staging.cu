// Channel-last to channel-first and back, in 64 x 64 tiles through shared memory: 16-byte accesses on both sides, whatever
// the dtype, which is never looked into. Bank conflicts are 2-way on the shared side, at a third of its rate.
#include "common/alignment.h"
#include "common/launch.h"
#include "common/warp.cuh"
#include "long_conv/long_conv.h"

namespace fla::detail {
namespace {

constexpr int kTile = 64, kThreads = 256;

// [rows, columns] to [columns, rows], batch by batch; unit inner strides.
struct Transposition {
  const void* from;
  void* to;
  int64_t rows, columns, from_stride, to_stride, from_batch, to_batch;
  int64_t row_tiles, column_tiles;
  bool wide_loads, wide_stores;
};

// T: float for 4 bytes, bf16 for 2; only moved.
template <class T>
FLA_KERNEL void FLA_BOUNDS(kThreads, 4) transpose_kernel(FLA_PARAMETERS Transposition a) {
  constexpr int kWidth = 16 / sizeof(T), kPieces = kTile / kWidth, kPitch = kTile + 4 / sizeof(T);
  T* tile = shared_memory<T>();
  const int64_t plane = a.row_tiles * a.column_tiles, batch = blockIdx.x / plane, index = blockIdx.x - batch * plane;
  const int64_t row = index / a.column_tiles * kTile, column = index % a.column_tiles * kTile;
  const T* from = static_cast<const T*>(a.from) + batch * a.from_batch;
  T* to = static_cast<T*>(a.to) + batch * a.to_batch;
  const int piece = static_cast<int>(threadIdx.x) % kPieces * kWidth, lane = static_cast<int>(threadIdx.x) / kPieces;

  FLA_UNROLL
  for (int r = lane; r < kTile; r += kThreads / kPieces) {
    const int64_t i = row + r, j = column + piece;
    Vector<T, kWidth> in = zero_vector<T, kWidth>();
    T* words = reinterpret_cast<T*>(in.words);
    if (i < a.rows && a.wide_loads && j + kWidth <= a.columns) {
      in = load<T, kWidth>(from + i * a.from_stride + j);
    } else if (i < a.rows) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e)
        if (j + e < a.columns) words[e] = from[i * a.from_stride + j + e];
    }
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) tile[r * kPitch + piece + e] = words[e];
  }
  block_barrier();
  FLA_UNROLL
  for (int c = lane; c < kTile; c += kThreads / kPieces) {
    const int64_t i = column + c, j = row + piece;
    if (i >= a.columns) continue;
    Vector<T, kWidth> out;
    T* words = reinterpret_cast<T*>(out.words);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) words[e] = tile[(piece + e) * kPitch + c];
    if (a.wide_stores && j + kWidth <= a.rows) {
      store(to + i * a.to_stride + j, out);
    } else {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e)
        if (j + e < a.rows) to[i * a.to_stride + j + e] = words[e];
    }
  }
}

Status transpose(const Tensor& from, const Tensor& to, Stream stream) {
  Transposition a{.from = from.data, .to = to.data, .rows = from.size[1], .columns = from.size[2],
                  .from_stride = from.stride[1], .to_stride = to.stride[1], .from_batch = from.stride[0],
                  .to_batch = to.stride[0], .row_tiles = divide_up(from.size[1], kTile),
                  .column_tiles = divide_up(from.size[2], kTile), .wide_loads = row_alignment(from) == 16,
                  .wide_stores = row_alignment(to) == 16};
  const Launch shape{.grid = from.size[0] * a.row_tiles * a.column_tiles, .block = kThreads,
                     .shared_bytes = static_cast<size_t>(kTile * (kTile * size_of(from.dtype) + 4)), .stream = stream};
  return from.dtype == DType::f32 ? launch<&transpose_kernel<float>>(shape, a) : launch<&transpose_kernel<bf16>>(shape, a);
}

}  // namespace

bool needs_staging(LongConvLayout layout, const Tensor& t) {
  return t && layout == LongConvLayout::bld && t.size[1] > 1 && t.stride[1] != 1 && (t.stride[2] == 1 || t.size[2] == 1);
}

Tensor stage_of(WorkspaceParts& parts, LongConvLayout layout, const Tensor& t) {
  if (!needs_staging(layout, t)) return {};
  const int64_t B = t.size[0], L = t.size[1], D = t.size[2], pitch = divide_up(L, 8) * 8;
  Tensor stage = dense(parts.take(static_cast<size_t>(B * D * pitch * size_of(t.dtype))), t.dtype, {B, D, L});
  stage.stride[1] = pitch;
  stage.stride[0] = D * pitch;
  return stage;
}

Status stage_in(const Tensor& from, const Tensor& stage, Stream stream) {
  return stage ? transpose(from, stage, stream) : Status{};
}
Status stage_out(const Tensor& stage, const Tensor& to, Stream stream) {
  return stage ? transpose(stage, to, stream) : Status{};
}

}  // namespace fla::detail

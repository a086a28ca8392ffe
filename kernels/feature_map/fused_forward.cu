// Fused learned maps, forward: every warp walks over tiles of 16 rows and asks for the next before it works on this one.
// 4 bytes an element move in 16 bits (hedgehog 6), 2 E flops (hadamard 4) on the tensor cores.
#include "common/alignment.h"
#include "common/dispatch.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

constexpr int kThreads = kMapWarps * kWarp, kBlocksPerMultiprocessor = 4, kWarpRows = 16;

template <class T, RowMap kMap>
FLA_KERNEL void FLA_BOUNDS(kThreads, kBlocksPerMultiprocessor) fused_map_kernel(FLA_PARAMETERS FusedMapArgs a) {
  constexpr int kLayers = kMapLayers<kMap>;
  T* weights = shared_memory<T>();
  float* bias = reinterpret_cast<float*>(weights + kLayers * kMapWidth * kWeightStride);
  wait_for_predecessor();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kMapWarps * kWarpRows;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kMapWarps + warp) * kWarpRows;
  const T* from = static_cast<const T*>(a.x);
  RowFragment<T, 1> next;
  next.load_rows(from, first, a.rows, a.x_stride);
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l) {
    stage_weight(static_cast<const T*>(a.weight[l]), a.weight_stride[l], false, weights + l * kMapWidth * kWeightStride);
    stage_bias(a.bias[l], bias + l * kMapWidth);
  }
  block_barrier();
  for (; first < a.rows; first += step) {
    const RowFragment<T, 1> x = next;
    next.load_rows(from, first + step, a.rows, a.x_stride);
    RowSums<1> h, second;  // second: the other layer, or the other half of a softmax
    T* to = static_cast<T*>(a.out.data);
    if constexpr (kMap == RowMap::softmax) {
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) h.layer(q, x, weights, bias);
      signed_softmax(h, second);
      h.template packed<T>().store_rows(to, first, a.rows, a.out_stride);
      second.template packed<T>().store_rows(to + kMapWidth, first, a.rows, a.out_stride);
    } else {
      RowFragment<T, 1> y;
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) {
        h.layer(q, x, weights, bias);
        if constexpr (kMap == RowMap::product) second.layer(q, x, weights + kMapWidth * kWeightStride, bias + kMapWidth);
        FLA_UNROLL
        for (int i = 0; i < 16; ++i) {
          float& v = h.at(i / 8, q, i % 8);
          v = kMap == RowMap::product ? v * second.at(i / 8, q, i % 8) : math::max_with_nan(v, 0.0f);
        }
        h.pack_into(q, y);
        y.store_half(q, to, first, a.rows, a.out_stride);
      }
    }
  }
}

template <RowMap kMap>
Status launch_map(const LearnedMapForward& m, const FusedMapArgs& a, Stream stream) {
  constexpr int64_t kResident = 132 * kBlocksPerMultiprocessor;
  const int64_t blocks = divide_up(a.rows, kMapWarps * kWarpRows);
  const Launch shape{.grid = blocks < kResident ? blocks : kResident,
                     .block = kThreads,
                     .shared_bytes = kMapLayers<kMap> * (kMapWidth * kWeightStride * 2 + kMapWidth * sizeof(float)),
                     .stream = stream,
                     .dependent = true};
  return m.x.dtype == DType::bf16 ? launch<&fused_map_kernel<bf16, kMap>>(shape, a)
                                  : launch<&fused_map_kernel<f16, kMap>>(shape, a);
}

}  // namespace

bool fuses(const LearnedMapForward& a) {
  return a.kind != LearnedMap::outer_product && size_of(a.x.dtype) == 2 && a.x.size[1] == kMapWidth &&
         a.weight.size[0] == kMapWidth && all_rows_allow(8, a.x, a.weight, a.weight2, a.y);
}

Status run_fused(const LearnedMapForward& m, Stream stream) {
  FusedMapArgs a;
  a.rows = m.x.size[0];
  if (a.rows == 0) return {};
  a.x = m.x.data;
  a.out = any_float(m.y);
  a.x_stride = m.x.stride[0];
  a.out_stride = m.y.stride[0];
  a.weight[0] = m.weight.data;
  a.weight[1] = m.weight2.data;
  a.weight_stride[0] = m.weight.stride[0];
  a.weight_stride[1] = m.weight2 ? m.weight2.stride[0] : 0;
  a.bias[0] = any_float(m.bias);
  a.bias[1] = any_float(m.bias2);
  switch (row_map_of(m.kind)) {
    case RowMap::softmax: return launch_map<RowMap::softmax>(m, a, stream);
    case RowMap::relu: return launch_map<RowMap::relu>(m, a, stream);
    default: return launch_map<RowMap::product>(m, a, stream);
  }
}

}  // namespace fla::detail

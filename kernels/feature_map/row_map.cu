// One warp a row: h is read once or, under a softmax, three times (from the cache).
#include "feature_map/row_map.h"

#include "common/alignment.h"
#include "common/launch.h"
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "common/vector.cuh"
#include "feature_map/expansion.h"

namespace fla::detail {
namespace {

constexpr int kThreads = 128, kRowsPerBlock = kThreads / kWarp;

struct RowMapArgs {
  RowMap kind = RowMap::relu;
  const float* h = nullptr;
  AnyFloat bias, bias2, y, dy, dh;
  int64_t h_stride = 0, y_stride = 0, dy_stride = 0, dh_stride = 0, rows = 0;
  int32_t width = 0;  // E
  float scale = 1;
  bool in_base_2 = false;
};

FLA_DEVICE float layer(const RowMapArgs& a, const float* h, int i) {
  return a.bias ? load_float(h + i) + load_float(a.bias, i) : load_float(h + i);
}
FLA_DEVICE float second_layer(const RowMapArgs& a, const float* h, int i) {
  return a.bias2 ? load_float(h + a.width + i) + load_float(a.bias2, i) : load_float(h + a.width + i);
}

// What an exponential takes: l, or l log2(e) where that may be rounded.
FLA_DEVICE float exponent(const RowMapArgs& a, float l) { return a.in_base_2 ? l * math::kLog2E : l; }
FLA_DEVICE float power(const RowMapArgs& a, float x) { return a.in_base_2 ? math::exp2(x) : math::exp(x); }

// e^(2h - top) and e^(-2h - top), and the factor that makes them probabilities.
struct Softmax {
  float top = 0, factor = 0;

  FLA_DEVICE Softmax(const RowMapArgs& a, const float* h, int lane) {
    for (int i = lane; i < a.width; i += kWarp)
      top = math::max_with_nan(top, fabsf(exponent(a, 2.0f * layer(a, h, i))));
    FLA_UNROLL
    for (int step = kWarp / 2; step > 0; step /= 2) top = math::max_with_nan(top, shuffle_xor(top, step));
    float sum = 0;
    for (int i = lane; i < a.width; i += kWarp) {
      const float l = exponent(a, 2.0f * layer(a, h, i));
      sum += power(a, l - top) + power(a, -l - top);
    }
    factor = math::reciprocal(warp_sum(sum));
  }
};

FLA_KERNEL void FLA_BOUNDS(kThreads, 8) row_map_kernel(FLA_PARAMETERS RowMapArgs a) {
  wait_for_predecessor();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= a.rows) return;
  const float* h = a.h + row * a.h_stride;
  if (a.kind == RowMap::softmax) {
    const Softmax s(a, h, lane);
    for (int i = lane; i < a.width; i += kWarp) {
      const float l = exponent(a, 2.0f * layer(a, h, i));
      store_float(a.y, row * a.y_stride + i, power(a, l - s.top) * s.factor);
      store_float(a.y, row * a.y_stride + a.width + i, power(a, -l - s.top) * s.factor);
    }
    return;
  }
  for (int i = lane; i < a.width; i += kWarp) {
    const float v = layer(a, h, i);
    store_float(a.y, row * a.y_stride + i, a.kind == RowMap::relu ? math::max_with_nan(v, 0.0f) : v * second_layer(a, h, i) * a.scale);
  }
}

FLA_KERNEL void FLA_BOUNDS(kThreads, 8) row_map_backward_kernel(FLA_PARAMETERS RowMapArgs a) {
  wait_for_predecessor();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= a.rows) return;
  const float* h = a.h + row * a.h_stride;
  const int64_t dy = row * a.dy_stride, dh = row * a.dh_stride;
  if (a.kind == RowMap::softmax) {
    const Softmax s(a, h, lane);
    float mean = 0;  // of dy, weighted with y
    for (int i = lane; i < a.width; i += kWarp) {
      const float l = exponent(a, 2.0f * layer(a, h, i));
      mean = fmaf(power(a, l - s.top) * s.factor, load_float(a.dy, dy + i), mean);
      mean = fmaf(power(a, -l - s.top) * s.factor, load_float(a.dy, dy + a.width + i), mean);
    }
    mean = warp_sum(mean);
    for (int i = lane; i < a.width; i += kWarp) {
      const float l = exponent(a, 2.0f * layer(a, h, i));
      const float up = power(a, l - s.top) * s.factor * (load_float(a.dy, dy + i) - mean);
      const float down = power(a, -l - s.top) * s.factor * (load_float(a.dy, dy + a.width + i) - mean);
      store_float(a.dh, dh + i, 2.0f * (up - down));
    }
    return;
  }
  for (int i = lane; i < a.width; i += kWarp) {
    const float v = layer(a, h, i), g = load_float(a.dy, dy + i);
    if (a.kind == RowMap::relu) {
      store_float(a.dh, dh + i, v > 0.0f ? g : 0.0f);
    } else {
      store_float(a.dh, dh + i, g * second_layer(a, h, i) * a.scale);
      store_float(a.dh, dh + a.width + i, g * v * a.scale);
    }
  }
}

RowMapArgs arguments(const RowMapCall& c) {
  const bool pair = c.kind == RowMap::product;
  return {.kind = c.kind,
          .h = static_cast<const float*>(c.h.data),
          .bias = any_float(c.bias),
          .bias2 = any_float(c.bias2),
          .y = {},
          .dy = {},
          .dh = {},
          .h_stride = c.h.stride[0],
          .rows = c.h.size[0],
          .width = static_cast<int32_t>(c.h.size[1] / (pair ? 2 : 1)),
          .scale = c.scale,
          .in_base_2 = c.in_base_2};
}

Launch shape_of(const RowMapArgs& a, Stream stream) {
  return {.grid = divide_up(a.rows, kRowsPerBlock), .block = kThreads, .stream = stream, .dependent = true};
}

}  // namespace

Status run_row_map(const RowMapCall& c, const Tensor& y, Stream stream) {
  RowMapArgs a = arguments(c);
  if (a.rows == 0) return {};
  a.y = any_float(y);
  a.y_stride = row_stride(y);
  return launch<&row_map_kernel>(shape_of(a, stream), a);
}

Status run_row_map_backward(const RowMapCall& c, const Tensor& dy, const Tensor& dh, Stream stream) {
  RowMapArgs a = arguments(c);
  if (a.rows == 0) return {};
  a.dy = any_float(dy);
  a.dh = any_float(dh);
  a.dy_stride = row_stride(dy);
  a.dh_stride = row_stride(dh);
  return launch<&row_map_backward_kernel>(shape_of(a, stream), a);
}

}  // namespace fla::detail

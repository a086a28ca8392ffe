// Filters made by a network of positions, and the positions' features. The network is a pair of products with small inner
// sizes; its cost is writing k once (25 MB at 8192 x 768, 6 us). Biases are a column of the weights against a column of
// ones, in products and in gradients alike.
#include "common/copy.h"
#include "common/elementwise.cuh"
#include "common/gemm.h"
#include "common/math.cuh"
#include "common/workspace.h"
#include "fla/long_conv.h"
#include "fla/validate.h"

namespace fla {
namespace detail {
namespace {

constexpr int kTableThreads = 256;

FLA_KERNEL void FLA_BOUNDS(kTableThreads, 4) pos_table_kernel(float* z, int64_t stride, int64_t P, int bands) {
  const int64_t l = static_cast<int64_t>(blockIdx.x) * kTableThreads + threadIdx.x;
  if (l >= P) return;
  const float position = static_cast<float>(l);
  store_float(z + l * stride, P > 1 ? position / static_cast<float>(P - 1) : 0.0f);
  for (int i = 0; i < bands; ++i) {
    // In double: a frequency that is off by an ulp is off by l ulps of a turn at position l.
    const double step = bands > 1 ? (bands - 1 - 1e-4) / (bands - 1) : 0.0;
    const float frequency = static_cast<float>(1e-4 + step * i);
    const math::CosineSine turned = math::cosine_sine_of_turns(frequency * position / static_cast<float>(P));
    store_float(z + l * stride + 1 + i, turned.cosine);
    store_float(z + l * stride + 1 + bands + i, -turned.sine);
  }
}

struct ReluOrOne {  // one formula for both: half the kernels to compile
  bool one;
  template <class Forms>
  FLA_DEVICE void operator()(Forms, const float (&in)[1], float (&out)[1]) const {
    out[0] = one ? 1.0f : math::max_with_nan(in[0], 0.0f);
  }
};
struct ReluGradient {  // of h and dh
  template <class Forms>
  FLA_DEVICE void operator()(Forms, const float (&in)[2], float (&out)[1]) const { out[0] = in[0] > 0.0f ? in[1] : 0.0f; }
};

// [n] as a matrix of one column.
Tensor column(const Tensor& t) { return t ? matrix(t.data, t.dtype, t.size[0], 1, 1) : t; }

// A matrix and a column behind it.
struct Extended {
  Tensor all;  // f32
  Tensor body() const { return columns_of(all, 0, all.size[1] - 1); }
  Tensor last() const { return columns_of(all, all.size[1] - 1, 1); }
  Status fill(const Tensor& m, const Tensor& bias, Stream stream) const {
    if (Status s = copy_rows(m, body(), stream); !s.ok()) return s;
    return copy_rows(column(bias), last(), stream);
  }
  Status store(const Tensor& m, const Tensor& bias, Stream stream) const {
    if (m)
      if (Status s = copy_rows(body(), m, stream); !s.ok()) return s;
    return bias ? copy_rows(last(), column(bias), stream) : Status{};
  }
  Status fill_ones(Stream stream) const {
    const Tensor ones = last();
    return elementwise(ReluOrOne{true}, {&ones}, {&ones}, stream);
  }
};

struct FilterParts {
  Extended z, hidden, h, output;
  Extended dhidden, doutput;
  Tensor dh;
  Workspace product;
  size_t bytes;

  FilterParts(const Tensor& positions, const Tensor& hidden_weight, const Tensor& output_weight, int64_t taps, bool backward,
              void* base = nullptr) {
    const int64_t E = positions.size[1], H = hidden_weight.size[0], D = output_weight.size[0];
    WorkspaceParts parts(base);
    const auto take = [&](bool needed, int64_t rows, int64_t columns) {
      return parts.take_matrix(needed, DType::f32, rows, columns);
    };
    z.all = take(true, taps, E + 1);
    hidden.all = take(true, H, E + 1);
    h.all = take(true, taps, H + 1);
    output.all = take(true, D, H + 1);
    dhidden.all = take(backward, H, E + 1);
    doutput.all = take(backward, D, H + 1);
    dh = take(backward, taps, H);
    size_t most = gemm_workspace_bytes(taps, H);
    const auto fit = [&](int64_t m, int64_t n) { if (gemm_workspace_bytes(m, n) > most) most = gemm_workspace_bytes(m, n); };
    fit(D, backward ? H + 1 : taps);
    if (backward) fit(H, E + 1);
    product = {parts.take(most), most};
    bytes = parts.bytes();
  }

  template <class A>
  Status make_hidden(const A& a, Stream stream) const {
    const int64_t taps = z.all.size[0];
    if (Status s = copy_rows(rows_of(a.z, 0, taps), z.body(), stream); !s.ok()) return s;
    if (Status s = z.fill_ones(stream); !s.ok()) return s;
    if (Status s = hidden.fill(a.hidden_weight, a.hidden_bias, stream); !s.ok()) return s;
    if (Status s = output.fill(a.output_weight, a.output_bias, stream); !s.ok()) return s;
    const Tensor body = h.body();
    if (Status s = gemm({.a = z.all, .b = hidden.all, .c = body, .transpose_b = true}, product, stream); !s.ok()) return s;
    if (Status s = elementwise(ReluOrOne{false}, {&body}, {&body}, stream); !s.ok()) return s;
    return h.fill_ones(stream);
  }
};

Status check_features(int64_t E) {
  if (E >= 3 && E % 2 == 1) return {};
  return error(StatusCode::invalid_argument, "z: %lld features, which must be odd and at least 3", static_cast<long long>(E));
}

template <class A>
Status check_filter(const A& a, int64_t taps) {
  if (a.z.size[0] < taps)
    return error(StatusCode::shape_mismatch, "z: %lld positions for %lld taps", static_cast<long long>(a.z.size[0]),
                 static_cast<long long>(taps));
  return check_features(a.z.size[1]);
}

}  // namespace
}  // namespace detail

using namespace detail;

Status check(const LongConvPosTable& a) {
  if (Status s = check_features(a.z.size[1]); !s.ok()) return s;
  return a.z.size[0] > 0 ? Status{} : error(StatusCode::invalid_argument, "z: no positions");
}
size_t workspace_bytes(const LongConvPosTable&) {
  return 0;
}
Status run(const LongConvPosTable& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return launch<&pos_table_kernel>(
      {.grid = divide_up(a.z.size[0], kTableThreads), .block = kTableThreads, .stream = stream},
      static_cast<float*>(a.z.data), a.z.stride[0], a.z.size[0], static_cast<int>((a.z.size[1] - 1) / 2));
}

Status check(const ImplicitFilterForward& a) {
  if (Status s = check_rows("k", a.k); !s.ok()) return s;
  return check_filter(a, a.k.size[1]);
}
size_t workspace_bytes(const ImplicitFilterForward& a) {
  return FilterParts(a.z, a.hidden_weight, a.output_weight, a.k.size[1], false).bytes;
}
Status run(const ImplicitFilterForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const FilterParts parts(a.z, a.hidden_weight, a.output_weight, a.k.size[1], false, workspace.data);
  if (Status s = parts.make_hidden(a, stream); !s.ok()) return s;
  return gemm({.a = parts.output.all, .b = parts.h.all, .c = a.k, .transpose_b = true}, parts.product, stream);
}

Status check(const ImplicitFilterBackward& a) {
  if (!a.dhidden_weight && !a.dhidden_bias && !a.doutput_weight && !a.doutput_bias)
    return error(StatusCode::invalid_argument, "dhidden_weight: no output is asked for");
  if (Status s = check_rows("dk", a.dk); !s.ok()) return s;
  return check_filter(a, a.dk.size[1]);
}
size_t workspace_bytes(const ImplicitFilterBackward& a) {
  return FilterParts(a.z, a.hidden_weight, a.output_weight, a.dk.size[1], true).bytes;
}
Status run(const ImplicitFilterBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const FilterParts parts(a.z, a.hidden_weight, a.output_weight, a.dk.size[1], true, workspace.data);
  if (Status s = parts.make_hidden(a, stream); !s.ok()) return s;
  if (a.doutput_weight || a.doutput_bias) {
    if (Status s = gemm({.a = a.dk, .b = parts.h.all, .c = parts.doutput.all}, parts.product, stream); !s.ok()) return s;
    if (Status s = parts.doutput.store(a.doutput_weight, a.doutput_bias, stream); !s.ok()) return s;
  }
  if (!a.dhidden_weight && !a.dhidden_bias) return {};
  if (Status s = gemm({.a = a.dk, .b = parts.output.body(), .c = parts.dh, .transpose_a = true}, parts.product, stream); !s.ok())
    return s;
  const Tensor h = parts.h.body();
  if (Status s = elementwise(ReluGradient{}, {&h, &parts.dh}, {&parts.dh}, stream); !s.ok()) return s;
  if (Status s = gemm({.a = parts.dh, .b = parts.z.all, .c = parts.dhidden.all, .transpose_a = true}, parts.product, stream);
      !s.ok())
    return s;
  return parts.dhidden.store(a.dhidden_weight, a.dhidden_bias, stream);
}

}  // namespace fla

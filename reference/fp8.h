// Quantised outputs: the text of the operator they are fused into, and one quantiser.
#pragma once

#include <algorithm>
#include <vector>

#include "fla/fp8.h"
#include "reference/activation.h"
#include "reference/norm.h"

namespace fla::reference {

// Values [M, G, N] as stored, to codes and scales; the values themselves are left rounded.
template <class S>
void quantise_rows(const View<S>& values, DType stored, const Tensor& codes, const Tensor& scales, Fp8Scaling scaling) {
  const auto q = rows_of<S>(codes);
  const bool per_block = scaling == Fp8Scaling::block;
  const View<S> of_block(per_block ? scales : Tensor{}, 3, 1), of_row(per_block ? Tensor{} : scales);
  const int64_t M = values.size(0), G = values.size(1), N = values.size(2), length = per_block ? kFp8Block : N;
  for (int64_t m = 0; m < M; ++m) {
    S largest(0.0);
    auto widen = [&](int64_t g, int64_t n) { largest = max_(largest, abs_(store_as(stored, values(m, g, n)))); };
    auto scale = [&] { return max_(largest, S(static_cast<double>(kFp8SmallestMaximum))) / S(448.0); };
    auto divide = [&](int64_t g, int64_t first, const S& by) {
      for (int64_t n = first; n < std::min(first + length, N); ++n) q(m, g, n) = store_as(stored, values(m, g, n)) / by;
    };
    for (int64_t g = 0; g < G; ++g) {
      for (int64_t first = 0; first < N; first += length) {
        for (int64_t n = first; n < std::min(first + length, N); ++n) widen(g, n);
        if (!per_block) continue;
        const S by = of_block(m, g, first / length) = store_as(DType::f32, scale());
        divide(g, first, by);
        largest = S(0.0);
      }
    }
    if (per_block) continue;
    const S by = of_row(m) = store_as(DType::f32, scale());
    for (int64_t g = 0; g < G; ++g) divide(g, 0, by);
  }
}

template <class S>
void evaluate(const QuantizeFp8Forward& a) {
  quantise_rows(rows_of<S>(a.x), a.x.dtype, a.q, a.scale, a.scaling);
}

// An operator's values where its caller may not want them: [M, G, N] of its own then.
template <class S>
class Values {
 public:
  Values(const Tensor& wanted, const Tensor& like) : tensor_(wanted) {
    if (wanted) return;
    tensor_ = like;
    numbers_.resize(static_cast<size_t>(count(like)));
    tensor_.data = numbers_.data();
    int64_t step = 1;
    for (int d = like.rank - 1; d >= 0; step *= like.size[d--]) tensor_.stride[d] = step;
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Tensor tensor_;
  std::vector<S> numbers_;
};

template <class S>
void evaluate(const RmsNormFp8Forward& a) {
  const Values<S> y(a.y, a.x);
  evaluate<S>(RmsNormGatedForward{.x = a.x, .residual = a.residual, .gate = a.gate, .weight = a.weight, .bias = {},
                                  .y = y.tensor(), .residual_out = a.residual_out, .mean = {}, .rstd = {}, .eps = a.eps,
                                  .weight_offset = a.weight_offset, .activation = a.activation,
                                  .gate_order = a.gate_order, .weight_per_group = a.weight_per_group});
  quantise_rows(rows_of<S>(y.tensor()), a.x.dtype, a.q, a.scale, a.scaling);
}

template <class S>
void evaluate(const SwigluFp8Forward& a) {
  const Values<S> z(a.z, a.x);
  evaluate<S>(GluForward{.kind = GatedUnit::swiglu, .x = a.x, .y = a.y, .z = z.tensor()});
  quantise_rows(rows_of<S>(z.tensor()), a.x.dtype, a.q, a.scale, a.scaling);
}

}  // namespace fla::reference

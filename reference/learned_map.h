// Learned feature maps. h stays in fp32; rounded on the way is what a second product reads: the gradient of h, the
// normalised rows and the inner layers of the polynomial sketch.
#pragma once

#include "fla/learned_map.h"
#include "reference/feature_map.h"
#include "reference/matrix.h"
#include "reference/short_forms.h"

namespace fla::reference {
namespace learned_map {

// x weight^T + bias.
template <class S>
Matrix<S> layer(const Factor<S>& x, const Tensor& weight, const Tensor& bias_tensor) {
  Matrix<S> h = product_of<S>(x, Factor<S>(weight).transpose(), unit_of(weight.dtype));
  const View<S> bias(bias_tensor);
  for (int64_t i = 0; bias && i < h.rows(); ++i)
    for (int64_t j = 0; j < h.cols(); ++j) h(i, j) = h(i, j) + bias(j);
  return h;
}

// softmax of [2h, -2h].
template <class S>
std::vector<S> signed_softmax(const Matrix<S>& h, int64_t m, DType signal) {
  const int64_t E = h.cols();
  S top = S(0.0);
  for (int64_t i = 0; i < E; ++i) top = max_(top, abs_(in_base_2(signal, S(2.0) * h(m, i))));
  std::vector<S> p(static_cast<size_t>(2 * E));
  for (int64_t i = 0; i < E; ++i) {
    const S l = in_base_2(signal, S(2.0) * h(m, i));
    p[static_cast<size_t>(i)] = exp_(l - top);
    p[static_cast<size_t>(E + i)] = exp_(-l - top);
  }
  const S total = feature_map::row_sum<S>(2 * E, [&](int64_t i) { return p[static_cast<size_t>(i)]; });
  for (S& v : p) v = v / total;
  return p;
}

// dx = sum of dh weight, and the gradients of the weights and biases of one or two layers.
template <class S>
void input_gradient(const Matrix<S>* dh, const Tensor* weights, int layers, const Tensor& dx_tensor) {
  const View<S> dx(dx_tensor);
  if (!dx) return;
  // One product over both layers, as its sums' bound depends on their length.
  const int64_t E = dh[0].cols(), D = weights[0].size[1];
  Matrix<S> joined(dh[0].rows(), layers * E), stack(layers * E, D);
  for (int l = 0; l < layers; ++l) {
    joined.middleCols(l * E, E) = dh[l];
    const View<S> weight(weights[l]);
    for (int64_t e = 0; e < E; ++e)
      for (int64_t d = 0; d < D; ++d) stack(l * E + e, d) = weight(e, d);
  }
  const Matrix<S> sums = product_of<S>(joined, stack, unit_of(weights[0].dtype));
  for (int64_t i = 0; i < sums.rows(); ++i)
    for (int64_t j = 0; j < D; ++j) dx(i, j) = sums(i, j);
}
template <class S>
void parameter_gradients(const Factor<S>& dh, const Factor<S>& x, DType dtype, const Tensor& dweight_tensor,
                         const Tensor& dbias_tensor) {
  const View<S> dweight(dweight_tensor), dbias(dbias_tensor);
  if (dweight) {
    const Matrix<S> sums = product_of<S>(dh.transpose(), x, unit_of(dtype));
    for (int64_t i = 0; i < sums.rows(); ++i)
      for (int64_t j = 0; j < sums.cols(); ++j) dweight(i, j) = sums(i, j);
  }
  for (int64_t j = 0; dbias && j < dh.inner(); ++j)
    dbias(j) = sum<S>(dh.outer(), [&](int64_t i) { return dh(i, j); });
}

}  // namespace learned_map

template <class S>
void evaluate(const LearnedMapForward& a) {
  using namespace learned_map;
  const Factor<S> x(a.x);
  const View<S> y(a.y);
  const Matrix<S> h = layer<S>(x, a.weight, a.bias);
  const Matrix<S> h2 = has_two_layers(a.kind) ? layer<S>(x, a.weight2, a.bias2) : Matrix<S>();
  const int64_t E = h.cols();
  for (int64_t m = 0; m < h.rows(); ++m) {
    if (a.kind == LearnedMap::hedgehog) {
      const std::vector<S> p = signed_softmax(h, m, a.x.dtype);
      for (int64_t i = 0; i < 2 * E; ++i) y(m, i) = p[static_cast<size_t>(i)];
      continue;
    }
    for (int64_t i = 0; i < E; ++i) {
      if (a.kind == LearnedMap::t2r) y(m, i) = max_(S(0.0), h(m, i));
      if (a.kind == LearnedMap::hadamard) y(m, i) = h(m, i) * h2(m, i);
      for (int64_t j = i; a.kind == LearnedMap::outer_product && j < E; ++j)
        y(m, feature_map::tri(E, i, j)) = h(m, i) * h2(m, j);
    }
  }
}

template <class S>
void evaluate(const LearnedMapBackward& a) {
  using namespace learned_map;
  const Factor<S> x(a.x);
  const View<S> dy(a.dy);
  const bool pair = has_two_layers(a.kind);
  const Matrix<S> h = layer<S>(x, a.weight, a.bias);
  const Matrix<S> h2 = pair ? layer<S>(x, a.weight2, a.bias2) : Matrix<S>();
  const int64_t M = h.rows(), E = h.cols();
  Matrix<S> dh[2] = {Matrix<S>(M, E), Matrix<S>(pair ? M : 0, E)};
  for (int64_t m = 0; m < M; ++m) {
    const std::vector<S> p = a.kind == LearnedMap::hedgehog ? signed_softmax(h, m, a.x.dtype) : std::vector<S>();
    const S mean = feature_map::row_sum<S>(static_cast<int64_t>(p.size()),
                                           [&](int64_t i) { return p[static_cast<size_t>(i)] * dy(m, i); });
    const auto slope = [&](int64_t i) { return p[static_cast<size_t>(i)] * (dy(m, i) - mean); };
    const auto g = [&](int64_t i, int64_t j) { return dy(m, feature_map::tri(E, i, j)); };
    for (int64_t i = 0; i < E; ++i) {
      switch (a.kind) {
        case LearnedMap::hedgehog: dh[0](m, i) = S(2.0) * (slope(i) - slope(E + i)); break;
        case LearnedMap::t2r: dh[0](m, i) = select_(less_(S(0.0), h(m, i)), dy(m, i), S(0.0)); break;
        case LearnedMap::hadamard:
          dh[0](m, i) = dy(m, i) * h2(m, i);
          dh[1](m, i) = dy(m, i) * h(m, i);
          break;
        case LearnedMap::outer_product:
          dh[0](m, i) = feature_map::row_sum<S>(E - i, [&](int64_t k) { return g(i, i + k) * h2(m, i + k); });
          dh[1](m, i) = feature_map::row_sum<S>(i + 1, [&](int64_t k) { return g(k, i) * h(m, k); });
          break;
      }
    }
  }
  for (Matrix<S>& d : dh) d = stored(a.x.dtype, std::move(d));
  const Tensor weights[2] = {a.weight, a.weight2};
  input_gradient(dh, weights, pair ? 2 : 1, a.dx);
  parameter_gradients(Factor<S>(dh[0]), x, a.x.dtype, a.dweight, a.dbias);
  if (pair) parameter_gradients(Factor<S>(dh[1]), x, a.x.dtype, a.dweight2, a.dbias2);
}

namespace learned_map {

// One layer of a [L - 1, S, S] stack.
inline Tensor later_layer(const Tensor& t, int64_t l, int64_t bytes) {
  if (!t) return {};
  Tensor one = dense(static_cast<char*>(t.data) + l * t.stride[0] * bytes, t.dtype, {t.size[1], t.size[2]});
  one.stride[0] = t.stride[1];
  return one;
}

// Every layer's input, and [a z, b z]; the normalised rows.
template <class S, class A>
struct Sketch {
  std::vector<feature_map::AffineRow<S>> rows;
  std::vector<Matrix<S>> z, of_a, of_b;
  Matrix<S> top;
  S scale;

  Tensor a_of(const A& s, size_t l) const { return l == 0 ? s.a : later(s.later_a, l); }
  Tensor b_of(const A& s, size_t l) const { return l == 0 ? s.b : later(s.later_b, l); }
  static Tensor later(const Tensor& t, size_t l) { return later_layer(t, static_cast<int64_t>(l) - 1, sizeof(S)); }

  explicit Sketch(const A& s) {
    const int64_t M = s.x.size[0], D = s.x.size[1];
    scale = feature_map::rounded_constant<S>(1 / std::sqrt(static_cast<double>(D)));
    Matrix<S> next(M, D);
    for (int64_t m = 0; m < M; ++m) {
      rows.emplace_back(s, true, m);
      for (int64_t i = 0; i < D; ++i) next(m, i) = rows.back().v[static_cast<size_t>(i)];
    }
    const auto layers = static_cast<size_t>(detail::sketch_layers(s.degree));
    for (size_t l = 0; l < layers; ++l) {
      z.push_back(stored(s.x.dtype, std::move(next)));
      of_a.push_back(layer<S>(Factor<S>(z[l]), a_of(s, l), {}));
      of_b.push_back(layer<S>(Factor<S>(z[l]), b_of(s, l), {}));
      next.resize(M, of_a[l].cols());
      for (int64_t i = 0; i < next.size(); ++i) next.data()[i] = of_a[l].data()[i] * of_b[l].data()[i] * scale;
    }
    top = std::move(next);
  }
};

}  // namespace learned_map

template <class S>
void evaluate(const PolysketchMapForward& s) {
  const learned_map::Sketch<S, PolysketchMapForward> sketch(s);
  const View<S> y(s.y);
  const Matrix<S>& z = sketch.top;
  for (int64_t m = 0; m < z.rows(); ++m)
    for (int64_t i = 0; i < z.cols(); ++i)
      for (int64_t j = i; j < z.cols(); ++j) y(m, feature_map::tri(z.cols(), i, j)) = z(m, i) * z(m, j);
}

template <class S>
void evaluate(const PolysketchMapBackward& s) {
  using namespace learned_map;
  Sketch<S, PolysketchMapBackward> sketch(s);
  const View<S> dy(s.dy);
  const Matrix<S>& top = sketch.top;
  const int64_t M = top.rows(), N = top.cols();
  Matrix<S> dz(M, N);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t i = 0; i < N; ++i) {
      dz(m, i) = feature_map::row_sum<S>(N + 1, [&](int64_t k) {
        const int64_t j = k < N ? k : i;  // the diagonal counts twice
        return dy(m, i < j ? feature_map::tri(N, i, j) : feature_map::tri(N, j, i)) * top(m, j);
      });
    }
  }
  for (size_t l = sketch.z.size(); l-- > 0;) {
    Matrix<S> dh[2] = {Matrix<S>(M, N), Matrix<S>(M, N)};
    for (int64_t i = 0; i < dz.size(); ++i) {
      dh[0].data()[i] = dz.data()[i] * sketch.of_b[l].data()[i] * sketch.scale;
      dh[1].data()[i] = dz.data()[i] * sketch.of_a[l].data()[i] * sketch.scale;
    }
    for (Matrix<S>& d : dh) d = stored(s.x.dtype, std::move(d));
    const Factor<S> z(sketch.z[l]);
    parameter_gradients(Factor<S>(dh[0]), z, s.x.dtype, l == 0 ? s.da : sketch.later(s.dlater_a, l), {});
    parameter_gradients(Factor<S>(dh[1]), z, s.x.dtype, l == 0 ? s.db : sketch.later(s.dlater_b, l), {});
    const Tensor weights[2] = {sketch.a_of(s, l), sketch.b_of(s, l)};
    dz.resize(M, weights[0].size[1]);
    input_gradient(dh, weights, 2, tensor_of(dz, DType::f32));
  }
  const View<S> gamma(s.gamma), dx(s.dx), dgamma(s.dgamma), dbeta(s.dbeta);
  for (int64_t m = 0; dx && m < M; ++m)
    sketch.rows[static_cast<size_t>(m)].backward(gamma, [&](int64_t i) { return dz(m, i); }, dx, m);
  for (int64_t i = 0; i < dz.cols(); ++i) {
    const auto xhat = [&](int64_t m) { return sketch.rows[static_cast<size_t>(m)].xhat[static_cast<size_t>(i)]; };
    if (dgamma) dgamma(i) = sum<S>(M, [&](int64_t m) { return dz(m, i) * xhat(m); });
    if (dbeta) dbeta(i) = sum<S>(M, [&](int64_t m) { return dz(m, i); });
  }
}

}  // namespace fla::reference

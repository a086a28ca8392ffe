// Matrix products at Eigen's speed, for the references of linear layers: product(A, B) for every scalar. An output of a
// library's product is judged by a bound that holds for every order of its sums.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "reference/scalar/scalars.h"

namespace fla::reference {

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Who accumulates: fp32 lanes, tensor cores, which truncate, or tensor cores on f32 numbers cut to 10 bits.
enum class ProductUnit { fp32, tensor_core, tf32 };
inline ProductUnit unit_of(DType operands) {
  return operands == DType::f32 ? ProductUnit::fp32 : ProductUnit::tensor_core;
}

// A matrix where it lies, or its transpose: a tensor of the call or a matrix made on the way.
template <class S>
struct Factor {
  const S* data = nullptr;
  int64_t rows = 0, columns = 0, stride = 0;  // as it lies
  bool transposed = false;

  Factor(const Matrix<S>& m) : data(m.data()), rows(m.rows()), columns(m.cols()), stride(m.cols()) {}
  explicit Factor(const Tensor& t)
      : data(static_cast<const S*>(t.data)), rows(t.size[0]), columns(t.size[1]), stride(t.stride[0]) {}

  Factor transpose() const {
    Factor f = *this;
    f.transposed = !transposed;
    return f;
  }
  int64_t outer() const { return transposed ? columns : rows; }
  int64_t inner() const { return transposed ? rows : columns; }
  const S& operator()(int64_t i, int64_t j) const {
    return transposed ? data[j * stride + i] : data[i * stride + j];
  }
};
template <class S>
Factor<S> transposed(const Matrix<S>& m) { return Factor<S>(m).transpose(); }

namespace matrix {

// One number of every element, as it lies.
template <class S, class Function>
Matrix<double> part(const Factor<S>& m, Function f) {
  Matrix<double> r(m.rows, m.columns);
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.columns; ++j) r(i, j) = f(m.data[i * m.stride + j]);
  return r;
}

using Rows = Eigen::Ref<const Matrix<double>, 0, Eigen::OuterStride<>>;
inline Matrix<double> times(const Rows& a, bool transpose_a, const Rows& b, bool transpose_b) {
  Matrix<double> r;
  if (transpose_a && transpose_b) r.noalias() = a.transpose() * b.transpose();
  else if (transpose_a) r.noalias() = a.transpose() * b;
  else if (transpose_b) r.noalias() = a * b.transpose();
  else r.noalias() = a * b;
  return r;
}

inline int lowest_bit(const Matrix<double>& m) {
  int lowest = 4096;
  for (Eigen::Index i = 0; i < m.size(); ++i) lowest = std::min(lowest, summation::lowest_bit(m.data()[i]));
  return lowest;
}

inline double value_of(const Bound& x) { return x.v; }
// An undecided element counts as an interval over both of its branches.
inline double error_of(const Bound& x) {
  return x.ambiguous ? x.e + std::abs(x.other - x.v) + x.other_e : x.e;
}

// The rounding of a sum of k products in fp32 by a library that chooses the order: every partial sum may be rounded,
// serially at worst, or truncated inside tensor cores. Small and unaligned products run on fp32 lanes whatever the dtype.
inline double rounding_of(int64_t k, ProductUnit unit) {
  const double lanes = reduction_factor(k, kOneLane) * kRounding;
  if (unit == ProductUnit::fp32) return lanes;
  const double truncated = tensor_core_factor(k) * kTensorCoreRounding;
  constexpr double kCutOperands = 2 * 0x1p-10;
  return std::fmax(lanes, truncated) + (unit == ProductUnit::tf32 ? kCutOperands : 0);
}

}  // namespace matrix

// product(A, B, unit) = A B; the only product in the references.
inline Matrix<double> product(const Factor<double>& a, const Factor<double>& b, ProductUnit = ProductUnit::fp32) {
  const auto rows = [](const Factor<double>& m) {
    return Eigen::Map<const Matrix<double>, 0, Eigen::OuterStride<>>(m.data, m.rows, m.columns,
                                                                     Eigen::OuterStride<>(m.stride));
  };
  return matrix::times(rows(a), a.transposed, rows(b), b.transposed);
}

// V = A B, E = E_A |B| + |A| E_B + E_A E_B + c |A| |B|; the last term is 0 where every order is exact.
inline Matrix<Bound> product(const Factor<Bound>& a, const Factor<Bound>& b, ProductUnit unit = ProductUnit::fp32) {
  const auto times = [&](const Matrix<double>& x, const Matrix<double>& y) {
    return matrix::times(x, a.transposed, y, b.transposed);
  };
  Matrix<double> va = matrix::part(a, matrix::value_of), vb = matrix::part(b, matrix::value_of);
  const int lowest = matrix::lowest_bit(va) + matrix::lowest_bit(vb);
  const Matrix<double> v = times(va, vb);
  va = va.cwiseAbs();
  vb = vb.cwiseAbs();
  const Matrix<double> magnitude = times(va, vb);
  Matrix<double> e = Matrix<double>::Zero(v.rows(), v.cols());
  const Matrix<double> ea = matrix::part(a, matrix::error_of);
  const bool a_exact = (ea.array() == 0).all();
  if (!a_exact) e += times(ea, vb);
  const Matrix<double> eb = matrix::part(b, matrix::error_of);
  if (!(eb.array() == 0).all()) e += a_exact ? times(va, eb) : times(va + ea, eb);
  const double rounding = matrix::rounding_of(a.inner(), unit);
  Matrix<Bound> r(v.rows(), v.cols());
  for (Eigen::Index i = 0; i < v.size(); ++i) {
    const double terms = magnitude.data()[i];
    const bool exact =
        unit != ProductUnit::tf32 && e.data()[i] == 0 && summation::all_orders_exact(lowest, terms);
    r.data()[i] = bound::settled(v.data()[i], e.data()[i] + (exact ? 0 : rounding * terms));
  }
  return r;
}

inline Matrix<Dual> product(const Factor<Dual>& a, const Factor<Dual>& b, ProductUnit = ProductUnit::fp32) {
  const auto value = [](const Dual& x) { return x.v; };
  const auto slope = [](const Dual& x) { return x.d; };
  const auto times = [&](const Matrix<double>& x, const Matrix<double>& y) {
    return matrix::times(x, a.transposed, y, b.transposed);
  };
  const Matrix<double> va = matrix::part(a, value), vb = matrix::part(b, value);
  const Matrix<double> v = times(va, vb), d = times(matrix::part(a, slope), vb) + times(va, matrix::part(b, slope));
  Matrix<Dual> r(v.rows(), v.cols());
  for (Eigen::Index i = 0; i < v.size(); ++i) r.data()[i] = {v.data()[i], d.data()[i]};
  return r;
}

// Models of kernels accumulate as their scalar says.
template <Accumulation A>
Matrix<SingleBy<A>> product(const Factor<SingleBy<A>>& a, const Factor<SingleBy<A>>& b,
                            ProductUnit = ProductUnit::fp32) {
  Matrix<SingleBy<A>> r(a.outer(), b.inner());
  for (Eigen::Index i = 0; i < r.rows(); ++i)
    for (Eigen::Index j = 0; j < r.cols(); ++j)
      r(i, j) = sum<SingleBy<A>>(a.inner(), [&](int64_t k) { return a(i, k) * b(k, j); });
  return r;
}
// By type, so that matrices and factors mix: product_of<S>(matrix, transposed(matrix), unit).
template <class S>
Matrix<S> product_of(const Factor<S>& a, const Factor<S>& b, ProductUnit unit) {
  return product(a, b, unit);
}

// A matrix made on the way as a tensor of its own, for the references that make or take it.
template <class S>
Tensor tensor_of(Matrix<S>& m, DType dtype) {
  return dense(m.data(), dtype, {m.rows(), m.cols()});
}
// At a rounding point.
template <class S>
Matrix<S> stored(DType dtype, Matrix<S> m) {
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = store_as(dtype, m.data()[i]);
  return m;
}

}  // namespace fla::reference

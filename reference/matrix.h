// Matrix products at Eigen's speed, for the references of linear layers: product(A, B) for every scalar.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "reference/scalar/scalars.h"

namespace fla::reference {

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Who accumulates: fp32 lanes, or tensor cores, which truncate.
enum class ProductUnit { fp32, tensor_core };

inline Matrix<double> product(const Matrix<double>& a, const Matrix<double>& b,
                              ProductUnit = ProductUnit::fp32) {
  return a * b;
}

namespace matrix {

template <class Function>
Matrix<double> part(const Matrix<Bound>& m, Function f) {
  Matrix<double> r(m.rows(), m.cols());
  for (Eigen::Index i = 0; i < m.size(); ++i) r.data()[i] = f(m.data()[i]);
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

}  // namespace matrix

// V = A B, E = E_A |B| + |A| E_B + E_A E_B + c u |A| |B|; the last term is 0 where every order is exact.
inline Matrix<Bound> product(const Matrix<Bound>& a, const Matrix<Bound>& b,
                             ProductUnit unit = ProductUnit::fp32) {
  const Matrix<double> va = matrix::part(a, matrix::value_of), vb = matrix::part(b, matrix::value_of);
  const Matrix<double> ea = matrix::part(a, matrix::error_of), eb = matrix::part(b, matrix::error_of);
  const Matrix<double> v = va * vb, magnitude = va.cwiseAbs() * vb.cwiseAbs();
  Matrix<double> e = Matrix<double>::Zero(v.rows(), v.cols());
  const bool a_exact = (ea.array() == 0).all(), b_exact = (eb.array() == 0).all();
  if (!a_exact) e += ea * vb.cwiseAbs();
  if (!b_exact) e += va.cwiseAbs() * eb;
  if (!a_exact && !b_exact) e += ea * eb;
  const auto k = static_cast<int64_t>(a.cols());
  const double rounding = unit == ProductUnit::tensor_core ? tensor_core_factor(k) * kTensorCoreRounding
                                                           : reduction_factor(k, kBlockLanes) * kRounding;
  const int lowest = matrix::lowest_bit(va) + matrix::lowest_bit(vb);
  Matrix<Bound> r(v.rows(), v.cols());
  for (Eigen::Index i = 0; i < v.size(); ++i) {
    const double terms = magnitude.data()[i];
    const bool exact = e.data()[i] == 0 && summation::all_orders_exact(lowest, terms);
    r.data()[i] = bound::settled(v.data()[i], e.data()[i] + (exact ? 0 : rounding * terms));
  }
  return r;
}

inline Matrix<Dual> product(const Matrix<Dual>& a, const Matrix<Dual>& b, ProductUnit = ProductUnit::fp32) {
  auto split = [](const Matrix<Dual>& m, double Dual::*member) {
    Matrix<double> r(m.rows(), m.cols());
    for (Eigen::Index i = 0; i < m.size(); ++i) r.data()[i] = m.data()[i].*member;
    return r;
  };
  const Matrix<double> va = split(a, &Dual::v), vb = split(b, &Dual::v);
  const Matrix<double> v = va * vb, d = split(a, &Dual::d) * vb + va * split(b, &Dual::d);
  Matrix<Dual> r(v.rows(), v.cols());
  for (Eigen::Index i = 0; i < v.size(); ++i) r.data()[i] = {v.data()[i], d.data()[i]};
  return r;
}

// Models of kernels accumulate as their scalar says.
template <Accumulation A>
Matrix<SingleBy<A>> product(const Matrix<SingleBy<A>>& a, const Matrix<SingleBy<A>>& b,
                            ProductUnit = ProductUnit::fp32) {
  Matrix<SingleBy<A>> r(a.rows(), b.cols());
  for (Eigen::Index i = 0; i < a.rows(); ++i)
    for (Eigen::Index j = 0; j < b.cols(); ++j)
      r(i, j) = sum<SingleBy<A>>(a.cols(), [&](int64_t k) { return a(i, k) * b(k, j); });
  return r;
}

}  // namespace fla::reference

// Feature maps. The kernels' forms are the reference's too where a bound depends on them: rows are scaled first, products
// are of scaled elements.
#pragma once

#include <cmath>
#include <numbers>
#include <vector>

#include "fla/feature_map.h"
#include "reference/view.h"

namespace fla::reference {
namespace feature_map {

// A constant that fp32 may have to round.
template <class S>
S rounded_constant(double v) { return S(v) * S(1.0); }

// Column of pair (i, j) of an upper triangle of n things, with its diagonal or without.
inline int64_t tri(int64_t n, int64_t i, int64_t j) { return i * n - i * (i - 1) / 2 + (j - i); }
inline int64_t strict_tri(int64_t n, int64_t i, int64_t j) { return i * (n - 1) - i * (i - 1) / 2 + (j - i - 1); }

// Sums over the other elements of a row are of one accumulator.
template <class S, class F>
S row_sum(int64_t n, F&& term) { return sum<S>(n, term, kOneLane); }

// An affine row, normalised or not, and what its backward needs.
template <class S>
struct AffineRow {
  std::vector<S> xhat, v;
  S rstd = S(1.0);
  bool normalize;

  template <class A>
  AffineRow(const A& a, bool normalized, int64_t m) : normalize(normalized) {
    const View<S> x(a.x), gamma(a.gamma), beta(a.beta);
    const int64_t D = x.size(1);
    const S mean = normalize ? row_sum<S>(D, [&](int64_t i) { return x(m, i); }) / constant<S>(D) : S(0.0);
    const auto deviation = [&](int64_t i) { return normalize ? x(m, i) - mean : x(m, i); };
    if (normalize) {
      const S squares = row_sum<S>(D, [&](int64_t i) { return deviation(i) * deviation(i); });
      rstd = rsqrt_(squares / constant<S>(D) + constant<S>(a.eps));
    }
    for (int64_t i = 0; i < D; ++i) {
      xhat.push_back(normalize ? deviation(i) * rstd : deviation(i));
      const S weighted = gamma ? xhat.back() * gamma(i) : xhat.back();
      v.push_back(beta ? weighted + beta(i) : weighted);
    }
  }

  // dx of row m from dv.
  template <class Gradient>
  void backward(const View<S>& gamma, Gradient dv, const View<S>& dx, int64_t m) const {
    const auto D = static_cast<int64_t>(v.size());
    const auto h = [&](int64_t i) { return gamma ? dv(i) * gamma(i) : dv(i); };
    const auto mean = [&](auto&& term) { return row_sum<S>(D, term) / constant<S>(D); };
    const auto x_hat = [&](int64_t i) { return xhat[static_cast<size_t>(i)]; };
    const S of_h = normalize ? mean(h) : S(0.0);
    const S of_slope = normalize ? mean([&](int64_t i) { return h(i) * x_hat(i); }) : S(0.0);
    for (int64_t i = 0; i < D; ++i) dx(m, i) = normalize ? (h(i) - of_h - x_hat(i) * of_slope) * rstd : h(i);
  }
};

// An element of dpfp's u, by its index in [0, 2D) or beyond.
template <class S>
S dpfp_element(const View<S>& x, DpfpVariant variant, int64_t m, int64_t i) {
  const int64_t D = x.size(1), around = 2 * D, k = (i % around + around) % around;
  const S value = x(m, k < D ? k : k - D);
  if (k < D) return max_(S(0.0), value);
  return variant == DpfpVariant::paper ? max_(S(0.0), -value) : -max_(S(0.0), value);
}

}  // namespace feature_map

template <class S>
void evaluate(const OuterTriuForward& a) {
  using namespace feature_map;
  const View<S> x(a.x), y(a.y), out(a.out), diagonal(a.diagonal);
  const int64_t N = x.size(1);
  for (int64_t m = 0; m < x.size(0); ++m) {
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t j = i; j < N; ++j) {
        if (!a.separate_diagonal) out(m, tri(N, i, j)) = x(m, i) * y(m, j);
        else if (i < j) out(m, strict_tri(N, i, j)) = x(m, i) * y(m, j);
        else diagonal(m, i) = x(m, i) * y(m, i);
      }
    }
  }
}

template <class S>
void evaluate(const OuterTriuBackward& a) {
  using namespace feature_map;
  const View<S> x(a.x), y(a.y), dout(a.dout), ddiagonal(a.ddiagonal), dx(a.dx), dy(a.dy);
  const int64_t N = x.size(1);
  for (int64_t m = 0; m < x.size(0); ++m) {
    const auto g = [&](int64_t i, int64_t j) {
      if (!a.separate_diagonal) return dout(m, tri(N, i, j));
      return i < j ? dout(m, strict_tri(N, i, j)) : ddiagonal(m, i);
    };
    for (int64_t i = 0; i < N; ++i) {
      if (dx) dx(m, i) = row_sum<S>(N - i, [&](int64_t k) { return g(i, i + k) * y(m, i + k); });
      if (dy) dy(m, i) = row_sum<S>(i + 1, [&](int64_t k) { return g(k, i) * x(m, k); });
    }
  }
}

template <class S>
void evaluate(const TaylorMapForward& a) {
  using namespace feature_map;
  const View<S> x(a.x), y(a.y);
  const int64_t D = x.size(1);
  const S scale = rounded_constant<S>(std::pow(static_cast<double>(D), -0.25));
  const S root_half = rounded_constant<S>(std::numbers::sqrt2 / 2);
  for (int64_t m = 0; m < x.size(0); ++m) {
    const auto t = [&](int64_t i) { return x(m, i) * scale; };
    y(m, 0) = S(1.0);
    for (int64_t i = 0; i < D; ++i) {
      y(m, 1 + i) = t(i);
      y(m, 1 + D + i) = t(i) * (t(i) * root_half);
      for (int64_t j = i + 1; j < D; ++j) y(m, 1 + 2 * D + strict_tri(D, i, j)) = t(i) * t(j);
    }
  }
}

template <class S>
void evaluate(const TaylorMapBackward& a) {
  using namespace feature_map;
  const View<S> x(a.x), dy(a.dy), dx(a.dx);
  const int64_t D = x.size(1);
  const S scale = rounded_constant<S>(std::pow(static_cast<double>(D), -0.25));
  const S root_two = rounded_constant<S>(std::numbers::sqrt2);
  for (int64_t m = 0; m < x.size(0); ++m) {
    const auto t = [&](int64_t i) { return x(m, i) * scale; };
    for (int64_t i = 0; i < D; ++i) {
      const S others = row_sum<S>(D + 1, [&](int64_t j) {
        if (j == D) return dy(m, 1 + i);
        if (j == i) return dy(m, 1 + D + i) * (root_two * t(i));
        return dy(m, 1 + 2 * D + (i < j ? strict_tri(D, i, j) : strict_tri(D, j, i))) * t(j);
      });
      dx(m, i) = others * scale;
    }
  }
}

template <class S>
void evaluate(const RebasedMapForward& a) {
  using namespace feature_map;
  const View<S> x(a.x), y(a.y);
  const int64_t D = x.size(1);
  const S scale = rounded_constant<S>(std::pow(2.0 / static_cast<double>(D), 0.25));
  const S root_half = rounded_constant<S>(std::numbers::sqrt2 / 2);
  for (int64_t m = 0; m < x.size(0); ++m) {
    const AffineRow<S> row(a, a.normalize, m);
    const auto t = [&](int64_t i) { return row.v[static_cast<size_t>(i)] * scale; };
    for (int64_t i = 0; i < D; ++i) {
      y(m, i) = a.flatten ? t(i) * (t(i) * root_half) : row.v[static_cast<size_t>(i)];
      for (int64_t j = i + 1; a.flatten && j < D; ++j) y(m, D + strict_tri(D, i, j)) = t(i) * t(j);
    }
  }
}

template <class S>
void evaluate(const RebasedMapBackward& a) {
  using namespace feature_map;
  const View<S> x(a.x), gamma(a.gamma), dy(a.dy), dx(a.dx), dgamma(a.dgamma), dbeta(a.dbeta);
  const int64_t M = x.size(0), D = x.size(1);
  const S scale = rounded_constant<S>(std::pow(2.0 / static_cast<double>(D), 0.25));
  const S root_two = rounded_constant<S>(std::numbers::sqrt2);
  const auto at = [&](int64_t m, int64_t i) { return static_cast<size_t>(m * D + i); };
  std::vector<S> dv(static_cast<size_t>(M * D)), xhat(dv.size());
  for (int64_t m = 0; m < M; ++m) {
    const AffineRow<S> row(a, a.normalize, m);
    const auto t = [&](int64_t i) { return row.v[static_cast<size_t>(i)] * scale; };
    for (int64_t i = 0; i < D; ++i) {
      xhat[at(m, i)] = row.xhat[static_cast<size_t>(i)];
      if (!a.flatten) {
        dv[at(m, i)] = dy(m, i);
        continue;
      }
      dv[at(m, i)] = scale * row_sum<S>(D, [&](int64_t j) {
        if (j == i) return dy(m, i) * (root_two * t(i));
        return dy(m, D + (i < j ? strict_tri(D, i, j) : strict_tri(D, j, i))) * t(j);
      });
    }
    if (dx) row.backward(gamma, [&](int64_t i) { return dv[at(m, i)]; }, dx, m);
  }
  for (int64_t i = 0; i < D; ++i) {
    if (dgamma) dgamma(i) = sum<S>(M, [&](int64_t m) { return dv[at(m, i)] * xhat[at(m, i)]; });
    if (dbeta) dbeta(i) = sum<S>(M, [&](int64_t m) { return dv[at(m, i)]; });
  }
}

template <class S>
void evaluate(const DpfpMapForward& a) {
  using namespace feature_map;
  const View<S> x(a.x), y(a.y);
  const int64_t around = 2 * x.size(1);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t j = 1; j <= a.nu; ++j)
      for (int64_t i = 0; i < around; ++i)
        y(m, (j - 1) * around + i) =
            dpfp_element(x, a.variant, m, i) * dpfp_element(x, a.variant, m, i - j);
}

template <class S>
void evaluate(const DpfpMapBackward& a) {
  using namespace feature_map;
  const View<S> x(a.x), dy(a.dy), dx(a.dx);
  const int64_t D = x.size(1), around = 2 * D;
  for (int64_t m = 0; m < x.size(0); ++m) {
    const auto du = [&](int64_t i) {
      return row_sum<S>(2 * a.nu, [&](int64_t k) {
        const int64_t j = k / 2 + 1, other = k % 2 == 0 ? i - j : i + j, at = k % 2 == 0 ? i : other % around;
        return dy(m, (j - 1) * around + at) * dpfp_element(x, a.variant, m, other);
      });
    };
    for (int64_t i = 0; i < D; ++i) {
      const S value = x(m, i);
      const auto positive = less_(S(0.0), value), negative = less_(value, S(0.0));
      const S neither = is_nan(value) ? value : S(0.0);
      dx(m, i) = a.variant == DpfpVariant::paper
                     ? select_(positive, du(i), select_(negative, -du(i + D), neither))
                     : select_(positive, du(i) - du(i + D), neither);
    }
  }
}

}  // namespace fla::reference

// Row norms.
#pragma once

#include "fla/norm.h"
#include "reference/view.h"

namespace fla::reference {

// [M, G, N] where G may be left out, and [G, N] parameters whose G has stride 0 when they are shared.
template <class S>
View<S> rows_of(const Tensor& t) { return View<S>(t, 3, 1); }
template <class S>
View<S> row_statistic(const Tensor& t) { return View<S>(t, 2, 1); }
template <class S>
View<S> row_parameter(const Tensor& t) { return View<S>(t, 2, 0); }

template <class S>
void evaluate(const RmsNormForward& a) {
  const auto x = rows_of<S>(a.x), residual = rows_of<S>(a.residual);
  const auto weight = row_parameter<S>(a.weight), bias = row_parameter<S>(a.bias);
  const auto y = rows_of<S>(a.y), residual_out = rows_of<S>(a.residual_out);
  const auto rstd_out = row_statistic<S>(a.rstd);
  const int64_t M = x.size(0), G = x.size(1), N = x.size(2);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t g = 0; g < G; ++g) {
      // The unrounded sum: residual_out is its copy, not its source.
      auto u = [&](int64_t n) { return residual ? x(m, g, n) + residual(m, g, n) : x(m, g, n); };
      const S squares = sum<S>(N, [&](int64_t n) {
        const S v = u(n);
        return v * v;
      });
      const S rstd = rsqrt_(squares / constant<S>(N) + constant<S>(a.eps));
      if (rstd_out) rstd_out(m, g) = rstd;
      for (int64_t n = 0; n < N; ++n) {
        const S v = u(n);
        S out = v * rstd;
        if (weight) out = out * weight(g, n);
        if (bias) out = out + bias(g, n);
        if (residual_out) residual_out(m, g, n) = v;
        y(m, g, n) = out;
      }
    }
  }
}

// Gradients of the parameters: sums over the rows that share them, M or M G of them.
template <class S, class Term>
void sum_over_rows(const View<S>& out, bool per_group, int64_t M, int64_t G, int64_t N, Term term) {
  if (!out) return;
  for (int64_t g = 0; g < (per_group ? G : 1); ++g)
    for (int64_t n = 0; n < N; ++n)
      out(g, n) = per_group ? sum<S>(M, [&](int64_t row) { return term(row, g, n); })
                            : sum<S>(M * G, [&](int64_t row) { return term(row / G, row % G, n); });
}

template <class S>
void evaluate(const RmsNormBackward& a) {
  const auto u = rows_of<S>(a.x ? a.x : a.residual_out);
  const auto weight = row_parameter<S>(a.weight), bias = row_parameter<S>(a.bias);
  const auto rstd = row_statistic<S>(a.rstd);
  const auto dy = rows_of<S>(a.dy), dresidual_out = rows_of<S>(a.dresidual_out);
  const auto dx = rows_of<S>(a.dx), dresidual = rows_of<S>(a.dresidual), y = rows_of<S>(a.y);
  const int64_t M = u.size(0), G = u.size(1), N = u.size(2);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t g = 0; g < G; ++g) {
      auto xhat = [&](int64_t n) { return u(m, g, n) * rstd(m, g); };
      auto s = [&](int64_t n) { return weight ? dy(m, g, n) * weight(g, n) : dy(m, g, n); };
      const S c = sum<S>(N, [&](int64_t n) { return s(n) * xhat(n); }) / constant<S>(N);
      for (int64_t n = 0; n < N; ++n) {
        S du = rstd(m, g) * (s(n) - xhat(n) * c);
        if (dresidual_out) du = du + dresidual_out(m, g, n);
        if (dx) dx(m, g, n) = du;
        if (dresidual) dresidual(m, g, n) = du;
        if (!y) continue;
        S out = weight ? xhat(n) * weight(g, n) : xhat(n);
        if (bias) out = out + bias(g, n);
        y(m, g, n) = out;
      }
    }
  }
  sum_over_rows(row_parameter<S>(a.dweight), a.weight_per_group, M, G, N,
                [&](int64_t m, int64_t g, int64_t n) { return dy(m, g, n) * (u(m, g, n) * rstd(m, g)); });
  sum_over_rows(row_parameter<S>(a.dbias), a.weight_per_group, M, G, N,
                [&](int64_t m, int64_t g, int64_t n) { return dy(m, g, n); });
}

}  // namespace fla::reference

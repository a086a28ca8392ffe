// Row norms: one forward and one backward text for all of them.
#pragma once

#include "fla/gated_norm.h"
#include "fla/l2_norm.h"
#include "fla/norm.h"
#include "fla/qk_norm.h"
#include "reference/short_forms.h"
#include "reference/view.h"

namespace fla::reference {

// [M, G, N] where G may be left out, and [G, N] parameters whose G has stride 0 when they are shared.
template <class S>
View<S> rows_of(const Tensor& t) { return View<S>(t, 3, 1); }
template <class S>
View<S> row_statistic(const Tensor& t) { return View<S>(t, 2, 1); }
template <class S>
View<S> row_parameter(const Tensor& t) { return View<S>(t, 2, 0); }

// The gate of a call that has one, and how it enters.
struct GateOf {
  Tensor gate, dgate;
  GateActivation activation = GateActivation::none;
  GateOrder order = GateOrder::after;

  bool before() const { return activation != GateActivation::none && order == GateOrder::before; }
  bool after() const { return activation != GateActivation::none && order == GateOrder::after; }
};

// What the gate makes of itself: A(g) and A'(g).
template <class S>
S gate_value(const GateOf& of, const S& g) {
  const S s = sigmoid_(in_base_2(of.gate.dtype, g)).plus;
  return of.activation == GateActivation::swish ? g * s : s;
}
template <class S>
S gate_slope(const GateOf& of, const S& g) {
  const Sigmoid<S> s = sigmoid_(in_base_2(of.gate.dtype, g));
  return of.activation == GateActivation::swish ? s.plus * (S(1.0) + g * s.minus) : s.plus * s.minus;
}

template <class S, class A>
void normalise_rows(const A& a, bool centred, const GateOf& gating) {
  const auto x = rows_of<S>(a.x), residual = rows_of<S>(a.residual), gate = rows_of<S>(gating.gate);
  const auto weight = row_parameter<S>(a.weight), bias = row_parameter<S>(a.bias);
  const auto y = rows_of<S>(a.y), residual_out = rows_of<S>(a.residual_out);
  const auto mean_out = row_statistic<S>(centred ? a.mean : Tensor{}), rstd_out = row_statistic<S>(a.rstd);
  const int64_t M = x.size(0), G = x.size(1), N = x.size(2);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t g = 0; g < G; ++g) {
      // The unrounded sum: residual_out is its copy, not its source.
      auto u = [&](int64_t n) { return residual ? x(m, g, n) + residual(m, g, n) : x(m, g, n); };
      auto v = [&](int64_t n) {
        return gating.before() ? u(n) * gate_value(gating, gate(m, g, n)) : u(n);
      };
      const S mean = centred ? sum<S>(N, v) / constant<S>(N) : S(0.0);
      auto deviation = [&](int64_t n) { return centred ? v(n) - mean : v(n); };
      const S squares = sum<S>(N, [&](int64_t n) {
        const S d = deviation(n);
        return d * d;
      });
      const S rstd = rsqrt_(squares / constant<S>(N) + constant<S>(a.eps));
      if (mean_out) mean_out(m, g) = mean;
      if (rstd_out) rstd_out(m, g) = rstd;
      for (int64_t n = 0; n < N; ++n) {
        const S added = u(n);
        S out = deviation(n) * rstd;
        if (weight) out = out * (weight(g, n) + constant<S>(a.weight_offset));
        if (bias) out = out + bias(g, n);
        if (gating.after()) out = out * gate_value(gating, gate(m, g, n));
        if (residual_out) residual_out(m, g, n) = added;
        y(m, g, n) = out;
      }
    }
  }
}

// Gradients of the parameters: sums over the rows that share them, M or M G of them.
template <class S, class Term>
void sum_over_rows(const View<S>& out, bool per_group, bool accumulate, int64_t M, int64_t G, int64_t N, Term term) {
  if (!out) return;
  for (int64_t g = 0; g < (per_group ? G : 1); ++g) {
    for (int64_t n = 0; n < N; ++n) {
      const S total = per_group ? sum<S>(M, [&](int64_t row) { return term(row, g, n); })
                                : sum<S>(M * G, [&](int64_t row) { return term(row / G, row % G, n); });
      out(g, n) = accumulate ? out(g, n) + total : total;
    }
  }
}

template <class S, class A>
void differentiate_rows(const A& a, bool centred, const GateOf& gating) {
  const auto u = rows_of<S>(a.x ? a.x : a.residual_out), gate = rows_of<S>(gating.gate);
  const auto weight = row_parameter<S>(a.weight), bias = row_parameter<S>(a.bias);
  const auto mean = row_statistic<S>(centred ? a.mean : Tensor{}), rstd = row_statistic<S>(a.rstd);
  const auto dy = rows_of<S>(a.dy), dresidual_out = rows_of<S>(a.dresidual_out);
  const auto dx = rows_of<S>(a.dx), dgate = rows_of<S>(gating.dgate), dresidual = rows_of<S>(a.dresidual);
  const auto y = rows_of<S>(a.y);
  const int64_t M = u.size(0), G = u.size(1), N = u.size(2);
  auto activated = [&](int64_t m, int64_t g, int64_t n) { return gate_value(gating, gate(m, g, n)); };
  auto xhat = [&](int64_t m, int64_t g, int64_t n) {
    S v = gating.before() ? u(m, g, n) * activated(m, g, n) : u(m, g, n);
    if (centred) v = v - mean(m, g);
    return v * rstd(m, g);
  };
  auto dn = [&](int64_t m, int64_t g, int64_t n) {
    return gating.after() ? dy(m, g, n) * activated(m, g, n) : dy(m, g, n);
  };
  auto factor = [&](int64_t g, int64_t n) { return weight(g, n) + constant<S>(a.weight_offset); };
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t g = 0; g < G; ++g) {
      auto s = [&](int64_t n) { return weight ? dn(m, g, n) * factor(g, n) : dn(m, g, n); };
      const S c1 = sum<S>(N, [&](int64_t n) { return s(n) * xhat(m, g, n); }) / constant<S>(N);
      const S c2 = centred ? sum<S>(N, s) / constant<S>(N) : S(0.0);
      for (int64_t n = 0; n < N; ++n) {
        const S hat = xhat(m, g, n);
        S dv = s(n) - hat * c1;
        if (centred) dv = dv - c2;
        dv = rstd(m, g) * dv;
        S normalised = weight ? hat * factor(g, n) : hat;
        if (bias) normalised = normalised + bias(g, n);
        if (dgate) {
          const S slope = gate_slope(gating, gate(m, g, n));
          dgate(m, g, n) = (gating.before() ? dv * u(m, g, n) : dy(m, g, n) * normalised) * slope;
        }
        S du = gating.before() ? dv * activated(m, g, n) : dv;
        if (dresidual_out) du = du + dresidual_out(m, g, n);
        if (y) y(m, g, n) = gating.after() ? normalised * activated(m, g, n) : normalised;
        if (dx) dx(m, g, n) = du;
        if (dresidual) dresidual(m, g, n) = du;
      }
    }
  }
  sum_over_rows(row_parameter<S>(a.dweight), a.weight_per_group, a.accumulate, M, G, N,
                [&](int64_t m, int64_t g, int64_t n) { return dn(m, g, n) * xhat(m, g, n); });
  sum_over_rows(row_parameter<S>(a.dbias), a.weight_per_group, a.accumulate, M, G, N, dn);
}

template <class S, NormKind kKind, bool kPerGroup>
void evaluate(const NormForward<kKind, kPerGroup>& a) {
  normalise_rows<S>(a, a.kind == NormKind::layer, {});
}
template <class S, NormKind kKind, bool kPerGroup>
void evaluate(const NormBackward<kKind, kPerGroup>& a) {
  differentiate_rows<S>(a, a.kind == NormKind::layer, {});
}
template <class S, NormKind kKind>
void evaluate(const GatedNormForward<kKind>& a) {
  normalise_rows<S>(a, kKind == NormKind::layer, {a.gate, {}, a.activation, a.gate_order});
}
template <class S, NormKind kKind>
void evaluate(const GatedNormBackward<kKind>& a) {
  differentiate_rows<S>(a, kKind == NormKind::layer, {a.gate, a.dgate, a.activation, a.gate_order});
}

template <class S>
void evaluate(const QkNormForward& a) {
  evaluate<S>(detail::q_norm(a));
  evaluate<S>(detail::k_norm(a));
}
template <class S>
void evaluate(const QkNormBackward& a) {
  evaluate<S>(detail::q_norm(a));
  evaluate<S>(detail::k_norm(a));
}

template <class S>
void evaluate(const L2NormForward& a) {
  const auto x = rows_of<S>(a.x), y = rows_of<S>(a.y);
  const auto rstd_out = row_statistic<S>(a.rstd);
  const int64_t N = x.size(2);
  for (int64_t m = 0; m < x.size(0); ++m) {
    for (int64_t g = 0; g < x.size(1); ++g) {
      const S rstd = rsqrt_(sum<S>(N, [&](int64_t n) { return x(m, g, n) * x(m, g, n); }) + constant<S>(a.eps));
      if (rstd_out) rstd_out(m, g) = rstd;
      for (int64_t n = 0; n < N; ++n) y(m, g, n) = x(m, g, n) * rstd;
    }
  }
}

template <class S>
void evaluate(const L2NormBackward& a) {
  const auto y = rows_of<S>(a.y), dy = rows_of<S>(a.dy), dx = rows_of<S>(a.dx);
  const auto rstd = row_statistic<S>(a.rstd);
  const int64_t N = y.size(2);
  for (int64_t m = 0; m < y.size(0); ++m) {
    for (int64_t g = 0; g < y.size(1); ++g) {
      const S along = sum<S>(N, [&](int64_t n) { return dy(m, g, n) * y(m, g, n); });
      for (int64_t n = 0; n < N; ++n) dx(m, g, n) = rstd(m, g) * (dy(m, g, n) - y(m, g, n) * along);
    }
  }
}

}  // namespace fla::reference

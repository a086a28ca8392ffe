// Feature maps of linear attention: products of a row's elements, and small learned layers.
//
// All operators work on [M, D] rows with free, independent row strides; collapse_rows() (tensor.h) makes them of
// [B, T, H, D]. Arithmetic is fp32 with one rounding at each store; NaN propagates. Nothing but x and the parameters is
// saved: backward computes the rest again. Deterministic; no rows is success (parameters' gradients are zeros then).
// Only the gradients whose pointers are set are computed, at least one must be (else invalid_argument). Errors: as
// validation (status.h), naming the field; unsupported_shape for rows of no elements, or of more than a block's shared
// memory holds (D = 6000 in the expansions).
//
// tri(i, j) below numbers the pairs of an upper triangle row by row: 00 01 02 .. 11 12 ..
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

namespace detail {
inline constexpr Rule kWanted{.presence = Presence::expected};
inline constexpr Rule kExtra{.presence = Presence::optional};
}  // namespace detail

// The upper triangle of the outer product of x and y, flat:
//   out[tri(i, j)] = x_i y_j,  i <= j
// or, with separate_diagonal (outer_triu_off1), i < j only, and the diagonal x_i y_i by itself.
struct OuterTriuForward {
  bool separate_diagonal = false;
  Tensor x;         // [M, N] f32/f16/bf16
  Tensor y;         // [M, N] any float
  Tensor out;       // [M, N (N + 1) / 2], or [M, N (N - 1) / 2] with separate_diagonal; dtype of x
  Tensor diagonal;  // [M, N] any float; separate_diagonal only
};

template <class V>
void describe(V& v, OuterTriuForward& a) {
  const Dim M = v.dim("M"), N = v.dim("N");
  v.input("x", a.x, {M, N});
  v.input("y", a.y, {M, N});
  v.output("out", a.out, {M, triangle(a.separate_diagonal ? N - 1 : N)}, {.like = &a.x});
  if (a.separate_diagonal) v.output("diagonal", a.diagonal, {M, N});
}

Status check(const OuterTriuForward&);
size_t workspace_bytes(const OuterTriuForward&);
Status run(const OuterTriuForward&, Workspace, Stream);

//   dx_i = sum_{j >= i} dout_ij y_j,  dy_j = sum_{i <= j} dout_ij x_i
// with separate_diagonal the terms i = j read ddiagonal. No workspace.
struct OuterTriuBackward {
  bool separate_diagonal = false;
  Tensor x, y;       // [M, N] as forward
  Tensor dout;       // as out in shape; any float
  Tensor ddiagonal;  // [M, N] any float; separate_diagonal only
  Tensor dx;         // [M, N] any float (normally x's)
  Tensor dy;         // [M, N] any float (normally y's)
};

template <class V>
void describe(V& v, OuterTriuBackward& a) {
  const Dim M = v.dim("M"), N = v.dim("N");
  v.input("x", a.x, {M, N});
  v.input("y", a.y, {M, N});
  v.input("dout", a.dout, {M, triangle(a.separate_diagonal ? N - 1 : N)});
  if (a.separate_diagonal) v.input("ddiagonal", a.ddiagonal, {M, N});
  v.output("dx", a.dx, {M, N}, detail::kWanted);
  v.output("dy", a.dy, {M, N}, detail::kWanted);
}

Status check(const OuterTriuBackward&);
size_t workspace_bytes(const OuterTriuBackward&);
Status run(const OuterTriuBackward&, Workspace, Stream);

// The second-order Taylor expansion of exp(q k / sqrt(D)): y = [1, x D^-1/4, x_i^2 / sqrt(2 D), x_i x_j / sqrt(D) (i < j)],
// so that y(q) y(k) = 1 + s + s^2 / 2 with s = q k / sqrt(D). Arora et al. 2024 (Based), arXiv 2402.18668.
struct TaylorMapForward {
  Tensor x;  // [M, D] f32/f16/bf16
  Tensor y;  // [M, (D + 1) (D + 2) / 2] dtype of x
};

template <class V>
void describe(V& v, TaylorMapForward& a) {
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.output("y", a.y, {M, triangle(D + 1)}, {.like = &a.x});
}

Status check(const TaylorMapForward&);
size_t workspace_bytes(const TaylorMapForward&);
Status run(const TaylorMapForward&, Workspace, Stream);

struct TaylorMapBackward {
  Tensor x;   // [M, D] as forward
  Tensor dy;  // [M, (D + 1) (D + 2) / 2] any float
  Tensor dx;  // [M, D] any float (normally x's)
};

template <class V>
void describe(V& v, TaylorMapBackward& a) {
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.input("dy", a.dy, {M, triangle(D + 1)});
  v.output("dx", a.dx, {M, D});
}

Status check(const TaylorMapBackward&);
size_t workspace_bytes(const TaylorMapBackward&);
Status run(const TaylorMapBackward&, Workspace, Stream);

// ReBased: the square of an affine row, y(q) y(k) = (v_q v_k)^2 / D. Aksenov et al. 2024, arXiv 2402.10644.
//   v = LN(x) gamma + beta     normalize: biased variance, by deviations; missing gamma: 1; missing beta: 0
//   v = x gamma + beta         otherwise; gamma is required then
//   y = [v_i^2 / sqrt(D), v_i v_j sqrt(2 / D) (i < j)], or v itself without flatten
struct RebasedMapForward {
  Tensor x;            // [M, D] f32/f16/bf16
  Tensor gamma, beta;  // [D] any float
  Tensor y;            // [M, D (D + 1) / 2], or [M, D] without flatten; dtype of x
  float eps = 1e-5f;   // >= 0, inside the root; with normalize
  bool normalize = true;
  bool flatten = true;
};

template <class V>
void describe(V& v, RebasedMapForward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("normalize", a.normalize);
  v.attribute("flatten", a.flatten);
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.input("gamma", a.gamma, {D}, detail::kWanted);
  v.input("beta", a.beta, {D}, detail::kWanted);
  v.output("y", a.y, {M, a.flatten ? triangle(D) : D}, {.like = &a.x});
}

Status check(const RebasedMapForward&);
size_t workspace_bytes(const RebasedMapForward&);
Status run(const RebasedMapForward&, Workspace, Stream);

//   dgamma = sum_rows dv xhat, dbeta = sum_rows dv     fp32, fixed order, rounded once; xhat = x without normalize
// Workspace: fp32 partial sums where dgamma or dbeta is asked for.
struct RebasedMapBackward {
  Tensor x;              // [M, D] as forward
  Tensor gamma, beta;    // [D] as forward
  Tensor dy;             // as y in shape; any float
  Tensor dx;             // [M, D] any float (normally x's)
  Tensor dgamma, dbeta;  // [D] any float
  float eps = 1e-5f;     // as forward
  bool normalize = true;
  bool flatten = true;
};

template <class V>
void describe(V& v, RebasedMapBackward& a) {
  v.attribute("eps", a.eps, {.min = 0});
  v.attribute("normalize", a.normalize);
  v.attribute("flatten", a.flatten);
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.input("gamma", a.gamma, {D}, detail::kWanted);
  v.input("beta", a.beta, {D}, detail::kWanted);
  v.input("dy", a.dy, {M, a.flatten ? triangle(D) : D});
  v.output("dx", a.dx, {M, D}, detail::kWanted);
  v.output("dgamma", a.dgamma, {D}, {.presence = Presence::expected, .with = &a.gamma});
  v.output("dbeta", a.dbeta, {D}, {.presence = Presence::expected, .with = &a.beta});
}

Status check(const RebasedMapBackward&);
size_t workspace_bytes(const RebasedMapBackward&);
Status run(const RebasedMapBackward&, Workspace, Stream);

// Deterministic parameter-free projection: y[(j - 1) 2D + i] = u_i u_{(i - j) mod 2D}, j = 1 .. nu. Schlag et al. 2021,
// arXiv 2102.11174.
//   u = [relu(x), -relu(x)]   fla:   the second half is negative
//   u = [relu(x), relu(-x)]   paper
// The derivative of relu at 0 is 0.
enum class DpfpVariant : int32_t { fla, paper };
inline constexpr const char* kDpfpVariants[] = {"fla", "paper"};

struct DpfpMapForward {
  Tensor x;        // [M, D] f32/f16/bf16
  Tensor y;        // [M, 2 D nu] dtype of x
  int64_t nu = 4;  // 1 .. 4096; beyond 2D the indices wrap
  DpfpVariant variant = DpfpVariant::fla;
};

template <class V>
void describe(V& v, DpfpMapForward& a) {
  v.attribute("nu", a.nu, {.min = 1, .max = 4096});
  v.option("variant", a.variant, kDpfpVariants);
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.output("y", a.y, {M, 2 * a.nu * D}, {.like = &a.x});
}

Status check(const DpfpMapForward&);
size_t workspace_bytes(const DpfpMapForward&);
Status run(const DpfpMapForward&, Workspace, Stream);

struct DpfpMapBackward {
  Tensor x;        // [M, D] as forward
  Tensor dy;       // [M, 2 D nu] any float
  Tensor dx;       // [M, D] any float (normally x's)
  int64_t nu = 4;  // as forward
  DpfpVariant variant = DpfpVariant::fla;
};

template <class V>
void describe(V& v, DpfpMapBackward& a) {
  v.attribute("nu", a.nu, {.min = 1, .max = 4096});
  v.option("variant", a.variant, kDpfpVariants);
  const Dim M = v.dim("M"), D = v.dim("D");
  v.input("x", a.x, {M, D});
  v.input("dy", a.dy, {M, 2 * a.nu * D});
  v.output("dx", a.dx, {M, D});
}

Status check(const DpfpMapBackward&);
size_t workspace_bytes(const DpfpMapBackward&);
Status run(const DpfpMapBackward&, Workspace, Stream);

}  // namespace fla

// The library's matrix product (kernels/common/gemm.h) as an operator of its own, so that every layout, dtype and option
// of it is judged on a GPU like anything else. It is internal to the library: what it says of itself stands here.
#include "kernels/common/gemm.h"

#include "fla/describe.h"
#include "fla/validate.h"
#include "reference/matrix.h"
#include "reference/view.h"

namespace fla::detail {

template <class V>
void describe(V& v, Gemm& g) {
  v.attribute("transpose_a", g.transpose_a);
  v.attribute("transpose_b", g.transpose_b);
  v.attribute("accumulate", g.accumulate);
  v.attribute("allow_tf32", g.allow_tf32);
  v.attribute("alpha", g.alpha);
  const Dim M = v.dim("M"), N = v.dim("N"), K = v.dim("K");
  v.input("a", g.a, g.transpose_a ? Shape{K, M} : Shape{M, K});
  v.input("b", g.b, g.transpose_b ? Shape{N, K} : Shape{K, N}, {.like = &g.a});
  if (g.accumulate) v.inout("c", g.c, {M, N}, {.types = kF32});
  else v.output("c", g.c, {M, N});
  v.input("bias", g.bias, {N}, {.presence = Presence::optional, .like = &g.c});
}

Status check(const Gemm& g) {
  Status s;
  if (g.c.dtype != g.a.dtype && g.c.dtype != DType::f32) {
    s.code = StatusCode::unsupported_dtype;
    std::snprintf(s.text, sizeof s.text, "c: dtype %s", name_of(g.c.dtype));
  } else if (g.bias && g.accumulate) {
    s.code = StatusCode::unsupported_combination;
    std::snprintf(s.text, sizeof s.text, "bias: not together with accumulate");
  }
  for (const auto& [name, t] : {std::pair{"a", &g.a}, {"b", &g.b}, {"c", &g.c}})
    if (s.ok()) s = check_rows(name, *t);
  return s;
}

size_t workspace_bytes(const Gemm& g) { return gemm_workspace_bytes(g.m(), g.n()); }

Status run(const Gemm& g, Workspace workspace, Stream stream) {
  if (Status s = validate(g); !s.ok()) return s;
  return gemm(g, workspace, stream);
}

}  // namespace fla::detail

namespace fla::reference {

template <class S>
void evaluate(const detail::Gemm& g) {
  const Factor<S> a(g.a), b(g.b);
  const ProductUnit unit = g.allow_tf32 && g.a.dtype == DType::f32 ? ProductUnit::tf32 : unit_of(g.a.dtype);
  const Matrix<S> sums = product_of<S>(g.transpose_a ? a.transpose() : a, g.transpose_b ? b.transpose() : b, unit);
  const View<S> c(g.c), bias(g.bias);
  for (int64_t i = 0; i < sums.rows(); ++i) {
    for (int64_t j = 0; j < sums.cols(); ++j) {
      const S sum = constant<S>(g.alpha) * sums(i, j);
      c(i, j) = g.accumulate ? c(i, j) + sum : bias ? sum + bias(j) : sum;
    }
  }
}

}  // namespace fla::reference

#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_gemm(std::vector<Direction>& table) {
  table.push_back(direction<detail::Gemm>("gemm", "fwd", {.sample_dim = "M"}));
}

}  // namespace fla::harness

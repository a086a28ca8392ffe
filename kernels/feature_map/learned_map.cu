// Learned maps: fused where fused_map.h can, else products of the library around a row-wise kernel: any widths, strides and
// dtypes. h goes through memory
// in fp32; its gradient in the dtype of x, as the products read it.
#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "feature_map/expansion.h"
#include "feature_map/fused_map.h"
#include "feature_map/layers.h"
#include "feature_map/row_map.h"
#include "fla/learned_map.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

template <class A>
RowMapCall row_map(const A& a, const Tensor& h) {
  return {.kind = row_map_of(a.kind), .h = h, .bias = a.bias, .bias2 = a.bias2, .in_base_2 = size_of(a.x.dtype) == 2};
}

ExpansionColumns outer_columns(int64_t E) {
  return {.width = static_cast<int32_t>(E), .with_diagonal = true, .partner = true};
}

template <class A>
Status check_layers(const A& a) {
  const int64_t D = a.x.size[1], E = a.weight.size[0];
  if (D < 1) return error(StatusCode::unsupported_shape, "x: rows of no elements");
  if (E < 1 || E > 1 << 24)
    return error(StatusCode::unsupported_shape, "weight: %lld outputs", static_cast<long long>(E));
  return first_error({a.kind == LearnedMap::outer_product ? check_expansion("weight", E) : Status{},
                      check_rows("x", a.x), check_rows("weight", a.weight), check_rows("weight2", a.weight2)});
}

struct ForwardParts {
  Layers layers;
  Tensor h;
  Workspace product;
  size_t bytes;

  explicit ForwardParts(const LearnedMapForward& a, void* base = nullptr) {
    WorkspaceParts parts(base);
    layers = Layers::plan(parts, a.x, a.weight, a.weight2);
    h = parts.take_matrix(true, DType::f32, a.x.size[0], layers.outputs());
    ProductWorkspace products;
    products.fit(true, a.x.size[0], layers.outputs());
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

struct BackwardParts {
  bool needs_weights, needs_products;
  Layers layers;
  Tensor h, dh, dstack;
  float* partials;
  Workspace product;
  size_t bytes;

  explicit BackwardParts(const LearnedMapBackward& a, void* base = nullptr) {
    const int64_t M = a.x.size[0], D = a.x.size[1], E = a.weight.size[0];
    needs_weights = a.dweight || a.dweight2;
    WorkspaceParts parts(base);
    layers = Layers::plan(parts, a.x, a.weight, a.weight2);
    h = parts.take_matrix(true, DType::f32, M, layers.outputs());
    dh = parts.take_matrix(true, a.x.dtype, M, layers.outputs());
    dstack = parts.take_matrix(needs_weights && a.weight2, DType::f32, 2 * E, D);
    const bool sums = a.dbias || a.dbias2;
    partials = static_cast<float*>(parts.take(sums ? static_cast<size_t>(column_partials(M) * E) * sizeof(float) : 0));
    ProductWorkspace products;
    products.fit(true, M, layers.outputs());
    products.fit(static_cast<bool>(a.dx), M, D);
    products.fit(needs_weights, layers.outputs(), D);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

Status hidden_gradient(const LearnedMapBackward& a, const BackwardParts& p, Stream stream) {
  if (a.kind != LearnedMap::outer_product) return run_row_map_backward(row_map(a, p.h), a.dy, p.dh, stream);
  const int64_t E = a.weight.size[0];
  return run(ExpansionBackward{.columns = outer_columns(E),
                               .x = columns_of(p.h, 0, E),
                               .partner = columns_of(p.h, E, E),
                               .dout = a.dy,
                               .dx = columns_of(p.dh, 0, E),
                               .dpartner = columns_of(p.dh, E, E)},
             {}, stream);
}

}  // namespace

Status check(const LearnedMapForward& a) { return check_layers(a); }

size_t workspace_bytes(const LearnedMapForward& a) { return fuses(a) ? 0 : ForwardParts(a).bytes; }

Status run(const LearnedMapForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  if (fuses(a)) return run_fused(a, stream);
  const ForwardParts p(a, workspace.data);
  if (Status s = p.layers.fill(stream); !s.ok()) return s;
  if (Status s = p.layers.forward(p.h, p.product, stream); !s.ok()) return s;
  if (a.kind != LearnedMap::outer_product) return run_row_map(row_map(a, p.h), a.y, stream);
  const int64_t E = a.weight.size[0];
  return run(Expansion{.columns = outer_columns(E), .x = columns_of(p.h, 0, E), .partner = columns_of(p.h, E, E), .out = a.y},
             stream);
}

Status check(const LearnedMapBackward& a) {
  if (!a.dx && !a.dweight && !a.dweight2 && !a.dbias && !a.dbias2)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return first_error({check_layers(a), check_weight_gradient("dx", a.dx, a.x.dtype),
                      check_weight_gradient("dweight", a.dweight, a.x.dtype),
                      check_weight_gradient("dweight2", a.dweight2, a.x.dtype)});
}

size_t workspace_bytes(const LearnedMapBackward& a) {
  return fuses(a) ? fused_workspace_bytes(a) : BackwardParts(a).bytes;
}

Status run(const LearnedMapBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  if (fuses(a)) return run_fused(a, workspace, stream);
  const BackwardParts p(a, workspace.data);
  if (Status s = p.layers.fill(stream); !s.ok()) return s;
  if (Status s = p.layers.forward(p.h, p.product, stream); !s.ok()) return s;
  if (Status s = hidden_gradient(a, p, stream); !s.ok()) return s;
  if (a.dx)
    if (Status s = p.layers.input_gradient(p.dh, a.dx, p.product, stream); !s.ok()) return s;
  if (p.needs_weights)
    if (Status s = p.layers.weight_gradients(p.dh, p.dstack, a.dweight, a.dweight2, p.product, stream); !s.ok()) return s;
  const int64_t E = a.weight.size[0];
  if (a.dbias)
    if (Status s = sum_columns(columns_of(p.dh, 0, E), a.dbias, p.partials, stream); !s.ok()) return s;
  return a.dbias2 ? sum_columns(columns_of(p.dh, E, E), a.dbias2, p.partials, stream) : Status{};
}

}  // namespace fla

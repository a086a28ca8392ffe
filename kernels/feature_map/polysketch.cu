// The polynomial sketch: a layer norm, L pairs of products of the library, a triangle. Backward makes every layer again and
// keeps them all: M (2 D + L (6 S + 4 S)) bytes and more of workspace in 16 bits.
#include <cmath>

#include "common/alignment.h"
#include "feature_map/expansion.h"
#include "feature_map/layers.h"
#include "feature_map/row_map.h"
#include "fla/learned_map.h"
#include "fla/norm.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

constexpr int kMostLayers = 19;  // degree 2^20

// Layer l of a stack of square matrices.
Tensor later_layer(const Tensor& t, int64_t l) {
  if (!t) return {};
  const int64_t S = t.size[1];
  void* at = t.data ? static_cast<char*>(t.data) + l * t.stride[0] * size_of(t.dtype) : nullptr;
  return matrix(at, t.dtype, S, S, t.stride[1]);
}

// What both directions make in turn: z_0, and of every layer h = [a z, b z] and the product, as the next one reads it and,
// of the last, in fp32.
template <class A>
struct Sketch {
  int64_t layers = 0, S = 0;
  Tensor z[kMostLayers + 1], h[kMostLayers], top, mean, rstd;
  Layers products[kMostLayers];
  float scale = 1;

  // Without `keep`, layers share their places in turn.
  Sketch(const A& a, WorkspaceParts& parts, bool keep) {
    const int64_t M = a.x.size[0], D = a.x.size[1];
    S = a.a.size[0];
    layers = sketch_layers(a.degree);
    scale = static_cast<float>(1 / std::sqrt(static_cast<double>(D)));
    z[0] = parts.take_matrix(true, a.x.dtype, M, D);
    if (keep) {
      mean = dense(parts.take(static_cast<size_t>(M) * sizeof(float)), DType::f32, {M});
      rstd = dense(parts.take(static_cast<size_t>(M) * sizeof(float)), DType::f32, {M});
    }
    top = parts.take_matrix(true, DType::f32, M, S);
    for (int64_t l = 0; l < layers; ++l) {
      const bool own = keep || l == 0;
      h[l] = own ? parts.take_matrix(true, DType::f32, M, 2 * S) : h[0];
      products[l] = Layers::plan(parts, z[l], l == 0 ? a.a : later_layer(a.later_a, l - 1),
                                 l == 0 ? a.b : later_layer(a.later_b, l - 1));
      if (l + 1 < layers) z[l + 1] = keep || l < 2 ? parts.take_matrix(true, a.x.dtype, M, S) : z[l - 1];
    }
  }

  RowMapCall product(int64_t l) const { return {.kind = RowMap::product, .h = h[l], .scale = scale}; }

  Status forward(const A& a, Workspace workspace, Stream stream) const {
    const LayerNormForward norm{.x = a.x, .residual = {}, .weight = a.gamma, .bias = a.beta, .y = z[0],
                                .residual_out = {}, .mean = mean, .rstd = rstd, .eps = a.eps};
    if (Status s = run(norm, {}, stream); !s.ok()) return s;
    for (int64_t l = 0; l < layers; ++l) {
      if (Status s = products[l].fill(stream); !s.ok()) return s;
      if (Status s = products[l].forward(h[l], workspace, stream); !s.ok()) return s;
      if (Status s = run_row_map(product(l), l + 1 < layers ? z[l + 1] : top, stream); !s.ok()) return s;
    }
    return {};
  }
};

ExpansionColumns square_columns(int64_t S) {
  return {.width = static_cast<int32_t>(S), .with_diagonal = true, .partner = true};
}

template <class A>
Status check_sketch(const A& a) {
  if (a.x.size[1] < 1) return error(StatusCode::unsupported_shape, "x: rows of no elements");
  if ((a.degree & (a.degree - 1)) != 0)
    return error(StatusCode::invalid_argument, "degree: %lld is not a power of two", static_cast<long long>(a.degree));
  return first_error({check_expansion("a", a.a.size[0]), check_rows("a", a.a), check_rows("b", a.b)});
}

// A stack of matrices whose layers are matrices.
Status check_stack(const char* name, const Tensor& t) {
  return t ? check_rows(name, later_layer(t, 0)) : Status{};
}

struct ForwardParts {
  WorkspaceParts parts;
  Sketch<PolysketchMapForward> sketch;
  Workspace product;

  explicit ForwardParts(const PolysketchMapForward& a, void* base = nullptr) : parts(base), sketch(a, parts, false) {
    ProductWorkspace products;
    products.fit(true, a.x.size[0], 2 * sketch.S);
    product = products.take(parts);
  }
};

LayerNormBackward norm_backward(const PolysketchMapBackward& a, const Sketch<PolysketchMapBackward>& sketch, const Tensor& dz) {
  return {.x = a.x, .residual_out = {}, .weight = a.gamma, .bias = a.beta, .mean = sketch.mean, .rstd = sketch.rstd, .dy = dz,
          .dresidual_out = {}, .dx = a.dx, .dresidual = {}, .dweight = a.dgamma, .dbias = a.dbeta, .y = {}};
}

struct BackwardParts {
  WorkspaceParts parts;
  Sketch<PolysketchMapBackward> sketch;
  bool needs_norm = false;
  Tensor dz, dh, dstack;  // gradients of a layer's input (and of the top), f32; of its h; of its weights
  Workspace norm, product;

  explicit BackwardParts(const PolysketchMapBackward& a, void* base = nullptr) : parts(base), sketch(a, parts, true) {
    const int64_t M = a.x.size[0], D = a.x.size[1], S = sketch.S, wide = S > D ? S : D;
    needs_norm = a.dx || a.dgamma || a.dbeta;
    dz = parts.take_matrix(true, DType::f32, M, wide);
    dh = parts.take_matrix(true, a.x.dtype, M, 2 * S);
    dstack = parts.take_matrix(true, DType::f32, 2 * S, wide);
    const size_t inner = needs_norm ? workspace_bytes(norm_backward(a, sketch, gradient_of(D))) : 0;
    norm = {parts.take(inner), inner};
    ProductWorkspace products;
    products.fit(true, M, 2 * S);
    products.fit(true, M, wide);
    products.fit(true, 2 * S, wide);
    product = products.take(parts);
  }
  Tensor gradient_of(int64_t columns) const { return matrix(dz.data, DType::f32, dz.size[0], columns); }
};

}  // namespace

Status check(const PolysketchMapForward& a) {
  return first_error({check_sketch(a), check_stack("later_a", a.later_a), check_stack("later_b", a.later_b)});
}

size_t workspace_bytes(const PolysketchMapForward& a) { return ForwardParts(a).parts.bytes(); }

Status run(const PolysketchMapForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ForwardParts p(a, workspace.data);
  if (Status s = p.sketch.forward(a, p.product, stream); !s.ok()) return s;
  return run(Expansion{.columns = square_columns(p.sketch.S), .x = p.sketch.top, .partner = p.sketch.top, .out = a.y}, stream);
}

Status check(const PolysketchMapBackward& a) {
  if (!a.dx && !a.dgamma && !a.dbeta && !a.da && !a.db && !a.dlater_a && !a.dlater_b)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return first_error({check_sketch(a), check_stack("later_a", a.later_a), check_stack("later_b", a.later_b)});
}

size_t workspace_bytes(const PolysketchMapBackward& a) { return BackwardParts(a).parts.bytes(); }

Status run(const PolysketchMapBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const BackwardParts p(a, workspace.data);
  const Sketch<PolysketchMapBackward>& sketch = p.sketch;
  if (Status s = sketch.forward(a, p.product, stream); !s.ok()) return s;
  const ExpansionBackward triangle{.columns = square_columns(sketch.S),
                                   .x = sketch.top,
                                   .partner = sketch.top,
                                   .dout = a.dy,
                                   .dx = p.gradient_of(sketch.S),
                                   .sum_both = true};
  if (Status s = run(triangle, {}, stream); !s.ok()) return s;
  for (int64_t l = sketch.layers - 1; l >= 0; --l) {
    const Layers& layer = sketch.products[l];
    if (Status s = run_row_map_backward(sketch.product(l), p.gradient_of(sketch.S), p.dh, stream); !s.ok()) return s;
    const Tensor da = l == 0 ? a.da : later_layer(a.dlater_a, l - 1), db = l == 0 ? a.db : later_layer(a.dlater_b, l - 1);
    const int64_t inputs = layer.x.size[1];
    const Tensor dstack = matrix(p.dstack.data, DType::f32, 2 * sketch.S, inputs);
    if (da || db)
      if (Status s = layer.weight_gradients(p.dh, dstack, da, db, p.product, stream); !s.ok()) return s;
    if (l > 0 || p.needs_norm)
      if (Status s = layer.input_gradient(p.dh, p.gradient_of(inputs), p.product, stream); !s.ok()) return s;
  }
  if (!p.needs_norm) return {};
  return run(norm_backward(a, sketch, p.gradient_of(a.x.size[1])), p.norm, stream);
}

}  // namespace fla

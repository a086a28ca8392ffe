// The gated MLP: 6 M H F flops forward, 12 backward, all in the products; between them forward moves 3 M F elements and
// backward 6 M F. Packed weights make gate and up one product, whose result the unit reads as two strided halves; apart,
// they are two into the halves of the same buffer. dx is one product over the joint width 2 F in both cases, which sums
// gate's and up's share in fp32: weights that come apart are copied side by side first (4 F H elements moved, 0.1 ms of
// 9 at 16384 x 4096 x 14336; adding two products through an fp32 dx would move 7 M H).
#include "common/alignment.h"
#include "fla/mlp.h"
#include "fla/validate.h"
#include "linear/parts.h"

namespace fla {
namespace {

using namespace detail;

template <class A>
GluForward inner_forward(const A& a, const Tensor& gate, const Tensor& up, const Tensor& z) {
  return {.kind = a.hidden_act, .x = gate, .y = up, .z = z, .parameters = a.parameters};
}

// z may be absent, or exactly dz.
GluBackward inner_backward(const GatedMlpBackward& a, const Tensor& gate, const Tensor& up, const Tensor& dz,
                           const Tensor& dgate, const Tensor& dup, const Tensor& z) {
  return {.kind = a.hidden_act, .x = gate, .y = up, .dz = dz, .dx = dgate, .dy = dup, .z = z,
          .parameters = a.parameters};
}

struct ForwardParts {
  Tensor gate_up, z, gate_up_bias, down_bias;
  Workspace product;
  size_t bytes;

  explicit ForwardParts(const GatedMlpForward& a, void* base = nullptr) {
    const int64_t M = a.x.size[0], H = a.x.size[1], F = a.down_weight.size[1];
    const DType dtype = a.x.dtype;
    WorkspaceParts parts(base);
    gate_up = a.gate_up ? a.gate_up : parts.take_matrix(true, dtype, M, 2 * F);
    z = a.z ? a.z : parts.take_matrix(true, dtype, M, F);
    gate_up_bias = bias_part(parts, a.gate_up_bias, dtype);
    down_bias = bias_part(parts, a.down_bias, dtype);
    ProductWorkspace products;
    products.fit(true, M, a.gate_up_weight ? 2 * F : F);
    products.fit(true, M, H);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

// What the gradients asked for need.
struct Demand {
  bool units, z, packed_weight;  // dgate and dup; z made again; both weights side by side

  explicit Demand(const GatedMlpBackward& a)
      : units(a.dx || a.dgate_up_weight || a.dgate_weight || a.dup_weight || a.dgate_up_bias),
        z(a.ddown_weight && !a.z),
        packed_weight(a.dx && !a.gate_up_weight) {}
};

struct BackwardParts {
  Tensor dz;  // and z in its place
  Tensor dgate_up, weight;
  float* partials;
  Workspace product;
  size_t bytes;

  BackwardParts(const GatedMlpBackward& a, const Demand& demand, void* base = nullptr) {
    const int64_t M = a.x.size[0], H = a.x.size[1], F = a.down_weight.size[1];
    const DType dtype = a.x.dtype;
    WorkspaceParts parts(base);
    dz = parts.take_matrix(demand.units || demand.z, dtype, M, F);
    dgate_up = parts.take_matrix(demand.units, dtype, M, 2 * F);
    weight = demand.packed_weight ? parts.take_matrix(true, dtype, 2 * F, H) : a.gate_up_weight;
    const int64_t longest = a.dgate_up_bias && 2 * F > H ? 2 * F : a.ddown_bias ? H : a.dgate_up_bias ? 2 * F : 0;
    partials = static_cast<float*>(parts.take(static_cast<size_t>(column_partials(M) * longest) * sizeof(float)));
    ProductWorkspace products;
    products.fit(demand.units, M, F);
    products.fit(static_cast<bool>(a.dx), M, H);
    products.fit(static_cast<bool>(a.dgate_up_weight), 2 * F, H);
    products.fit(a.dgate_weight || a.dup_weight || a.ddown_weight, F, H);
    product = products.take(parts);
    bytes = parts.bytes();
  }
};

Status check_weights(const Tensor& packed, const Tensor& gate, const Tensor& up, const Tensor& down) {
  if (packed ? gate || up : !gate || !up)
    return error(StatusCode::invalid_argument, "gate_up_weight: give it or gate_weight with up_weight, not both");
  return first_error({check_rows("gate_up_weight", packed), check_rows("gate_weight", gate),
                      check_rows("up_weight", up), check_rows("down_weight", down)});
}

}  // namespace

Status check(const GatedMlpForward& a) {
  return first_error({check(inner_forward(a, a.x, a.x, a.x)),
                      check_weights(a.gate_up_weight, a.gate_weight, a.up_weight, a.down_weight), check_rows("x", a.x),
                      check_rows("out", a.out), check_rows("gate_up", a.gate_up), check_rows("z", a.z)});
}

size_t workspace_bytes(const GatedMlpForward& a) { return ForwardParts(a).bytes; }

Status run(const GatedMlpForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ForwardParts parts(a, workspace.data);
  const int64_t F = a.down_weight.size[1];
  if (Status s = fill_bias_part(a.gate_up_bias, parts.gate_up_bias, stream); !s.ok()) return s;
  if (Status s = fill_bias_part(a.down_bias, parts.down_bias, stream); !s.ok()) return s;

  const auto half = [&](int64_t first) { return columns_of(parts.gate_up, first, F); };
  const auto bias_half = [&](int64_t first) {
    const Tensor& bias = parts.gate_up_bias;
    if (!bias) return Tensor{};
    return dense(static_cast<char*>(bias.data) + first * size_of(bias.dtype), bias.dtype, {F});
  };
  const auto project = [&](const Tensor& weight, const Tensor& out, const Tensor& bias) {
    return gemm({.a = a.x, .b = weight, .c = out, .bias = bias, .transpose_b = true}, parts.product, stream);
  };
  if (a.gate_up_weight) {
    if (Status s = project(a.gate_up_weight, parts.gate_up, parts.gate_up_bias); !s.ok()) return s;
  } else {
    if (Status s = project(a.gate_weight, half(0), bias_half(0)); !s.ok()) return s;
    if (Status s = project(a.up_weight, half(F), bias_half(F)); !s.ok()) return s;
  }
  if (Status s = run(inner_forward(a, half(0), half(F), parts.z), {}, stream); !s.ok()) return s;
  return gemm({.a = parts.z, .b = a.down_weight, .c = a.out, .bias = parts.down_bias, .transpose_b = true},
              parts.product, stream);
}

Status check(const GatedMlpBackward& a) {
  if (!a.dx && !a.dgate_up_weight && !a.dgate_weight && !a.dup_weight && !a.dgate_up_bias && !a.ddown_weight &&
      !a.ddown_bias)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  const DType dtype = a.x.dtype;
  return first_error({check(inner_forward(a, a.x, a.x, a.x)),
                      check_weights(a.gate_up_weight, a.gate_weight, a.up_weight, a.down_weight), check_rows("x", a.x),
                      check_rows("gate_up", a.gate_up), check_rows("z", a.z), check_rows("dout", a.dout),
                      check_weight_gradient("dx", a.dx, dtype),
                      check_weight_gradient("dgate_up_weight", a.dgate_up_weight, dtype),
                      check_weight_gradient("dgate_weight", a.dgate_weight, dtype),
                      check_weight_gradient("dup_weight", a.dup_weight, dtype),
                      check_weight_gradient("ddown_weight", a.ddown_weight, dtype)});
}

size_t workspace_bytes(const GatedMlpBackward& a) { return BackwardParts(a, Demand(a)).bytes; }

Status run(const GatedMlpBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const Demand demand(a);
  const BackwardParts parts(a, demand, workspace.data);
  const int64_t F = a.down_weight.size[1];
  const Tensor gate = columns_of(a.gate_up, 0, F), up = columns_of(a.gate_up, F, F);
  const Tensor remade = demand.z ? parts.dz : Tensor{};

  if (demand.units) {
    const Tensor dgate = columns_of(parts.dgate_up, 0, F), dup = columns_of(parts.dgate_up, F, F);
    if (Status s = gemm({.a = a.dout, .b = a.down_weight, .c = parts.dz}, parts.product, stream); !s.ok()) return s;
    if (Status s = run(inner_backward(a, gate, up, parts.dz, dgate, dup, remade), {}, stream); !s.ok()) return s;
  } else if (demand.z) {
    if (Status s = run(inner_forward(a, gate, up, remade), {}, stream); !s.ok()) return s;
  }
  if (demand.packed_weight) {
    if (Status s = copy_rows(a.gate_weight, rows_of(parts.weight, 0, F), stream); !s.ok()) return s;
    if (Status s = copy_rows(a.up_weight, rows_of(parts.weight, F, F), stream); !s.ok()) return s;
  }
  if (a.dx)
    if (Status s = gemm({.a = parts.dgate_up, .b = parts.weight, .c = a.dx}, parts.product, stream); !s.ok()) return s;

  const auto weight_gradient = [&](const Tensor& upstream, const Tensor& input, const Tensor& gradient) -> Status {
    if (!gradient) return {};
    return gemm({.a = upstream, .b = input, .c = gradient, .transpose_a = true, .accumulate = a.accumulate},
                parts.product, stream);
  };
  const auto half = [&](int64_t first) { return demand.units ? columns_of(parts.dgate_up, first, F) : Tensor{}; };
  if (Status s = weight_gradient(a.dout, a.z ? a.z : remade, a.ddown_weight); !s.ok()) return s;
  if (Status s = weight_gradient(parts.dgate_up, a.x, a.dgate_up_weight); !s.ok()) return s;
  if (Status s = weight_gradient(half(0), a.x, a.dgate_weight); !s.ok()) return s;
  if (Status s = weight_gradient(half(F), a.x, a.dup_weight); !s.ok()) return s;
  if (a.ddown_bias)
    if (Status s = sum_columns(a.dout, a.ddown_bias, parts.partials, stream); !s.ok()) return s;
  return a.dgate_up_bias ? sum_columns(parts.dgate_up, a.dgate_up_bias, parts.partials, stream) : Status{};
}

}  // namespace fla

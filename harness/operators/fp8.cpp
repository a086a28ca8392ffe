// The reference stands before the table, which looks its functions up by name.
#include "reference/fp8.h"

#include "fla/activation.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {
namespace {

template <class A>
Status quantise(const A& a, const Tensor& values, Status made, Stream stream) {
  if (!made.ok()) return made;
  return run(QuantizeFp8Forward{.x = values, .q = a.q, .scale = a.scale, .scaling = a.scaling}, {}, stream);
}

// The plain norm goes through rms_norm, not through a gated one without a gate.
Status norm_then_quantise(const void* args, Stream stream) {
  const auto& a = *static_cast<const RmsNormFp8Forward*>(args);
  if (a.activation == GateActivation::none)
    return quantise(a, a.y, run(RmsNormForward{.x = a.x, .residual = a.residual, .weight = a.weight, .bias = {}, .y = a.y,
                                               .residual_out = a.residual_out, .mean = {}, .rstd = {}, .eps = a.eps,
                                               .weight_offset = a.weight_offset, .weight_per_group = a.weight_per_group},
                                {}, stream), stream);
  return quantise(a, a.y, run(RmsNormGatedForward{.x = a.x, .residual = a.residual, .gate = a.gate, .weight = a.weight,
                                                  .bias = {}, .y = a.y, .residual_out = a.residual_out, .mean = {},
                                                  .rstd = {}, .eps = a.eps, .weight_offset = a.weight_offset,
                                                  .activation = a.activation, .gate_order = a.gate_order,
                                                  .weight_per_group = a.weight_per_group},
                              {}, stream), stream);
}

Status swiglu_then_quantise(const void* args, Stream stream) {
  const auto& a = *static_cast<const SwigluFp8Forward*>(args);
  return quantise(a, a.z, run(GluForward{.kind = GatedUnit::swiglu, .x = a.x, .y = a.y, .z = a.z}, {}, stream), stream);
}

}  // namespace

void add_fp8(std::vector<Direction>& table) {
  const Traits norm{.sample_dim = "M", .unfused = norm_then_quantise, .batch_invariant = true};
  RmsNormFp8Forward gated;
  gated.activation = GateActivation::swish;
  gated.eps = RmsNormGatedForward{}.eps;
  table.push_back(direction<QuantizeFp8Forward>("quantize_fp8", "fwd", {.sample_dim = "M", .batch_invariant = true}));
  table.push_back(direction<RmsNormFp8Forward>("rms_norm_fp8", "fwd", norm));
  table.push_back(direction("rms_norm_gated_fp8", "fwd", norm, gated));
  table.push_back(direction<SwigluFp8Forward>(
      "swiglu_fp8", "fwd", {.sample_dim = "M", .unfused = swiglu_then_quantise, .batch_invariant = true}));
}

}  // namespace fla::harness

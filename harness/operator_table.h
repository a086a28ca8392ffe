// How harness/operators/<module>.cpp turns an argument struct into a Direction: one line per struct.
//
//   #include "reference/norm.h"   // before the table
//   #include "fla/norm.h"
//   #include "harness/operator_table.h"
//   void add_norm(std::vector<Direction>& table) {
//     table.push_back(direction<RmsNormForward>("rms_norm", "fwd", {.sample_dim = "M"}));
//     table.push_back(direction<RmsNormBackward>("rms_norm", "bwd", {.sample_dim = "M", .backward_of = "fwd"}));
//   }
//
// Operators that share a struct differ in its `kind`, which the last argument sets.
//
// Needs, beside the struct and its describe(): fla::validate(const Args&), fla::run, fla::workspace_bytes, and
// fla::reference::evaluate<S>(const Args&) for the scalars of reference/scalar.
#pragma once

#include "harness/operator.h"
#include "fla/validate.h"
#include "harness/signature.h"
#include "reference/scalar/scalars.h"

namespace fla::harness {

struct Traits {
  std::string sample_dim = {}, backward_of = {};
  double (*flops)(const void*) = nullptr;
  Status (*unfused)(const void*, Stream) = nullptr;
  bool batch_invariant = false;
  std::vector<std::pair<std::string, std::string>> replaced_by = {};
  const EveryInput* every = nullptr;
  std::string coupled_by = {};
  std::string defined_backward = {}, defined_with = {};
};

template <class A>
Direction direction(std::string op, std::string name, Traits traits, const A& defaults = {}) {
  Direction d;
  d.op = std::move(op);
  d.name = std::move(name);
  d.defaults = Args(&defaults, sizeof defaults);
  d.signature = [](void* args) { return signature_of(*static_cast<A*>(args)); };
  d.validate = [](const void* args) { return validate(*static_cast<const A*>(args)); };
  d.run = [](const void* args, Workspace w, Stream s) { return run(*static_cast<const A*>(args), w, s); };
  d.workspace_bytes = [](const void* args) { return workspace_bytes(*static_cast<const A*>(args)); };
  d.reference = [](Scalar scalar, const void* args) {
    const A& a = *static_cast<const A*>(args);
    switch (scalar) {
      case Scalar::real: return reference::evaluate<double>(a);
      case Scalar::bound: return reference::evaluate<reference::Bound>(a);
      case Scalar::dual: return reference::evaluate<reference::Dual>(a);
      case Scalar::single: return reference::evaluate<reference::Single>(a);
      case Scalar::single_serial: return reference::evaluate<reference::SingleSerial>(a);
      case Scalar::single_bf16_sum: return reference::evaluate<reference::SingleBf16Sum>(a);
    }
  };
  d.sample_dim = std::move(traits.sample_dim);
  d.coupled_by = std::move(traits.coupled_by);
  d.backward_of = std::move(traits.backward_of);
  d.flops = traits.flops;
  d.unfused = traits.unfused;
  d.batch_invariant = traits.batch_invariant;
  d.replaced_by = std::move(traits.replaced_by);
  d.every = traits.every;
  d.defined_backward = std::move(traits.defined_backward);
  d.defined_with = std::move(traits.defined_with);
  return d;
}

}  // namespace fla::harness

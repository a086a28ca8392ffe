// L3, the proof of the references: backwards that are wrong in one entry, and what Dual numbers cannot see.
#include <algorithm>

#include "harness/gradient.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using reference::Bound;
using reference::Dual;

// What a reference gives, multiplied in one element, or in all, of one output, or of all.
struct Spoiled {
  Direction direction;  // as it is in the table
  std::string field;    // empty: every output
  int64_t element = -1;
  double factor = 1;

  void spoil(Scalar scalar, const void* args, const Field& f) const {
    const auto& t = *reinterpret_cast<const Tensor*>(static_cast<const char*>(args) + f.offset);
    if (f.role == Role::input || !t || !is_float(t.dtype) || !(field.empty() || f.name == field)) return;
    const int64_t first = element < 0 ? 0 : element, end = element < 0 ? count(t) : element + 1;
    for (int64_t k = first; k < end; ++k) {
      // Of a forward only the tangent: its values stay right.
      if (scalar == Scalar::dual) static_cast<Dual*>(t.data)[k].d *= factor;
      else if (!direction.backward_of.empty() && scalar == Scalar::real) static_cast<double*>(t.data)[k] *= factor;
      else if (!direction.backward_of.empty() && scalar == Scalar::bound) static_cast<Bound*>(t.data)[k].v *= factor;
    }
  }
};

// A reference is a plain function, so what it does wrong stands beside it.
Spoiled spoiled_forward, spoiled_backward;

template <Spoiled& spoiled>
void evaluate_spoiled(Scalar scalar, const void* args) {
  spoiled.direction.reference(scalar, args);
  if (spoiled.factor == 1) return;
  Args defaults = spoiled.direction.defaults;
  for (const Field& f : spoiled.direction.signature(defaults.get()).fields) spoiled.spoil(scalar, args, f);
}

struct GradientFault {
  std::string name, case_text;
  std::string net;    // the kind of check that has to see it
  std::string entry;  // that it has to name; empty: it concerns all of them
  std::string field;
  int64_t element = -1;
  double factor = 1;
  bool in_both = false;      // the forward's tangent errs alike
  std::string defined = "";  // declared about the backward
};

std::vector<Check> proof_of(const GradientFault& fault) {
  const Case c = parse_case(fault.case_text);
  spoiled_backward = {*c.direction, fault.field, fault.element, fault.factor};
  spoiled_forward = {*find_direction(c.direction->op + ".fwd"), "", -1, fault.in_both ? fault.factor : 1};
  Direction forward = spoiled_forward.direction, backward = spoiled_backward.direction;
  forward.reference = evaluate_spoiled<spoiled_forward>;
  backward.reference = evaluate_spoiled<spoiled_backward>;
  backward.defined_backward = fault.defined;
  return prove_gradients(gradient_pair(c, forward, backward), true);
}

// A check reports the fault if it names the entry, and no other, and no other tensor's check fails.
Reported reported_by(const std::vector<Check>& checks, const GradientFault& fault) {
  Reported r;
  for (const Check& c : checks) {
    if (!is_failure(c.status)) continue;
    const size_t colon = c.name.find(':');
    const std::string kind = c.name.substr(0, colon), tensor = "d" + c.name.substr(colon + 1);
    if (tensor == "djoint" && !fault.field.empty()) continue;
    if (!fault.field.empty() && tensor != fault.field) r.detail = "fails too: " + c.name;
    const bool one = kind != "jacobian" || c.outside == 1;
    if (fault.entry.empty() || (c.index == fault.entry && one)) r.nets.insert(kind);
  }
  if (!r.detail.empty()) r.nets.clear();
  return r;
}

}  // namespace

void plant_gradient_faults(KillMatrix& matrix) {
  const std::string conv = "causal_conv1d.bwd:B=2,T=12,D=24,activation=silu,bias=f32", units = "swiglu.bwd:M=3,F=7";
  const double slight = 1 + 1e-8;
  const std::vector<GradientFault> faults = {
      {"one entry off by 1e-8", "rms_norm.bwd:M=3,N=7", "jacobian", "dx[2,0,4]", "dx", 18, slight},
      {"one entry off by 1e-8", "rms_norm.bwd:M=3,N=7", "jacobian", "dweight[5]", "dweight", 5, slight},
      {"one entry off by 1e-8", "rms_norm.bwd:M=12,N=40", "gradient", "dx[7,0,13]", "dx", 293, slight},
      {"one entry off by 1e-8", conv, "gradient", "dx[1,2,23]", "dx", 359, slight},
      {"one entry off by 1e-6", conv, "gradient", "dbias[11]", "dbias", 11, 1 + 1e-6},
      {"one entry zero", "cross_entropy.bwd:T=12,V=40", "gradient", "dlogits[3,3]", "dlogits", 123, 0},
      {"all of one gradient zero", units, "gradient", "", "dy", -1, 0},
      {"sign of one gradient", units, "gradient", "", "dx", -1, -1},
      {"derivative rule and backward wrong alike", units, "differences", "", "", -1, 1 + 1e-6, true},
      {"declared a definition, and is the derivative", units, "differences", "", "", -1, 1, false, "planted"},
      // Logits that hardly reach the loss: any backward of that size would do.
      {"cotangents in the null space", "cross_entropy.bwd:T=12,V=40,logit_scale=1e-9", "gradient", "", "", -1, 1},
  };
  for (const GradientFault& f : faults) {
    GradientFault none = f;
    none.factor = 1;
    none.defined.clear();
    const bool case_is_right = f.factor != 1 || !f.defined.empty();
    if (case_is_right) matrix.clean("L3", f.case_text, reported_by(proof_of(none), none));
    matrix.planted("L3", f.name, f.case_text + " " + f.entry, {f.net}, reported_by(proof_of(f), f));
  }
}

}  // namespace fla::harness

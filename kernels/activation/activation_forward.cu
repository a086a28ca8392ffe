// Unary activations, forward: 1 stream read, 1 written, 4 bytes an element in 16 bits. At most two MUFU operations each.
#include "activation/activation.cuh"
#include "common/elementwise.cuh"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

template <class Gate>
struct ForwardFormula {
  Gate gate;
  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[1], float (&out)[1]) const {
    out[0] = gate(forms, in[0]).value;
  }
};

}  // namespace

Status check(const ActivationForward& a) { return check_activation(a); }

size_t workspace_bytes(const ActivationForward&) { return 0; }

Status run(const ActivationForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return with_gate(a.kind, a.temperature, false,
                   [&](auto gate) { return elementwise(ForwardFormula<decltype(gate)>{gate}, {&a.x}, {&a.y}, stream); });
}

}  // namespace fla

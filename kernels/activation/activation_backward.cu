// Unary activations, backward: 2 streams read, 1 written, 6 bytes an element in 16 bits. The activation is computed
// again from x, which costs less than reading it would.
#include "activation/activation.cuh"
#include "common/elementwise.cuh"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

template <class Gate>
struct BackwardFormula {
  Gate gate;
  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[2], float (&out)[1]) const {
    out[0] = gradient(gate, forms, in[0], in[1]);
  }
};

}  // namespace

Status check(const ActivationBackward& a) { return check_activation(a); }

size_t workspace_bytes(const ActivationBackward&) { return 0; }

Status run(const ActivationBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return with_gate(a.kind, a.temperature, a.grad_at_zero, [&](auto gate) {
    return elementwise(BackwardFormula<decltype(gate)>{gate}, {&a.x, &a.dy}, {&a.dx}, stream);
  });
}

}  // namespace fla

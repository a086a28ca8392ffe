// What the unary activations' two directions share: from an argument struct to the gate it names.
#pragma once

#include "activation/gates.cuh"
#include "common/workspace.h"
#include "fla/activation.h"

namespace fla::detail {

// Everything that describe() cannot say of either struct.
template <class A>
Status check_activation(const A& a) {
  const auto kind = static_cast<int>(a.kind);
  if (kind < 0 || kind > static_cast<int>(Activation::sqrelu))
    return error(StatusCode::invalid_argument, "kind: unknown value %d", kind);
  if (a.kind == Activation::logsigmoid && a.temperature == 0)
    return error(StatusCode::invalid_argument, "temperature: must not be 0");
  return {};
}

template <class Body>
Status with_gate(Activation kind, float temperature, bool grad_at_zero, Body&& body) {
  switch (kind) {
    case Activation::sigmoid: return body(SigmoidGate{});
    case Activation::logsigmoid: return body(LogSigmoidGate{1.0f / temperature});
    case Activation::swish: return body(SwishGate{});
    case Activation::gelu_tanh: return body(GeluTanhGate{});
    case Activation::relu: return body(ReluGate{grad_at_zero});
    default: return body(SquaredReluGate{});
  }
}

}  // namespace fla::detail

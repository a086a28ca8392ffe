// Activations, element by element, and gated units.
//
// All operators here work on [rows, columns] with independent row strides (0 broadcasts an input's row), so the halves
// of a packed buffer are read and written in place; collapse_rows() (tensor.h) makes rows of higher ranks. Arithmetic
// is fp32 with one rounding at each store; NaN propagates; fp16 overflows to infinity. Deterministic, the bits of an
// element depend on its own inputs alone. No rows or no columns is success.
// Below s = sigmoid(x) and s' = sigmoid(-x) = 1 - s, both to full relative accuracy.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

//              y                                           dx / dy
// sigmoid      s                                           s s'
// logsigmoid   log(s) / temperature                        s' / temperature
// swish        x s                                         s (1 + x s')              Ramachandran et al. 2017
// gelu_tanh    x sigmoid(2q) = x/2 (1 + tanh q)            sigmoid(2q) (1 + 2 x q' sigmoid(-2q)); a step beyond |2q| = 88
//              q = sqrt(2/pi) (x + 0.044715 x^3)                                     Hendrycks & Gimpel 2016
// relu         max(x, 0)                                   1 above 0, grad_at_zero at 0, 0 below (there dx = 0 for any dy)
// sqrelu       max(x, 0)^2                                 2 max(x, 0)               So et al. 2021
enum class Activation : int32_t { sigmoid, logsigmoid, swish, gelu_tanh, relu, sqrelu };
inline constexpr const char* kActivationNames[] = {"sigmoid", "logsigmoid", "swish", "gelu_tanh", "relu", "sqrelu"};

// y = activation(x). No workspace. Errors: as validation (status.h), naming the field.
struct ActivationForward {
  Activation kind = Activation::swish;
  Tensor x;                // [M, C] f32/f16/bf16
  Tensor y;                // [M, C] dtype of x; may be exactly x when x is not needed for backward
  float temperature = 1;   // logsigmoid only; finite, not 0, may be negative
};

template <class V>
void describe(V& v, ActivationForward& a) {
  if (a.kind == Activation::logsigmoid) v.attribute("temperature", a.temperature);
  const Dim M = v.dim("M"), C = v.dim("C");
  v.input("x", a.x, {M, C});
  v.output("y", a.y, {M, C}, {.like = &a.x, .alias = &a.x});
}

Status check(const ActivationForward&);
size_t workspace_bytes(const ActivationForward&);
Status run(const ActivationForward&, Workspace, Stream);

// dx from x and dy; nothing else is saved.
struct ActivationBackward {
  Activation kind = Activation::swish;
  Tensor x;                   // [M, C] as forward
  Tensor dy;                  // [M, C] any float
  Tensor dx;                  // [M, C] any float (normally x's); may be exactly dy
  float temperature = 1;      // logsigmoid only, as forward
  bool grad_at_zero = false;  // relu only: whether the gradient passes at x = 0
};

template <class V>
void describe(V& v, ActivationBackward& a) {
  if (a.kind == Activation::logsigmoid) v.attribute("temperature", a.temperature);
  if (a.kind == Activation::relu) v.attribute("grad_at_zero", a.grad_at_zero);
  const Dim M = v.dim("M"), C = v.dim("C");
  v.input("x", a.x, {M, C});
  v.input("dy", a.dy, {M, C});
  v.output("dx", a.dx, {M, C}, {.alias = &a.dy});
}

Status check(const ActivationBackward&);
size_t workspace_bytes(const ActivationBackward&);
Status run(const ActivationBackward&, Workspace, Stream);

// y = gelu_tanh(x + bias), the sum in fp32. No workspace. Errors: as validation, naming the field.
struct BiasGeluTanhForward {
  Tensor x;     // [M, C] f32/f16/bf16
  Tensor bias;  // [C] any float
  Tensor y;     // [M, C] dtype of x; may be exactly x when x is not needed for backward
};

template <class V>
void describe(V& v, BiasGeluTanhForward& a) {
  const Dim M = v.dim("M"), C = v.dim("C");
  v.input("x", a.x, {M, C});
  v.input("bias", a.bias, {C});
  v.output("y", a.y, {M, C}, {.like = &a.x, .alias = &a.x});
}

size_t workspace_bytes(const BiasGeluTanhForward&);
Status run(const BiasGeluTanhForward&, Workspace, Stream);

// dx = dy gelu_tanh'(x + bias), dbias = sum_rows dx: of dx before it is rounded, fp32, in an order that follows from the
// shape alone, rounded once. Both are optional, one is required (else invalid_argument). M = 0 writes zeros to dbias.
// Workspace: fp32 partial sums when dbias is asked for, else none.
struct BiasGeluTanhBackward {
  Tensor x;      // [M, C] as forward
  Tensor bias;   // [C] as forward
  Tensor dy;     // [M, C] any float
  Tensor dx;     // [M, C] any float (normally x's); may be exactly dy
  Tensor dbias;  // [C] any float (normally bias's)
};

template <class V>
void describe(V& v, BiasGeluTanhBackward& a) {
  const Dim M = v.dim("M"), C = v.dim("C");
  v.input("x", a.x, {M, C});
  v.input("bias", a.bias, {C});
  v.input("dy", a.dy, {M, C});
  v.output("dx", a.dx, {M, C}, {.presence = Presence::expected, .alias = &a.dy});
  v.output("dbias", a.dbias, {C}, {.presence = Presence::expected});
}

Status check(const BiasGeluTanhBackward&);
size_t workspace_bytes(const BiasGeluTanhBackward&);
Status run(const BiasGeluTanhBackward&, Workspace, Stream);

// Gated units: z = a(x) y. x is the gate, y the linear ("up") branch. Shazeer 2020, arXiv 2002.05202.
//
//                  a(x)                                   a'(x)
// swiglu           x s                                    s (1 + x s')
// sigmoidglu       s                                      s s'
// powglu, x <= 0   x s                                    s (1 + x s')                        arXiv 2605.25704
//         x > 0    x^p s,  p = power / (sqrt(x) + 1)      s (p x^(p-1) (1 - sqrt(x) ln x / (2 (sqrt(x) + 1))) + x^p s')
//                  where x counts as 1e-37 below that; a(inf) = 1; power < 1 has no bounded slope at 0+
// geglu            gelu_tanh(x)                           as Activation::gelu_tanh
// clamped_swiglu   z = a (clamp(y, -limit, limit) + offset), a = g sigmoid(alpha g), g = min(x, limit)    (gpt-oss)
//                  a' = sigmoid(alpha g) + alpha a sigmoid(-alpha g), 0 where x > limit; dz/dy is 0 where |y| > limit
enum class GatedUnit : int32_t { swiglu, sigmoidglu, powglu, geglu, clamped_swiglu };
inline constexpr const char* kGatedUnitNames[] = {"swiglu", "sigmoidglu", "powglu", "geglu", "clamped_swiglu"};

struct GluParameters {
  float power = 3;                              // powglu only; > 0
  float alpha = 1.702f, limit = 7, offset = 1;  // clamped_swiglu only; limit > 0
};

template <class V>
void describe_parameters(V& v, GatedUnit kind, GluParameters& p) {
  if (kind == GatedUnit::powglu) v.attribute("power", p.power, {.min = 0, .exclude_min = true});
  if (kind != GatedUnit::clamped_swiglu) return;
  v.attribute("alpha", p.alpha);
  v.attribute("limit", p.limit, {.min = 0, .exclude_min = true});
  v.attribute("offset", p.offset);
}

// No workspace. Errors: as validation (status.h), naming the field.
struct GluForward {
  GatedUnit kind = GatedUnit::swiglu;
  Tensor x;  // [M, F] f32/f16/bf16
  Tensor y;  // [M, F] any float, independent of x
  Tensor z;  // [M, F] dtype of x; may be exactly x
  GluParameters parameters = {};
};

template <class V>
void describe(V& v, GluForward& a) {
  describe_parameters(v, a.kind, a.parameters);
  const Dim M = v.dim("M"), F = v.dim("F");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.output("z", a.z, {M, F}, {.like = &a.x, .alias = &a.x});
}

Status check(const GluForward&);
size_t workspace_bytes(const GluForward&);
Status run(const GluForward&, Workspace, Stream);

// dx = dz y a'(x), dy = dz a(x), and on request z once more, for the weight gradient of the projection that follows.
// Every output is optional, at least one is required (else invalid_argument).
struct GluBackward {
  GatedUnit kind = GatedUnit::swiglu;
  Tensor x, y;  // [M, F] as forward
  Tensor dz;    // [M, F] any float
  Tensor dx;    // [M, F] any float (normally x's); may be exactly x
  Tensor dy;    // [M, F] any float (normally y's); may be exactly y
  Tensor z;     // [M, F] dtype of x, optional: recomputed output; may be exactly dz
  GluParameters parameters = {};
};

template <class V>
void describe(V& v, GluBackward& a) {
  describe_parameters(v, a.kind, a.parameters);
  const Dim M = v.dim("M"), F = v.dim("F");
  v.input("x", a.x, {M, F});
  v.input("y", a.y, {M, F});
  v.input("dz", a.dz, {M, F});
  v.output("dx", a.dx, {M, F}, {.presence = Presence::expected, .alias = &a.x});
  v.output("dy", a.dy, {M, F}, {.presence = Presence::expected, .alias = &a.y});
  v.output("z", a.z, {M, F}, {.presence = Presence::optional, .like = &a.x, .alias = &a.dz});
}

Status check(const GluBackward&);
size_t workspace_bytes(const GluBackward&);
Status run(const GluBackward&, Workspace, Stream);

}  // namespace fla

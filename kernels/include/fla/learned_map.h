// Learned feature maps of linear attention: small linear layers in front of a row-wise function, applied to every row of
// [M, D] (M = B T H; all heads share the weights). The rules of feature_map.h hold; h below stays in fp32. Where a weight
// meets a row again its operands are rounded to the dtype of x: the gradients of h in front of backward's products, and the
// normalised rows and inner layers of the polynomial sketch. Errors also: bad_stride for rows that overlap.
#pragma once

#include "fla/feature_map.h"

namespace fla {

//                  h_p = x weight_p^T + bias_p        y
// hedgehog         one layer                          softmax of [2h, -2h], 2E columns     Zhang et al. 2024, arXiv 2402.04347
// t2r              one layer, bias rare               relu(h), E columns                   Kasai et al. 2021, arXiv 2103.13076
// hadamard         two layers                         h_1 h_2, E columns
// outer_product    two layers without biases          h_1i h_2j, i <= j: E (E + 1) / 2 columns; not scaled
enum class LearnedMap : int32_t { hedgehog, t2r, hadamard, outer_product };
inline constexpr const char* kLearnedMapNames[] = {"hedgehog", "t2r", "hadamard", "outer_product"};
constexpr bool has_two_layers(LearnedMap kind) { return kind == LearnedMap::hadamard || kind == LearnedMap::outer_product; }

namespace detail {

template <class V, class A>
void describe_layers(V& v, A& a, Dim D, Dim E) {
  const Presence bias = a.kind == LearnedMap::t2r ? Presence::optional : Presence::expected;
  v.input("weight", a.weight, {E, D}, {.like = &a.x});
  if (has_two_layers(a.kind)) v.input("weight2", a.weight2, {E, D}, {.like = &a.x});
  if (a.kind == LearnedMap::outer_product) return;
  v.input("bias", a.bias, {E}, {.presence = bias});
  if (has_two_layers(a.kind)) v.input("bias2", a.bias2, {E}, {.presence = bias});
}

constexpr Dim map_columns(LearnedMap kind, Dim E) {
  return kind == LearnedMap::hedgehog ? 2 * E : kind == LearnedMap::outer_product ? triangle(E) : E;
}

}  // namespace detail

// Workspace: none where the map is fused (16 bits, D = E = 64 or 128, rows of whole vectors); else M E (2 M E) fp32 for h, both
// weights one below the other, and what their product may use.
struct LearnedMapForward {
  LearnedMap kind = LearnedMap::hedgehog;
  Tensor x;                // [M, D] f32/f16/bf16
  Tensor weight, weight2;  // [E, D] dtype of x
  Tensor bias, bias2;      // [E] any float, optional
  Tensor y;                // [M, columns] dtype of x
};

template <class V>
void describe(V& v, LearnedMapForward& a) {
  const Dim M = v.dim("M"), D = v.dim("D"), E = v.dim("E", D);
  v.input("x", a.x, {M, D});
  detail::describe_layers(v, a, D, E);
  v.output("y", a.y, {M, detail::map_columns(a.kind, E)}, {.like = &a.x});
}

Status check(const LearnedMapForward&);
size_t workspace_bytes(const LearnedMapForward&);
Status run(const LearnedMapForward&, Workspace, Stream);

//   hedgehog       dh = 2 (p+ (g+ - C) - p- (g- - C)),  y = [p+, p-], dy = [g+, g-], C = sum y dy
//   t2r            dh = dy above h = 0, else 0
//   hadamard       dh_1 = dy h_2, dh_2 = dy h_1
//   outer_product  as outer_triu
//   dx = sum_p dh_p weight_p,  dweight_p = dh_p^T x,  dbias_p = sum_rows dh_p       fp32 sums, rounded once
struct LearnedMapBackward {
  LearnedMap kind = LearnedMap::hedgehog;
  Tensor x, weight, weight2, bias, bias2;  // as forward
  Tensor dy;                               // as y in shape; any float
  Tensor dx;                               // [M, D] dtype of x or f32
  Tensor dweight, dweight2;                // [E, D] dtype of x or f32
  Tensor dbias, dbias2;                    // [E] any float
};

template <class V>
void describe(V& v, LearnedMapBackward& a) {
  const Dim M = v.dim("M"), D = v.dim("D"), E = v.dim("E", D);
  v.input("x", a.x, {M, D});
  detail::describe_layers(v, a, D, E);
  v.input("dy", a.dy, {M, detail::map_columns(a.kind, E)});
  v.output("dx", a.dx, {M, D}, detail::kWanted);
  v.output("dweight", a.dweight, {E, D}, detail::kWanted);
  if (has_two_layers(a.kind)) v.output("dweight2", a.dweight2, {E, D}, detail::kWanted);
  if (a.kind == LearnedMap::outer_product) return;
  v.output("dbias", a.dbias, {E}, {.presence = Presence::expected, .with = &a.bias});
  if (has_two_layers(a.kind)) v.output("dbias2", a.dbias2, {E}, {.presence = Presence::expected, .with = &a.bias2});
}

Status check(const LearnedMapBackward&);
size_t workspace_bytes(const LearnedMapBackward&);
Status run(const LearnedMapBackward&, Workspace, Stream);

// A random-feature sketch of the polynomial kernel of this degree, made learnable. Kacham et al. 2023, arXiv 2310.01655.
//   z_0 = LN(x) gamma + beta,  z_l = (a_l z_{l-1}) (b_l z_{l-1}) D^-1/2  for l = 1 .. L,  y = upper triangle of z_L z_L^T
// L = 1 + max(0, log2(degree) - 2): degrees 2 and 4 are the same map. The scale is that of D in every layer.
struct PolysketchMapForward {
  Tensor x;                 // [M, D] f32/f16/bf16
  Tensor gamma, beta;       // [D] any float
  Tensor a, b;              // [S, D] dtype of x: the first layer
  Tensor later_a, later_b;  // [L - 1, S, S] dtype of x, dense; where L > 1
  Tensor y;                 // [M, S (S + 1) / 2] dtype of x
  float eps = 1e-5f;        // >= 0
  int64_t degree = 2;       // a power of two, 2 or more
};

namespace detail {

constexpr int64_t sketch_layers(int64_t degree) {
  int64_t layers = 1;
  for (; degree > 4; degree /= 2) ++layers;
  return layers;
}

template <class V, class A>
void describe_sketch(V& v, A& s, Dim D, Dim S) {
  v.input("gamma", s.gamma, {D}, kWanted);
  v.input("beta", s.beta, {D}, kWanted);
  v.input("a", s.a, {S, D}, {.like = &s.x});
  v.input("b", s.b, {S, D}, {.like = &s.x});
  const Dim later = sketch_layers(s.degree) - 1;
  const Presence needed = later.plus > 0 ? Presence::required : Presence::optional;
  v.input("later_a", s.later_a, {later, S, S}, {.presence = needed, .like = &s.x});
  v.input("later_b", s.later_b, {later, S, S}, {.presence = needed, .like = &s.x});
}

}  // namespace detail

template <class V>
void describe(V& v, PolysketchMapForward& s) {
  v.attribute("eps", s.eps, {.min = 0});
  v.attribute("degree", s.degree, {.min = 2, .max = 1 << 20});
  const Dim M = v.dim("M"), D = v.dim("D"), S = v.dim("S", D);
  v.input("x", s.x, {M, D});
  detail::describe_sketch(v, s, D, S);
  v.output("y", s.y, {M, triangle(S)}, {.like = &s.x});
}

Status check(const PolysketchMapForward&);
size_t workspace_bytes(const PolysketchMapForward&);
Status run(const PolysketchMapForward&, Workspace, Stream);

struct PolysketchMapBackward {
  Tensor x, gamma, beta, a, b, later_a, later_b;  // as forward
  Tensor dy;                                      // [M, S (S + 1) / 2] any float
  Tensor dx;                                      // [M, D] any float
  Tensor dgamma, dbeta;                           // [D] any float
  Tensor da, db;                                  // [S, D] any float
  Tensor dlater_a, dlater_b;                      // [L - 1, S, S] any float, dense; where L > 1
  float eps = 1e-5f;
  int64_t degree = 2;
};

template <class V>
void describe(V& v, PolysketchMapBackward& s) {
  v.attribute("eps", s.eps, {.min = 0});
  v.attribute("degree", s.degree, {.min = 2, .max = 1 << 20});
  const Dim M = v.dim("M"), D = v.dim("D"), S = v.dim("S", D);
  v.input("x", s.x, {M, D});
  detail::describe_sketch(v, s, D, S);
  v.input("dy", s.dy, {M, triangle(S)});
  v.output("dx", s.dx, {M, D}, detail::kWanted);
  v.output("dgamma", s.dgamma, {D}, {.presence = Presence::expected, .with = &s.gamma});
  v.output("dbeta", s.dbeta, {D}, {.presence = Presence::expected, .with = &s.beta});
  v.output("da", s.da, {S, D}, detail::kWanted);
  v.output("db", s.db, {S, D}, detail::kWanted);
  const Dim later = detail::sketch_layers(s.degree) - 1;
  v.output("dlater_a", s.dlater_a, {later, S, S}, {.presence = Presence::expected, .with = &s.later_a});
  v.output("dlater_b", s.dlater_b, {later, S, S}, {.presence = Presence::expected, .with = &s.later_b});
}

Status check(const PolysketchMapBackward&);
size_t workspace_bytes(const PolysketchMapBackward&);
Status run(const PolysketchMapBackward&, Workspace, Stream);

}  // namespace fla

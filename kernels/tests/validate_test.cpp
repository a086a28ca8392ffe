#include "fla/validate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "fla/activation.h"
#include "fla/conv.h"
#include "fla/distribution_loss.h"
#include "fla/fp8.h"
#include "fla/linear.h"
#include "fla/linear_loss.h"
#include "fla/loss.h"
#include "fla/norm.h"
#include "fla/policy_loss.h"

namespace fla {
namespace {

alignas(256) char memory[1 << 20];
void* at(int64_t offset) { return memory + offset; }

RmsNormForward valid_norm() {
  RmsNormForward a;
  a.x = dense(at(0), DType::bf16, {4, 64});
  a.weight = dense(at(4096), DType::f32, {64});
  a.y = dense(at(8192), DType::bf16, {4, 64});
  a.rstd = dense(at(16384), DType::f32, {4});
  return a;
}

template <class A>
void expect_refused(const A& args, StatusCode code, const char* naming) {
  const Status s = validate(args);
  EXPECT_EQ(s.code, code) << name_of(s.code) << ": " << s.text;
  EXPECT_TRUE(std::strstr(s.text, naming)) << s.text;
}

TEST(Validate, AcceptsAValidCall) { EXPECT_TRUE(validate(valid_norm()).ok()) << validate(valid_norm()).text; }

TEST(Validate, NamesWhatIsWrong) {
  auto a = valid_norm();
  a.x = {};
  expect_refused(a, StatusCode::null_pointer, "x");
  a = valid_norm();
  a.x.data = nullptr;
  expect_refused(a, StatusCode::null_pointer, "x");
  a = valid_norm();
  a.weight.size[0] = 63;
  expect_refused(a, StatusCode::shape_mismatch, "weight: size 63 in dimension N, expected 64");
  a = valid_norm();
  a.y.size[0] = -1;
  expect_refused(a, StatusCode::shape_mismatch, "y: negative size");
  a = valid_norm();
  a.residual = a.residual_out = a.x;
  a.residual_out.dtype = DType::f32;
  expect_refused(a, StatusCode::unsupported_dtype, "residual_out: dtype f32, expected bf16");
  a = valid_norm();
  a.x.dtype = DType::i32;
  expect_refused(a, StatusCode::unsupported_dtype, "x");
  a = valid_norm();
  a.x.dtype = static_cast<DType>(77);
  expect_refused(a, StatusCode::unsupported_dtype, "x");
  a = valid_norm();
  a.weight.data = at(4097);
  expect_refused(a, StatusCode::misaligned, "weight");
  a = valid_norm();
  a.eps = -1;
  expect_refused(a, StatusCode::invalid_argument, "eps");
  a.eps = NAN;
  expect_refused(a, StatusCode::invalid_argument, "eps");
  a = valid_norm();
  a.x.stride[1] = 2;
  expect_refused(a, StatusCode::bad_stride, "x: inner stride 2");
  a = valid_norm();
  a.y.stride[0] = 63;
  expect_refused(a, StatusCode::bad_stride, "y");
  a = valid_norm();
  a.x.rank = 1;
  expect_refused(a, StatusCode::shape_mismatch, "x: rank 1");
}

TEST(Validate, ProductsThatOverflowAreRefused) {
  auto a = valid_norm();
  a.x.size[0] = int64_t{1} << 62;
  expect_refused(a, StatusCode::overflow, "x");
  a = valid_norm();
  a.x.stride[0] = int64_t{1} << 62;
  expect_refused(a, StatusCode::overflow, "x");
}

TEST(Validate, RowsTooFarApartForThirtyTwoBitsAreRefusedByTheNorms) {
  auto a = valid_norm();
  a.x.data = at(1 << 20);  // behind all others, which it would reach else
  a.x.stride[0] = int64_t{1} << 32;
  expect_refused(a, StatusCode::bad_stride, "x: rows lie 4294967296 elements apart");
  a = valid_norm();
  a.y.data = at(1 << 20);
  a.y.stride[0] = int64_t{1} << 33;
  expect_refused(a, StatusCode::bad_stride, "y: rows lie");
}

TEST(Validate, OnlyTheNamedAliasIsAllowed) {
  auto a = valid_norm();
  a.y.data = a.x.data;
  EXPECT_TRUE(validate(a).ok());
  a.y.data = at(2);  // one element further: an overlap, not an alias
  expect_refused(a, StatusCode::aliasing, "y: overlaps x");
  a = valid_norm();
  a.rstd.data = at(4096);
  expect_refused(a, StatusCode::aliasing, "rstd: overlaps weight");
}

TEST(Validate, ActivationsKnowTheirKindsAndAttributes) {
  ActivationForward a;
  a.x = dense(at(0), DType::bf16, {8, 32});
  a.y = dense(at(4096), DType::bf16, {8, 32});
  a.kind = static_cast<Activation>(17);
  expect_refused(a, StatusCode::invalid_argument, "kind");
  a.kind = Activation::logsigmoid;
  a.temperature = 0;
  expect_refused(a, StatusCode::invalid_argument, "temperature");
  a.temperature = INFINITY;
  expect_refused(a, StatusCode::invalid_argument, "temperature");
  a.kind = Activation::swish;  // has none
  EXPECT_TRUE(validate(a).ok());

  GluForward g;
  g.x = a.x;
  g.y = dense(at(8192), DType::bf16, {8, 32});
  g.z = a.y;
  g.kind = static_cast<GatedUnit>(-1);
  expect_refused(g, StatusCode::invalid_argument, "kind");
  g.kind = GatedUnit::powglu;
  g.parameters.power = 0;
  expect_refused(g, StatusCode::invalid_argument, "power");
}

TEST(Validate, HalvesOfAPackedBufferAreNoOverlap) {
  GluBackward a;
  a.x = dense(at(0), DType::bf16, {8, 32});
  a.x.stride[0] = 64;
  a.y = a.x;
  a.y.data = at(64);
  a.dz = dense(at(4096), DType::bf16, {8, 32});
  a.dx = a.x;
  a.dx.data = at(8192);
  a.dy = a.dx;
  a.dy.data = at(8192 + 64);
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.dy.data = at(8192 + 62);
  expect_refused(a, StatusCode::aliasing, "dy");
}

TEST(Validate, BroadcastInputsAreLegalOutputsAreNot) {
  auto a = valid_norm();
  a.x.stride[0] = 0;
  EXPECT_TRUE(validate(a).ok());
  a.y.stride[0] = 0;
  expect_refused(a, StatusCode::bad_stride, "y");
}

TEST(Validate, EmptyTensorsNeedNoMemory) {
  auto a = valid_norm();
  a.x = dense(nullptr, DType::bf16, {0, 64});
  a.y = dense(nullptr, DType::bf16, {0, 64});
  a.rstd = dense(nullptr, DType::f32, {0});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
}

TEST(Validate, OptionsAndConflicts) {
  CausalConv1dForward conv;
  conv.x = dense(at(0), DType::f32, {2, 8, 4});
  conv.weight = dense(at(1024), DType::f32, {4, 4});
  conv.y = dense(at(2048), DType::f32, {2, 8, 4});
  EXPECT_TRUE(validate(conv).ok()) << validate(conv).text;
  conv.activation = static_cast<ConvActivation>(9);
  expect_refused(conv, StatusCode::invalid_argument, "activation");
  conv.activation = ConvActivation::silu;
  conv.cu_seqlens = dense(at(4096), DType::i32, {3});
  expect_refused(conv, StatusCode::shape_mismatch, "cu_seqlens");  // packed sequences come in one row

  CrossEntropyForward loss;
  loss.logits = dense(at(0), DType::f32, {4, 10});
  loss.labels = dense(at(1024), DType::i64, {4});
  loss.loss = dense(at(2048), DType::f32, {1});
  EXPECT_TRUE(validate(loss).ok()) << validate(loss).text;
  loss.softcap = 0;
  expect_refused(loss, StatusCode::invalid_argument, "softcap");
  loss.softcap = -INFINITY;
  expect_refused(loss, StatusCode::invalid_argument, "softcap");
  loss.softcap = 30;
  loss.label_smoothing = 1.5f;
  expect_refused(loss, StatusCode::invalid_argument, "label_smoothing");
  loss.label_smoothing = 0;
  loss.total_classes = 5;
  expect_refused(loss, StatusCode::invalid_argument, "class_start");
  loss.total_classes = 20;
  loss.class_start = INT64_MAX - 3;  // plus V: below 0
  expect_refused(loss, StatusCode::invalid_argument, "class_start");
}

TEST(Validate, ScalesOfQuantisedRows) {
  QuantizeFp8Forward a;
  a.x = dense(at(0), DType::bf16, {4, 2, 128});
  a.q = dense(at(8192), DType::f8e4m3, {4, 2, 128});
  a.scale = dense(at(16384), DType::f32, {4});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.scaling = Fp8Scaling::block;
  expect_refused(a, StatusCode::shape_mismatch, "scale");
  a.scale = dense(at(16384), DType::f32, {4, 2, 1});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.scale = dense(at(16384), DType::f32, {4, 2, 2});
  expect_refused(a, StatusCode::shape_mismatch, "scale");
  a.scale = dense(at(16384), DType::bf16, {4, 2, 1});
  expect_refused(a, StatusCode::unsupported_dtype, "scale");
  a.scale = dense(at(16384), DType::f32, {4, 2, 1});
  a.q.dtype = DType::bf16;
  expect_refused(a, StatusCode::unsupported_dtype, "q");
  a.x = dense(at(0), DType::bf16, {4, 2, 100});
  a.q = dense(at(8192), DType::f8e4m3, {4, 2, 100});
  expect_refused(a, StatusCode::unsupported_shape, "x");  // a block would lie in two heads
  a.x = dense(at(0), DType::bf16, {4, 200});
  a.q = dense(at(8192), DType::f8e4m3, {4, 200});
  a.scale = dense(at(16384), DType::f32, {4, 2});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.scale.stride[0] = 1;  // column-major
  a.scale.stride[1] = 4;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
}

TEST(Validate, NormsInFrontOfALinearLayer) {
  NormLinearForward a;
  a.x = dense(at(0), DType::bf16, {4, 24});
  a.linear_weight = dense(at(1024), DType::bf16, {8, 24});
  a.out = dense(at(4096), DType::bf16, {4, 8});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.num_groups = 5;
  expect_refused(a, StatusCode::shape_mismatch, "num_groups: 5 does not divide C = 24");
  a.num_groups = 3;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.gate = dense(at(8192), DType::bf16, {4, 24});
  expect_refused(a, StatusCode::invalid_argument, "gate: given with activation none");
  a.activation = GateActivation::swish;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.residual = dense(at(12288), DType::bf16, {4, 24});
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.gate_order = GateOrder::before;
  expect_refused(a, StatusCode::invalid_argument, "residual: given with gate_order before");
  a.residual = a.gate = {};
  expect_refused(a, StatusCode::null_pointer, "gate");

  NormLinearBackward b;
  b.x = a.x;
  b.gate = dense(at(8192), DType::bf16, {4, 24});
  b.activation = GateActivation::sigmoid;
  b.kind = NormKind::layer;
  b.rstd = dense(at(16384), DType::f32, {4, 1});
  b.linear_weight = a.linear_weight;
  b.dout = a.out;
  b.dgate = dense(at(20480), DType::bf16, {4, 24});
  expect_refused(b, StatusCode::null_pointer, "mean");
  b.mean = dense(at(24576), DType::f32, {4, 1});
  EXPECT_TRUE(validate(b).ok()) << validate(b).text;
  b.residual_out = dense(at(28672), DType::bf16, {4, 24});
  expect_refused(b, StatusCode::invalid_argument, "x: exactly one of x and residual_out");
  b.residual_out = b.dgate = {};
  expect_refused(b, StatusCode::invalid_argument, "dx: no output is asked for");
}

PolicyLossForward valid_policy() {
  PolicyLossForward a;
  a.logps = dense(at(0), DType::f32, {6, 8});
  a.ref_logps = dense(at(1024), DType::bf16, {6, 8});
  a.rewards = dense(at(2048), DType::f32, {6});
  a.loss = dense(at(3072), DType::f32, {1});
  return a;
}

TEST(Validate, PoliciesLearnFromOneKindOfAdvantages) {
  EXPECT_TRUE(validate(valid_policy()).ok()) << validate(valid_policy()).text;
  auto a = valid_policy();
  a.rewards = {};
  expect_refused(a, StatusCode::null_pointer, "rewards");
  a = valid_policy();
  a.advantages = a.rewards;
  expect_refused(a, StatusCode::invalid_argument, "advantages");
  a.rewards = {};
  a.group_size = 1;  // of rewards only
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.token_advantages = a.logps;
  expect_refused(a, StatusCode::invalid_argument, "token_advantages");
  for (const int64_t group_size : {1, 4, 12}) {
    a = valid_policy();
    a.group_size = group_size;
    expect_refused(a, StatusCode::invalid_argument, "group_size");
  }
  a = valid_policy();
  a.logps.size[0] = a.ref_logps.size[0] = a.rewards.size[0] = 1;
  expect_refused(a, StatusCode::invalid_argument, "group_size");
}

TEST(Validate, PoliciesNeedWhatTheirOptionsName) {
  auto a = valid_policy();
  a.ref_logps = {};
  expect_refused(a, StatusCode::null_pointer, "ref_logps");
  a.beta = 0;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.mean_kl = dense(at(3076), DType::f32, {1});
  expect_refused(a, StatusCode::null_pointer, "ref_logps");
  a = valid_policy();
  a.epsilon_low = 1;
  expect_refused(a, StatusCode::invalid_argument, "epsilon_low");
  a = valid_policy();
  a.epsilon_high = 1;
  expect_refused(a, StatusCode::invalid_argument, "epsilon_high");
  a = valid_policy();
  a.delta = 1.1f;
  expect_refused(a, StatusCode::invalid_argument, "delta");
  a = valid_policy();
  a.normalization = PolicyNormalization::dapo;
  expect_refused(a, StatusCode::null_pointer, "normalizer");
  a = valid_policy();
  a.normalizer = dense(at(4096), DType::f32, {1});
  expect_refused(a, StatusCode::invalid_argument, "normalizer");
}

// The list of section 2.6 and 6.6 of the norms' specification, where fla-check's generated rejections do not reach: what fields
// contradict together, and extents of nothing.
TEST(Validate, RejectionsOfNorms) {
  auto a = valid_norm();
  a.x = dense(at(0), DType::bf16, {4, 0});
  a.y = dense(at(8192), DType::bf16, {4, 0});
  a.weight = {};
  expect_refused(a, StatusCode::unsupported_shape, "x: rows of N = 0");
  a.x = dense(at(0), DType::bf16, {4, 0, 8});
  a.y = dense(at(8192), DType::bf16, {4, 0, 8});
  a.rstd = {};
  expect_refused(a, StatusCode::unsupported_shape, "x: G = 0");
  a = valid_norm();
  a.weight = {};
  a.bias = dense(at(4096), DType::f32, {64});  // without weight: legal
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;

  LayerNormBackward b;
  b.x = dense(at(0), DType::bf16, {4, 64});
  b.rstd = dense(at(16384), DType::f32, {4});
  b.dy = dense(at(8192), DType::bf16, {4, 64});
  b.dx = b.dy;
  expect_refused(b, StatusCode::null_pointer, "mean");
  b.mean = dense(at(20480), DType::f32, {4});
  EXPECT_TRUE(validate(b).ok()) << validate(b).text;
  b.dweight = dense(at(4096), DType::f32, {64});
  expect_refused(b, StatusCode::invalid_argument, "dweight");
  b.dweight = b.dx = {};
  expect_refused(b, StatusCode::invalid_argument, "dx: no output is asked for");
}

// The same of sections 2.11, 3.2, 3.4, 3.7 and 3.8 of the losses' specification.
TEST(Validate, RejectionsOfLosses) {
  CrossEntropyBackward a;
  a.logits = dense(at(0), DType::f32, {4, 10});
  a.labels = dense(at(1024), DType::i64, {4});
  a.lse = dense(at(2048), DType::f32, {4});
  a.dloss = dense(at(3072), DType::f32, {4});
  a.dlogits = a.logits;
  expect_refused(a, StatusCode::shape_mismatch, "dloss");  // per token with mean
  a.reduction = Reduction::none;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  a.dlogits.stride[0] = 12;  // in place, in another row distance
  expect_refused(a, StatusCode::aliasing, "dlogits");
  a.dlogits = a.logits;
  for (const float scale : {INFINITY, -INFINITY, NAN}) {
    a.logit_scale = scale;
    expect_refused(a, StatusCode::invalid_argument, "logit_scale");
  }
  a.logit_scale = -2;
  EXPECT_TRUE(validate(a).ok()) << validate(a).text;
  for (const float factor : {-1e-4f, INFINITY, NAN}) {
    a.lse_square_scale = factor;
    expect_refused(a, StatusCode::invalid_argument, "lse_square_scale");
  }
  a.lse_square_scale = 0;
  a.labels.dtype = DType::f32;
  expect_refused(a, StatusCode::unsupported_dtype, "labels");
  a.labels.dtype = DType::i32;
  a.logits = a.dlogits = dense(at(0), DType::f32, {4, 0});
  expect_refused(a, StatusCode::unsupported_shape, "V = 0");

  LinearCrossEntropyForwardBackward c;
  c.x = dense(at(0), DType::bf16, {4, 8});
  c.weight = dense(at(1024), DType::bf16, {10, 8});
  c.labels = dense(at(2048), DType::i64, {4});
  c.loss = dense(at(3072), DType::f32, {1});
  c.dweight = dense(at(4096), DType::bf16, {10, 8});
  EXPECT_TRUE(validate(c).ok()) << validate(c).text;
  c.weight.dtype = DType::f16;
  expect_refused(c, StatusCode::unsupported_dtype, "weight: dtype f16, expected bf16");
  c.weight.dtype = DType::bf16;
  c.dweight = c.weight;
  expect_refused(c, StatusCode::aliasing, "dweight: overlaps weight");
  c.dweight = dense(at(4096), DType::bf16, {10, 8});
  c.bias = dense(at(8192), DType::bf16, {9});
  expect_refused(c, StatusCode::shape_mismatch, "bias");
  c.bias = {};
  c.reduction = Reduction::none;
  c.loss = dense(at(3072), DType::f32, {4});
  expect_refused(c, StatusCode::invalid_argument, "reduction");

  KlDivForwardBackward k;
  k.logits = k.dlogits = dense(at(0), DType::f32, {4, 10});
  k.target_logits = dense(at(1024), DType::f32, {4, 10});
  k.loss = dense(at(2048), DType::f32, {1});
  EXPECT_TRUE(validate(k).ok()) << validate(k).text;
  k.target_logits.data = k.logits.data;
  expect_refused(k, StatusCode::aliasing, "target_logits");
  k.target_logits = dense(at(1024), DType::f32, {4, 11});
  expect_refused(k, StatusCode::shape_mismatch, "target_logits");

  GrpoLossBackward g;
  g.logits = g.dlogits = dense(at(0), DType::f32, {2, 4, 10});
  g.ref_logp = dense(at(1024), DType::f32, {2, 3});
  g.input_ids = dense(at(2048), DType::i64, {2, 5});
  g.advantages = dense(at(3072), DType::f32, {2});
  g.lse = dense(at(4096), DType::f32, {2, 3});
  g.dloss = dense(at(5120), DType::f32, {2, 3});
  EXPECT_TRUE(validate(g).ok()) << validate(g).text;
  g.advantages.size[0] = 3;
  expect_refused(g, StatusCode::shape_mismatch, "advantages");
  g.advantages.size[0] = 2;
  g.input_ids.size[1] = 2;
  expect_refused(g, StatusCode::unsupported_shape, "input_ids");
  g.input_ids.size[1] = 5;
  g.beta = NAN;
  expect_refused(g, StatusCode::invalid_argument, "beta");
  g.beta = 0.1f;
  g.ref_logp = {};
  expect_refused(g, StatusCode::null_pointer, "ref_logp");
}

}  // namespace
}  // namespace fla

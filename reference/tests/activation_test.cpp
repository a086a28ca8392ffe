#include "reference/activation.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

constexpr double kInf = std::numeric_limits<double>::infinity();

template <class S>
S activated(Activation kind, double x, double temperature = 1) {
  return activation(kind, DType::f32, S(x), S(temperature));
}
template <class S>
S pulled(Activation kind, double x, bool grad_at_zero = false, double dy = 1) {
  ActivationBackward a;
  a.kind = kind;
  a.grad_at_zero = grad_at_zero;
  return activation_gradient(a, S(x), S(dy));
}

TEST(Activation, GivesHandComputedValues) {
  const double ln3 = std::log(3.0);  // sigmoid(ln 3) = 3/4
  EXPECT_NEAR(activated<double>(Activation::sigmoid, -ln3), 0.25, 1e-15);
  EXPECT_NEAR(pulled<double>(Activation::sigmoid, ln3), 3.0 / 16, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::logsigmoid, ln3, 16), std::log(0.75) / 16, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::swish, ln3), 0.75 * ln3, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::gelu_tanh, 1.0), 0.8411919906082768, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::sqrelu, 3.0), 9, 0);
  EXPECT_NEAR(pulled<double>(Activation::sqrelu, 3.0), 6, 0);
}

// Trap 1 and trap 2 of the specification: what 1 - sigmoid, log(1 + e) and 1 + tanh lose.
TEST(Activation, KeepsItsTails) {
  EXPECT_NEAR(pulled<double>(Activation::sigmoid, 40.0) / std::exp(-40.0), 1, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::logsigmoid, 40.0) / -std::exp(-40.0), 1, 1e-15);
  EXPECT_NEAR(pulled<double>(Activation::logsigmoid, 40.0) / std::exp(-40.0), 1, 1e-15);
  EXPECT_NEAR(activated<double>(Activation::gelu_tanh, -5.5) / -5.5, 1 / (1 + std::exp(1.5957691216057308 * 5.5 * (1 + 0.044715 * 30.25))), 1e-20);
  for (const double x : {20.0, 1e4, 5.7e19, 3e38, kInf}) {
    EXPECT_EQ(pulled<Bound>(Activation::gelu_tanh, x).v, 1) << x;
    EXPECT_NEAR(pulled<Bound>(Activation::gelu_tanh, -x).v, 0, 1e-200) << x;
  }
}

// Trap 4 and trap 7.
TEST(Activation, InfinitiesAndNan) {
  EXPECT_TRUE(std::isnan(activated<Bound>(Activation::swish, -kInf).v));  // -inf * 0, as in IEEE arithmetic
  EXPECT_EQ(activated<Bound>(Activation::swish, kInf).v, kInf);
  EXPECT_EQ(activated<Bound>(Activation::logsigmoid, -kInf).v, -kInf);
  EXPECT_EQ(activated<Bound>(Activation::logsigmoid, kInf).v, 0);
  for (int k = 0; k < static_cast<int>(std::size(kActivationNames)); ++k) {
    const auto kind = static_cast<Activation>(k);
    EXPECT_TRUE(std::isnan(activated<double>(kind, NAN))) << kActivationNames[k];
    EXPECT_EQ(std::isnan(pulled<double>(kind, NAN)), kind != Activation::relu) << kActivationNames[k];
  }
  EXPECT_EQ(pulled<double>(Activation::relu, NAN, false, 2), 2);
  EXPECT_EQ(pulled<double>(Activation::relu, 0, false, 2), 0);
  EXPECT_EQ(pulled<double>(Activation::relu, -0.0, true, 2), 2);
  EXPECT_EQ(pulled<double>(Activation::relu, -1, true, kInf), 0);
}

TEST(Activation, BackwardIsTheDerivative) {
  for (int k = 0; k < static_cast<int>(std::size(kActivationNames)); ++k) {
    Proof<ActivationForward, ActivationBackward> p;
    p.forward.kind = p.backward.kind = static_cast<Activation>(k);
    p.forward.temperature = p.backward.temperature = -0.75f;
    p.extents = {{"M", 7}, {"C", 33}};
    EXPECT_LE(p.worst(), kAgreement) << kActivationNames[k];
  }
  Proof<BiasGeluTanhForward, BiasGeluTanhBackward> biased;
  biased.extents = {{"M", 7}, {"C", 33}};
  EXPECT_LE(biased.worst(), kAgreement);
}

TEST(GatedUnit, GivesHandComputedValues) {
  const double ln3 = std::log(3.0);
  GluForward a;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"F", 2}}, {}, t);
  t["x"] = {ln3, -ln3};
  t["y"] = {2, 4};
  evaluate<double>(a);
  EXPECT_NEAR(t["z"][0], 1.5 * ln3, 1e-15);
  EXPECT_NEAR(t["z"][1], -ln3, 1e-15);

  GluBackward b;
  Tensors<double> back;
  allocate(b, {{"M", 1}, {"F", 2}}, {"dx", "dy"}, back);
  back["x"] = t["x"];
  back["y"] = t["y"];
  back["dz"] = {1, 10};
  evaluate<double>(b);
  EXPECT_NEAR(back["dx"][0], 2 * 0.75 * (1 + ln3 / 4), 1e-15);
  EXPECT_NEAR(back["dx"][1], 40 * 0.25 * (1 - ln3 * 0.75), 1e-14);
  EXPECT_NEAR(back["dy"][0], 0.75 * ln3, 1e-15);
  EXPECT_NEAR(back["dy"][1], -2.5 * ln3, 1e-14);
}

// Trap 5, and the figures of the specification.
TEST(GatedUnit, PowgluIsBoundedAndFinite) {
  EXPECT_NEAR(pow_gate(DType::f32, 12.90, 3.0).value, 5.316, 5e-4);
  EXPECT_NEAR(pow_gate(DType::f32, 12.90, 3.0).slope, 0, 1e-4);
  EXPECT_NEAR(pow_gate(DType::f32, 0.0, 3.0).slope, 0.5, 0);
  EXPECT_NEAR(pow_gate(DType::f32, kInf, 3.0).value, 1, 1e-6);
  EXPECT_TRUE(std::isnan(pow_gate(DType::f32, static_cast<double>(NAN), 3.0).value));
  for (const double x : {1e-45, 9e-39, 1e-37, 1e-20, 0.999, 1.0, 1e4, 3e38, kInf}) {
    for (const double power : {1.0, 1.1, 2.0, 3.0, 4.0}) {
      const Slope<Bound> a = pow_gate(DType::f32, Bound(x), Bound(power));
      EXPECT_TRUE(std::isfinite(a.value.v) && std::isfinite(a.slope.v) && a.value.v <= 9.3) << x << " " << power;
    }
  }
}

TEST(GatedUnit, BackwardIsTheDerivative) {
  for (int k = 0; k < static_cast<int>(std::size(kGatedUnitNames)); ++k) {
    Proof<GluForward, GluBackward> p;
    p.forward.kind = p.backward.kind = static_cast<GatedUnit>(k);
    p.forward.parameters = p.backward.parameters = {.power = 2.5f, .limit = 0.75f};
    p.extents = {{"M", 7}, {"F", 33}};
    EXPECT_LE(p.worst(), kAgreement) << kGatedUnitNames[k];
  }
}

TEST(GatedUnit, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"M", 100}, {"F", 300}};
  const Names back{"dx", "dy", "z"};
  const Tensors<double> inputs = normal_inputs(GluBackward{}, shape, back);
  for (int k = 0; k < static_cast<int>(std::size(kGatedUnitNames)); ++k) {
    GluForward f;
    GluBackward b;
    f.kind = b.kind = static_cast<GatedUnit>(k);
    for (const double scale : {1e-3, 1.0, 30.0}) {
      Tensors<double> scaled = inputs;
      for (double& x : scaled["x"]) x = rounded(DType::bf16, x * scale);
      const double forward = share_used<Single>(f, shape, {}, scaled);
      const double backward = share_used<Single>(b, shape, back, scaled);
      EXPECT_LE(forward, 0.8) << kGatedUnitNames[k] << " " << scale;
      EXPECT_LE(backward, 0.8) << kGatedUnitNames[k] << " " << scale;
      EXPECT_GE(backward, 0.05) << kGatedUnitNames[k] << ": the bound is loose";
    }
  }
}

}  // namespace
}  // namespace fla::reference

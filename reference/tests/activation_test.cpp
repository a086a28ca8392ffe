#include "reference/activation.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

TEST(Swiglu, GivesHandComputedValues) {
  const double ln3 = std::log(3.0);  // sigmoid(ln 3) = 3/4
  SwigluForward a;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"F", 2}}, {}, t);
  t["x"] = {ln3, -ln3};
  t["y"] = {2, 4};
  evaluate<double>(a);
  EXPECT_NEAR(t["z"][0], 1.5 * ln3, 1e-15);
  EXPECT_NEAR(t["z"][1], -ln3, 1e-15);

  SwigluBackward b;
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

TEST(Swiglu, KeepsItsTails) {
  const Sigmoid<double> s = sigmoid_(40.0);
  EXPECT_NEAR(s.minus / std::exp(-40.0), 1, 1e-15);  // 1 - s.plus would be 0
  SwigluForward a;
  Tensors<Bound> t;
  allocate(a, {{"M", 1}, {"F", 4}}, {}, t);
  t["x"] = {-INFINITY, INFINITY, NAN, -1e4};
  t["y"] = {1, 1, 1, 1};
  evaluate<Bound>(a);
  EXPECT_TRUE(std::isnan(t["z"][0].v));  // -inf * 0, as in IEEE arithmetic
  EXPECT_EQ(t["z"][1].v, INFINITY);
  EXPECT_TRUE(std::isnan(t["z"][2].v));
  EXPECT_EQ(t["z"][3].v, 0);
}

TEST(Swiglu, BackwardIsTheDerivative) {
  Proof<SwigluForward, SwigluBackward> p;
  p.extents = {{"M", 7}, {"F", 33}};
  EXPECT_LE(p.worst(), kAgreement);
}

TEST(Swiglu, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"M", 100}, {"F", 300}};
  const Names back{"dx", "dy", "z"};
  Tensors<double> inputs = normal_inputs(SwigluBackward{}, shape, back);
  for (const double scale : {1e-3, 1.0, 30.0}) {
    Tensors<double> scaled = inputs;
    for (double& x : scaled["x"]) x = rounded(DType::bf16, x * scale);
    const double forward = share_used<Single>(SwigluForward{}, shape, {}, scaled);
    const double backward = share_used<Single>(SwigluBackward{}, shape, back, scaled);
    EXPECT_LE(forward, 0.8) << scale;
    EXPECT_LE(backward, 0.8) << scale;
    EXPECT_GE(backward, 0.05) << "the bound is loose";
  }
}

}  // namespace
}  // namespace fla::reference

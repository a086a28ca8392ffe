#include "reference/norm.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;
using NormProof = Proof<RmsNormForward, RmsNormBackward>;

TEST(RmsNorm, GivesHandComputedValues) {
  RmsNormForward a;
  a.eps = 0;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"weight", "bias", "rstd"}, t);
  t["x"] = {3, 4};
  t["weight"] = {1, 2};
  t["bias"] = {0, 10};
  evaluate<double>(a);
  EXPECT_NEAR(t["rstd"][0], std::sqrt(2.0) / 5, 1e-15);
  EXPECT_NEAR(t["y"][0], 3 * std::sqrt(2.0) / 5, 1e-15);
  EXPECT_NEAR(t["y"][1], 2 * 4 * std::sqrt(2.0) / 5 + 10, 1e-14);
}

TEST(RmsNorm, BackwardGivesHandComputedValues) {
  RmsNormBackward a;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"x", "weight", "dx", "dweight", "dbias"}, t);
  const double rstd = std::sqrt(2.0) / 5;  // mean square 12.5
  t["x"] = {3, 4};
  t["weight"] = {1, 1};
  t["rstd"] = {rstd};
  t["dy"] = {1, 0};
  evaluate<double>(a);
  EXPECT_NEAR(t["dx"][0], rstd * 0.64, 1e-15);   // 1 - 9 / 25
  EXPECT_NEAR(t["dx"][1], rstd * -0.48, 1e-15);  // -12 / 25
  EXPECT_NEAR(t["dweight"][0], 3 * rstd, 1e-15);
  EXPECT_EQ(t["dweight"][1], 0);
  EXPECT_EQ(t["dbias"][0], 1);
}

TEST(RmsNorm, EpsStandsInsideTheRoot) {
  RmsNormForward a;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 3}}, {"rstd"}, t);
  evaluate<double>(a);  // a row of zeros
  EXPECT_NEAR(t["rstd"][0], 1 / std::sqrt(static_cast<double>(1e-5f)), 1e-9);
  EXPECT_EQ(t["y"][0], 0);
}

TEST(RmsNorm, LeavesOutTheGroupDimensionAndFollowsStrides) {
  double x[] = {3, 4, -1, 6, 8, -1}, y[] = {0, 0, 0, 0}, rstd[] = {0, 0};
  RmsNormForward a;
  a.eps = 0;
  a.x = dense(x, DType::f32, {2, 2});
  a.x.stride[0] = 3;
  a.y = dense(y, DType::f32, {2, 2});
  a.rstd = dense(rstd, DType::f32, {2});
  evaluate<double>(a);
  EXPECT_NEAR(rstd[1], rstd[0] / 2, 1e-15);
  EXPECT_NEAR(y[2], y[0], 1e-15);
  EXPECT_NEAR(y[3], y[1], 1e-15);
}

TEST(RmsNorm, NanStaysInItsRow) {
  RmsNormForward a;
  Tensors<Bound> t;
  allocate(a, {{"M", 2}, {"G", 1}, {"N", 2}}, {}, t);
  t["x"] = {NAN, 1, 3, 4};
  evaluate<Bound>(a);
  EXPECT_TRUE(std::isnan(t["y"][0].v) && std::isnan(t["y"][1].v));
  EXPECT_NEAR(t["y"][2].v, 3 / std::sqrt(12.5), 1e-5);
}

TEST(RmsNorm, SquaresBeyondFp32GiveZeroAsInAKernel) {
  RmsNormForward a;
  Tensors<Bound> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"rstd"}, t);
  t["x"] = {1e30, 1};
  evaluate<Bound>(a);
  EXPECT_EQ(t["rstd"][0].v, 0);
  EXPECT_EQ(t["y"][0].v, 0);
  EXPECT_TRUE(std::isfinite(t["y"][0].e));
}

TEST(RmsNorm, AnEmptyBatchZeroesTheParameterGradients) {
  RmsNormBackward a;
  Tensors<double> t;
  allocate(a, {{"M", 0}, {"G", 1}, {"N", 3}}, {"x", "weight", "dx", "dweight", "dbias"}, t);
  t["dweight"] = {7, 7, 7};
  t["dbias"] = {7, 7, 7};
  evaluate<double>(a);
  EXPECT_EQ(t["dweight"], std::vector<double>(3, 0));
  EXPECT_EQ(t["dbias"], std::vector<double>(3, 0));
}

TEST(RmsNorm, BackwardIsTheDerivativeInEveryOptionSet) {
  const Names optional[] = {{"rstd"},
                            {"rstd", "weight"},
                            {"rstd", "bias"},
                            {"rstd", "weight", "bias"},
                            {"rstd", "weight", "bias", "residual", "residual_out"}};
  for (const Names& with : optional) {
    for (const bool per_group : {false, true}) {
      for (const int64_t M : {int64_t{1}, int64_t{5}}) {
        NormProof p;
        p.forward.weight_per_group = p.backward.weight_per_group = per_group;
        p.extents = {{"M", M}, {"G", 3}, {"N", 7}};
        p.with = with;
        const bool sum_is_stored = with.count("residual_out") > 0;
        p.without = {sum_is_stored ? "x" : "residual_out", "drstd"};
        EXPECT_LE(p.worst(), kAgreement)
            << with.size() << " optional tensors, per group " << per_group << ", M " << M;
      }
    }
  }
}

TEST(LayerNorm, GivesHandComputedValues) {
  LayerNormForward a;
  a.eps = 0;
  a.weight_offset = 1;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"weight", "bias", "mean", "rstd"}, t);
  t["x"] = {1, 5};
  t["weight"] = {0, 1};
  t["bias"] = {0, 10};
  evaluate<double>(a);
  EXPECT_EQ(t["mean"][0], 3);
  EXPECT_NEAR(t["rstd"][0], 0.5, 1e-15);  // biased variance 4
  EXPECT_NEAR(t["y"][0], -1, 1e-15);
  EXPECT_NEAR(t["y"][1], 12, 1e-15);
}

TEST(GroupNorm, IsLayerNormOrRmsNormOfEveryGroup) {
  GroupNormForward a;
  a.eps = 0;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 2}, {"N", 2}}, {"mean", "rstd"}, t);
  t["x"] = {1, 5, 3, 4};
  evaluate<double>(a);
  EXPECT_NEAR(t["y"][0], -1, 1e-15);
  EXPECT_EQ(t["mean"][1], 3.5);
  a.kind = NormKind::rms;
  evaluate<double>(a);
  EXPECT_NEAR(t["y"][2], 3 * std::sqrt(2.0) / 5, 1e-15);
}

TEST(L2Norm, EpsIsPartOfTheLength) {
  L2NormForward a;
  a.eps = 0;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"rstd"}, t);
  t["x"] = {3, 4};
  evaluate<double>(a);
  EXPECT_NEAR(t["y"][0], 0.6, 1e-15);
  a.eps = 1e-6f;
  t["x"] = {0.003, 0};
  evaluate<double>(a);
  EXPECT_NEAR(t["y"][0], 0.949, 1e-3);
}

TEST(GatedNorm, MultipliesTheOutputOrTheInput) {
  RmsNormGatedForward a;
  a.eps = 0;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"G", 1}, {"N", 2}}, {"rstd"}, t);
  t["x"] = {3, 4};
  t["gate"] = {0, 40};
  evaluate<double>(a);
  EXPECT_EQ(t["y"][0], 0);
  EXPECT_NEAR(t["y"][1], 40 * 4 * std::sqrt(2.0) / 5, 1e-13);
  a.gate_order = GateOrder::before;
  evaluate<double>(a);
  EXPECT_NEAR(t["y"][1], std::sqrt(2.0), 1e-13);
  a.activation = GateActivation::sigmoid;
  evaluate<double>(a);
  EXPECT_NEAR(t["rstd"][0], 1 / std::sqrt((1.5 * 1.5 + 16) / 2), 1e-13);
}

template <class Forward, class Backward>
double worst_of(Forward forward, Backward backward, const Names& with, int64_t G, int64_t N) {
  Proof<Forward, Backward> p;
  p.forward = forward;
  p.backward = backward;
  p.extents = {{"M", 4}, {"G", G}, {"N", N}};
  p.with = with;
  p.with.insert({"mean", "rstd"});
  p.without = {with.count("residual_out") ? "x" : "residual_out", "drstd", "dmean"};
  return p.worst();
}

const Names kOptionSets[] = {{}, {"weight"}, {"weight", "bias"}, {"weight", "bias", "residual", "residual_out"}};

TEST(LayerNorm, BackwardIsTheDerivative) {
  for (const Names& with : kOptionSets) {
    for (const float offset : {0.0f, 1.0f}) {
      LayerNormForward f;
      LayerNormBackward b;
      f.weight_offset = b.weight_offset = offset;
      EXPECT_LE(worst_of(f, b, with, 1, 9), kAgreement);
      for (const NormKind kind : {NormKind::layer, NormKind::rms}) {
        GroupNormForward gf;
        GroupNormBackward gb;
        gf.kind = gb.kind = kind;
        gf.weight_offset = gb.weight_offset = offset;
        EXPECT_LE(worst_of(gf, gb, with, 3, 5), kAgreement);
      }
    }
  }
}

template <NormKind kKind>
void prove_gated() {
  for (const Names& with : kOptionSets) {
    for (const GateActivation activation : {GateActivation::swish, GateActivation::sigmoid}) {
      for (const GateOrder order : {GateOrder::after, GateOrder::before}) {
        if (order == GateOrder::before && with.count("residual")) continue;
        GatedNormForward<kKind> f;
        GatedNormBackward<kKind> b;
        f.activation = b.activation = activation;
        f.gate_order = b.gate_order = order;
        f.weight_offset = b.weight_offset = 1;
        f.weight_per_group = b.weight_per_group = true;
        EXPECT_LE(worst_of(f, b, with, 2, 6), kAgreement) << static_cast<int>(activation) << static_cast<int>(order);
      }
    }
  }
}
TEST(LayerNormGated, BackwardIsTheDerivativeInBothOrders) { prove_gated<NormKind::layer>(); }
TEST(RmsNormGated, BackwardIsTheDerivativeInBothOrders) { prove_gated<NormKind::rms>(); }

TEST(L2Norm, BackwardIsTheDerivative) { EXPECT_LE(worst_of(L2NormForward{}, L2NormBackward{}, {}, 2, 7), kAgreement); }

TEST(GatedNorm, FarGatesKeepTheirSmallSlopes) {
  // 1 - sigmoid(30) would be 0 in fp32 and a thousandth off in double.
  EXPECT_NEAR(gate_slope(GateOf{.activation = GateActivation::sigmoid}, 30.0) / std::exp(-30.0), 1, 1e-12);
  EXPECT_NEAR(gate_slope(GateOf{.activation = GateActivation::sigmoid}, -30.0) / std::exp(-30.0), 1, 1e-12);
}

TEST(RmsNorm, BackwardIsTheDerivativeForLongRowsAndManyRows) {
  for (const auto& [M, N] : {std::pair<int64_t, int64_t>{2, 4099}, {3001, 3}}) {
    NormProof p;
    p.extents = {{"M", M}, {"G", 1}, {"N", N}};
    p.with = {"rstd", "weight", "bias"};
    p.without = {"residual_out", "drstd"};
    EXPECT_LE(p.worst(), kAgreement) << M << " " << N;
  }
}

TEST(RmsNorm, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"M", 40}, {"G", 1}, {"N", 1000}};
  const Names with{"weight", "bias", "residual", "residual_out", "rstd"};
  const double used =
      share_used<Single>(RmsNormForward{}, shape, with, normal_inputs(RmsNormForward{}, shape, with));
  EXPECT_LE(used, 1);
  EXPECT_GE(used, 0.01) << "the bound is loose";

  const Names back{"x", "weight", "bias", "dresidual_out", "dx", "dresidual", "dweight", "dbias", "y"};
  Tensors<double> inputs = normal_inputs(RmsNormBackward{}, shape, back);
  for (double& r : inputs["rstd"]) r = rounded(DType::f32, 1 + std::abs(r));
  const double back_used = share_used<Single>(RmsNormBackward{}, shape, back, inputs);
  EXPECT_LE(back_used, 1);
  EXPECT_GE(back_used, 0.01) << "the bound is loose";
}

TEST(RmsNorm, SerialAndBf16AccumulationAreSeen) {
  const Extents shape{{"M", 20000}, {"G", 1}, {"N", 2}};
  const Names with{"x", "dbias"};
  const Tensors<double> inputs = normal_inputs(RmsNormBackward{}, shape, with, 3);  // one sign, long
  EXPECT_LE(share_used<Single>(RmsNormBackward{}, shape, with, inputs, "dbias"), 1);
  EXPECT_GT(share_used<SingleSerial>(RmsNormBackward{}, shape, with, inputs, "dbias"), 1);
  EXPECT_GT(share_used<SingleBf16Sum>(RmsNormBackward{}, shape, with, inputs, "dbias"), 1);
}

}  // namespace
}  // namespace fla::reference

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

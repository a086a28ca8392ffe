#include "reference/policy_loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reference/tests/call.h"

namespace fla::reference {
namespace {

using namespace test;

constexpr double kEpsilon = 0.25;  // exact in fp32, so that ratios can lie on the bounds
const double kInside = std::log(1.125), kAbove = std::log(1.5), kBelow = std::log(0.5);

template <class A>
A clipped() {
  A a;
  a.beta = 0;
  a.epsilon_low = a.epsilon_high = static_cast<float>(kEpsilon);
  return a;
}

// Two sequences of advantages +-c, c = 1 / sqrt(2): what two rewards make of themselves.
struct Pair {
  PolicyLossForward f = clipped<PolicyLossForward>();
  PolicyLossBackward b = clipped<PolicyLossBackward>();
  Tensors<double> forward, backward;
  const double c = 0.5 / (std::sqrt(0.5) + static_cast<double>(1e-8f));

  void run(const std::vector<double>& log_ratios, const std::vector<double>& rewards = {1, 0}) {
    const Extents extents{{"B", 2}, {"L", static_cast<int64_t>(log_ratios.size() / 2)}};
    Names names{"old_logps", "rewards", "clip_fraction", "lengths", "drewards"};
    if (f.beta != 0) names.insert({"ref_logps", "mean_kl"});
    allocate(f, extents, names, forward);
    forward["logps"] = log_ratios;
    forward["rewards"] = rewards;
    evaluate<double>(f);
    allocate(b, extents, names, backward);
    for (const char* name : {"logps", "old_logps", "rewards", "ref_logps", "lengths"})
      if (backward.has(name)) backward[name] = forward[name];
    backward["dloss"] = {1};
    evaluate<double>(b);
  }
  double loss() { return forward["loss"][0]; }
  double dlogp(size_t i) { return backward["dlogps"][i]; }
};

TEST(PolicyLoss, ClipsOnTheSideThatTheAdvantageSays) {
  Pair p;
  p.run({kAbove, kInside, kAbove, kBelow});
  EXPECT_NEAR(p.loss(), -p.c * (1.25 + 1.125 - 1.5 - 0.75) / 4, 1e-15);
  EXPECT_EQ(p.dlogp(0), 0);
  EXPECT_NEAR(p.dlogp(1), -p.c * 1.125 / 4, 1e-15);
  EXPECT_NEAR(p.dlogp(2), p.c * 1.5 / 4, 1e-15);
  EXPECT_EQ(p.dlogp(3), 0);
  EXPECT_EQ(p.forward["clip_fraction"][0], 0.5);
}

TEST(PolicyLoss, RatiosAtTheirBoundsAreInside) {
  Pair p;
  p.f.epsilon_low = p.f.epsilon_high = p.b.epsilon_low = p.b.epsilon_high = 0;
  p.run({0, 0});
  EXPECT_NEAR(p.dlogp(0), -p.c / 2, 1e-15);
  EXPECT_NEAR(p.dlogp(1), p.c / 2, 1e-15);
  EXPECT_EQ(p.forward["clip_fraction"][0], 0);
}

TEST(PolicyLoss, EqualRewardsTeachNothing) {
  Pair p;
  p.run({kAbove, kInside, kBelow, kInside}, {0.1, 0.1});
  EXPECT_EQ(p.loss(), 0);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(p.dlogp(i), 0);
  EXPECT_EQ(p.backward["drewards"][0], 0);
}

TEST(PolicyLoss, SecondBoundEndsWhatNegativeAdvantagesPay) {
  Pair p;
  p.f.delta = p.b.delta = 2;
  p.run({0, std::log(3.0)});
  EXPECT_NEAR(p.loss(), -p.c * (1 - 2) / 2, 1e-15);
  EXPECT_EQ(p.dlogp(1), 0);
}

TEST(PolicyLoss, SequenceRatioIsTheGeometricMean) {
  Pair p;
  p.f.level = p.b.level = PolicyLevel::sequence;
  p.run({std::log(1.5), std::log(1 / 1.5), std::log(1.21), 0});
  EXPECT_NEAR(p.loss(), -p.c * (1 - 1.1) / 2, 1e-15);
  EXPECT_NEAR(p.dlogp(0), -p.c / 4, 1e-15);
  EXPECT_NEAR(p.dlogp(3), p.c * 1.1 / 4, 1e-15);
}

TEST(PolicyLoss, KlIsTheThirdEstimator) {
  Pair p;
  p.f.beta = p.b.beta = 0.5f;
  p.run({0, 0.5}, {3, 3});
  const double kl = std::exp(-0.5) + 0.5 - 1;
  EXPECT_NEAR(p.loss(), 0.5 * kl / 2, 1e-15);
  EXPECT_NEAR(p.forward["mean_kl"][0], kl / 2, 1e-15);
  EXPECT_NEAR(p.dlogp(1), 0.25 * (1 - std::exp(-0.5)), 1e-15);
  EXPECT_EQ(p.dlogp(0), 0);
}

TEST(PolicyLoss, NormalizationsWeighSequencesAsTheyAreNamed) {
  for (const auto& [normalization, expected] :
       {std::pair{PolicyNormalization::bnpo, 2 * 1.0 + 3}, {PolicyNormalization::grpo, 3 * (1.0 + 3) / 2},
        {PolicyNormalization::dr_grpo, 3 * (2 * 1.0 + 3) / (2 * 8)}, {PolicyNormalization::luspo, 3 * (4 * 1.0 + 3) / (2 * 2)}}) {
    PolicyLossForward a = clipped<PolicyLossForward>();
    a.normalization = normalization;
    a.max_tokens = 8;
    Tensors<double> t;
    allocate(a, {{"B", 2}, {"L", 2}}, {"advantages", "pad_mask"}, t);
    t["pad_mask"] = {1, 1, 0, 1};
    t["advantages"] = {-1, -3};
    evaluate<double>(a);
    EXPECT_NEAR(t["loss"][0], expected / 3, 1e-15);
  }
}

}  // namespace
}  // namespace fla::reference

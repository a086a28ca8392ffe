#include <gtest/gtest.h>

#include <algorithm>

#include "harness/tests/row_scale.h"
#include "harness/gradient.h"

namespace fla::harness {
namespace {

std::vector<Check> proved(const std::string& planted, std::map<std::string, std::string> values = {},
                          bool from_backward = false) {
  values.insert({{"M", "6"}, {"N", "10"}});
  const WithFault fault(planted);
  const Case c = row_scale_case(values, from_backward);
  return prove_gradients(gradient_pair(c, row_scale_forward(), row_scale_backward()));
}

const Check& named(const std::vector<Check>& checks, const std::string& name) {
  static const Check none;
  const auto at = std::find_if(checks.begin(), checks.end(), [&](const Check& c) { return c.name == name; });
  EXPECT_NE(at, checks.end()) << name;
  return at == checks.end() ? none : *at;
}

TEST(Gradient, ProvesARightBackwardFromBothSides) {
  for (const bool from_backward : {false, true}) {
    const std::vector<Check> checks = proved("", {}, from_backward);
    EXPECT_EQ(checks.size(), 3u);
    for (const Check& c : checks) EXPECT_EQ(c.status, CaseStatus::passed) << c.name << ": " << c.detail;
    EXPECT_EQ(named(checks, "gradient:x").elements, 3);
    EXPECT_LT(named(checks, "gradient:weight").bound_used, 0.1);
  }
}

TEST(Gradient, FollowsPresence) {
  const std::vector<Check> checks = proved("", {{"weight", "none"}});
  EXPECT_EQ(checks.size(), 3u);
  for (const Check& c : checks) EXPECT_EQ(c.status, CaseStatus::passed) << c.name << ": " << c.detail;
}

TEST(Gradient, ACaseOfLowPrecisionIsProvedUnrounded) {
  for (const Check& c : proved("", {{"x", "bf16"}})) EXPECT_EQ(c.status, CaseStatus::passed) << c.detail;
}

TEST(Gradient, NamesTheWrongTensor) {
  const std::vector<Check> checks = proved("zero gradient");
  EXPECT_EQ(named(checks, "gradient:x").status, CaseStatus::failed);
  EXPECT_EQ(named(checks, "gradient:weight").status, CaseStatus::passed);
  EXPECT_EQ(named(checks, "gradient:joint").status, CaseStatus::failed);
}

TEST(Gradient, SeesOneEntryWrongByOnePartInAHundredMillion) {
  EXPECT_EQ(named(proved("one entry off by 1e-8"), "gradient:x").status, CaseStatus::failed);
}

TEST(Gradient, NamesTheWrongEntryOfASmallJacobianAndOfALargeOne) {
  for (const auto& [M, N] : {std::pair{"3", "4"}, {"6", "14"}}) {
    const std::vector<Check> checks = proved("one entry off by 1e-8", {{"M", M}, {"N", N}});
    EXPECT_EQ(named(checks, "gradient:x").index, "dx[0,0]");
    EXPECT_NE(named(checks, "gradient:x").detail.find("at dx[0,0] "), std::string::npos);
  }
  const std::vector<Check> small = proved("one entry off by 1e-8", {{"M", "3"}, {"N", "4"}});
  EXPECT_EQ(named(small, "jacobian:x").index, "dx[0,0]");
  EXPECT_EQ(named(small, "jacobian:x").elements, 12);
  EXPECT_EQ(named(small, "jacobian:x").outside, 1);
  EXPECT_EQ(named(small, "jacobian:weight").status, CaseStatus::passed);
}

TEST(Gradient, DifferencesShareNothingWithDualNumbers) {
  const auto by_differences = [](const std::string& planted) {
    const WithFault fault(planted);
    const Case c = row_scale_case({{"M", "6"}, {"N", "10"}});
    return prove_gradients(gradient_pair(c, row_scale_forward(), row_scale_backward()), true);
  };
  for (const char* input : {"differences:x", "differences:weight"})
    EXPECT_EQ(named(by_differences(""), input).status, CaseStatus::passed);
  EXPECT_LT(named(by_differences(""), "differences:x").bound, 1e-6);
  EXPECT_EQ(named(by_differences("zero gradient"), "differences:x").status, CaseStatus::failed);
  EXPECT_EQ(named(by_differences("zero gradient"), "differences:weight").status, CaseStatus::passed);
}

TEST(Gradient, MistrustsCotangentsThatTheBackwardHardlySees) {
  const Check joint = named(proved("", {{"scale", "1e-9"}}), "gradient:joint");
  EXPECT_EQ(joint.status, CaseStatus::mistrusted);
  EXPECT_NE(joint.detail.find("null space"), std::string::npos);
}

TEST(Gradient, SeesAForgottenCotangentOfASecondOutput) {
  EXPECT_EQ(named(proved("forgets dtotal", {{"dtotal", "f32"}}, true), "gradient:x").status,
            CaseStatus::failed);
}

TEST(Gradient, FusedDirectionsAreTheirOwnBackward) {
  EXPECT_TRUE(is_fused(row_squares()));
  EXPECT_FALSE(is_fused(row_scale_forward()));
  for (const char* dloss : {"none", "f32"}) {
    const Case c = make_case(row_squares(), {{"M", "5"}, {"N", "9"}, {"x", "f32"}, {"dloss", dloss}}, "test");
    EXPECT_EQ(named(prove_gradients(gradient_pair(c, row_squares(), row_squares())), "gradient:x").status,
              CaseStatus::passed)
        << dloss;
    const WithFault fault("wrong factor");
    EXPECT_EQ(named(prove_gradients(gradient_pair(c, row_squares(), row_squares())), "gradient:x").status,
              CaseStatus::failed)
        << dloss;
  }
}

TEST(Gradient, ShrinksLongCases) {
  const WithFault none("");
  const GradientPair pair = gradient_pair(row_scale_case({{"M", "100000"}, {"N", "64"}}), row_scale_forward(),
                                          row_scale_backward());
  EXPECT_EQ(pair.forward.dims.at("M"), 1024);
  EXPECT_EQ(pair.backward.dims.at("M"), 1024);
  EXPECT_EQ(pair.forward.dims.at("N"), 64);
}

TEST(Gradient, MistrustsACaseWithoutGradients) {
  const std::vector<Check> checks =
      proved("", {{"dx", "none"}, {"dweight", "none"}, {"weight", "none"}}, true);
  EXPECT_EQ(named(checks, "gradient:joint").status, CaseStatus::mistrusted);
}

}  // namespace
}  // namespace fla::harness

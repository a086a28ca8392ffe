#include "harness/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fla::harness {
namespace {

using reference::Bound;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Bound bound(double value, double error) { return Bound(value, error); }

TEST(Accepts, OnlyWhatACorrectRoundingCouldGive) {
  const double third = 1.0 / 3;
  const double stored = round_to(DType::bf16, third);
  EXPECT_TRUE(accepts(DType::bf16, stored, bound(third, 0)));
  EXPECT_FALSE(accepts(DType::bf16, stored + spacing(DType::bf16, third), bound(third, 0)));
  EXPECT_FALSE(accepts(DType::bf16, stored - spacing(DType::bf16, third), bound(third, 0)));
  EXPECT_TRUE(
      accepts(DType::bf16, stored + spacing(DType::bf16, third), bound(third, spacing(DType::bf16, third))));
}

TEST(Accepts, RejectsTruncation) {
  const double value = 1 + 0.75 * std::ldexp(1, -7);  // bf16 rounds up, truncation stays at 1
  EXPECT_FALSE(accepts(DType::bf16, 1.0, bound(value, 1e-6)));
  EXPECT_TRUE(accepts(DType::bf16, 1 + std::ldexp(1, -7), bound(value, 1e-6)));
}

TEST(Accepts, HasNoToleranceWhereTheBoundIsZero) {
  EXPECT_TRUE(accepts(DType::f32, 12.0, bound(12, 0)));
  EXPECT_FALSE(accepts(DType::f32, std::nextafter(12.0f, 13.0f), bound(12, 0)));
  EXPECT_TRUE(accepts(DType::f32, -0.0, bound(0, 0)));
}

TEST(Accepts, NanOnlyForNan) {
  EXPECT_TRUE(accepts(DType::f32, kNan, bound(kNan, 0)));
  EXPECT_FALSE(accepts(DType::f32, kNan, bound(1, 100)));
  EXPECT_FALSE(accepts(DType::f32, 1, bound(kNan, 0)));
  EXPECT_FALSE(accepts(DType::f32, 1, bound(1, kNan)));
  EXPECT_FALSE(accepts(DType::f32, kNan, bound(kInf, 0)));
}

TEST(Accepts, InfinityAtTheOverflowEdge) {
  EXPECT_FALSE(accepts(DType::f16, kInf, bound(65519.9, 0)));
  EXPECT_TRUE(accepts(DType::f16, 65504, bound(65519.9, 0)));
  EXPECT_TRUE(accepts(DType::f16, kInf, bound(65519.9, 1)));
  EXPECT_TRUE(accepts(DType::f16, 65504, bound(65519.9, 1)));
  EXPECT_FALSE(accepts(DType::f16, -kInf, bound(65519.9, 1)));
  EXPECT_TRUE(accepts(DType::f32, kInf, bound(kInf, 0)));
  EXPECT_FALSE(accepts(DType::f32, -kInf, bound(kInf, 0)));
  EXPECT_FALSE(accepts(DType::f32, 3e38, bound(kInf, 0)));
}

TEST(Accepts, Subnormals) {
  const double smallest = std::ldexp(1, -24);  // f16
  EXPECT_TRUE(accepts(DType::f16, smallest, bound(smallest * 0.75, 0)));
  EXPECT_FALSE(accepts(DType::f16, 0, bound(smallest * 0.75, 0)));
  EXPECT_TRUE(accepts(DType::f16, 0, bound(smallest * 0.75, smallest * 0.5)));
}

TEST(Accepts, BothBranchesOfAnUndecidedChoice) {
  Bound b = bound(1, 0);
  EXPECT_FALSE(accepts(DType::f32, 0, b));
  b.ambiguous = true;
  b.other = 0;
  b.other_e = 0.25;
  EXPECT_TRUE(accepts(DType::f32, 0, b));
  EXPECT_TRUE(accepts(DType::f32, 1, b));
  EXPECT_TRUE(accepts(DType::f32, 0.25, b));
  EXPECT_FALSE(accepts(DType::f32, 0.5, b));
  EXPECT_FALSE(accepts(DType::f32, 1.25, b));
}

TEST(Compare, FindsTheWorstElement) {
  const std::vector<Bound> y{bound(1, 0), bound(2, 0.25), bound(4, 0), bound(8, 0.5)};
  const Check c = compare("y", DType::f32, {2, 2}, {1, 2.125, 5, 8.75}, y);
  EXPECT_EQ(c.status, CaseStatus::failed);
  EXPECT_EQ(c.outside, 2);
  EXPECT_EQ(c.elements, 4);
  EXPECT_EQ(c.index, "[1,0]");
  EXPECT_EQ(c.got, 5);
  EXPECT_EQ(c.expected, 4);
}

TEST(Compare, ANanIsTheWorstOfAll) {
  const Check c = compare("y", DType::f32, {2}, {100, kNan}, {bound(1, 0), bound(2, 0)});
  EXPECT_EQ(c.outside, 2);
  EXPECT_EQ(c.status, CaseStatus::failed);
}

TEST(Compare, MeasuresUlpsAndBias) {
  const double ulp = spacing(DType::bf16, 1.5);
  const Check c =
      compare("y", DType::bf16, {2}, {1.5 + ulp, 1.5 + 2 * ulp}, {bound(1.5, 4 * ulp), bound(1.5, 4 * ulp)});
  EXPECT_EQ(c.status, CaseStatus::passed);
  EXPECT_EQ(c.max_ulp, 2);
  EXPECT_EQ(c.mean_ulp, 1.5);
  EXPECT_NEAR(c.bound_used, 2 / 4.5, 1e-12);
  EXPECT_NEAR(c.signed_bias, 3 / 9.0, 1e-12);
}

TEST(Compare, NothingComparedIsAFailure) {
  EXPECT_EQ(compare("y", DType::f32, {0}, {}, {}).status, CaseStatus::failed);
  EXPECT_EQ(compare("y", DType::f32, {2}, {1, 2}, {bound(1, 0)}).status, CaseStatus::failed);
  EXPECT_EQ(compare("y", DType::f32, {3}, {1, 2}, {bound(1, 0), bound(2, 0)}).status, CaseStatus::failed);
  EXPECT_EQ(compare("y", {0}, {}, std::vector<int64_t>{}).status, CaseStatus::failed);
}

TEST(Compare, ANanBoundIsAFailure) {
  const Check c = compare("y", DType::f32, {1}, {1}, {bound(1, kNan)});
  EXPECT_EQ(c.status, CaseStatus::failed);
  EXPECT_NE(c.detail.find("NaN"), std::string::npos);
}

TEST(Compare, IntegersMustBeEqual) {
  EXPECT_EQ(compare("n", {2}, {1, 2}, std::vector<int64_t>{1, 2}).status, CaseStatus::passed);
  const Check c = compare("n", {2}, {1, 3}, std::vector<int64_t>{1, 2});
  EXPECT_EQ(c.status, CaseStatus::failed);
  EXPECT_EQ(c.index, "[1]");
}

std::vector<Bound> ramp(size_t n) {
  std::vector<Bound> y;
  for (size_t i = 0; i < n; ++i) y.push_back(bound(static_cast<double>(i) + 1, 0));
  return y;
}

TEST(Trust, RefusesVacuousAnswers) {
  EXPECT_EQ(trust("y", DType::f32, ramp(100), 0.7).status, CaseStatus::passed);
  std::vector<Bound> zeros = ramp(100);
  for (size_t i = 0; i < 80; ++i) zeros[i] = bound(0, 0);
  EXPECT_EQ(trust("y", DType::f32, zeros, 0.7).status, CaseStatus::mistrusted);
  EXPECT_EQ(trust("y", DType::f32, zeros, 0.9).status, CaseStatus::passed);
  const std::vector<Bound> constant(100, bound(2, 0));
  EXPECT_EQ(trust("y", DType::f32, constant, 0.7).status, CaseStatus::mistrusted);
  EXPECT_EQ(trust("y", DType::f32, constant, 1).status, CaseStatus::passed);
  std::vector<Bound> undecided = ramp(100);
  undecided[3].ambiguous = undecided[4].ambiguous = true;
  EXPECT_EQ(trust("y", DType::f32, undecided, 0.7).status, CaseStatus::mistrusted);
  std::vector<Bound> unbounded = ramp(100);
  unbounded[3].e = unbounded[4].e = reference::bound::kUnbounded;
  EXPECT_EQ(trust("y", DType::f32, unbounded, 0.7).status, CaseStatus::mistrusted);
}

}  // namespace
}  // namespace fla::harness

#include "reference/scalar/scalars.h"

#include <gtest/gtest.h>

#include <random>

namespace fla::reference {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

TEST(Storage, RoundsToNearestEven) {
  EXPECT_EQ(rounded(DType::bf16, 1 + 0x1p-8), 1);               // a tie, to even
  EXPECT_EQ(rounded(DType::bf16, 1 + 3 * 0x1p-8), 1 + 0x1p-6);  // a tie, to even
  EXPECT_EQ(rounded(DType::bf16, 1 + 0x1.001p-8), 1 + 0x1p-7);
  EXPECT_EQ(rounded(DType::f16, 65519.9), 65504);
  EXPECT_EQ(rounded(DType::f16, 65520), kInf);
  EXPECT_EQ(rounded(DType::f16, 0x1p-25), 0);
  EXPECT_EQ(rounded(DType::f16, 0x1.01p-25), 0x1p-24);
  EXPECT_EQ(rounded(DType::f16, -0x1.8p-24), -0x1p-23);
  EXPECT_EQ(rounded(DType::bf16, 3.4e38), kInf);
  EXPECT_EQ(rounded(DType::bf16, 0x1.fep127), 0x1.fep127);
  EXPECT_EQ(rounded(DType::f32, 1 + 0x1p-24), 1);
  EXPECT_EQ(rounded(DType::f64, 0.1), 0.1);
  EXPECT_TRUE(std::isnan(rounded(DType::bf16, kNan)));
}

TEST(Bound, WhatFp32HoldsIsExact) {
  const Bound three = 3.0, quarter = 0.25;
  EXPECT_EQ((three * quarter).e, 0);
  EXPECT_EQ((three + quarter).e, 0);
  EXPECT_EQ((three / quarter).e, 0);
  EXPECT_GT((quarter / three).e, 0);
  EXPECT_GT((three / three).e, 0) << "a product with a rounded reciprocal is not exact";
  const Bound third = Bound(1.0) / three;
  EXPECT_GE((third * three).e, 3 * third.e);
  EXPECT_NEAR((Bound(1.0) + Bound(0x1p-30)).e, kRounding, 1e-12);
}

TEST(Bound, ExactZeroAbsorbsEveryError) {
  const Bound uncertain(2.0, 0.5), unbounded = Bound(1.0) / Bound(0.1, 0.2);
  EXPECT_EQ((uncertain * Bound(0.0)).e, 0);
  EXPECT_EQ((Bound(0.0) * unbounded).e, 0);
  EXPECT_GE(unbounded.e, bound::kUnbounded);
  EXPECT_TRUE(std::isfinite((unbounded * unbounded).e));
}

TEST(Bound, InfinitiesAndNanFollowIeee) {
  EXPECT_TRUE(std::isnan((Bound(kInf) - Bound(kInf)).v));
  EXPECT_TRUE(std::isnan((Bound(kInf) * Bound(0.0)).v));
  EXPECT_EQ((Bound(1.0) / Bound(kInf)).v, 0);
  EXPECT_TRUE(std::isfinite((Bound(1.0) / Bound(kInf)).e));
  EXPECT_EQ(exp_(Bound(-kInf)).v, 0);
  EXPECT_TRUE(std::isfinite(exp_(Bound(-kInf)).e));
  EXPECT_EQ(log_(Bound(0.0)).v, -kInf);
  EXPECT_EQ(tanh_(Bound(-kInf)).v, -1);
  EXPECT_EQ(rsqrt_(Bound(kInf)).v, 0);
  EXPECT_TRUE(std::isfinite(rsqrt_(Bound(kInf)).e));
  EXPECT_TRUE(std::isnan(max_(Bound(kNan), Bound(1.0)).v) && std::isnan(max_(Bound(1.0), Bound(kNan)).v));
  EXPECT_TRUE(std::isnan(sigmoid_(Bound(kNan)).plus.v));
}

TEST(Bound, OverflowIsInfiniteAsInAKernel) {
  EXPECT_EQ((Bound(1e30) * Bound(1e30)).v, kInf);
  EXPECT_EQ((Bound(-1e30) * Bound(1e30)).v, -kInf);
  EXPECT_EQ(exp_(Bound(89.0)).v, kInf);
  // Where the error reaches back into the range, both are acceptable.
  const Bound edge = Bound(kLargest, kLargest * 1e-6) * Bound(1 + 0x1p-22);
  EXPECT_TRUE(std::isfinite(edge.v));
  EXPECT_LT(edge.v - edge.e, kLargest);
  EXPECT_EQ(rounded(DType::f32, edge.v + edge.e), kInf);
}

TEST(Bound, SubnormalsHaveAnAbsoluteError) {
  const Bound tiny = Bound(0x1.8p-80) * Bound(0x1.8p-72);  // 0x1.2p-151, stored as 0 or 2^-149
  EXPECT_LE(rounded(DType::f32, tiny.v - tiny.e), 0);
  EXPECT_GE(rounded(DType::f32, tiny.v + tiny.e), 0x1p-149);
}

// Arguments anywhere within their error, results moved by the error that the function may have: never
// outside.
template <class F, class G>
void expect_enclosed(const char* name, F function, G exact, double low, double high) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> uniform(low, high), sign(-1, 1), scale(-9, -2);
  for (int i = 0; i < 20000; ++i) {
    const double v = uniform(random), e = std::pow(10, scale(random)) * std::abs(v);
    const Bound y = function(Bound(v, e));
    const double moved = exact(v + e * sign(random));
    EXPECT_LE(std::abs(moved - y.v), y.e) << name << "(" << v << " +- " << e << ")";
    const auto single = static_cast<double>(static_cast<float>(exact(static_cast<float>(v))));
    EXPECT_LE(std::abs(single - function(Bound(static_cast<float>(v))).v),
              function(Bound(static_cast<float>(v))).e)
        << name << " " << v;
  }
}

TEST(Bound, FunctionsEnclose) {
  expect_enclosed(
      "exp", [](Bound a) { return exp_(a); }, [](double a) { return std::exp(a); }, -80, 80);
  expect_enclosed(
      "log", [](Bound a) { return log_(a); }, [](double a) { return std::log(a); }, 1e-3, 50);
  expect_enclosed(
      "log1p", [](Bound a) { return log1p_(a); }, [](double a) { return std::log1p(a); }, -0.9, 9);
  expect_enclosed(
      "sqrt", [](Bound a) { return sqrt_(a); }, [](double a) { return std::sqrt(a); }, 0, 50);
  expect_enclosed(
      "rsqrt", [](Bound a) { return rsqrt_(a); }, [](double a) { return 1 / std::sqrt(a); }, 1e-6, 50);
  expect_enclosed(
      "tanh", [](Bound a) { return tanh_(a); }, [](double a) { return std::tanh(a); }, -12, 12);
  expect_enclosed(
      "sigmoid", [](Bound a) { return sigmoid_(a).plus; }, [](double a) { return 1 / (1 + std::exp(-a)); },
      -60, 60);
  expect_enclosed(
      "1 - sigmoid", [](Bound a) { return sigmoid_(a).minus; },
      [](double a) { return 1 / (1 + std::exp(a)); }, -60, 60);
  expect_enclosed(
      "1 / x", [](Bound a) { return Bound(1.0) / a; }, [](double a) { return 1 / a; }, 1e-3, 9);
  expect_enclosed(
      "x * x", [](Bound a) { return a * a; }, [](double a) { return a * a; }, -9, 9);
  expect_enclosed(
      "x - 1", [](Bound a) { return a - Bound(1.0); }, [](double a) { return a - 1; }, 0, 2);
}

TEST(Bound, FormulasEncloseFloat) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 20000; ++i) {
    auto formula = [](auto a, auto b, auto c) {
      return exp_(a * b - c) / (a * a + rsqrt_(b * b + c * c)) + tanh_(a - b) * c;
    };
    const auto a = static_cast<float>(normal(random)), b = static_cast<float>(normal(random)),
               c = static_cast<float>(normal(random));
    const Bound y = formula(Bound(a), Bound(b), Bound(c));
    const double got = value(formula(Single(a), Single(b), Single(c)));
    EXPECT_LE(std::abs(got - y.v), y.e);
    EXPECT_EQ(y.v, formula(double{a}, double{b}, double{c}));
  }
}

TEST(Bound, CloseDecisionsKeepBothBranches) {
  const Bound a(1.0, 0.01), b(1.005, 0.01), far = 2.0;
  EXPECT_TRUE(less_(a, b).ambiguous);
  EXPECT_FALSE(less_(a, far).ambiguous);
  EXPECT_FALSE(less_(Bound(1.0), Bound(1.0)).ambiguous) << "equal and exact is decided";
  const Bound chosen = select_(less_(a, b), Bound(10.0), Bound(20.0));
  const Bound later = chosen * Bound(3.0) + Bound(1.0);
  EXPECT_TRUE(later.ambiguous);
  EXPECT_EQ(later.v, 31);
  EXPECT_EQ(later.other, 61);
  EXPECT_FALSE(select_(less_(a, far), Bound(10.0), Bound(20.0)).ambiguous);
  const Bound total = sum<Bound>(2, [&](int64_t i) { return i == 0 ? chosen : Bound(1.0); });
  EXPECT_LE(total.v - total.e, 11);
  EXPECT_GE(total.v + total.e, 21);
}

// An uncertain number below the maximum counts as far as it reaches beyond it.
TEST(Bound, MaximumIsAsCertainAsWhatMayBeIt) {
  EXPECT_EQ(max_(Bound(8.0), Bound(2.0, 1.0)).e, 0);
  EXPECT_EQ(max_(Bound(2.0, 1.0), Bound(8.0, 0.5)).e, 0.5);
  EXPECT_EQ(max_(Bound(8.0, 0.5), Bound(7.0, 3.0)).e, 2);
  EXPECT_EQ(max_(Bound(1.0, 0.25), Bound(1.0, 0.5)).e, 0.5);
  EXPECT_EQ(min_(Bound(8.0), Bound(2.0, 1.0)).e, 1);
}

TEST(Bound, DeclaredRoundingsWiden) {
  EXPECT_EQ(store_as(DType::bf16, Bound(1.5)).e, 0);
  EXPECT_EQ(store_as(DType::bf16, Bound(1.001, 1e-4)).v, 1);
  EXPECT_EQ(store_as(DType::bf16, Bound(1.001, 1e-4)).e, 0) << "every number of the interval is stored as 1";
  EXPECT_EQ(store_as(DType::bf16, Bound(1 + 0x1p-8, 1e-4)).e, 0x1p-7) << "stored as 1 or as its successor";
  EXPECT_EQ(store_as(DType::f16, Bound(1e-9)).e, 0);
  EXPECT_EQ(store_as(DType::f16, Bound(7e4)).v, kInf);
  EXPECT_EQ(store_as(DType::bf16, 1.001), 1.0);
  EXPECT_EQ(store_as(DType::bf16, Dual(1.001, 2)).v, 1.001);
}

TEST(Sum, FactorIsTheContract) {
  EXPECT_EQ(reduction_factor(1, 256), 17);
  EXPECT_EQ(reduction_factor(256 * 20, 256), 36);  // both branches meet
  EXPECT_EQ(reduction_factor(256 * 84, 256), 60);  // 6 sqrt(100)
  EXPECT_EQ(tensor_core_factor(4096), 512);
}

TEST(Sum, OfIntegersIsExactUntilTheyDoNotFit) {
  auto ones = [](int64_t) { return Bound(0.5); };
  EXPECT_EQ(sum<Bound>(1 << 20, ones).e, 0);
  EXPECT_EQ(sum<Bound>(1 << 20, ones).v, 1 << 19);
  EXPECT_EQ(sum<Bound>(int64_t{1} << 24, ones).e, 0);
  EXPECT_GT(sum<Bound>((int64_t{1} << 24) + 1, ones).e, 0);
  EXPECT_GT(sum<Bound>(2, [](int64_t i) { return i == 0 ? Bound(1.0) : Bound(0x1p-24); }).e, 0);
  EXPECT_EQ(sum<Bound>(0, ones).v, 0);
}

TEST(Sum, GoodOrdersPassAndBadOnesDoNot) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::vector<float> x(65536);
  for (float& v : x) v = static_cast<float>(1 + std::abs(normal(random)));
  auto of = [&](auto scalar) {
    using S = decltype(scalar);
    return sum<S>(static_cast<int64_t>(x.size()), [&](int64_t i) { return S(x[static_cast<size_t>(i)]); });
  };
  const Bound y = of(Bound());
  EXPECT_LE(std::abs(value(of(Single())) - y.v), 0.2 * y.e);
  EXPECT_GT(std::abs(value(of(SingleSerial())) - y.v), y.e);
  EXPECT_GT(std::abs(value(of(SingleBf16Sum())) - y.v), y.e);
  EXPECT_NEAR(of(Dual()).v, y.v, 1e-12 * y.v);
}

template <class F>
void expect_derivative(const char* name, F f, double at) {
  const double h = 1e-5 * (1 + std::abs(at));
  const double difference = (f(Dual(at + h)).v - f(Dual(at - h)).v) / (2 * h);
  const double derivative = f(Dual(at, 1)).d;
  EXPECT_NEAR(derivative, difference, 1e-7 * (1 + std::abs(derivative))) << name << " at " << at;
}

TEST(Dual, DerivativesAreThoseOfDifferences) {
  for (const double x : {0.3, 1.7, 2.9}) {
    expect_derivative(
        "exp", [](Dual a) { return exp_(a); }, x);
    expect_derivative(
        "log", [](Dual a) { return log_(a); }, x);
    expect_derivative(
        "log1p", [](Dual a) { return log1p_(a); }, x);
    expect_derivative(
        "sqrt", [](Dual a) { return sqrt_(a); }, x);
    expect_derivative(
        "rsqrt", [](Dual a) { return rsqrt_(a); }, x);
    expect_derivative(
        "tanh", [](Dual a) { return tanh_(a); }, -x);
    expect_derivative(
        "sigmoid", [](Dual a) { return sigmoid_(a).plus; }, -x);
    expect_derivative(
        "1 - sigmoid", [](Dual a) { return sigmoid_(a).minus; }, x);
    expect_derivative(
        "abs", [](Dual a) { return abs_(a); }, -x);
    expect_derivative(
        "max", [](Dual a) { return max_(a, Dual(1.0)) * min_(a, Dual(2.0)); }, x);
    expect_derivative(
        "quotient", [](Dual a) { return (a - Dual(2.0)) / (a * a + Dual(1.0)); }, x);
  }
}

TEST(Dual, WhatDoesNotVaryContributesNothing) {
  EXPECT_EQ((Dual(-kInf) * Dual(2.0)).d, 0);
  EXPECT_EQ(exp_(Dual(-kInf) - Dual(1.0, 3)).d, 0);
  EXPECT_EQ(detach(Dual(1, 5)).d, 0);
  EXPECT_EQ(detach(Dual(1, 5)).v, 1);
}

}  // namespace
}  // namespace fla::reference

// Feature maps: identities of their inner products and hand-computed values. Their gradients are proved by the harness
// (--backend reference) in every case of the suites.
#include "reference/feature_map.h"

#include <gtest/gtest.h>

#include "reference/learned_map.h"
#include "reference/tests/call.h"

namespace fla::reference {
namespace {

using namespace test;

double dot(const std::vector<double>& all, int64_t columns, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t c = 0; c < columns; ++c)
    sum += all[static_cast<size_t>(i * columns + c)] * all[static_cast<size_t>(j * columns + c)];
  return sum;
}

// Two rows q and k of D elements, and what a map makes of them.
template <class A>
Tensors<double> mapped(A args, int64_t D, const Names& with = {}) {
  Tensors<double> t;
  allocate(args, {{"M", 2}, {"D", D}, {"E", D}}, with, t);
  std::mt19937_64 random(3);
  for (const std::string& name : t.inputs) fill_normal(t[name], random);
  evaluate<double>(args);
  return t;
}

TEST(FeatureMap, TaylorIsTheSeriesOfTheExponential) {
  const int64_t D = 5, columns = (D + 1) * (D + 2) / 2;
  const Tensors<double> t = mapped(TaylorMapForward{}, D);
  const double s = dot(t["x"], D, 0, 1) / std::sqrt(5.0);
  EXPECT_NEAR(dot(t["y"], columns, 0, 1), 1 + s + s * s / 2, 1e-13);
}

TEST(FeatureMap, RebasedIsTheSquareOfTheProduct) {
  const int64_t D = 6, columns = D * (D + 1) / 2;
  const Tensors<double> t = mapped(RebasedMapForward{.x = {}, .gamma = {}, .beta = {}, .y = {}, .normalize = false}, D);
  const double s = dot(t["x"], D, 0, 1);
  EXPECT_NEAR(dot(t["y"], columns, 0, 1), s * s / 6, 1e-13);
}

TEST(FeatureMap, OuterTriangleIsOrderedRowByRow) {
  OuterTriuForward a;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"N", 3}}, {}, t);
  t["x"] = {1, 2, 3};
  t["y"] = {5, 7, 11};
  evaluate<double>(a);
  EXPECT_EQ(t["out"], (std::vector<double>{5, 7, 11, 14, 22, 33}));
  OuterTriuForward b;
  b.separate_diagonal = true;
  Tensors<double> apart;
  allocate(b, {{"M", 1}, {"N", 3}}, {}, apart);
  apart["x"] = t["x"];
  apart["y"] = t["y"];
  evaluate<double>(b);
  EXPECT_EQ(apart["out"], (std::vector<double>{7, 11, 22}));
  EXPECT_EQ(apart["diagonal"], (std::vector<double>{5, 14, 33}));
}

TEST(FeatureMap, DpfpRollsBothHalves) {
  DpfpMapForward a;
  a.nu = 1;
  Tensors<double> t;
  allocate(a, {{"M", 1}, {"D", 2}}, {}, t);
  t["x"] = {3, -2};
  evaluate<double>(a);  // u = [3, 0, -3, 0]
  EXPECT_EQ(t["y"], (std::vector<double>{0, 0, 0, 0}));
  t["x"] = {3, 5};
  evaluate<double>(a);  // u = [3, 5, -3, -5]
  EXPECT_EQ(t["y"], (std::vector<double>{-15, 15, -15, 15}));
  a.variant = DpfpVariant::paper;
  t["x"] = {-3, -5};
  evaluate<double>(a);  // u = [0, 0, 3, 5]
  EXPECT_EQ(t["y"], (std::vector<double>{0, 0, 0, 15}));
}

TEST(LearnedMap, HedgehogRowsAreProbabilities) {
  const int64_t D = 7;
  for (const double scale : {1.0, 1e3}) {
    LearnedMapForward a;
    Tensors<double> t;
    allocate(a, {{"M", 3}, {"D", D}, {"E", D}}, {"bias"}, t);
    std::mt19937_64 random(5);
    for (const std::string& name : t.inputs) fill_normal(t[name], random);
    for (double& v : t["x"]) v *= scale;
    evaluate<double>(a);
    for (int64_t m = 0; m < 3; ++m) {
      double sum = 0;
      for (int64_t c = 0; c < 2 * D; ++c) {
        const double p = t["y"][static_cast<size_t>(m * 2 * D + c)];
        EXPECT_GE(p, 0);
        sum += p;
      }
      EXPECT_NEAR(sum, 1, 1e-14);
    }
  }
}

TEST(LearnedMap, PolysketchDegreesTwoAndFourAreTheSame) {
  PolysketchMapForward a;
  Tensors<double> two, four;
  const Extents extents{{"M", 2}, {"D", 6}, {"S", 4}};
  allocate(a, extents, {"gamma", "beta"}, two);
  std::mt19937_64 random(7);
  for (const std::string& name : two.inputs) fill_normal(two[name], random);
  evaluate<double>(a);
  PolysketchMapForward b;
  b.degree = 4;
  allocate(b, extents, {"gamma", "beta"}, four);
  copy_inputs(two, four);
  evaluate<double>(b);
  EXPECT_EQ(two["y"], four["y"]);
}

}  // namespace
}  // namespace fla::reference

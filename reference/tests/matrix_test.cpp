#include "reference/matrix.h"

#include <gtest/gtest.h>

#include <random>

namespace fla::reference {
namespace {

template <class S>
Matrix<S> as(const Matrix<double>& m) {
  Matrix<S> r(m.rows(), m.cols());
  for (Eigen::Index i = 0; i < m.size(); ++i) r.data()[i] = S(m.data()[i]);
  return r;
}

Matrix<double> random_matrix(int rows, int columns, int seed) {
  std::mt19937_64 random(static_cast<uint64_t>(seed));
  std::normal_distribution<double> normal;
  Matrix<double> m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<double>(static_cast<float>(normal(random)));
  return m;
}

TEST(Product, BoundEnclosesFloat) {
  const Matrix<double> a = random_matrix(13, 700, 1), b = random_matrix(700, 9, 2);
  const Matrix<double> answer = a * b;
  const Matrix<Bound> expected = product(as<Bound>(a), as<Bound>(b));
  const Matrix<Bound> coarse = product(as<Bound>(a), as<Bound>(b), ProductUnit::tensor_core);
  const Matrix<Single> got = product_of<Single>(as<Single>(a), as<Single>(b), ProductUnit::fp32);
  for (Eigen::Index i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(expected.data()[i].v, answer.data()[i]);
    EXPECT_LE(std::abs(value(got.data()[i]) - expected.data()[i].v), expected.data()[i].e);
    EXPECT_GE(coarse.data()[i].e, expected.data()[i].e);
  }
}

// Serial sums are an order too, and so are the pieces of a tensor core.
TEST(Product, BoundHoldsForEveryOrder) {
  for (const int k : {1, 16, 100, 3000}) {
    const Matrix<double> a = random_matrix(5, k, 1).cwiseAbs(), b = random_matrix(k, 5, 2).cwiseAbs();
    const Matrix<Bound> expected = product(as<Bound>(a), as<Bound>(b), ProductUnit::fp32);
    const Matrix<SingleSerial> serial = product_of<SingleSerial>(as<SingleSerial>(a), as<SingleSerial>(b), ProductUnit::fp32);
    for (Eigen::Index i = 0; i < expected.size(); ++i)
      EXPECT_LE(std::abs(value(serial.data()[i]) - expected.data()[i].v), expected.data()[i].e) << k;
  }
}

TEST(Product, TakesTransposedFactorsWhereTheyLie) {
  const Matrix<double> a = random_matrix(4, 7, 1), b = random_matrix(6, 7, 2);
  const Matrix<double> wide = random_matrix(7, 9, 3), expected = a * wide.leftCols(6);
  EXPECT_LE((product(a, transposed(b)) - a * b.transpose()).cwiseAbs().maxCoeff(), 1e-14);
  Factor<double> part(wide);
  part.columns = 6;
  EXPECT_LE((product(a, part) - expected).cwiseAbs().maxCoeff(), 1e-14);
  EXPECT_LE((product(part.transpose(), transposed(a)) - expected.transpose()).cwiseAbs().maxCoeff(), 1e-14);
}

TEST(Product, OfIntegersIsExact) {
  Matrix<Bound> a(2, 3), b(3, 2);
  for (int i = 0; i < 6; ++i) {
    a.data()[i] = 3.0 * i;
    b.data()[i] = 0.5 * i;
  }
  EXPECT_EQ(product(a, b)(1, 1).v, 9 * 0.5 + 12 * 1.5 + 15 * 2.5);
  EXPECT_EQ(product(a, b, ProductUnit::tensor_core)(1, 1).e, 0);
  a(1, 0).e = 0.25;
  EXPECT_GE(product(a, b)(1, 1).e, 0.25 * 0.5);
  EXPECT_EQ(product(a, b)(0, 1).e, 0) << "another row";
}

TEST(Product, DualFollowsTheProductRule) {
  const Matrix<double> a = random_matrix(3, 4, 3), b = random_matrix(4, 2, 4);
  const Matrix<double> da = random_matrix(3, 4, 5), db = random_matrix(4, 2, 6);
  Matrix<Dual> x = as<Dual>(a), y = as<Dual>(b);
  for (Eigen::Index i = 0; i < x.size(); ++i) x.data()[i].d = da.data()[i];
  for (Eigen::Index i = 0; i < y.size(); ++i) y.data()[i].d = db.data()[i];
  const Matrix<Dual> z = product(x, y);
  const Matrix<double> expected = da * b + a * db;
  for (Eigen::Index i = 0; i < z.size(); ++i) EXPECT_NEAR(z.data()[i].d, expected.data()[i], 1e-14);
}

}  // namespace
}  // namespace fla::reference

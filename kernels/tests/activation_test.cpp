// What case strings cannot say: input rows at stride 0, and 3-D tensors collapsed by their caller.
#include "fla/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace fla {
namespace {

Tensor rows(std::vector<float>& data, int64_t m, int64_t c, int64_t stride) {
  Tensor t = dense(data.data(), DType::f32, {m, c});
  t.stride[0] = stride;
  return t;
}

double swish(double x) { return x / (1 + std::exp(-x)); }

// Trap 18 of the specification.
TEST(Activation, ReadsABroadcastRow) {
  constexpr int64_t kRows = 3, kColumns = 9;
  std::vector<float> x(kColumns), y(kRows * kColumns), up(kRows * kColumns, 2.0f), z(kRows * kColumns);
  for (int64_t c = 0; c < kColumns; ++c) x[static_cast<size_t>(c)] = 0.5f * static_cast<float>(c - 4);
  const Tensor one = rows(x, kRows, kColumns, 0);
  ActivationForward a{.x = one, .y = rows(y, kRows, kColumns, kColumns)};
  GluForward g{.x = one, .y = rows(up, kRows, kColumns, kColumns), .z = rows(z, kRows, kColumns, kColumns)};
  ASSERT_TRUE(run(a, {}, {}).ok());
  ASSERT_TRUE(run(g, {}, {}).ok());
  for (size_t i = 0; i < y.size(); ++i) {
    const double expected = swish(static_cast<double>(x[i % kColumns]));
    EXPECT_NEAR(static_cast<double>(y[i]), expected, 1e-6);
    EXPECT_NEAR(static_cast<double>(z[i]), 2 * expected, 2e-6);
  }
}

TEST(Activation, BiasGeluSumsABroadcastGradient) {
  constexpr int64_t kRows = 50, kColumns = 12;
  std::vector<float> x(kRows * kColumns, 1.0f), bias(kColumns, -1.0f), dy(kColumns, 3.0f), dbias(kColumns);
  BiasGeluTanhBackward a;
  a.x = rows(x, kRows, kColumns, kColumns);
  a.bias = dense(bias.data(), DType::f32, {kColumns});
  a.dy = rows(dy, kRows, kColumns, 0);
  a.dbias = dense(dbias.data(), DType::f32, {kColumns});
  alignas(256) static float memory[1 << 14];
  ASSERT_LE(workspace_bytes(a), sizeof memory);
  ASSERT_TRUE(run(a, {memory, sizeof memory}, {}).ok());
  for (const float sum : dbias) EXPECT_FLOAT_EQ(sum, 0.5f * 3.0f * kRows);  // gelu'(0) = 1/2
}

}  // namespace
}  // namespace fla

// Numerical traps of the norms' and activations' specification (its section 9) that no case string can set up, on the kernels:
// the others carry their numbers in suites/*.json, harness/faults_of_*.cpp and reference/tests.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <memory>
#include <vector>

#include "fla/activation.h"
#include "fla/norm.h"

#pragma GCC diagnostic ignored "-Wmissing-field-initializers"  // absent tensors are the default

namespace fla {
namespace {

Tensor matrix(std::vector<float>& data, int64_t rows) {
  return dense(data.data(), DType::f32, {rows, static_cast<int64_t>(data.size()) / rows});
}
Tensor row(std::vector<float>& data) { return dense(data.data(), DType::f32, {static_cast<int64_t>(data.size())}); }

template <class A>
void launch(const A& call) {
  std::vector<char> memory(workspace_bytes(call) + 256);
  void* at = memory.data();
  size_t space = memory.size();
  std::align(256, 1, at, space);
  const Status s = run(call, {at, space}, nullptr);
  ASSERT_TRUE(s.ok()) << s.text;
}

float activated(Activation kind, float x) {
  std::vector<float> in{x}, out{0};
  launch(ActivationForward{.kind = kind, .x = matrix(in, 1), .y = matrix(out, 1)});
  return out[0];
}

// Trap 2: x (1 + tanh q) / 2 has lost all digits at -5.5; the gradient's 0 * infinity.
TEST(Traps, GeluKeepsItsTail) {
  const double x = -5.5, q = std::sqrt(2 / M_PI) * x * (1 + 0.044715 * x * x), y = x / (1 + std::exp(-2 * q));
  EXPECT_NEAR(static_cast<double>(activated(Activation::gelu_tanh, -5.5f)) / y, 1, 1e-5);
  std::vector<float> in{-1e20f, 1e20f, -3e38f, 3e38f}, dy{2, 2, 2, 2}, dx(4);
  launch(ActivationBackward{.kind = Activation::gelu_tanh, .x = matrix(in, 1), .dy = matrix(dy, 1), .dx = matrix(dx, 1)});
  EXPECT_EQ(dx, (std::vector<float>{0, 2, 0, 2}));
}

// Trap 3: half of 1 + tanh.approx(x / 2) is 40 times the sigmoid at -12.
TEST(Traps, SigmoidIsRelativelyAccurateFarDown) {
  for (const float x : {-12.0f, -30.0f, -80.0f})
    EXPECT_NEAR(static_cast<double>(activated(Activation::sigmoid, x)) * (1 + std::exp(-static_cast<double>(x))), 1, 2e-6) << x;
}

struct Rms {
  std::vector<float> x, y, rstd;
  Rms(std::vector<float> rows, int64_t M) : x(std::move(rows)), y(x.size()), rstd(static_cast<size_t>(M)) {
    launch(RmsNormForward{.x = matrix(x, M), .y = matrix(y, M), .rstd = row(rstd)});
  }
};

// Trap 12: squares beyond fp32 make the row zero, as in every peer; its neighbour does not notice.
TEST(Traps, SquaresBeyondFp32GiveZeros) {
  const Rms n({2e19f, 2e19f, 3, 4}, 2);
  EXPECT_EQ(n.rstd[0], 0);
  EXPECT_EQ(n.y[0], 0);
  EXPECT_NEAR(n.y[2], 3 / std::sqrt(12.5f), 1e-5f);
}

// Trap 14: one element.
TEST(Traps, RowsOfOneElement) {
  const Rms n({0.01f, -7}, 2);
  EXPECT_NEAR(static_cast<double>(n.y[0]), 1 / std::sqrt(1 + 1e-5 / 1e-4), 1e-6);
  EXPECT_NEAR(static_cast<double>(n.y[1]), -1 / std::sqrt(1 + 1e-5 / 49), 1e-6);
  std::vector<float> x{5, -3}, bias{0.25f}, y(2), mean(2), rstd(2), dy{1, 2}, dx(2);
  launch(LayerNormForward{.x = matrix(x, 2), .bias = row(bias), .y = matrix(y, 2), .mean = row(mean), .rstd = row(rstd)});
  EXPECT_EQ(y, (std::vector<float>{0.25f, 0.25f}));
  launch(LayerNormBackward{.x = matrix(x, 2), .mean = row(mean), .rstd = row(rstd), .dy = matrix(dy, 2), .dx = matrix(dx, 2)});
  EXPECT_EQ(dx, (std::vector<float>{0, 0}));
}

// Trap 15: sums over many rows; in 16 bit they would stand still at 256 or 2048, and the number of blocks must not show.
TEST(Traps, ParameterGradientsOfManyRowsAreExactForIntegers) {
  for (const int64_t M : {1, 31, 20001}) {
    const auto rows = static_cast<size_t>(M);
    std::vector<float> x(rows * 3, 2), rstd(rows, 0.5f), dy(rows * 3, 3), weight(3, 1), dx(rows * 3), dweight(3), dbias(3);
    launch(RmsNormBackward{.x = matrix(x, M), .weight = row(weight), .rstd = row(rstd), .dy = matrix(dy, M), .dx = matrix(dx, M),
                           .dweight = row(dweight), .dbias = row(dbias)});
    EXPECT_EQ(dweight, std::vector<float>(3, 3 * static_cast<float>(M)));
    EXPECT_EQ(dbias, dweight);
  }
}

// Trap 17: elements beyond 2^31, by a row distance of 2^30 in memory of which few pages exist.
TEST(Traps, RowsLieFurtherApartThanInt32Counts) {
  constexpr int64_t kRows = 4, kDistance = (int64_t{1} << 30) + 8, kColumns = 8;
  constexpr size_t kBytes = ((kRows - 1) * kDistance + kColumns) * sizeof(float);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no address space";
  auto* x = static_cast<float*>(memory);
  for (int64_t m = 0; m < kRows; ++m)
    for (int64_t n = 0; n < kColumns; ++n) x[m * kDistance + n] = static_cast<float>(m + 1);
  std::vector<float> y(kRows * kColumns), rstd(kRows), dx(y.size());
  Tensor far = dense(x, DType::f32, {kRows, kColumns});
  far.stride[0] = kDistance;
  launch(RmsNormForward{.x = far, .y = matrix(y, kRows), .rstd = row(rstd)});
  for (const float v : y) EXPECT_NEAR(v, 1, 1e-5f);
  std::vector<float> dy(y.size(), 1);
  dy[y.size() - kColumns] = 2;
  launch(RmsNormBackward{.x = far, .rstd = row(rstd), .dy = matrix(dy, kRows), .dx = matrix(dx, kRows)});
  EXPECT_NEAR(dx[y.size() - kColumns], 0.25f * (2 - 9.0f / 8), 1e-5f);
  munmap(memory, kBytes);
}

// Trap 20: dy of ones sees nothing, since dx is 0 whatever the projections do; and is 0 indeed.
TEST(Traps, OnesAsUpstreamGradientGiveNothing) {
  std::vector<float> x{1, -2, 4, 0.5f, 3, -1}, y(6), mean(2), rstd(2), dy(6, 1), dx(6);
  launch(LayerNormForward{.x = matrix(x, 2), .y = matrix(y, 2), .mean = row(mean), .rstd = row(rstd)});
  const LayerNormBackward backward{.x = matrix(x, 2), .mean = row(mean), .rstd = row(rstd), .dy = matrix(dy, 2), .dx = matrix(dx, 2)};
  launch(backward);
  for (const float d : dx) EXPECT_NEAR(d, 0, 1e-6f);
  dy[0] = 3;
  launch(backward);
  EXPECT_GT(std::fabs(dx[0]), 0.01f);
}

// Trap 21: 1 / sqrt(variance + eps); 1 / (sqrt(variance) + eps) would be 999.
TEST(Traps, EpsStandsInsideTheRoot) {
  std::vector<float> x{0.001f, -0.001f}, y(2), mean(1), rstd(1);
  launch(LayerNormForward{.x = matrix(x, 1), .y = matrix(y, 1), .mean = row(mean), .rstd = row(rstd), .eps = 1e-6f});
  EXPECT_NEAR(rstd[0], 1 / std::sqrt(2e-6f), 0.01f);
}

}  // namespace
}  // namespace fla

// What suites cannot say of the linear losses: which plan runs, what it asks for, and that plans agree.
#include "fla/linear_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "common/gemm.h"
#include "common/workspace.h"

namespace fla {
namespace {

// Tensors that are never touched: plans need shapes alone.
LinearCrossEntropyForwardBackward shapes(int64_t T, int64_t H, int64_t V, DType dweight) {
  static char anything;
  LinearCrossEntropyForwardBackward a;
  a.x = a.dx = dense(&anything, DType::bf16, {T, H});
  a.weight = dense(&anything, DType::bf16, {V, H});
  a.dweight = dense(&anything, dweight, {V, H});
  a.labels = dense(&anything, DType::i64, {T});
  a.loss = dense(&anything, DType::f32, {1});
  return a;
}

size_t part(int64_t bytes) { return detail::align_workspace(static_cast<size_t>(bytes)); }
constexpr size_t kMiB = 1 << 20;

TEST(LinearCrossEntropy, AsksForTheWorkspaceThatItsHeaderSays) {
  const int64_t T = 8192, H = 4096, V = 128257, pitch = 128320, C = 4096;
  LinearCrossEntropyForwardBackward a = shapes(T, H, V, DType::f32);
  const size_t rows = 2 * part(T * 4) + 512, product = detail::gemm_workspace_bytes(V, H);
  EXPECT_EQ(workspace_bytes(a), part(C * pitch * 2) + rows + product);
  a.dweight.dtype = DType::bf16;
  EXPECT_EQ(workspace_bytes(a), part(C * pitch * 2) + part(V * H * 4) + rows + product);
  a.dbias = dense(a.dx.data, DType::f32, {V});
  EXPECT_EQ(workspace_bytes(a),
            part(C * pitch * 2) + part(V * H * 4) + part(2 * V * 4) + part(V * C / 64 * 4) + rows + product);
  a.strategy = LinearLossStrategy::lean;
  a.chunk = 8192;
  const int64_t chunks = 16;
  EXPECT_EQ(plan(a).chunks, chunks);
  EXPECT_EQ(workspace_bytes(a), part(T * 8192 * 2) + part(T * H * 4) + part(V * 4) + part(8192 * T / 64 * 4) +
                                    2 * part(T * chunks * 4) + rows + product);
}

TEST(LinearCrossEntropy, KeepsTheMemoryThatItsIssuePromises) {
  LinearCrossEntropyForwardBackward a = shapes(8192, 4096, 128256, DType::f32);
  const size_t product = detail::kGemmWorkspaceLimit - detail::gemm_workspace_bytes(4096, 128256);  // 0 on a GPU
  EXPECT_LE(workspace_bytes(a) + product, 1126 * kMiB);
  EXPECT_EQ(plan(a).chunk, 4096);
  a.workspace_limit = 300 * kMiB - static_cast<int64_t>(product);
  EXPECT_EQ(plan(a).strategy, LinearLossStrategy::fast) << "an fp32 dweight makes short chunks the faster way";
  EXPECT_EQ(plan(a).chunk, 1024);
  a.dweight.dtype = DType::bf16;
  EXPECT_EQ(plan(a).strategy, LinearLossStrategy::lean);
  EXPECT_EQ(plan(a).chunk, 8192);
  EXPECT_LE(workspace_bytes(a) + product, 300 * kMiB);
  EXPECT_LE(workspace_bytes(shapes(16384, 2048, 32000, DType::f32)) + product, 512 * kMiB);
}

// One problem of f32 numbers and its outputs.
class Call {
 public:
  static constexpr int64_t T = 70, H = 24, V = 150;

  LinearCrossEntropyForwardBackward a;

  Call() {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    a.x = matrix(T, H);
    a.weight = matrix(V, H);
    a.dx = matrix(T, H);
    a.dweight = matrix(V, H);
    a.loss = dense(matrix(1, 1).data, DType::f32, {1});
    a.lse = dense(matrix(1, T).data, DType::f32, {T});
    a.bias = dense(matrix(1, V).data, DType::f32, {V});
    a.dbias = dense(matrix(1, V).data, DType::f32, {V});
    for (size_t i : {size_t{0}, size_t{1}, size_t{6}})
      for (float& v : blocks_[i]) v = normal(random);
    labels_.resize(T);
    for (int64_t t = 0; t < T; ++t) labels_[static_cast<size_t>(t)] = t % 5 == 4 ? -100 : t * 31 % V;
    a.labels = dense(labels_.data(), DType::i64, {T});
    a.label_smoothing = 0.1f;
    a.lse_square_scale = 0.01f;
  }
  // Everything that it gives, one behind the other.
  std::vector<float> outputs() const {
    std::vector<float> all;
    for (size_t i : {size_t{2}, size_t{3}, size_t{4}, size_t{5}, size_t{7}})
      all.insert(all.end(), blocks_[i].begin(), blocks_[i].end());
    return all;
  }
  template <class A>
  void launch(const A& call) {
    std::vector<char> memory(workspace_bytes(call) + 256);
    void* at = memory.data();
    size_t space = memory.size();
    std::align(256, 1, at, space);
    const Status s = run(call, {at, space}, nullptr);
    EXPECT_TRUE(s.ok()) << s.text;
  }

 private:
  Tensor matrix(int64_t rows, int64_t columns) {
    blocks_.emplace_back(static_cast<size_t>(rows * columns));
    return dense(blocks_.back().data(), DType::f32, {rows, columns});
  }
  std::vector<std::vector<float>> blocks_;
  std::vector<int64_t> labels_;
};

void expect_close(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-5 * (0.01 + std::abs(expected[i]))) << i;
}

TEST(LinearCrossEntropy, ChunksChangeNoMoreThanTheOrderOfSums) {
  Call whole;
  whole.launch(whole.a);
  for (const auto& [strategy, chunk] : {std::pair{LinearLossStrategy::fast, 1}, {LinearLossStrategy::fast, 32},
                                        {LinearLossStrategy::lean, 150}, {LinearLossStrategy::lean, 64}}) {
    Call parts;
    parts.a.strategy = strategy;
    parts.a.chunk = chunk;
    parts.launch(parts.a);
    expect_close(parts.outputs(), whole.outputs());
  }
}

TEST(LinearCrossEntropy, TheFusedFormIsBothOthers) {
  Call fused, apart;
  fused.launch(fused.a);
  const LinearCrossEntropyForwardBackward& a = apart.a;
  LinearCrossEntropyForward forward{a, a.x, a.weight, a.bias, a.labels, {}, {}, a.loss, {}, a.lse, {}};
  apart.launch(forward);
  float one = 1;
  LinearCrossEntropyBackward backward{a, a.x, a.weight, a.bias, a.labels, {}, {}, a.lse, dense(&one, DType::f32, {1}),
                                      a.dx, a.dweight, a.dbias};
  apart.launch(backward);
  expect_close(apart.outputs(), fused.outputs());
}

}  // namespace
}  // namespace fla

// What suites cannot say of the products: which ones an operator makes, and how much workspace it asks for.
#include "common/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/gemm_tuning.h"
#include "common/workspace.h"
#include "fla/mlp.h"
#include "fla/validate.h"

namespace fla {
namespace {

using detail::Gemm;
using detail::GemmRecorder;

constexpr int64_t M = 5, H = 8, F = 16;

// Memory for one call; every tensor apart, all zeros.
class Memory {
 public:
  Tensor matrix(int64_t rows, int64_t columns, DType dtype = DType::bf16) {
    blocks_.emplace_back(static_cast<size_t>(rows * columns * size_of(dtype)) + 256);
    void* data = blocks_.back().data();
    size_t space = blocks_.back().size();
    std::align(256, 1, data, space);
    return dense(data, dtype, {rows, columns});
  }
  Workspace workspace(size_t bytes) { return {matrix(1, static_cast<int64_t>(bytes), DType::u8).data, bytes}; }

 private:
  std::vector<std::vector<char>> blocks_;
};

GatedMlpBackward backward(Memory& memory) {
  GatedMlpBackward a;
  a.x = memory.matrix(M, H);
  a.gate_up_weight = memory.matrix(2 * F, H);
  a.down_weight = memory.matrix(H, F);
  a.gate_up = memory.matrix(M, 2 * F);
  a.dout = memory.matrix(M, H);
  return a;
}

std::vector<std::vector<int64_t>> products_of(const GatedMlpBackward& a, Memory& memory) {
  const GemmRecorder recorder;
  const size_t bytes = workspace_bytes(a);
  const Status s = run(a, memory.workspace(bytes), nullptr);
  EXPECT_TRUE(s.ok()) << s.text;
  std::vector<std::vector<int64_t>> products;
  for (const auto& call : recorder.calls) products.push_back({call.gemm.m(), call.gemm.n(), call.gemm.k()});
  return products;
}

using Products = std::vector<std::vector<int64_t>>;
const std::vector<int64_t> kDz{M, F, H}, kDx{M, H, 2 * F}, kDownWeight{H, F, M}, kGateUpWeight{2 * F, H, M};

TEST(GatedMlp, MakesTheProductsThatTheGradientsAskedForNeed) {
  Memory memory;
  GatedMlpBackward a = backward(memory);
  a.dx = memory.matrix(M, H);
  EXPECT_EQ(products_of(a, memory), (Products{kDz, kDx}));
  a.dgate_up_weight = memory.matrix(2 * F, H);
  a.ddown_weight = memory.matrix(H, F);
  EXPECT_EQ(products_of(a, memory), (Products{kDz, kDx, kDownWeight, kGateUpWeight})) << "dx first";
  a.dx = a.dgate_up_weight = {};
  EXPECT_EQ(products_of(a, memory), (Products{kDownWeight}));
  a.ddown_weight = {};
  a.ddown_bias = dense(memory.matrix(1, H).data, DType::bf16, {H});
  EXPECT_EQ(products_of(a, memory), Products{});
}

TEST(GatedMlp, AsksForTheWorkspaceThatItsHeaderSays) {
  Memory memory;
  const auto part = [](int64_t bytes) { return detail::align_workspace(static_cast<size_t>(bytes)); };
  GatedMlpForward forward;
  forward.x = memory.matrix(M, H);
  forward.gate_up_weight = memory.matrix(2 * F, H);
  forward.down_weight = memory.matrix(H, F);
  forward.out = memory.matrix(M, H);
  const size_t product = std::max(detail::gemm_workspace_bytes(M, 2 * F), detail::gemm_workspace_bytes(M, H));
  EXPECT_EQ(workspace_bytes(forward), part(M * 2 * F * 2) + part(M * F * 2) + product);
  forward.gate_up = memory.matrix(M, 2 * F);
  EXPECT_EQ(workspace_bytes(forward), part(M * F * 2) + product);

  GatedMlpBackward a = backward(memory);
  a.ddown_bias = dense(memory.matrix(1, H).data, DType::bf16, {H});
  EXPECT_EQ(workspace_bytes(a), part(1 * H * 4));
  a.dx = memory.matrix(M, H);
  EXPECT_EQ(workspace_bytes(a), part(M * F * 2) + part(M * 2 * F * 2) + part(H * 4) +
                                    detail::gemm_workspace_bytes(M, F));
  a.gate_up_weight = {};
  a.gate_weight = a.up_weight = memory.matrix(F, H);
  EXPECT_EQ(workspace_bytes(a), part(M * F * 2) + part(M * 2 * F * 2) + part(2 * F * H * 2) + part(H * 4) +
                                    detail::gemm_workspace_bytes(M, F));
}

TEST(GatedMlp, RefusesWeightsOfBothForms) {
  Memory memory;
  GatedMlpBackward a = backward(memory);
  a.dx = memory.matrix(M, H);
  a.gate_weight = a.up_weight = memory.matrix(F, H);
  EXPECT_TRUE(std::strstr(validate(a).text, "gate_up_weight")) << validate(a).text;
  a.gate_up_weight = a.up_weight = {};
  EXPECT_TRUE(std::strstr(validate(a).text, "gate_up_weight")) << validate(a).text;
}

TEST(GatedMlp, WidthIsThatOfKnownModels) {
  for (const auto& [hidden, width] : {std::pair<int64_t, int64_t>{768, 2048}, {1024, 2816}, {2048, 5632}, {4096, 11008}})
    EXPECT_EQ(gated_mlp_width(hidden), width);
}

TEST(Gemm, RefusesWhatItCannotDo) {
  Memory memory;
  Gemm g{.a = memory.matrix(4, 6), .b = memory.matrix(6, 8), .c = memory.matrix(4, 8)};
  EXPECT_TRUE(detail::gemm(g, {}, nullptr).ok());
  Gemm bad = g;
  bad.transpose_b = true;
  EXPECT_EQ(detail::gemm(bad, {}, nullptr).code, StatusCode::shape_mismatch);
  bad = g;
  bad.a.stride[0] = 5;
  EXPECT_EQ(detail::gemm(bad, {}, nullptr).code, StatusCode::shape_mismatch);
  bad = g;
  bad.c.dtype = DType::f16;
  EXPECT_EQ(detail::gemm(bad, {}, nullptr).code, StatusCode::unsupported_dtype);
  bad = g;
  bad.accumulate = true;
  bad.bias = dense(memory.matrix(1, 8).data, DType::bf16, {8});
  EXPECT_EQ(detail::gemm(bad, {}, nullptr).code, StatusCode::unsupported_combination);
}

TEST(GemmBucket, IsHalfAnOctave) {
  EXPECT_EQ(detail::half_octave(1), 0);
  EXPECT_EQ(detail::half_octave(4096), 24);
  EXPECT_EQ(detail::half_octave(5792), 24);
  EXPECT_EQ(detail::half_octave(5793), 25);
  EXPECT_EQ(detail::half_octave(8191), 25);
  EXPECT_EQ(detail::half_octave(8192), 26);
}

}  // namespace
}  // namespace fla

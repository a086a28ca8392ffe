// What suites cannot say of the linear losses: which plan runs, what it asks for, and that plans agree.
#include "fla/l2_warp.h"
#include "fla/linear_loss_shards.h"
#include "fla/linear_token_logp.h"

#include "common/gemm.h"
#include "common/workspace.h"
#include "tests/calls.h"

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

void launch_gemm(const detail::Gemm& product) {
  std::vector<char> memory(detail::gemm_workspace_bytes(product.m(), product.n()));
  const Status s = detail::gemm(product, {memory.data(), memory.size()}, nullptr);
  EXPECT_TRUE(s.ok()) << s.text;
}

struct Sizes {
  static constexpr int64_t T = 70, H = 24, V = 150;

  Numbers numbers;
  std::vector<int64_t> labels;

  Sizes() : labels(T) {
    for (int64_t t = 0; t < T; ++t) labels[static_cast<size_t>(t)] = t % 5 == 4 ? -100 : t * 31 % V;
  }
};

// One problem of f32 numbers and its outputs.
struct Call : Sizes {
  LinearCrossEntropyForwardBackward a;

  Call() {
    a.x = numbers.normal({T, H});
    a.weight = numbers.normal({V, H});
    a.bias = numbers.normal({V});
    a.dx = numbers.zeros({T, H});
    a.dweight = numbers.zeros({V, H});
    a.dbias = numbers.zeros({V});
    a.loss = numbers.zeros({1});
    a.lse = numbers.zeros({T});
    a.labels = dense(labels.data(), DType::i64, {T});
    a.label_smoothing = 0.1f;
    a.lse_square_scale = 0.01f;
    a.l2_warp_factor = 0.5f;
  }
  // Everything that it gives.
  std::vector<float> outputs() const { return elements_of({a.dx, a.dweight, a.loss, a.lse, a.dbias}); }
};

TEST(LinearCrossEntropy, ChunksChangeNoMoreThanTheOrderOfSums) {
  Call whole;
  launch(whole.a);
  for (const auto& [strategy, chunk] : {std::pair{LinearLossStrategy::fast, 1}, {LinearLossStrategy::fast, 32},
                                        {LinearLossStrategy::lean, 150}, {LinearLossStrategy::lean, 64}}) {
    Call parts;
    parts.a.strategy = strategy;
    parts.a.chunk = chunk;
    launch(parts.a);
    expect_close(parts.outputs(), whole.outputs());
  }
}

TEST(LinearCrossEntropy, TheFusedFormIsBothOthers) {
  Call fused, apart;
  launch(fused.a);
  const LinearCrossEntropyForwardBackward& a = apart.a;
  LinearCrossEntropyForward forward{a, a.x, a.weight, a.bias, a.labels, {}, {}, a.loss, {}, a.lse, {}};
  launch(forward);
  float one = 1;
  LinearCrossEntropyBackward backward{a, a.x, a.weight, a.bias, a.labels, {}, {}, a.lse, dense(&one, DType::f32, {1}),
                                      a.dx, a.dweight, a.dbias};
  launch(backward);
  expect_close(apart.outputs(), fused.outputs());
}

TEST(LinearCrossEntropy, ThePenaltyIsThatOfTheLogits) {
  Call fused;
  launch(fused.a);
  Call apart;
  Numbers& numbers = apart.numbers;
  const LinearCrossEntropyForwardBackward& a = apart.a;
  const Tensor logits = numbers.zeros({Call::T, Call::V}), max = numbers.zeros({Call::T});
  launch_gemm({.a = a.x, .b = a.weight, .c = logits, .bias = a.bias, .transpose_b = true});
  std::vector<int32_t> argmax(Call::T);
  const Tensor first = dense(argmax.data(), DType::i32, {Call::T});
  launch(L2WarpForward{logits, max, first});
  CrossEntropyForwardBackward inner;
  static_cast<CrossEntropyOptions&>(inner) = a;
  inner.logits = inner.dlogits = logits;
  inner.labels = a.labels;
  inner.loss = a.loss;
  inner.lse = a.lse;
  launch(inner);
  launch(L2WarpAdd{.max = max, .argmax = first, .dlogits = logits, .factor = a.l2_warp_factor});
  launch_gemm({.a = logits, .b = a.weight, .c = a.dx});
  launch_gemm({.a = logits, .b = a.x, .c = a.dweight, .transpose_a = true});
  expect_close(elements_of({fused.a.loss, fused.a.lse}), elements_of({a.loss, a.lse}));
  expect_close(elements_of({fused.a.dx, fused.a.dweight}), elements_of({a.dx, a.dweight}));
}

// Two ranks of unequal shards, the exchange by hand.
TEST(LinearCrossEntropyShards, AreTheWholeVocabulary) {
  Call whole;
  whole.a.l2_warp_factor = 0;
  launch(whole.a);
  Call ranks;
  Numbers& numbers = ranks.numbers;
  const LinearCrossEntropyForwardBackward& a = ranks.a;
  constexpr int64_t T = Call::T, H = Call::H, V = Call::V, split = 100;
  const Tensor stats = numbers.zeros({2, T, 2}), dx[] = {a.dx, numbers.zeros({T, H})};
  const auto shard_of = [](const Tensor& t, int rank) {
    Tensor shard = t;
    shard.size[0] = rank == 0 ? split : V - split;
    if (rank == 1) shard.data = static_cast<float*>(t.data) + split * t.stride[0];
    return shard;
  };
  const auto options_of = [&](int rank) {
    LinearCrossEntropyOptions o = a;
    o.class_start = rank * split;
    o.total_classes = V;
    o.l2_warp_factor = 0;
    o.strategy = rank == 0 ? LinearLossStrategy::fast : LinearLossStrategy::lean;
    o.chunk = 32;
    return o;
  };
  for (int rank = 0; rank < 2; ++rank) {
    const Tensor pairs = dense(static_cast<float*>(stats.data) + rank * stats.stride[0], DType::f32, {T, 2});
    launch(LinearCrossEntropyShardStats{options_of(rank), a.x, shard_of(a.weight, rank), shard_of(a.bias, rank), a.labels,
                                        pairs, {}});
  }
  launch(CrossEntropyShardCombine{
      .stats = stats, .labels = a.labels, .loss = a.loss, .lse = a.lse, .lse_square_scale = a.lse_square_scale});
  float one = 1;
  for (int rank = 0; rank < 2; ++rank)
    launch(LinearCrossEntropyBackward{options_of(rank), a.x, shard_of(a.weight, rank), shard_of(a.bias, rank), a.labels, {},
                                      {}, a.lse, dense(&one, DType::f32, {1}), dx[rank], shard_of(a.dweight, rank),
                                      shard_of(a.dbias, rank)});
  for (int64_t i = 0; i < T * H; ++i) static_cast<float*>(a.dx.data)[i] += static_cast<const float*>(dx[1].data)[i];
  expect_close(ranks.outputs(), whole.outputs());
}

// Log-probabilities and entropies with their gradients, the former as a linear loss or from logits in memory.
struct TokenCall : Sizes {
  LinearTokenLogpForward a;
  LinearTokenLogpBackward da;

  TokenCall() {
    a.x = numbers.normal({T, H});
    a.weight = numbers.normal({V, H});
    a.bias = numbers.normal({V});
    a.labels = dense(labels.data(), DType::i64, {T});
    a.logp = numbers.zeros({T});
    a.entropy = numbers.zeros({T});
    a.lse = numbers.zeros({T});
    a.logit_scale = 0.25f;
    static_cast<LinearTokenLogpOptions&>(da) = a;
    da.x = a.x;
    da.weight = a.weight;
    da.bias = a.bias;
    da.labels = a.labels;
    da.lse = a.lse;
    da.entropy = a.entropy;
    da.dlogp = numbers.normal({T});
    da.dentropy = numbers.normal({T});
    da.dx = numbers.zeros({T, H});
    da.dweight = numbers.zeros({V, H});
    da.dbias = numbers.zeros({V});
  }
  void launch_both() {
    launch(a);
    launch(da);
  }
  std::vector<float> outputs() const { return elements_of({a.logp, a.entropy, a.lse, da.dx, da.dweight, da.dbias}); }
};

TEST(LinearTokenLogp, ChunksChangeNoMoreThanTheOrderOfSums) {
  TokenCall whole;
  whole.launch_both();
  for (const auto& [strategy, chunk] : {std::pair{LinearLossStrategy::fast, 1}, {LinearLossStrategy::fast, 32},
                                        {LinearLossStrategy::lean, 150}, {LinearLossStrategy::lean, 64}}) {
    TokenCall parts;
    parts.a.strategy = parts.da.strategy = strategy;
    parts.a.chunk = parts.da.chunk = chunk;
    parts.launch_both();
    expect_close(parts.outputs(), whole.outputs());
  }
}

TEST(LinearTokenLogp, IsALinearLayerAndSelectiveLogSoftmax) {
  TokenCall fused, apart;
  fused.launch_both();
  const LinearTokenLogpForward& a = apart.a;
  const LinearTokenLogpBackward& da = apart.da;
  const Tensor logits = apart.numbers.zeros({TokenCall::T, TokenCall::V});
  launch_gemm({.a = a.x, .b = a.weight, .c = logits, .bias = a.bias, .transpose_b = true});
  launch(SelectiveLogSoftmaxForward{a, logits, a.labels, a.logp, a.entropy, a.lse, {}});
  launch(SelectiveLogSoftmaxBackward{a, logits, a.labels, a.lse, a.entropy, da.dlogp, da.dentropy, logits});
  launch_gemm({.a = logits, .b = a.weight, .c = da.dx});
  launch_gemm({.a = logits, .b = a.x, .c = da.dweight, .transpose_a = true});
  for (int64_t t = 0; t < TokenCall::T; ++t)
    for (int64_t v = 0; v < TokenCall::V; ++v)
      static_cast<float*>(da.dbias.data)[v] += static_cast<const float*>(logits.data)[t * TokenCall::V + v];
  expect_close(fused.outputs(), apart.outputs());
}

TEST(LinearTokenLogp, AsksForTheWorkspaceThatItsHeaderSays) {
  const int64_t T = 8192, H = 4096, V = 128257, C = 4096;
  static char anything;
  LinearTokenLogpForward a;
  a.x = dense(&anything, DType::bf16, {T, H});
  a.weight = dense(&anything, DType::bf16, {V, H});
  a.labels = dense(&anything, DType::i64, {T});
  a.logp = a.entropy = dense(&anything, DType::f32, {T});
  const size_t product = detail::gemm_workspace_bytes(T, C);
  EXPECT_EQ(workspace_bytes(a), part(C * 128320 * 2) + 512 + detail::gemm_workspace_bytes(C, V));
  a.argmax = dense(&anything, DType::i32, {T});
  EXPECT_EQ(workspace_bytes(a), part(C * 128320 * 2) + part(T * 4) + 512 + detail::gemm_workspace_bytes(C, V));
  a.strategy = LinearLossStrategy::lean;
  a.chunk = C;
  EXPECT_EQ(workspace_bytes(a), part(T * C * 2) + 3 * part(T * 32 * 4) + part(T * 4) + 512 + product);
}

}  // namespace
}  // namespace fla

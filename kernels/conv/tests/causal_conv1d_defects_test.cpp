// Defects of the peer's causal convolutions, by their numbers in section 9 of the specification; each would come back in
// silence. Defect 3 is in causal_conv1d_streaming_test.cpp; 13 is context parallel, 15 a property of a module.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "conv/tests/numbers.h"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace {

constexpr int64_t D = 16, W = 4;
constexpr uint16_t kOne = 0x3f80, kNan = 0x7fff;

Tensor bf16_tensor(std::vector<uint16_t>& v, std::initializer_list<int64_t> sizes) { return dense(v.data(), DType::bf16, sizes); }

// Taps that pass the current token on as it is.
std::vector<uint16_t> passing_taps() {
  std::vector<uint16_t> weight(D * W);
  for (int64_t d = 0; d < D; ++d) weight[static_cast<size_t>(d * W + W - 1)] = kOne;
  return weight;
}

// Defect 4: a call of as many tokens as sequences is taken for decoding.
TEST(CausalConv1dDefects, PacksThatLookLikeDecodeAreNot) {
  std::vector<uint16_t> x = numbers(2 * D, 6), weight = numbers(D * 2, 7), y(2 * D), alone(2 * D);
  CausalConv1dForward a;
  a.x = bf16_tensor(x, {1, 2, D});
  a.weight = bf16_tensor(weight, {D, 2});
  a.y = bf16_tensor(alone, {1, 2, D});
  ASSERT_TRUE(run(a, {}, {}).ok());
  a.y.data = y.data();
  for (const int32_t middle : {0, 2}) {
    int32_t offsets[] = {0, middle, 2};
    a.cu_seqlens = dense(offsets, DType::i32, {3});
    ASSERT_TRUE(run(a, {}, {}).ok());
    EXPECT_EQ(y, alone) << middle;
  }
}

// Defect 5: masking changes the caller's x, and a residual that is x with it.
TEST(CausalConv1dDefects, TheMaskLeavesXAlone) {
  std::vector<uint16_t> x = numbers(4 * D, 8), weight = numbers(D * W, 9), y(4 * D);
  const std::vector<uint16_t> as_given = x;
  uint8_t mask[] = {0, 1, 1, 0};
  CausalConv1dForward a;
  a.x = a.residual = bf16_tensor(x, {1, 4, D});
  a.weight = bf16_tensor(weight, {D, W});
  a.mask = dense(mask, DType::u8, {1, 4});
  a.y = bf16_tensor(y, {1, 4, D});
  ASSERT_TRUE(run(a, {}, {}).ok());
  EXPECT_EQ(x, as_given);
  EXPECT_TRUE(std::equal(x.begin(), x.begin() + D, y.begin()));  // of a masked first token the residual remains, whole
}

// Defect 6: an activation that is not known is taken for none.
TEST(CausalConv1dDefects, UnknownActivationsAreRefused) {
  std::vector<uint16_t> x = numbers(D, 10), y(D), weight(D);
  CausalConv1dForward a;
  a.x = bf16_tensor(x, {1, 1, D});
  a.weight = bf16_tensor(weight, {D, 1});
  a.y = bf16_tensor(y, {1, 1, D});
  a.activation = static_cast<ConvActivation>(2);
  EXPECT_EQ(run(a, {}, {}).code, StatusCode::invalid_argument);
}

// Defect 7: packed sequences in several rows give a wrong gradient of the weights.
TEST(CausalConv1dDefects, PackedSequencesAreOfOneRow) {
  std::vector<uint16_t> x = numbers(2 * 3 * D, 11), weight = numbers(D * W, 12), out(2 * 3 * D), dweight(D * W);
  int32_t offsets[] = {0, 3};
  CausalConv1dForward forward;
  forward.x = bf16_tensor(x, {2, 3, D});
  forward.weight = bf16_tensor(weight, {D, W});
  forward.cu_seqlens = dense(offsets, DType::i32, {2});
  forward.y = bf16_tensor(out, {2, 3, D});
  CausalConv1dBackward backward;
  backward.x = backward.dy = forward.x;
  backward.weight = forward.weight;
  backward.cu_seqlens = forward.cu_seqlens;
  backward.dweight = bf16_tensor(dweight, {D, W});
  for (const Status& s : {validate(forward), validate(backward)}) {
    EXPECT_EQ(s.code, StatusCode::shape_mismatch) << s.text;
    EXPECT_TRUE(std::strstr(s.text, "cu_seqlens")) << s.text;
  }
}

// Defect 8: an update without a state returns what x has no part in.
TEST(CausalConv1dDefects, UpdatesNeedAState) {
  std::vector<uint16_t> x = numbers(D, 13), weight = numbers(D * W, 14), y(D);
  CausalConv1dUpdate a;
  a.x = bf16_tensor(x, {1, 1, D});
  a.weight = bf16_tensor(weight, {D, W});
  a.y = bf16_tensor(y, {1, 1, D});
  const Status s = run(a, {}, {});
  EXPECT_EQ(s.code, StatusCode::null_pointer);
  EXPECT_TRUE(std::strstr(s.text, "conv_state")) << s.text;
}

// Defect 9: no more than 65535 chunks.
TEST(CausalConv1dDefects, MoreSequencesThanAGridIsHigh) {
  constexpr int64_t T = 66000;
  std::vector<uint16_t> x = numbers(T * D, 15), weight = numbers(D * W, 16), y(T * D);
  for (int64_t d = 0; d < D; ++d) weight[static_cast<size_t>(d * W + W - 1)] = kOne;
  std::vector<int32_t> offsets(T + 1);
  for (size_t n = 0; n < offsets.size(); ++n) offsets[n] = static_cast<int32_t>(n);
  CausalConv1dForward a;
  a.x = bf16_tensor(x, {1, T, D});
  a.weight = bf16_tensor(weight, {D, W});
  a.cu_seqlens = dense(offsets.data(), DType::i32, {T + 1});
  a.y = bf16_tensor(y, {1, T, D});
  ASSERT_TRUE(run(a, {}, {}).ok());
  EXPECT_EQ(y, x);  // sequences of one token: the last tap alone
}

// Defect 10: the gradient of slot 0 of the final state is dropped, on its way to x and to the initial state.
TEST(CausalConv1dDefects, SlotZeroOfTheFinalStateHasAGradient) {
  for (const int64_t T : {1, 6}) {
    std::vector<uint16_t> x = numbers(T * D, 17), weight = passing_taps(), dy(static_cast<size_t>(T * D)), dx(dy.size(), kNan);
    std::vector<uint16_t> before = numbers(D * W, 18), dfinal(D * W), dinitial(D * W, kNan);
    for (int64_t d = 0; d < D; ++d) dfinal[static_cast<size_t>(d * W)] = kOne;
    CausalConv1dBackward a;
    a.x = bf16_tensor(x, {1, T, D});
    a.weight = bf16_tensor(weight, {D, W});
    a.initial_state = bf16_tensor(before, {1, D, W});
    a.dy = bf16_tensor(dy, {1, T, D});
    a.dfinal_state = bf16_tensor(dfinal, {1, D, W});
    a.dx = bf16_tensor(dx, {1, T, D});
    a.dinitial_state = bf16_tensor(dinitial, {1, D, W});
    ASSERT_TRUE(run(a, {}, {}).ok());
    // final_state[0] = X(T - W): slot T of the initial state where that is before the first token, else a token.
    for (int64_t d = 0; d < D; ++d) {
      for (int64_t t = 0; t < T; ++t) EXPECT_EQ(dx[static_cast<size_t>(t * D + d)], t == T - W ? kOne : 0) << T << " " << t;
      for (int64_t c = 0; c < W; ++c) EXPECT_EQ(dinitial[static_cast<size_t>(d * W + c)], c == T ? kOne : 0) << T << " " << c;
    }
  }
}

// Defect 16: tokens behind the last sequence are left as memory was.
TEST(CausalConv1dDefects, TokensOfNoSequenceAreZero) {
  constexpr int64_t T = 5, kEnd = 3;
  std::vector<uint16_t> x = numbers(T * D, 19), weight = passing_taps(), y(T * D, kNan), dx(T * D, kNan);
  int32_t offsets[] = {1, kEnd};
  CausalConv1dForward forward;
  forward.x = bf16_tensor(x, {1, T, D});
  forward.weight = bf16_tensor(weight, {D, W});
  forward.cu_seqlens = dense(offsets, DType::i32, {2});
  forward.y = bf16_tensor(y, {1, T, D});
  ASSERT_TRUE(run(forward, {}, {}).ok());
  CausalConv1dBackward backward;
  backward.x = backward.dy = forward.x;
  backward.weight = forward.weight;
  backward.cu_seqlens = forward.cu_seqlens;
  backward.dx = bf16_tensor(dx, {1, T, D});
  ASSERT_TRUE(run(backward, {}, {}).ok());
  for (size_t i = 0; i < x.size(); ++i) {
    const auto t = static_cast<int64_t>(i) / D;
    const uint16_t expected = t >= 1 && t < kEnd ? x[i] : 0;
    EXPECT_EQ(y[i], expected) << t;
    EXPECT_EQ(dx[i], expected) << t;
  }
}

}  // namespace
}  // namespace fla

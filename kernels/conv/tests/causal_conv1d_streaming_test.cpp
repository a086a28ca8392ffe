// What case strings cannot say: prefill, prefill in pieces and decode give the same bits, whatever the path of each; so none
// ignores a carried state, as a backend of the peer does (its defect 3).
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "conv/tests/numbers.h"
#include "fla/conv.h"

namespace fla {
namespace {

constexpr int64_t T = 19, D = 16;

struct Setting {
  int64_t W, S;
};

class Streaming : public testing::TestWithParam<Setting> {
 protected:
  const int64_t W = GetParam().W, S = GetParam().S;
  std::vector<uint16_t> x = numbers(T * D, 1), weight = numbers(D * W, 2), bias = numbers(D, 3);
  std::vector<uint16_t> before = numbers(D * S, 4), y = std::vector<uint16_t>(T * D), after = before;

  Tensor tokens(std::vector<uint16_t>& v, int64_t first, int64_t count) {
    return dense(v.data() + first * D, DType::bf16, {1, count, D});
  }
  Tensor state(std::vector<uint16_t>& v) { return dense(v.data(), DType::bf16, {1, D, S}); }

  // Tokens [first, first + count), from and to `carried`.
  Status prefill(std::vector<uint16_t>& out, int64_t first, int64_t count, std::vector<uint16_t>& carried) {
    CausalConv1dForward a;
    a.x = tokens(x, first, count);
    a.y = tokens(out, first, count);
    a.weight = dense(weight.data(), DType::bf16, {D, W});
    a.bias = dense(bias.data(), DType::bf16, {D});
    a.initial_state = a.final_state = state(carried);
    a.activation = ConvActivation::silu;
    return run(a, {}, {});
  }
  Status decode(std::vector<uint16_t>& out, int64_t first, int64_t count, const Tensor& pool, int32_t* place) {
    CausalConv1dUpdate a;
    a.x = tokens(x, first, count);
    a.y = tokens(out, first, count);
    a.weight = dense(weight.data(), DType::bf16, {D, W});
    a.bias = dense(bias.data(), DType::bf16, {D});
    a.conv_state = pool;
    if (place) a.conv_state_indices = dense(place, DType::i32, {1});
    a.activation = ConvActivation::silu;
    return run(a, {}, {});
  }
  void SetUp() override { ASSERT_TRUE(prefill(y, 0, T, after).ok()); }
};

TEST_P(Streaming, PiecesOfAPrefillAreTheWhole) {
  for (int64_t cut = 0; cut <= T; ++cut) {
    std::vector<uint16_t> pieces(T * D), carried = before;
    ASSERT_TRUE(prefill(pieces, 0, cut, carried).ok() && prefill(pieces, cut, T - cut, carried).ok());
    EXPECT_EQ(pieces, y) << cut;
    EXPECT_EQ(carried, after) << cut;
  }
}

TEST_P(Streaming, DecodeIsPrefill) {
  for (const int64_t each : {1, 3, 7}) {
    std::vector<uint16_t> steps(T * D), carried = before;
    for (int64_t t = 0; t < T; t += each)
      ASSERT_TRUE(decode(steps, t, std::min(each, T - t), state(carried), nullptr).ok());
    EXPECT_EQ(steps, y) << each;
    EXPECT_EQ(carried, after) << each;
  }
}

TEST_P(Streaming, DecodeInAPoolTouchesItsSlotOnly) {
  std::vector<uint16_t> pool = numbers(3 * D * S, 5), steps(T * D);
  const std::vector<uint16_t> untouched = pool;
  const auto slot = [&](int64_t q) { return pool.begin() + q * D * S; };
  std::copy(before.begin(), before.end(), slot(2));
  const Tensor places = dense(pool.data(), DType::bf16, {3, D, S});
  int32_t place = 2;
  for (int64_t t = 0; t < T; ++t) ASSERT_TRUE(decode(steps, t, 1, places, &place).ok());
  EXPECT_EQ(steps, y);
  EXPECT_TRUE(std::equal(after.begin(), after.end(), slot(2)));
  EXPECT_TRUE(std::equal(slot(0), slot(2), untouched.begin()));
  for (const int32_t nowhere : {-1, 3, -100}) {
    const std::vector<uint16_t> now = pool;
    place = nowhere;
    ASSERT_TRUE(decode(steps, 0, 1, places, &place).ok());
    EXPECT_EQ(pool, now);
    EXPECT_TRUE(std::all_of(steps.begin(), steps.begin() + D, [](uint16_t v) { return v == 0; }));
  }
}

// Taps with a window and without, states of as many slots as taps, one fewer and more.
INSTANTIATE_TEST_SUITE_P(TapsAndSlots, Streaming,
                         testing::Values(Setting{1, 1}, Setting{2, 2}, Setting{3, 3}, Setting{4, 4}, Setting{4, 3},
                                         Setting{4, 6}, Setting{7, 7}));

}  // namespace
}  // namespace fla

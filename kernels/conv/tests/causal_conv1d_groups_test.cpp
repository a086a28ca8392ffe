// What case strings cannot say: ids of sequences that lie one behind the other, none twice, are packed sequences; and packed
// sequences do not know their neighbours.
#include <gtest/gtest.h>

#include <vector>

#include "conv/tests/numbers.h"
#include "fla/conv.h"

namespace fla {
namespace {

constexpr int64_t T = 300, D = 24;
const std::vector<int32_t> kOffsets = {0, 1, 4, 4, 40, 170, 171, 300};

struct Outputs {
  std::vector<uint16_t> y = std::vector<uint16_t>(T * D), dx = y, dweight = std::vector<uint16_t>(D * 16), dbias = y;
  bool operator==(const Outputs&) const = default;
};

class Groups : public testing::TestWithParam<int64_t> {
 protected:
  const int64_t W = GetParam();
  std::vector<uint16_t> x = numbers(T * D, 1), weight = numbers(D * W, 2), bias = numbers(D, 3), dy = numbers(T * D, 4);
  std::vector<int32_t> offsets = kOffsets, ids = std::vector<int32_t>(T);
  Tensor packed = dense(offsets.data(), DType::i32, {static_cast<int64_t>(kOffsets.size())});
  Tensor grouped = dense(ids.data(), DType::i32, {1, T});

  void SetUp() override {
    for (size_t n = 0; n + 1 < kOffsets.size(); ++n)
      for (int32_t t = kOffsets[n]; t < kOffsets[n + 1]; ++t) ids[static_cast<size_t>(t)] = 900 - static_cast<int32_t>(n);
  }

  Outputs outputs(const Tensor& cu_seqlens, const Tensor& seq_idx) {
    Outputs out;
    const auto tokens = [](std::vector<uint16_t>& v) { return dense(v.data(), DType::bf16, {1, T, D}); };
    CausalConv1dForward f;
    f.x = tokens(x);
    f.y = tokens(out.y);
    f.weight = dense(weight.data(), DType::bf16, {D, W});
    f.bias = dense(bias.data(), DType::bf16, {D});
    f.cu_seqlens = cu_seqlens;
    f.seq_idx = seq_idx;
    f.activation = ConvActivation::silu;
    CausalConv1dBackward b;
    b.x = f.x;
    b.weight = f.weight;
    b.bias = f.bias;
    b.cu_seqlens = cu_seqlens;
    b.seq_idx = seq_idx;
    b.activation = f.activation;
    b.dy = tokens(dy);
    b.dx = tokens(out.dx);
    b.dweight = dense(out.dweight.data(), DType::bf16, {D, W});
    b.dbias = dense(out.dbias.data(), DType::bf16, {D});
    std::vector<float> memory(workspace_bytes(b) / sizeof(float) + 64);
    auto* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 255) / 256 * 256);
    EXPECT_TRUE(run(f, {}, {}).ok());
    const Status s = run(b, {aligned, workspace_bytes(b)}, {});
    EXPECT_TRUE(s.ok()) << s.text;
    return out;
  }
};

TEST_P(Groups, ThatLieOneBehindTheOtherArePackedSequences) {
  const Outputs expected = outputs(packed, {});
  EXPECT_TRUE(outputs({}, grouped) == expected);
  ids[200] = -1;  // and one padding token makes a difference
  EXPECT_FALSE(outputs({}, grouped) == expected);
}

TEST_P(Groups, ThatComeBackSeeEachOther) {
  if (W < 3) return;
  const Outputs apart = outputs({}, grouped);
  ids[1] = ids[0] + 5;  // one token of another group inside a group
  ids[2] = ids[3] = ids[0];
  const Outputs back = outputs({}, grouped);
  ids[0] = 7;
  EXPECT_FALSE(outputs({}, grouped).y == back.y);  // token 2 saw token 0
  EXPECT_FALSE(back.y == apart.y);
}

TEST_P(Groups, PackedInAnotherOrderGiveTheSameBits) {
  const std::vector<uint16_t> y = outputs(packed, {}).y, x_before = x;
  std::vector<uint16_t> y_moved;
  x.clear();
  offsets = {0};
  for (size_t n = kOffsets.size() - 1; n-- > 0;) {  // the last sequence first
    const auto piece = [&](const std::vector<uint16_t>& v, std::vector<uint16_t>& out) {
      out.insert(out.end(), v.begin() + kOffsets[n] * D, v.begin() + kOffsets[n + 1] * D);
    };
    piece(x_before, x);
    piece(y, y_moved);
    offsets.push_back(offsets.back() + kOffsets[n + 1] - kOffsets[n]);
  }
  packed.data = offsets.data();
  EXPECT_TRUE(outputs(packed, {}).y == y_moved);
}

TEST(CausalConv1d, GroupsExcludeOffsetsAndStates) {
  std::vector<uint16_t> x = numbers(T * D, 1), weight = numbers(D * 4, 2), y(T * D), state(D * 4);
  std::vector<int32_t> ids(T), offsets = {0, T};
  CausalConv1dForward a;
  a.x = dense(x.data(), DType::bf16, {1, T, D});
  a.y = dense(y.data(), DType::bf16, {1, T, D});
  a.weight = dense(weight.data(), DType::bf16, {D, 4});
  a.seq_idx = dense(ids.data(), DType::i32, {1, T});
  EXPECT_TRUE(run(a, {}, {}).ok());
  a.cu_seqlens = dense(offsets.data(), DType::i32, {2});
  const Status both = run(a, {}, {});
  EXPECT_EQ(both.code, StatusCode::unsupported_combination);
  EXPECT_STREQ(both.text, "seq_idx: not together with cu_seqlens");
  a.cu_seqlens = {};
  a.final_state = dense(state.data(), DType::bf16, {1, D, 4});
  const Status states = run(a, {}, {});
  EXPECT_EQ(states.code, StatusCode::unsupported_combination);
  EXPECT_STREQ(states.text, "seq_idx: not together with final_state");
}

INSTANTIATE_TEST_SUITE_P(Taps, Groups, testing::Values(1, 2, 3, 4, 5, 9));

}  // namespace
}  // namespace fla

// What case strings cannot say of the rotations: that they are rotations, slices of one buffer, and refused
// calls.
#include "fla/rotary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "fla/rotary_table.h"
#include "fla/validate.h"

namespace fla {
namespace {

std::vector<float> normal(int64_t n, int seed = 1) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::normal_distribution<float> value;
  std::vector<float> data(static_cast<size_t>(n));
  for (float& x : data)
    x = value(random);
  return data;
}

struct Tables {
  std::vector<float> cos, sin, cos_k, sin_k;
  int64_t rows, pairs;

  Tables(int64_t table_rows, int64_t table_pairs, bool xpos = false)
      : cos(static_cast<size_t>(table_rows * table_pairs)),
        sin(cos),
        cos_k(cos),
        sin_k(cos),
        rows(table_rows),
        pairs(table_pairs) {
    RotaryTable table{.cos = of(cos), .sin = of(sin), .dim = 2 * pairs, .xpos = xpos};
    if (xpos) table.cos_k = of(cos_k), table.sin_k = of(sin_k);
    const Status s = build(table);
    EXPECT_TRUE(s.ok()) << s.text;
  }
  Tensor of(std::vector<float>& data) const { return dense(data.data(), DType::f32, {rows, pairs}); }
};

void expect_runs(const Status& s) {
  EXPECT_TRUE(s.ok()) << s.text;
}

// Property checks of the specification, section 2.10, at sizes of both paths.
TEST(Rotary, BackwardUndoesForwardAndNormsStay) {
  struct Size {
    int64_t B, T, H, D, R, first;
  };
  for (const Size& s : {Size{1, 1, 1, 2, 1, 0},
                        {2, 3, 3, 8, 3, 0},
                        {2, 17, 5, 40, 12, 0},
                        {1, 33, 2, 96, 36, 0},
                        {3, 9, 4, 104, 32, 0},
                        {2, 7, 1, 512, 32, 448},
                        {1, 2, 2, 1024, 512, 0},
                        {1, 5, 40, 128, 64, 0}}) {
    for (const bool interleaved : {false, true}) {
      Tables t(s.T + 5, s.R);
      const int64_t n = s.B * s.T * s.H * s.D;
      std::vector<float> x = normal(n), y(x.size()), back(x.size());
      const auto tensor = [&](std::vector<float>& data) {
        return dense(data.data(), DType::f32, {s.B, s.T, s.H, s.D});
      };
      const RotaryOptions options{.interleaved = interleaved, .rotary_offset = s.first, .seqlen_offset = 5};
      expect_runs(run(RotaryForward{tensor(x), t.of(t.cos), t.of(t.sin), tensor(y), options}, {}, {}));
      expect_runs(run(RotaryBackward{t.of(t.cos), t.of(t.sin), tensor(y), tensor(back), options}, {}, {}));
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(back[i], x[i], 2e-6f * (1 + std::abs(x[i])) + 2e-6f) << s.D << " " << i;
      for (size_t row = 0; row < x.size(); row += static_cast<size_t>(s.D)) {
        double before = 0, after = 0;
        for (size_t d = row; d < row + static_cast<size_t>(s.D); ++d) {
          before += static_cast<double>(x[d]) * static_cast<double>(x[d]);
          after += static_cast<double>(y[d]) * static_cast<double>(y[d]);
        }
        ASSERT_NEAR(after, before, 1e-6 * before);
      }
    }
  }
}

// <rot_m q, rot_n k> depends on m - n only; with xPos too, whose tables share their centre.
TEST(Rotary, ProductsDependOnTheDistanceOnly) {
  constexpr int64_t kTokens = 40, kChannels = 64;
  for (const bool xpos : {false, true}) {
    Tables t(kTokens, kChannels / 2, xpos);
    const std::vector<float> q_row = normal(kChannels, 1), k_row = normal(kChannels, 2);
    std::vector<float> q, k;
    for (int64_t i = 0; i < kTokens; ++i) {
      q.insert(q.end(), q_row.begin(), q_row.end());
      k.insert(k.end(), k_row.begin(), k_row.end());
    }
    const auto tensor = [&](std::vector<float>& data) {
      return dense(data.data(), DType::f32, {1, kTokens, 1, kChannels});
    };
    RotaryQkForward a{.q = tensor(q), .k = tensor(k), .cos = t.of(t.cos), .sin = t.of(t.sin)};
    if (xpos) a.cos_k = t.of(t.cos_k), a.sin_k = t.of(t.sin_k);
    a.q_out = a.q;
    a.k_out = a.k;
    a.options.inplace = true;
    expect_runs(run(a, {}, {}));
    const auto product = [&](int64_t m, int64_t n) {
      double sum = 0;
      for (int64_t d = 0; d < kChannels; ++d)
        sum += static_cast<double>(q[static_cast<size_t>(m * kChannels + d)]) *
               static_cast<double>(k[static_cast<size_t>(n * kChannels + d)]);
      return sum;
    };
    for (const int64_t distance : {0, 1, 7, 30})
      for (int64_t n = 0; n + distance < kTokens; ++n)
        EXPECT_NEAR(product(n + distance, n), product(distance, 0), 1e-4) << distance << " " << n;
  }
}

// Defect 12 of the peer rotates a hidden copy of such slices. V lies between rows of q and k and is not
// touched.
TEST(Rotary, RotatesSlicesOfAPackedBufferInPlace) {
  constexpr int64_t B = 2, T = 5, H = 4, Hk = 2, D = 16, kPitch = (H + 2 * Hk) * D;
  Tables t(T, D / 2);
  std::vector<float> buffer = normal(B * T * kPitch), copy = buffer, q(B * T * H * D), k(B * T * Hk * D);
  const auto slice = [&](std::vector<float>& data, int64_t heads, int64_t first) {
    Tensor s = dense(data.data() + first * D, DType::f32, {B, T, heads, D});
    s.stride[1] = kPitch;
    s.stride[0] = T * kPitch;
    return s;
  };
  RotaryQkForward apart{
      .q = slice(copy, H, 0), .k = slice(copy, Hk, H), .cos = t.of(t.cos), .sin = t.of(t.sin)};
  apart.q_out = dense(q.data(), DType::f32, {B, T, H, D});
  apart.k_out = dense(k.data(), DType::f32, {B, T, Hk, D});
  expect_runs(run(apart, {}, {}));
  RotaryQkForward inplace = apart;
  inplace.q = inplace.q_out = slice(buffer, H, 0);
  inplace.k = inplace.k_out = slice(buffer, Hk, H);
  inplace.options.inplace = true;
  expect_runs(run(inplace, {}, {}));
  for (int64_t row = 0; row < B * T; ++row) {
    for (int64_t c = 0; c < kPitch; ++c) {
      const auto i = static_cast<size_t>(row * kPitch + c);
      const float expected = c < H * D          ? q[static_cast<size_t>(row * H * D + c)]
                             : c < (H + Hk) * D ? k[static_cast<size_t>(row * Hk * D + c - H * D)]
                                                : copy[i];
      ASSERT_EQ(buffer[i], expected) << row << " " << c;
    }
  }
  inplace.k = inplace.k_out = slice(buffer, Hk, H - 1);  // one head into q
  EXPECT_EQ(validate(inplace).code, StatusCode::aliasing);
}

// Defect 14: there a table must be as long as all packed sequences together, and D at most 256.
TEST(Rotary, PackedSequencesNeedATableOfTheLongestOnly) {
  constexpr int64_t T = 12, D = 320;
  Tables t(5, D / 2);
  std::vector<float> x = normal(T * D), y(x.size()), one(5 * D);
  int32_t cu[] = {0, 5, 5, 8, 12};
  RotaryForward a{.x = dense(x.data(), DType::f32, {1, T, 1, D}), .cos = t.of(t.cos), .sin = t.of(t.sin)};
  a.y = dense(y.data(), DType::f32, {1, T, 1, D});
  a.options.cu_seqlens = dense(cu, DType::i32, {5});
  expect_runs(run(a, {}, {}));
  for (int n = 0; n < 4; ++n) {
    const int64_t length = cu[n + 1] - cu[n];
    if (length == 0) continue;
    RotaryForward alone = a;
    alone.options.cu_seqlens = {};
    alone.x = dense(x.data() + cu[n] * D, DType::f32, {1, length, 1, D});
    alone.y = dense(one.data(), DType::f32, {1, length, 1, D});
    expect_runs(run(alone, {}, {}));
    EXPECT_EQ(std::memcmp(one.data(), y.data() + cu[n] * D, static_cast<size_t>(length * D) * sizeof(float)),
              0)
        << n;
  }
}

RotaryForward valid() {
  alignas(16) static float x[2 * 6 * 3 * 8], y[2 * 6 * 3 * 8], cos[9 * 4], sin[9 * 4];
  RotaryForward a;
  a.x = dense(x, DType::f32, {2, 6, 3, 8});
  a.y = dense(y, DType::f32, {2, 6, 3, 8});
  a.cos = dense(cos, DType::f32, {9, 4});
  a.sin = dense(sin, DType::f32, {9, 4});
  return a;
}

TEST(Rotary, RefusesWhatContradictsItself) {
  static int64_t numbers[64] = {};
  const Tensor ids = dense(numbers, DType::i64, {2, 6}), offsets = dense(numbers, DType::i64, {2});
  const Tensor axes = dense(numbers, DType::i64, {3, 2, 6}), cu = dense(numbers, DType::i64, {3});
  const auto refused = [](StatusCode code, const char* naming,
                          const std::function<void(RotaryForward&)>& change) {
    RotaryForward a = valid();
    change(a);
    const Status s = run(a, {}, {});
    EXPECT_EQ(s.code, code) << naming << ": " << s.text;
    EXPECT_TRUE(std::strstr(s.text, naming)) << s.text;
  };
  using A = RotaryForward;
  ASSERT_TRUE(validate(valid()).ok());
  refused(StatusCode::shape_mismatch, "x: rank", [](A& a) { a.x.rank = 2; });
  refused(StatusCode::shape_mismatch, "cos: rank", [](A& a) { a.cos.rank = 1; });
  refused(StatusCode::shape_mismatch, "cos: R", [](A& a) { a.options.rotary_offset = 2; });
  refused(StatusCode::shape_mismatch, "sin", [](A& a) { a.sin.size[1] = 3; });
  // Defect 7: there the batch index is ignored.
  refused(StatusCode::shape_mismatch, "cu_seqlens", [&](A& a) { a.options.cu_seqlens = cu; });
  refused(StatusCode::shape_mismatch, "seqlen_offsets",
          [&](A& a) { a.options.seqlen_offsets = dense(numbers, DType::i64, {3}); });
  refused(StatusCode::shape_mismatch, "position_ids", [&](A& a) { a.options.position_ids = axes; });
  refused(StatusCode::unsupported_dtype, "cos", [](A& a) { a.cos.dtype = a.sin.dtype = DType::bf16; });
  refused(StatusCode::unsupported_dtype, "sin", [](A& a) { a.sin.dtype = DType::bf16; });
  refused(StatusCode::unsupported_dtype, "y", [](A& a) { a.y.dtype = DType::bf16; });
  refused(StatusCode::unsupported_dtype, "position_ids", [&](A& a) {
    a.options.position_ids = ids;
    a.options.position_ids.dtype = DType::f32;
  });
  refused(StatusCode::invalid_argument, "seqlen_offset", [](A& a) { a.options.seqlen_offset = 4; });
  refused(StatusCode::invalid_argument, "oob_rows",
          [](A& a) { a.options.oob_rows = static_cast<OutsideRows>(4); });
  refused(StatusCode::invalid_argument, "outside_rows",
          [](A& a) { a.options.oob_rows = OutsideRows::error; });
  refused(StatusCode::invalid_argument, "mrope_t", [&](A& a) {
    a.options.position_ids = axes;
    a.options.mrope_t = a.options.mrope_h = 1;
  });
  const auto conflict = StatusCode::unsupported_combination;
  refused(conflict, "position_ids", [](A& a) { a.options.mrope_t = 4; });
  refused(conflict, "mrope_interleaved", [](A& a) { a.options.mrope_interleaved = true; });
  refused(conflict, "seqlen_offset", [&](A& a) {
    a.options.seqlen_offsets = offsets;
    a.options.seqlen_offset = 1;
  });
  refused(conflict, "position_ids", [&](A& a) {
    a.options.seqlen_offsets = offsets;
    a.options.position_ids = ids;
  });
  refused(conflict, "gathered", [&](A& a) {
    static float tables[2 * 6 * 4];
    a.cos = a.sin = dense(tables, DType::f32, {2, 6, 4});
    a.options.gathered = true;
    a.options.seqlen_offset = 1;
  });
  refused(StatusCode::aliasing, "y", [](A& a) { a.y = a.x; });
  refused(StatusCode::aliasing, "y", [](A& a) { a.options.inplace = true; });
  refused(StatusCode::aliasing, "y", [](A& a) { a.y.data = static_cast<float*>(a.x.data) + 4; });
  refused(StatusCode::bad_stride, "cos", [](A& a) { a.cos.stride[1] = 2; });
}

TEST(Rotary, AcceptsAnOffsetUpToTheTablesEndAndBelowZero) {
  for (const int64_t offset : {3, 0, -6, -100}) {
    RotaryForward a = valid();
    a.options.seqlen_offset = offset;
    expect_runs(run(a, {}, {}));
  }
}

}  // namespace
}  // namespace fla

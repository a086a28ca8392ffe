// What case strings cannot say: a sequence that is cut anywhere gives the same bits.
#include "fla/token_shift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace fla {
namespace {

constexpr int64_t T = 21, D = 16, K = 3;

struct alignas(16) Bits {
  uint16_t data[K * T * D] = {};
  bool operator==(const Bits&) const = default;
};

// bf16 between 1 and 2 in absolute value.
Bits numbers(uint32_t seed) {
  Bits b;
  for (uint16_t& v : b.data) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<uint16_t>((seed >> 16 & 0x807f) | 0x3f80);
  }
  return b;
}

Tensor tokens(Bits& b, int64_t first, int64_t count) {
  return dense(b.data + first * D, DType::bf16, {1, count, D});
}
Tensor row(Bits& b) { return dense(b.data, DType::bf16, {1, D}); }

TEST(TokenShift, CutAnywhereGivesTheSameBits) {
  Bits x = numbers(1), cache = numbers(2), whole, last;
  ASSERT_TRUE(run(TokenShiftForward{.x = tokens(x, 0, T), .cache = row(cache), .cu_seqlens = {}, .y = tokens(whole, 0, T),
                                    .cache_out = row(last)}, {}, {}).ok());
  for (int64_t cut = 0; cut <= T; ++cut) {
    Bits y, carried = cache;
    const auto piece = [&](int64_t first, int64_t count) {
      return run(TokenShiftForward{.x = tokens(x, first, count), .cache = row(carried),
                                   .cu_seqlens = {}, .y = tokens(y, first, count), .cache_out = row(carried)}, {}, {}).ok();
    };
    ASSERT_TRUE(piece(0, cut) && piece(cut, T - cut));
    EXPECT_EQ(y, whole) << cut;
    EXPECT_EQ(std::vector(carried.data, carried.data + D), std::vector(last.data, last.data + D)) << cut;
  }
}

// Backwards the later piece comes first; what it gives its cache is what the earlier one gets from behind.
TEST(TokenShift, GradientsOfPiecesAreThoseOfTheWhole) {
  Bits dy = numbers(3), behind = numbers(4), whole, first;
  ASSERT_TRUE(run(TokenShiftBackward{.cu_seqlens = {}, .dy = tokens(dy, 0, T), .dcache_out = row(behind), .dx = tokens(whole, 0, T),
                                     .dcache = row(first)}, {}, {}).ok());
  for (int64_t cut = 0; cut <= T; ++cut) {
    Bits dx, between, front;
    const auto piece = [&](int64_t from, int64_t count, Bits& in, Bits& out) {
      return run(TokenShiftBackward{.cu_seqlens = {}, .dy = tokens(dy, from, count), .dcache_out = row(in),
                                    .dx = tokens(dx, from, count), .dcache = row(out)}, {}, {}).ok();
    };
    ASSERT_TRUE(piece(cut, T - cut, behind, between) && piece(0, cut, between, front));
    EXPECT_EQ(dx, whole) << cut;
    EXPECT_EQ(std::vector(front.data, front.data + D), std::vector(first.data, first.data + D)) << cut;
  }
}

TEST(TokenShift, MixesOfPiecesAreThoseOfTheWhole) {
  Bits x = numbers(5), mu = numbers(6), cache = numbers(7), whole;
  const auto mix = [&](Bits& y, int64_t first, int64_t count, Bits& carried) {
    TokenShiftMixForward a;
    a.x = tokens(x, first, count);
    a.mu = dense(mu.data, DType::bf16, {K, D});
    a.cache = a.cache_out = row(carried);
    a.y = dense(y.data + first * D, DType::bf16, {K, 1, count, D});
    a.y.stride[0] = T * D;
    return run(a, {}, {}).ok();
  };
  Bits carried = cache;
  ASSERT_TRUE(mix(whole, 0, T, carried));
  for (int64_t cut = 0; cut <= T; ++cut) {
    Bits y;
    carried = cache;
    ASSERT_TRUE(mix(y, 0, cut, carried) && mix(y, cut, T - cut, carried));
    EXPECT_EQ(y, whole) << cut;
  }
}

// Defects 1 and 4 of the peer: packs of as many tokens as sequences are taken for decoding, and the caches of short and empty
// sequences are never written. Here a sequence of no token hands on what it was given, one of a token hands on that.
TEST(TokenShift, PacksThatLookLikeDecodeAreNotAndEveryCacheIsWritten) {
  for (const int32_t middle : {0, 1, 2}) {
    Bits x = numbers(8), cache = numbers(9), y, cache_out, from, to, dx, dcache;
    int32_t offsets[] = {0, middle, 2};
    const Tensor cu_seqlens = dense(offsets, DType::i32, {3});
    const auto caches = [](Bits& b) { return dense(b.data, DType::bf16, {2, D}); };
    ASSERT_TRUE(run(TokenShiftForward{.x = tokens(x, 0, 2), .cache = caches(cache), .cu_seqlens = cu_seqlens, .y = tokens(y, 0, 2),
                                      .cache_out = caches(cache_out)}, {}, {}).ok());
    for (int n = 0; n < 2; ++n) {
      Bits alone, last;
      const int64_t begin = offsets[n], count = offsets[n + 1] - begin;
      const auto own = [n](Bits& b) { return dense(b.data + n * D, DType::bf16, {1, D}); };
      ASSERT_TRUE(run(TokenShiftForward{.x = tokens(x, begin, count), .cache = own(cache), .cu_seqlens = {},
                                        .y = tokens(alone, begin, count), .cache_out = row(last)}, {}, {}).ok());
      EXPECT_TRUE(std::equal(y.data + begin * D, y.data + (begin + count) * D, alone.data + begin * D)) << middle << " " << n;
      EXPECT_TRUE(std::equal(last.data, last.data + D, cache_out.data + n * D)) << middle << " " << n;
      const uint16_t* expected = count == 0 ? cache.data + n * D : x.data + (begin + count - 1) * D;
      EXPECT_TRUE(std::equal(last.data, last.data + D, expected)) << middle << " " << n;
    }
    from = numbers(10), to = numbers(11);
    ASSERT_TRUE(run(TokenShiftBackward{.cu_seqlens = cu_seqlens, .dy = tokens(from, 0, 2), .dcache_out = caches(to),
                                       .dx = tokens(dx, 0, 2), .dcache = caches(dcache)}, {}, {}).ok());
    for (int n = 0; n < 2; ++n) {
      const bool empty = offsets[n] == offsets[n + 1];
      const uint16_t* expected = empty ? to.data + n * D : from.data + offsets[n] * D;  // dcache = dy of the first token
      EXPECT_TRUE(std::equal(dcache.data + n * D, dcache.data + (n + 1) * D, expected)) << middle << " " << n;
    }
  }
}

TEST(TokenShift, RefusesWhatTheSpecificationRefuses) {
  Bits x, y, cache;
  int32_t offsets[] = {0, 2, 4};
  const Tensor cu_seqlens = dense(offsets, DType::i32, {3});
  const auto code = [](const TokenShiftForward& a) { return run(a, {}, {}).code; };
  const Tensor two_rows = dense(x.data, DType::bf16, {2, 4, D}), out = dense(y.data, DType::bf16, {2, 4, D});
  EXPECT_EQ(code({two_rows, {}, cu_seqlens, out, {}}), StatusCode::shape_mismatch);  // defect 7 of the peer's convolutions
  EXPECT_EQ(code({two_rows, {}, {}, two_rows, {}}), StatusCode::aliasing);
  EXPECT_EQ(code({two_rows, row(cache), {}, out, {}}), StatusCode::shape_mismatch);
  TokenShiftMixForward many;
  many.x = tokens(x, 0, 1);
  many.mu = dense(x.data, DType::bf16, {kMostShiftMixes + 1, D});
  many.y = dense(y.data, DType::bf16, {kMostShiftMixes + 1, 1, 1, D});
  EXPECT_EQ(run(many, {}, {}).code, StatusCode::unsupported_shape);
}

}  // namespace
}  // namespace fla

// The host's plan is the device's, and refuses what that clamps.
#include "fla/varlen.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fla {
namespace {

// A plan with all its outputs.
template <class Index>
struct Plan {
  std::vector<Index> cu_seqlens, position_ids, sequence_ids, lengths, chunk_indices;
  Index max_len = -7, chunk_count = -7;

  Plan(std::vector<Index> offsets, int64_t tokens, int64_t rows)
      : cu_seqlens(std::move(offsets)), position_ids(tokens, -7), sequence_ids(tokens, -7),
        lengths(cu_seqlens.size() - 1, -7), chunk_indices(2 * rows, -7) {}

  VarlenPlan arguments(int64_t chunk_size) {
    constexpr DType type = sizeof(Index) == 4 ? DType::i32 : DType::i64;
    const auto vector = [&](std::vector<Index>& v) { return dense(v.data(), type, {static_cast<int64_t>(v.size())}); };
    VarlenPlan a;
    a.cu_seqlens = vector(cu_seqlens);
    a.position_ids = vector(position_ids);
    a.sequence_ids = vector(sequence_ids);
    a.lengths = vector(lengths);
    a.max_len = dense(&max_len, type, {1});
    a.chunk_indices = dense(chunk_indices.data(), type, {static_cast<int64_t>(chunk_indices.size() / 2), 2});
    a.chunk_count = dense(&chunk_count, type, {1});
    a.chunk_size = chunk_size;
    return a;
  }
  bool operator==(const Plan&) const = default;
};

template <class Index>
void expect_host_equals_device(const std::vector<Index>& offsets, int64_t chunk_size) {
  const int64_t tokens = offsets.back(), rows = tokens / chunk_size + static_cast<int64_t>(offsets.size()) + 2;
  Plan<Index> host(offsets, tokens, rows), device = host;
  alignas(256) static char memory[1 << 14];
  ASSERT_TRUE(plan_on_host(host.arguments(chunk_size)).ok());
  ASSERT_TRUE(run(device.arguments(chunk_size), {memory, sizeof memory}, {}).ok());
  EXPECT_EQ(host, device);
}

TEST(VarlenPlan, HostEqualsDevice) {
  for (const int64_t chunk_size : {1, 3, 64}) {
    expect_host_equals_device<int32_t>({0, 0, 5, 5, 8, 73}, chunk_size);
    expect_host_equals_device<int64_t>({0, 300}, chunk_size);
    std::vector<int32_t> many{0};
    for (int n = 0; n < 700; ++n) many.push_back(many.back() + n % 5);
    expect_host_equals_device<int32_t>(many, chunk_size);
  }
}

// Trap of the peer: its ids count the sequences that have tokens.
TEST(VarlenPlan, GivesHandComputedValues) {
  Plan<int32_t> p({0, 0, 3, 3, 5}, 5, 6);
  ASSERT_TRUE(plan_on_host(p.arguments(2)).ok());
  EXPECT_EQ(p.sequence_ids, (std::vector<int32_t>{1, 1, 1, 3, 3}));
  EXPECT_EQ(p.position_ids, (std::vector<int32_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(p.lengths, (std::vector<int32_t>{0, 3, 0, 2}));
  EXPECT_EQ(p.max_len, 3);
  EXPECT_EQ(p.chunk_count, 3);
  EXPECT_EQ(p.chunk_indices, (std::vector<int32_t>{1, 0, 1, 1, 3, 0, -1, -1, -1, -1, -1, -1}));
}

TEST(VarlenPlan, HostRefusesBadOffsets) {
  for (const std::vector<int32_t>& offsets :
       {std::vector<int32_t>{1, 3, 5}, {0, 4, 3}, {0, 3, 4}, {0, 6, 5}, {0, -1, 5}}) {
    Plan<int32_t> p(offsets, 5, 7);
    const Status s = plan_on_host(p.arguments(64));
    EXPECT_EQ(s.code, StatusCode::invalid_argument);
    EXPECT_EQ(std::string(s.text).rfind("cu_seqlens", 0), 0u);
  }
}

TEST(VarlenPlan, RefusesTooFewRowsOfChunks) {
  Plan<int32_t> p({0, 3, 5}, 5, 3);
  EXPECT_EQ(plan_on_host(p.arguments(2)).code, StatusCode::shape_mismatch);
}

}  // namespace
}  // namespace fla

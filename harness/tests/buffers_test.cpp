#include "harness/buffers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "harness/tests/row_scale.h"
#include "harness/host_device.h"

namespace fla::harness {
namespace {

Tensor strided(DType type, std::vector<int64_t> size, std::vector<int64_t> stride) {
  Tensor t;
  t.dtype = type;
  t.rank = static_cast<int32_t>(size.size());
  std::copy(size.begin(), size.end(), t.size);
  std::copy(stride.begin(), stride.end(), t.stride);
  return t;
}

// Scatters 0, 1, 2, ... through every chunk size and gathers them back.
void round_trip(const Tensor& t, int64_t expected_count, int64_t expected_span) {
  const Strided s(t);
  ASSERT_EQ(s.count(), expected_count);
  ASSERT_EQ(s.span(), expected_span);
  for (const int64_t limit : {1, 3, 7, 1000}) {
    std::vector<int32_t> memory(static_cast<size_t>(s.span()), -1), dense(static_cast<size_t>(s.count()));
    int64_t covered = 0, memory_covered = 0;
    for (const Chunk& c : s.chunks(limit)) {
      EXPECT_EQ(c.first, covered);
      EXPECT_EQ(c.memory_first, memory_covered);
      std::vector<int32_t> part(static_cast<size_t>(c.count));
      std::iota(part.begin(), part.end(), static_cast<int32_t>(c.first));
      s.scatter(c, 4, part.data(), memory.data() + c.memory_first);
      s.gather(c, 4, memory.data() + c.memory_first, dense.data() + c.first);
      covered += c.count;
      memory_covered += c.memory_count;
    }
    EXPECT_EQ(covered, s.count());
    EXPECT_EQ(memory_covered, s.span());
    for (int64_t i = 0; i < s.count(); ++i) {
      EXPECT_EQ(dense[static_cast<size_t>(i)], i);
      EXPECT_EQ(memory[static_cast<size_t>(s.offset(i))], i);
    }
    EXPECT_EQ(std::count(memory.begin(), memory.end(), -1), s.span() - s.count());
  }
}

TEST(Strided, CoversEveryLayoutOfACase) {
  round_trip(strided(DType::i32, {3, 4}, {4, 1}), 12, 12);
  round_trip(strided(DType::i32, {3, 4}, {9, 1}), 12, 22);
  round_trip(strided(DType::i32, {2, 3, 4}, {20, 6, 1}), 24, 36);
  round_trip(strided(DType::i32, {2, 3}, {8, 2}), 6, 13);
  round_trip(strided(DType::i32, {2, 1, 3}, {3, 77, 1}), 6, 6);
  round_trip(strided(DType::i32, {3, 4}, {0, 0}), 1, 1);
  round_trip(strided(DType::i32, {}, {}), 1, 1);
  EXPECT_EQ(Strided(strided(DType::i32, {0, 4}, {4, 1})).count(), 0);
  EXPECT_EQ(Strided(strided(DType::i32, {0, 4}, {4, 1})).span(), 0);
  EXPECT_THROW(Strided(strided(DType::i32, {3, 4}, {1, 3})), std::logic_error);
}

TEST(Poison, IsNanOrLargeInEveryFloatType) {
  float f[2];
  fill_poison(Poison::nan, DType::f32, 0, 2, f);
  EXPECT_TRUE(std::isnan(f[0]) && std::isnan(f[1]));
  fill_poison(Poison::large, DType::f32, 0, 2, f);
  EXPECT_GT(f[0], 1e30f);
  EXPECT_LT(f[1], -1e30f);
  uint16_t half[2];
  fill_poison(Poison::nan, DType::bf16, 0, 2, half);
  EXPECT_EQ(half[0], 0x7fc1);
  fill_poison(Poison::large, DType::f16, 1, 2, half);
  EXPECT_EQ(half[0], 0xfb00);
  EXPECT_EQ(half[1], 0x7b00);
  EXPECT_EQ(find_unpoisoned(Poison::large, DType::f16, 1, 2, half), -1);
  half[1] ^= 1;
  EXPECT_EQ(find_unpoisoned(Poison::large, DType::f16, 1, 2, half), 1);
}

class BuffersTest : public testing::Test {
 protected:
  Problem problem(std::map<std::string, std::string> values) {
    values.insert({{"M", "5"}, {"N", "6"}});
    return make_problem(row_scale_case(values));
  }
  unsigned char* at(const Buffers& b, const Problem& p, const std::string& field, int64_t element) {
    const Tensor& t = b.args().tensor(*p.signature.field(field));
    return static_cast<unsigned char*>(t.data) + element * size_of(t.dtype);
  }
  HostDevice device_;
};

TEST_F(BuffersTest, StoresInputsAsTheCaseLaysThemOut) {
  const Problem p = problem({{"x", "f32"}, {"x.pad", "3"}, {"x.shift", "1"}});
  Buffers b(p, device_);
  b.prepare(Poison::nan);
  const auto* x = reinterpret_cast<const float*>(at(b, p, "x", 0));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x) % 256, 4u);
  const HostTensor& values = p.values[static_cast<size_t>(p.index_of("x"))];
  EXPECT_EQ(x[0], values.real[0]);
  EXPECT_EQ(x[9 * 4 + 5], values.real[4 * 6 + 5]);
  EXPECT_TRUE(std::isnan(x[6])) << "the gap between rows is poisoned";
  EXPECT_TRUE(b.damage().empty()) << b.damage();
  EXPECT_TRUE(b.changed_input().empty());
  EXPECT_TRUE(b.written_output().empty());
}

TEST_F(BuffersTest, SeesOneBytePastEitherEndAndInAGap) {
  const Problem p = problem({{"y.pad", "2"}});
  Buffers b(p, device_);
  for (const int64_t element : {int64_t{-1}, int64_t{4 * 8 + 6}, int64_t{6}}) {
    b.prepare(Poison::large);
    EXPECT_TRUE(b.damage().empty());
    *at(b, p, "y", element) ^= 1;
    EXPECT_EQ(b.damage().substr(0, 2), "y:") << element;
  }
}

TEST_F(BuffersTest, SeesAChangedInputAndAWrittenOutput) {
  const Problem p = problem({});
  Buffers b(p, device_);
  b.prepare(Poison::nan);
  *at(b, p, "weight", 5) ^= 1;
  EXPECT_EQ(b.changed_input(), "weight");
  *at(b, p, "y", 29) ^= 1;
  EXPECT_EQ(b.written_output(), "y written at element 29");
}

TEST_F(BuffersTest, ReadsLogicalElementsAndSaysWhereTheyDiffer) {
  const Problem p = problem({{"x", "f32"}, {"y.pad", "2"}});
  Buffers b(p, device_);
  b.prepare(Poison::nan);
  const Snapshot before = b.read();
  EXPECT_EQ(before.bytes[static_cast<size_t>(p.index_of("y"))].size(), 30u * 4);
  EXPECT_TRUE(before.bytes[static_cast<size_t>(p.index_of("x"))].empty());
  EXPECT_EQ(difference(p, before, b.read()), "");
  *at(b, p, "y", 8 * 3 + 2) ^= 1;
  EXPECT_EQ(difference(p, before, b.read()), "y differs at [3,2]");
}

TEST_F(BuffersTest, AnAliasedOutputIsItsInput) {
  const Problem p = problem({{"y.alias", "1"}});
  Buffers b(p, device_);
  EXPECT_EQ(at(b, p, "x", 0), at(b, p, "y", 0));
  b.prepare(Poison::nan);
  *at(b, p, "y", 3) ^= 1;
  EXPECT_EQ(b.changed_input(), "");
  EXPECT_EQ(b.written_output(), "");
}

TEST_F(BuffersTest, ReadsOnlyTheSampleOfALargeProblemButHashesAll) {
  Problem p = problem({{"x", "f32"}});
  p.sample = {1, 4};
  Buffers b(p, device_);
  b.prepare(Poison::nan);
  for (int64_t i = 0; i < 30; ++i) {
    const float value = static_cast<float>(i);
    std::memcpy(at(b, p, "y", i), &value, 4);
  }
  const Snapshot s = b.read();
  const std::vector<unsigned char>& y = s.bytes[static_cast<size_t>(p.index_of("y"))];
  ASSERT_EQ(y.size(), 12u * 4);
  EXPECT_EQ(reinterpret_cast<const float*>(y.data())[0], 6);
  EXPECT_EQ(reinterpret_cast<const float*>(y.data())[11], 29);
  *at(b, p, "y", 12) ^= 1;
  EXPECT_EQ(difference(p, s, b.read()), "y differs outside the sample");
}

}  // namespace
}  // namespace fla::harness

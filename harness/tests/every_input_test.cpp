#include "harness/every_input.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "harness/planted_kernel.h"

namespace fla::harness {
namespace {

// The kernel is the reference in double; at one input, if any, its answer is another.
Result check_with_wrong_answer_at(const std::string& text, const std::string& input, uint32_t bits, const std::string& output) {
  Fault fault;
  fault.memory = [=](const Problem& p, const Args& memory, int) {
    const Tensor& x = memory.tensor(*p.signature.field(input));
    const Tensor& y = memory.tensor(*p.signature.field(output));
    const auto size = static_cast<size_t>(size_of(x.dtype));
    for (int64_t i = 0; i < count(x); ++i) {
      uint32_t stored = 0;
      std::memcpy(&stored, static_cast<const char*>(x.data) + static_cast<size_t>(i) * size, size);
      if (stored != bits) continue;
      auto* low_byte = static_cast<unsigned char*>(y.data) + static_cast<size_t>(i) * static_cast<size_t>(size_of(y.dtype));
      *low_byte ^= 0x40;
    }
  };
  return check_planted(text, fault, kNumbersOnly);
}

TEST(EveryInput, NumbersBecomeAllInputsAndNeighboursLieApart) {
  std::set<uint32_t> high_bytes;
  for (uint64_t n = 0; n < 1024; ++n) high_bytes.insert(input_bits(n) >> 24);
  EXPECT_EQ(high_bytes.size(), 256u);
  std::set<uint32_t> words;
  for (uint64_t n = 0; n < 65536; ++n) words.insert(input_bits(n) & 0xffff);
  EXPECT_EQ(words.size(), 65536u);  // an odd step meets every value of its low bits, at 32 as at 16
}

TEST(EveryInput, JudgesEveryElementOfEverySlice) {
  const Result r = check_planted("swish.fwd:M=16,C=64,x=f32,fill=every,slices=3", {}, kNumbersOnly);
  ASSERT_EQ(r.status, CaseStatus::passed) << r.reason;
  EXPECT_EQ(r.checks.front().elements, 3 * 16 * 64);
  EXPECT_EQ(r.checks.front().outside, 0);
}

TEST(EveryInput, NamesTheOneInputThatIsWrong) {
  const uint32_t third = input_bits(2 * 16 * 64 + 100);  // in the third slice
  char name[32];
  std::snprintf(name, sizeof name, "x = 0x%08x", third);
  const Result r = check_with_wrong_answer_at("swish.fwd:M=16,C=64,x=f32,fill=every,slices=3", "x", third, "y");
  EXPECT_EQ(r.status, CaseStatus::failed);
  EXPECT_EQ(r.checks.front().outside, 1);
  EXPECT_NE(r.reason.find(name), std::string::npos) << r.reason;
}

TEST(EveryInput, JudgesEveryOutputOfAPair) {
  for (const std::string output : {"dx", "dy", "z"}) {
    const Result r = check_with_wrong_answer_at("swiglu.bwd:M=16,F=64,x=bf16,z=bf16,fill=every,slices=2", "x",
                                                input_bits(77) >> 16, output);
    EXPECT_EQ(r.status, CaseStatus::failed) << output;
  }
}

TEST(EveryInput, SeesWhatLiesPastTheEnd) {
  Fault fault;
  fault.memory = [](const Problem& p, const Args& memory, int) {
    const Tensor& y = memory.tensor(*p.signature.field("y"));
    static_cast<float*>(y.data)[count(y)] = 1;
  };
  const Result r = check_planted("relu.fwd:M=3,C=5,x=f32,fill=every,slices=1", fault, kNumbersOnly);
  EXPECT_EQ(r.status, CaseStatus::failed);
  EXPECT_NE(r.reason.find("guards"), std::string::npos) << r.reason;
}

TEST(EveryInput, RefusesWhatItCannotWalk) {
  EXPECT_THROW(make_problem(parse_case("swish.fwd:M=4,C=4,x=bf16,fill=every")), UsageError);   // 16 bits
  EXPECT_THROW(make_problem(parse_case("swiglu.fwd:M=4,F=4,x=f32,fill=every")), UsageError);   // 64 bits
  EXPECT_THROW(make_problem(parse_case("rms_norm.fwd:M=4,N=4,x=f32,fill=every")), UsageError);  // no element alone
  EXPECT_THROW(make_problem(parse_case("swish.fwd:M=4,C=4,x=f32,slices=2")), UsageError);
}

}  // namespace
}  // namespace fla::harness

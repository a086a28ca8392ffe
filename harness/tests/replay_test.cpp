// Replay files: what a dump writes is judged right, what is wrong is found, what makes no sense is refused.
#include "harness/replay.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

namespace fla::harness {
namespace {

class ReplayFile : public testing::Test {
 protected:
  std::string path_ = testing::TempDir() + "fla_replay_" + std::to_string(getpid()) + ".safetensors";
  ~ReplayFile() override { std::filesystem::remove(path_); }

  static TensorToWrite real(const std::string& name, DType dtype, std::vector<int64_t> shape,
                            const std::vector<double>& values) {
    HostTensor host;
    host.real = values;
    TensorToWrite t{name, dtype, std::move(shape), {}};
    t.bytes.resize(values.size() * static_cast<size_t>(size_of(dtype)));
    encode(dtype, host, 0, static_cast<int64_t>(values.size()), t.bytes.data());
    return t;
  }

  std::vector<TensorToWrite> dumped(const std::string& text, std::map<std::string, std::string>& metadata) {
    dump_case(parse_case(text), path_);
    const TensorFile file(path_);
    metadata = file.metadata();
    std::vector<TensorToWrite> tensors;
    for (const auto& e : file.entries()) tensors.push_back({e.name, e.dtype, e.shape, file.read(e)});
    return tensors;
  }

  // The one line with which a file of these tensors is refused; empty when it is not.
  std::string refusal(const std::vector<TensorToWrite>& tensors,
                      const std::map<std::string, std::string>& metadata) {
    write_tensor_file(path_, tensors, metadata);
    try {
      read_replay(TensorFile(path_));
      return {};
    } catch (const UsageError& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
  }
};

TEST_F(ReplayFile, WhatADumpWritesIsRight) {
  for (const char* text :
       {"swiglu.fwd:M=3,F=5", "swiglu.bwd:M=3,F=5,x=bf16", "rms_norm.fwd:M=4,N=7,x=f16,residual=f16",
        "rms_norm.bwd:M=4,N=7,x=bf16,weight=f32", "cross_entropy.fwd:T=5,V=11,logits=bf16",
        "causal_conv1d.fwd:B=2,T=9,D=4,activation=silu", "causal_conv1d.update:N=3,D=4"}) {
    dump_case(parse_case(text), path_);
    const Result r = judge_replay(path_, nullptr);
    EXPECT_EQ(r.status, CaseStatus::passed) << text << ": " << r.reason;
    EXPECT_FALSE(r.checks.empty()) << text;
    const Replay replay = read_replay(TensorFile(path_));
    const Problem original = make_problem(parse_case(text));
    EXPECT_EQ(replay.problem.dims, original.dims) << text;
    for (size_t i = 0; i < original.values.size(); ++i) {
      const Role role = original.signature.fields[i].role;
      if (role != Role::input && role != Role::inout) continue;
      EXPECT_EQ(replay.problem.values[i].real, original.values[i].real) << text;
      EXPECT_EQ(replay.problem.values[i].integer, original.values[i].integer) << text;
    }
  }
}

TEST_F(ReplayFile, WrongClaimFailsWithIndexAndValues) {
  std::map<std::string, std::string> metadata;
  auto tensors = dumped("rms_norm.fwd:M=4,N=7,x=bf16", metadata);
  for (TensorToWrite& t : tensors) {
    if (t.name != "out.y") continue;
    ASSERT_EQ(t.dtype, DType::f64);
    double value = 0;
    std::memcpy(&value, t.bytes.data() + 8 * (2 * 7 + 3), 8);
    value = value * 1.001 + 1e-3;  // far below bf16's resolution, far above the error of fp32 arithmetic
    std::memcpy(t.bytes.data() + 8 * (2 * 7 + 3), &value, 8);
  }
  write_tensor_file(path_, tensors, metadata);
  const Result r = judge_replay(path_, nullptr);
  EXPECT_EQ(r.status, CaseStatus::failed);
  EXPECT_NE(r.reason.find("claim:y"), std::string::npos) << r.reason;
  EXPECT_NE(r.reason.find("2,"), std::string::npos) << r.reason;
  EXPECT_NE(r.reason.find("expected"), std::string::npos) << r.reason;
}

TEST_F(ReplayFile, NanClaimAndWrongAttributeFail) {
  std::map<std::string, std::string> metadata;
  auto tensors = dumped("rms_norm.fwd:M=2,N=4,eps=0.5", metadata);
  EXPECT_NE(metadata["attrs"].find("\"eps\":0.5"), std::string::npos);
  metadata["attrs"] = "{\"eps\":0.25}";
  write_tensor_file(path_, tensors, metadata);
  EXPECT_EQ(judge_replay(path_, nullptr).status, CaseStatus::failed);

  tensors = dumped("swiglu.fwd:M=1,F=2", metadata);
  for (TensorToWrite& t : tensors) {
    const double nan = std::nan("");
    if (t.name == "out.z") std::memcpy(t.bytes.data(), &nan, 8);
  }
  write_tensor_file(path_, tensors, metadata);
  EXPECT_EQ(judge_replay(path_, nullptr).status, CaseStatus::failed);
}

TEST_F(ReplayFile, ClaimInTheStorageDtypeIsJudgedInIt) {
  const double x = 1.5, y = 3, z = x / (1 + std::exp(-x)) * y;
  for (const double claim : {z, z * 1.02}) {
    write_tensor_file(path_,
                      {real("in.x", DType::bf16, {1, 1}, {x}), real("in.y", DType::bf16, {1, 1}, {y}),
                       real("out.z", DType::bf16, {1, 1}, {claim})},
                      {{"op", "swiglu_fwd"}});
    EXPECT_EQ(judge_replay(path_, nullptr).status, claim == z ? CaseStatus::passed : CaseStatus::failed);
  }
}

TEST_F(ReplayFile, NothingClaimedIsNothingProven) {
  write_tensor_file(path_, {real("in.x", DType::f32, {1, 1}, {1}), real("in.y", DType::f32, {1, 1}, {1})},
                    {{"op", "swiglu_fwd"}});
  EXPECT_EQ(judge_replay(path_, nullptr).status, CaseStatus::skipped);
}

TEST_F(ReplayFile, RefusesWhatMakesNoSense) {
  const auto x = real("in.x", DType::f32, {2, 3}, std::vector<double>(6, 1));
  const auto y = real("in.y", DType::f32, {2, 3}, std::vector<double>(6, 1));
  const auto weight = real("in.weight", DType::f32, {3}, {1, 1, 1});
  const std::map<std::string, std::string> swiglu{{"op", "swiglu_fwd"}};
  const auto norm = [](const std::string& attrs) {
    return std::map<std::string, std::string>{{"op", "rms_norm_fwd"}, {"attrs", attrs}};
  };
  EXPECT_EQ(refusal({x, y}, swiglu), "");
  EXPECT_EQ(refusal({x, weight}, norm("{}")), "");
  EXPECT_NE(refusal({x, y}, {}).find("no op"), std::string::npos);
  EXPECT_NE(refusal({x, y}, {{"op", "swiglu_sideways"}}).find("unknown operator"), std::string::npos);
  EXPECT_NE(refusal({x}, swiglu).find("y: required"), std::string::npos);
  EXPECT_NE(refusal({x, real("in.y", DType::f32, {2, 4}, std::vector<double>(8))}, swiglu), "");
  EXPECT_NE(refusal({x, real("in.y", DType::f32, {6}, std::vector<double>(6))}, swiglu).find("rank"),
            std::string::npos);
  EXPECT_NE(refusal({x, real("in.y", DType::f64, {2, 3}, std::vector<double>(6))}, swiglu).find("f64"),
            std::string::npos);
  EXPECT_NE(refusal({x, y, real("in.w", DType::f32, {1}, {1})}, swiglu).find("not in.<field>"),
            std::string::npos);
  EXPECT_NE(refusal({x, y, real("x", DType::f32, {1}, {1})}, swiglu).find("not in.<field>"),
            std::string::npos);
  EXPECT_NE(
      refusal({x, y, real("in.z", DType::f32, {2, 3}, std::vector<double>(6))}, swiglu).find("is an output"),
      std::string::npos);
  EXPECT_NE(
      refusal({x, y, real("out.x", DType::f32, {2, 3}, std::vector<double>(6))}, swiglu).find("is an input"),
      std::string::npos);
  EXPECT_NE(refusal({x, y, real("out.z", DType::f32, {3, 2}, std::vector<double>(6))}, swiglu), "");
  EXPECT_NE(refusal({x, y, {"out.z", DType::i32, {2, 3}, std::vector<unsigned char>(24)}}, swiglu), "");
  EXPECT_NE(refusal({real("in.x", DType::f32, {1, 1, 1, 1, 1, 1}, {1}), y}, swiglu).find("rank"),
            std::string::npos);
  EXPECT_NE(refusal({real("in.x", DType::f32, {int64_t{1} << 40, 0}, {}),
                     real("in.y", DType::f32, {int64_t{1} << 40, 0}, {})},
                    swiglu)
                .find("too large"),
            std::string::npos);
  for (const char* attrs : {"[]", "{", "{\"epsilon\":1}", "{\"eps\":true}", "{\"eps\":\"small\"}",
                            "{\"eps\":-1}", "{\"weight_per_group\":1}", "{\"eps\":null}"})
    EXPECT_NE(refusal({x, weight}, norm(attrs)), "") << attrs;
}

}  // namespace
}  // namespace fla::harness

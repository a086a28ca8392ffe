#include "reports/peers.h"

#include <gtest/gtest.h>

#include "reports/json.h"
#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

using harness::Result;
using Params = std::vector<std::pair<std::string, std::string>>;

// Rows as they stand in shared/baselines/h200-peers.json.
constexpr const char* kFile =
    R"json({"meta": {"device": "NVIDIA H200 (132 SMs)", "date": "2026-11-23", "method": "m"},
"rows": [
{"op": "rms_norm", "peer": "fla", "dir": "fwd", "shape": "16384x4096", "ms": 0.07184, "GBps": 3736.6},
{"op": "rms_norm", "peer": "liger", "dir": "fwd", "shape": "16384x4096", "ms": 0.07066, "GBps": 3799.2},
{"op": "rms_norm", "peer": "fla", "dir": "bwd", "shape": "16384x4096", "ms": 0.2023, "GBps": 1990.3},
{"op": "rms_norm_residual", "peer": "fla", "dir": "fwd", "shape": "16384x4096", "ms": 0.1345},
{"op": "rms_norm_residual", "peer": "fla", "dir": "bwd", "shape": "16384x4096", "ms": 0.29354},
{"op": "rms_norm", "peer": "fla", "dir": "fwd", "shape": "4096x4096", "ms": 0.03},
{"op": "rms_norm", "peer": "fla", "dir": "fwd", "shape": "4096x4096", "ms": 0.01888, "method": "graph, hot"},
{"op": "rms_norm torch", "peer": "torch", "dir": "fwd", "shape": "4096x4096",
 "ms": 0.02347, "method": "graph, hot"},
{"op": "swiglu", "peer": "fla", "dir": "fwd", "shape": "16384x14336", "ms": 0.48666},
{"op": "causal_conv1d", "peer": "fla", "dir": "fwd", "shape": "4x8192x4096 W4 silu", "ms": 0.24566},
{"op": "causal_conv1d", "peer": "fla", "dir": "fwd", "shape": "4x8192x4096 W4 silu varlen1024",
 "ms": 0.28547},
{"op": "cross_entropy", "peer": "fla", "dir": "bwd", "shape": "8192x128256", "ms": 1.08973},
{"op": "cross_entropy", "peer": "liger", "dir": "fwd+grad", "shape": "8192x128256", "ms": 1.80579}]})json";

Result case_of(const std::string& op, const std::string& direction, Params params) {
  Result r;
  r.op = op;
  r.direction = direction;
  r.params = std::move(params);
  r.backend = "gpu";
  r.timed = true;
  r.cold.median_us = 100;
  r.hot.median_us = 10;
  return r;
}

std::string key_of(const std::string& op, const std::string& direction, Params params) {
  const auto key = peer_key(case_of(op, direction, std::move(params)));
  return key ? key->op + " " + key->direction + " " + key->shape : "";
}

TEST(Peers, KnowTheirOwnNamesAndPlainProblemsOnly) {
  const auto gelu = peer_key(case_of("gelu_tanh", "bwd", {{"M", "64"}, {"C", "32"}, {"x", "bf16"}}));
  ASSERT_TRUE(gelu);
  EXPECT_EQ(gelu->op + "." + gelu->direction + " " + gelu->shape, "gelu.bwd 64x32");
  Params gated{{"M", "64"}, {"N", "32"}, {"x", "bf16"}, {"bias", "bf16"}};
  EXPECT_TRUE(peer_key(case_of("layer_norm_gated", "fwd", gated)));
  gated.emplace_back("gate_order", "before");
  EXPECT_FALSE(peer_key(case_of("layer_norm_gated", "fwd", gated)));
  EXPECT_FALSE(peer_key(case_of("relu", "fwd", {{"M", "64"}, {"C", "32"}, {"x", "bf16"}})));
}

TEST(Peers, NamesTheShapesOfTheFile) {
  EXPECT_EQ(key_of("rms_norm", "fwd", {{"M", "16384"}, {"N", "4096"}, {"x", "bf16"}}),
            "rms_norm fwd 16384x4096");
  EXPECT_EQ(
      key_of("rms_norm", "fwd", {{"M", "16"}, {"G", "32"}, {"N", "128"}, {"x", "bf16"}, {"weight", "bf16"}}),
      "rms_norm fwd 512x128");
  EXPECT_EQ(key_of("rms_norm", "fwd", {{"M", "8"}, {"N", "4"}, {"x", "bf16"}, {"residual", "bf16"}}),
            "rms_norm_residual fwd 8x4");
  EXPECT_EQ(
      key_of("rms_norm", "bwd", {{"M", "8"}, {"N", "4"}, {"x", "bf16"}, {"residual", "bf16"}}),
      "rms_norm_residual bwd 8x4");
  EXPECT_EQ(key_of("swiglu", "bwd", {{"M", "8"}, {"F", "4"}, {"x", "bf16"}}), "swiglu bwd 8x4");
  EXPECT_EQ(key_of("cross_entropy", "fwd_bwd",
                   {{"T", "8"}, {"V", "4"}, {"logits", "bf16"}, {"dlogits.alias", "1"}}),
            "cross_entropy fwd+grad 8x4");
  const Params conv{{"B", "4"}, {"T", "8192"}, {"D", "4096"}, {"x", "bf16"}, {"activation", "silu"}};
  EXPECT_EQ(key_of("causal_conv1d", "fwd", conv), "causal_conv1d fwd 4x8192x4096 W4 silu");
  EXPECT_EQ(key_of("group_norm", "bwd", {{"M", "16384"}, {"G", "32"}, {"N", "128"}, {"x", "bf16"}, {"bias", "bf16"}}),
            "group_norm bwd 16384x4096 G=32");
  const Params rotary{{"B", "4"}, {"T", "8192"}, {"D", "128"}, {"H", "32"}, {"interleaved", "1"}, {"x", "bf16"}};
  EXPECT_EQ(key_of("rotary", "fwd", rotary), "rotary fwd 4x8192x32x128 interleaved");
  EXPECT_EQ(key_of("token_shift", "bwd", {{"T", "32768"}, {"D", "4096"}, {"N", "32"}, {"x", "bf16"}, {"cu_seqlens", "i32"}, {"lens", "equal"}}),
            "token_shift bwd 4x8192x4096 varlen1024");
  EXPECT_EQ(key_of("l2_warp", "fwd", {{"T", "8"}, {"V", "4"}, {"logits", "bf16"}}), "l2_warp fwd 8x4");
  EXPECT_EQ(key_of("grpo_loss", "bwd", {{"B", "8"}, {"L", "1024"}, {"V", "128256"}, {"S", "9"}, {"logits", "bf16"}}),
            "grpo bwd B8 L1024 V128256");
  Params linear{{"T", "8192"}, {"H", "4096"}, {"V", "128256"}, {"x", "bf16"}, {"dweight", "f32"}};
  EXPECT_EQ(key_of("linear_cross_entropy", "fwd_bwd", linear), "linear_cross_entropy fwd+bwd T8192 H4096 V128256");
  linear.emplace_back("G", "2048");
  EXPECT_EQ(key_of("linear_kl_div", "fwd_bwd", linear), "") << "a teacher of another width";
  Params mlp{{"M", "16384"}, {"H", "4096"}, {"F", "14336"}, {"x", "bf16"}};
  EXPECT_EQ(key_of("gated_mlp", "fwd", mlp), "gated_mlp fwd 16384x4096x14336");
  EXPECT_EQ(key_of("gated_mlp", "bwd", mlp), "") << "with weight gradients";
  mlp.insert(mlp.end(), {{"dgate_up_weight", "none"}, {"ddown_weight", "none"}});
  EXPECT_EQ(key_of("gated_mlp", "bwd", mlp), "gated_mlp bwd 16384x4096x14336");
  EXPECT_EQ(key_of("fmap_taylor", "fwd", {{"M", "262144"}, {"D", "16"}, {"x", "bf16"}}), "taylor fwd 4x4096x16x16");
  EXPECT_EQ(key_of("fmap_taylor", "fwd", {{"M", "262143"}, {"D", "16"}, {"x", "bf16"}}), "");
  EXPECT_EQ(key_of("long_conv", "fwd", {{"B", "8"}, {"L", "8192"}, {"D", "768"}, {"u", "bf16"}}), "long_conv fwd 8x8192x768");
}

TEST(Peers, PackedSequencesOfOneLengthMatch) {
  Params packed{{"T", "32768"},         {"D", "4096"}, {"N", "32"},
                {"activation", "silu"}, {"x", "bf16"}, {"cu_seqlens", "i32"}};
  std::string lens = "1024";
  for (int i = 1; i < 32; ++i) lens += "+1024";
  packed.emplace_back("lens", lens);
  EXPECT_EQ(key_of("causal_conv1d", "fwd", packed), "causal_conv1d fwd 4x8192x4096 W4 silu varlen1024");
  packed.back().second = "equal";
  EXPECT_EQ(key_of("causal_conv1d", "fwd", packed), "causal_conv1d fwd 4x8192x4096 W4 silu varlen1024");
  packed.back().second = "1024+2048";
  EXPECT_EQ(key_of("causal_conv1d", "fwd", packed), "");
}

TEST(Peers, OtherWorkHasNoPeer) {
  const auto rms = [](std::pair<std::string, std::string> extra) {
    return key_of("rms_norm", "fwd", {{"M", "8"}, {"N", "4"}, {"x", "bf16"}, extra});
  };
  EXPECT_NE(rms({"eps", "1e-6"}), "");
  EXPECT_EQ(rms({"weight", "f32"}), "");
  EXPECT_EQ(rms({"weight", "none"}), "");
  EXPECT_EQ(rms({"x.shift", "1"}), "");
  EXPECT_EQ(rms({"weight_per_group", "1"}), "");
  EXPECT_EQ(key_of("rms_norm", "fwd", {{"M", "8"}, {"N", "4"}, {"x", "f32"}}), "");
  EXPECT_EQ(key_of("rms_norm", "fwd", {{"M", "8"}, {"N", "4"}}), "");
  EXPECT_EQ(key_of("swiglu", "bwd", {{"M", "8"}, {"F", "4"}, {"x", "bf16"}, {"z", "bf16"}}), "");
  EXPECT_EQ(key_of("cross_entropy", "fwd", {{"T", "8"}, {"V", "4"}, {"logits", "bf16"}, {"softcap", "30"}}),
            "");
  EXPECT_EQ(key_of("causal_conv1d", "fwd", {{"T", "8"}, {"D", "4"}, {"x", "bf16"}}), "");
  EXPECT_EQ(key_of("rotary", "fwd", {{"T", "8"}, {"D", "4"}, {"H", "1"}, {"x", "bf16"}, {"cu_seqlens", "i32"}}), "");
  EXPECT_EQ(key_of("rotary_qk", "fwd", {{"q", "bf16"}}), "");
}

TEST(Peers, JoinsFastestFirst) {
  const Peers peers = read_peers(kFile, "peers.json");
  EXPECT_EQ(peers.device, "NVIDIA H200 (132 SMs)");
  const Result r = case_of("rms_norm", "fwd", {{"M", "16384"}, {"N", "4096"}, {"x", "bf16"}});
  const auto rows = peers_of(r, peers);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].peer, "liger");
  const auto versus = fastest_peer(r, peers);
  ASSERT_TRUE(versus);
  EXPECT_NEAR(versus->speedup, 0.7066, 1e-9);
}

TEST(Peers, HotRowsMeetOurHotTime) {
  const Peers peers = read_peers(kFile, "peers.json");
  Result r = case_of("rms_norm", "fwd", {{"M", "4096"}, {"N", "4096"}, {"x", "bf16"}});
  EXPECT_EQ(peers_of(r, peers).size(), 3u);
  auto versus = fastest_peer(r, peers);
  ASSERT_TRUE(versus);
  EXPECT_TRUE(versus->peer.hot);
  EXPECT_NEAR(versus->speedup, 1.888, 1e-9);
  r.hot.median_us = 0;
  versus = fastest_peer(r, peers);
  ASSERT_TRUE(versus);
  EXPECT_FALSE(versus->peer.hot);
}

TEST(Peers, OnlyGpuTimesCompare) {
  const Peers peers = read_peers(kFile, "peers.json");
  Result r = case_of("swiglu", "fwd", {{"M", "16384"}, {"F", "14336"}, {"x", "bf16"}});
  EXPECT_TRUE(fastest_peer(r, peers));
  r.backend = "emulator";
  EXPECT_FALSE(fastest_peer(r, peers));
}

TEST(Peers, MalformedFilesAreRefused) {
  for (const char* text : {"", "[]", "{}", R"({"rows": {}})", R"({"rows": [1]})",
                           R"({"rows": [{"op": "a"}]})", R"({"rows": [{"op": "a", "peer": "b", "ms": 0}]})",
                           R"({"rows": [{"op": "a", "peer": "b", "ms": "1"}]})"}) {
    EXPECT_THROW(read_peers(text, "peers.json"), FormatError) << text;
  }
}

}  // namespace
}  // namespace fla::reports

// The reference stands before the table, which looks its functions up by name.
#include "reference/cross_entropy_shards.h"
#include "reference/distribution_loss.h"
#include "reference/loss.h"
#include "reference/l2_warp.h"
#include "reference/policy_loss.h"
#include "reference/token_logp.h"

#include "fla/cross_entropy_shards.h"
#include "fla/distribution_loss.h"
#include "fla/l2_warp.h"
#include "fla/loss.h"
#include "fla/policy_loss.h"
#include "fla/token_logp.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

namespace {

void add_policy_loss(std::vector<Direction>& table, const char* op, PolicyObjective kind, std::string definition = "") {
  PolicyLossForward f;
  PolicyLossBackward b;
  f.kind = b.kind = kind;
  if (kind == PolicyObjective::cispo) f.epsilon_high = b.epsilon_high = 5;
  table.push_back(direction<PolicyLossForward>(op, "fwd", {}, f));
  table.push_back(direction<PolicyLossBackward>(op, "bwd", {.backward_of = "fwd", .defined_backward = std::move(definition)}, b));
}

}  // namespace

void add_loss(std::vector<Direction>& table) {
  table.push_back(direction<CrossEntropyForward>("cross_entropy", "fwd", {.sample_dim = "T"}));
  table.push_back(direction<CrossEntropyBackward>("cross_entropy", "bwd", {.sample_dim = "T", .backward_of = "fwd"}));
  table.push_back(direction<CrossEntropyForwardBackward>("cross_entropy", "fwd_bwd", {.sample_dim = "T"}));
  table.push_back(direction<CrossEntropyShardStats>("cross_entropy_shards", "stats", {.sample_dim = "T"}));
  table.push_back(direction<CrossEntropyShardCombine>("cross_entropy_shards", "combine", {.sample_dim = "T"}));
  table.push_back(direction<KlDivForwardBackward>("kl_div_logits", "fwd_bwd", {.sample_dim = "T"}));
  table.push_back(direction<L2WarpForward>("l2_warp", "fwd", {.sample_dim = "T"}));
  table.push_back(direction<L2WarpAdd>("l2_warp", "add", {.sample_dim = "T"}));
  table.push_back(direction<ScaleInplace>("scale_inplace", "fwd", {.sample_dim = "M"}));
  table.push_back(direction<LogSumExpForward>("logsumexp", "fwd", {.sample_dim = "T"}));
  table.push_back(direction<LogSumExpBackward>("logsumexp", "bwd", {.sample_dim = "T", .backward_of = "fwd"}));
  table.push_back(direction<SelectiveLogSoftmaxForward>("selective_log_softmax", "fwd", {.sample_dim = "T"}));
  table.push_back(
      direction<SelectiveLogSoftmaxBackward>("selective_log_softmax", "bwd", {.sample_dim = "T", .backward_of = "fwd"}));
  add_policy_loss(table, "grpo_clip_loss", PolicyObjective::clip);
  add_policy_loss(table, "cispo_loss", PolicyObjective::cispo, "the clipped ratio is a weight without a derivative");
  add_policy_loss(table, "sapo_loss", PolicyObjective::sapo);
  table.push_back(direction<GrpoLossForward>("grpo_loss", "fwd", {.sample_dim = "B"}));
  const std::string on_policy = "the ratio to itself, which is 1, has a derivative";
  table.push_back(direction<GrpoLossBackward>(
      "grpo_loss", "bwd", {.sample_dim = "B", .backward_of = "fwd", .defined_backward = on_policy}));
}

}  // namespace fla::harness

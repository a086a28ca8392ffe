// The reference stands before the table, which looks its functions up by name.
#include "reference/linear_kl_div.h"
#include "reference/linear_token_logp.h"

#include "fla/linear_kl_div.h"
#include "fla/linear_loss_shards.h"
#include "fla/linear_token_logp.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_linear_loss(std::vector<Direction>& table) {
  const std::string op = "linear_cross_entropy", penalty = "l2_warp_factor";
  const std::string definition = "the penalty on the largest logits is in the gradients and not in the loss";
  table.push_back(direction<LinearCrossEntropyForward>(op, "fwd", {.sample_dim = "T"}));
  table.push_back(direction<LinearCrossEntropyBackward>(op, "bwd", {.sample_dim = "T", .backward_of = "fwd", .coupled_by = penalty,
                                                         .defined_backward = definition, .defined_with = penalty}));
  table.push_back(direction<LinearCrossEntropyForwardBackward>(op, "fwd_bwd", {.sample_dim = "T", .coupled_by = penalty,
                                                                    .defined_backward = definition, .defined_with = penalty}));
  table.push_back(direction<LinearCrossEntropyShardStats>("linear_cross_entropy_shards", "stats", {.sample_dim = "T"}));
  table.push_back(direction<LinearKlDivForwardBackward>("linear_kl_div", "fwd_bwd", {.sample_dim = "T"}));
  table.push_back(direction<LinearTokenLogpForward>("linear_token_logp", "fwd", {.sample_dim = "T"}));
  table.push_back(
      direction<LinearTokenLogpBackward>("linear_token_logp", "bwd", {.sample_dim = "T", .backward_of = "fwd"}));
}

}  // namespace fla::harness

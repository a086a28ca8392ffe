// The reference stands before the table, which looks its functions up by name.
#include "reference/distribution_loss.h"
#include "reference/loss.h"

#include "fla/distribution_loss.h"
#include "fla/loss.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_loss(std::vector<Direction>& table) {
  table.push_back(direction<CrossEntropyForward>("cross_entropy", "fwd", {.sample_dim = "T"}));
  table.push_back(direction<CrossEntropyBackward>("cross_entropy", "bwd", {.sample_dim = "T", .backward_of = "fwd"}));
  table.push_back(direction<CrossEntropyForwardBackward>("cross_entropy", "fwd_bwd", {.sample_dim = "T"}));
  table.push_back(direction<KlDivForwardBackward>("kl_div_logits", "fwd_bwd", {.sample_dim = "T"}));
}

}  // namespace fla::harness

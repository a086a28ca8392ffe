// The reference stands before the table, which looks its functions up by name.
#include "reference/token_shift.h"

#include "fla/token_shift.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Channels are independent of each other, rows in time are not.
void add_token_shift(std::vector<Direction>& table) {
  const Traits forward{.sample_dim = "D"}, backward{.sample_dim = "D", .backward_of = "fwd"};
  table.push_back(direction<TokenShiftForward>("token_shift", "fwd", forward));
  table.push_back(direction<TokenShiftBackward>("token_shift", "bwd", backward));
  table.push_back(direction<TokenShiftMixForward>("token_shift_mix", "fwd", forward));
  table.push_back(direction<TokenShiftMixBackward>("token_shift_mix", "bwd", backward));
}

}  // namespace fla::harness

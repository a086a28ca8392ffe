// The reference stands before the table, which looks its functions up by name.
#include "reference/varlen.h"

#include "fla/varlen.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_varlen(std::vector<Direction>& table) { table.push_back(direction<VarlenPlan>("varlen_plan", "fwd", {})); }

}  // namespace fla::harness

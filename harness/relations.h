// Relations between calls: what an operator gives for other arguments follows from what it gave for these.
#pragma once

#include "harness/trial.h"

namespace fla::harness {

// "empty": every dimension 0 in turn must succeed and agree with the reference (parameter gradients of
// nothing are zero), or be refused naming an argument that carries the dimension.
Check check_empty(const Problem&, Device&);
// "dropped_outputs": leaving out one optional output must not change one bit of the others.
Check check_dropped_outputs(Trial&, const Snapshot& first);
// "relation:rows_alone": a row computed alone has the bits it has in the batch. For directions that promise
// it.
Check check_rows_alone(const Problem&, Device&, const Snapshot& first);
// "relation:unfused": Direction::unfused gives the same bits.
Check check_unfused(Trial&, const Snapshot& first);

}  // namespace fla::harness

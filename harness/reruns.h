// Properties that show when the same call runs again: it must not depend on what memory held, on when and
// where it runs, or on more workspace than it asks for.
#pragma once

#include "harness/trial.h"

namespace fla::harness {

// Each takes the results of the first run and returns one check. May throw what a kernel throws.
Check check_poison(Trial&, const Snapshot& first);
Check check_repeat(Trial&, const Snapshot& first, int times);
Check check_workspace(Trial&);
Check check_determinism(Trial&, const Snapshot& first);
Check check_asynchrony(Trial&, const Snapshot& first);
Check check_graph(Trial&, const Snapshot& first);

}  // namespace fla::harness

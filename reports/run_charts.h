// The charts of one run.
#pragma once

#include <string>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// Throughput against size of every timed case under the measured copy ceilings.
std::string bandwidth_chart(const harness::RunResult&);
// Arithmetic rate against intensity, for cases with a flop count; "" when there is none.
std::string roofline_chart(const harness::RunResult&);
// Time, and share of the ceiling, against size: two charts per operator with at least two sizes. Peers
// dashed.
std::string scaling_charts(const harness::RunResult&, const Peers*);
// What the largest case of each operator and direction keeps in memory.
std::string memory_bars(const harness::RunResult&);

}  // namespace fla::reports

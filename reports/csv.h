// Results as comma-separated values.
#pragma once

#include <string>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// A line per case; numbers in full precision, empty where not measured. `peers` may be null.
std::string csv_table(const harness::RunResult&, const Peers* peers);

}  // namespace fla::reports

// The report page: one file that opens from disk, needs no network and reads without scripts.
#pragma once

#include <string>
#include <vector>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// One section per run (a check and a bench, say). Equal input gives equal bytes. Every string is escaped, and
// the results are embedded as JSON in <script type="application/json" id="results-0">. `peers` may be null.
std::string html_page(const std::vector<harness::RunResult>& runs, const Peers* peers);

}  // namespace fla::reports

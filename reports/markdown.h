// Results as Markdown, for pull requests and READMEs.
#pragma once

#include <string>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// Verdict, device, warnings, failing cases with their commands, then a table: times where anything was timed,
// else operators. `peers` may be null.
std::string markdown_report(const harness::RunResult&, const Peers* peers);

}  // namespace fla::reports

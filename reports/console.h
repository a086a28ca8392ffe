// What fla-check and fla-bench print. Everything is returned as text; the CLIs print it.
#pragma once

#include <string>

#include "harness/result.h"
#include "reports/compare.h"
#include "reports/peers.h"

namespace fla::reports {

// True for a terminal unless NO_COLOR is set to anything but "".
bool wants_colour(int file_descriptor);

// A failing case as it happens: status, case, reason, and the command that repeats it on a line of its own.
std::string failure_text(const harness::Result&, bool colour);

// Failing cases, a line per operator and direction, the slowest five, warnings, the verdict.
std::string check_report(const harness::RunResult&, bool colour);

// A line per case, warnings, the verdict. `peers` may be null.
std::string bench_report(const harness::RunResult&, const Peers* peers, bool colour);

std::string compare_report(const Comparison&, bool colour);

}  // namespace fla::reports

// The table of a README that says how fast each operator is, and the README that holds it between two comments.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// One row for each operator: the first case with a cold time on a GPU that the files list, which in the suites is the
// canonical shape, forward beside backward of the same parameters; and a row for every other direction. A time of a case
// that did not pass is not shown. `peers` may be null: then without the column of the fastest other library.
std::string speed_table(const std::vector<harness::RunResult>&, const Peers* peers);

// `text` with everything between the lines <!-- name:begin --> and <!-- name:end --> replaced by `block`. Throws
// FormatError where the two comments do not stand there once, in this order.
std::string with_block(std::string_view text, const std::string& name, std::string_view block);

}  // namespace fla::reports

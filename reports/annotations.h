// GitHub workflow commands.
#pragma once

#include <string>

#include "harness/result.h"

namespace fla::reports {

// "::error title=CASE::REASON%0AREPRO", a line per failing case. GitHub shows ten per step: the first nine
// are printed, then one that counts the rest.
std::string github_annotations(const harness::RunResult&);

}  // namespace fla::reports

// Building results: from checks to the one status and reason of a case.
#pragma once

#include <string>

#include "harness/case.h"
#include "harness/result.h"

namespace fla::harness {

// A check that failed with this detail, or passed when there is none.
Check verdict(std::string name, std::string detail);
// A result with the identity of the case and nothing judged.
Result begin_result(const Case&, const std::string& backend);
// The worst status among the checks (failed, then mistrusted) and the first check that has it as the reason.
void finish_result(Result&);

}  // namespace fla::harness

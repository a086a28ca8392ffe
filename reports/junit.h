// JUnit XML, which CI systems read.
#pragma once

#include <string>

#include "harness/result.h"

namespace fla::reports {

// A test suite per operator and direction, a test case per case. Wrong answers are failures; crashes,
// time-outs and exhausted memory are errors; what did not run is skipped.
std::string junit_xml(const harness::RunResult&);

}  // namespace fla::reports

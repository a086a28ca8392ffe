// What a run's record says of itself: build, time, host. No host name, no absolute paths, no environment.
#pragma once

#include <string>

#include "harness/result.h"

namespace fla::harness {

// Filled but for the device, the suites and `finished`. Arguments that are paths are recorded by their last
// name.
RunInfo start_run(const std::string& tool, int argc, char** argv);

// Takes over the device's fields from another record.
void set_device(RunInfo&, const RunInfo& device);

std::string utc_now();  // "2026-11-23T04:00:43Z"

}  // namespace fla::harness

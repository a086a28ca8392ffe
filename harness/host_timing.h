// Work that the host's clock measures, by Google Benchmark: the cost of an asynchronous call, and the references.
#pragma once

#include <functional>
#include <string>

#include "harness/result.h"

namespace fla::harness {

// Times `work` until `seconds` have gone by; at least `least` repetitions, each of so many calls that the clock is
// fine enough. Nothing of Google Benchmark's own output or flags reaches the user.
Timing time_on_host(const std::string& name, const std::function<void()>& work, double seconds, int least = 5);

}  // namespace fla::harness

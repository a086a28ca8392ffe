// Is one timing slower than another? The ratio of their medians, with an interval.
#pragma once

#include <cstdint>

#include "harness/result.h"

namespace fla::reports {

enum class Verdict { faster, slower, same, unclear };
const char* name_of(Verdict);

struct Ratio {
  double value = 0, low = 0, high = 0;  // after / before, with its 95 % bootstrap interval
};

// Samples are drawn again within each run, and round medians between rounds: the interval contains both the
// noise inside a round and the drift between rounds. Without samples the recorded noise widens the interval
// instead. Equal arguments give equal results on every machine.
Ratio ratio_of_medians(const harness::Timing& before, const harness::Timing& after, uint64_t seed);

// slower: the interval lies wholly above 1 + threshold; faster: wholly below 1 - threshold; same: wholly
// between; else, and for anything that is not a number, unclear.
Verdict judge(const Ratio&, double threshold);

// Mean SM clock of after / before; 1 where either was not recorded.
double clock_ratio(const harness::Timing& before, const harness::Timing& after);

}  // namespace fla::reports

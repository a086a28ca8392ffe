#include "harness/timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "harness/statistics.h"

namespace fla::harness {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One round of one subject: samples until the median is known well enough.
void sample_round(Timer& timer, Replay& subject, const SamplingOptions& options, Timing& timing) {
  std::vector<double> round;
  const auto start = Clock::now();
  timing.stop = "converged";
  while (static_cast<int>(round.size()) < options.least_samples || !(median_uncertainty(round) <= options.noise)) {
    if (static_cast<int>(round.size()) >= options.most_samples) break;
    if (static_cast<int>(round.size()) >= options.least_samples && seconds_since(start) > options.time_limit_s) {
      timing.stop = "time_limit";
      break;
    }
    round.push_back(timer.sample_us(subject));
  }
  timing.clock_mhz.push_back(timer.sm_clock_mhz());
  timing.round_medians_us.push_back(quantile(round, 0.5));
  timing.samples_us.insert(timing.samples_us.end(), round.begin(), round.end());
}

void summarise(Timing& timing) {
  timing.median_us = quantile(timing.samples_us, 0.5);
  timing.q1_us = quantile(timing.samples_us, 0.25);
  timing.q3_us = quantile(timing.samples_us, 0.75);
  if (timing.median_us <= 0) return;
  const auto [low, high] = std::minmax_element(timing.round_medians_us.begin(), timing.round_medians_us.end());
  timing.noise = std::max((timing.q3_us - timing.q1_us) / 2, (*high - *low) / 2) / timing.median_us;
  const double clock = quantile(timing.clock_mhz, 0.5);
  timing.throttled = std::any_of(timing.clock_mhz.begin(), timing.clock_mhz.end(),
                                 [&](double mhz) { return mhz > 0 && mhz < 0.95 * clock; });
}

}  // namespace

std::vector<Timing> sample_in_turns(Timer& timer, const std::vector<Replay*>& subjects, const SamplingOptions& options) {
  std::vector<Timing> timings(subjects.size());
  for (Replay* subject : subjects)
    for (const auto start = Clock::now(); seconds_since(start) < 0.05;) timer.sample_us(*subject);  // clocks settle
  for (int round = 0; round < options.rounds; ++round)
    for (size_t i = 0; i < subjects.size(); ++i) sample_round(timer, *subjects[i], options, timings[i]);
  for (Timing& t : timings) summarise(t);
  return timings;
}

}  // namespace fla::harness

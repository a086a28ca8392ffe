#include "reports/ratio.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace fla::reports {

using harness::Timing;
using Values = std::vector<double>;

constexpr int kResamples = 2000;
constexpr double kTail = 0.025;

const char* name_of(Verdict verdict) {
  constexpr const char* kNames[] = {"faster", "slower", "same", "unclear"};
  return kNames[static_cast<int>(verdict)];
}

static double median_in_place(Values& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

static double median(Values values) { return median_in_place(values); }

// The modulus favours small indices by less than 2^-50 and, unlike the standard distributions, gives the same
// draws with every standard library.
static double resampled_median(const Values& values, std::mt19937_64& random, Values& drawn) {
  drawn.resize(values.size());
  for (double& value : drawn) value = values[random() % values.size()];
  return median_in_place(drawn);
}

static double resample(const Timing& t, double round_median, std::mt19937_64& random, Values& drawn) {
  const double within = resampled_median(t.samples_us, random, drawn);
  if (t.round_medians_us.size() < 2) return within;
  return within * resampled_median(t.round_medians_us, random, drawn) / round_median;
}

Ratio ratio_of_medians(const Timing& before, const Timing& after, uint64_t seed) {
  Ratio ratio{after.median_us / before.median_us, 0, 0};
  if (before.samples_us.empty() || after.samples_us.empty()) {
    const double spread = before.noise + after.noise;
    return {ratio.value, ratio.value * (1 - spread), ratio.value * (1 + spread)};
  }
  const double before_rounds = before.round_medians_us.empty() ? 0 : median(before.round_medians_us);
  const double after_rounds = after.round_medians_us.empty() ? 0 : median(after.round_medians_us);
  std::mt19937_64 random(seed);
  Values ratios(kResamples), drawn;
  for (double& r : ratios) {
    const double denominator = resample(before, before_rounds, random, drawn);
    r = resample(after, after_rounds, random, drawn) / denominator;
  }
  std::sort(ratios.begin(), ratios.end());
  ratio.low = ratios[static_cast<size_t>(kTail * kResamples)];
  ratio.high = ratios[static_cast<size_t>((1 - kTail) * kResamples) - 1];
  return ratio;
}

Verdict judge(const Ratio& ratio, double threshold) {
  // A clock that stood or went backwards makes ratios that are no ratios of times.
  const bool is_positive = ratio.value > 0 && ratio.low > 0;
  if (!is_positive || !std::isfinite(ratio.value) || !std::isfinite(ratio.high)) return Verdict::unclear;
  if (ratio.low > 1 + threshold) return Verdict::slower;
  if (ratio.high < 1 - threshold) return Verdict::faster;
  const bool inside = ratio.low >= 1 - threshold && ratio.high <= 1 + threshold;
  return inside ? Verdict::same : Verdict::unclear;
}

static double mean(const Values& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double clock_ratio(const Timing& before, const Timing& after) {
  const double old_clock = mean(before.clock_mhz), new_clock = mean(after.clock_mhz);
  return old_clock > 0 && new_clock > 0 ? new_clock / old_clock : 1;
}

}  // namespace fla::reports

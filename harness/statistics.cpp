#include "harness/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fla::harness {

double quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  std::sort(samples.begin(), samples.end());
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, samples.size() - 1);
  return samples[low] + (at - static_cast<double>(low)) * (samples[high] - samples[low]);
}

double median_uncertainty(std::vector<double> samples) {
  const auto n = static_cast<double>(samples.size());
  if (samples.size() < 6) return std::numeric_limits<double>::infinity();
  std::sort(samples.begin(), samples.end());
  // Ranks between which the median lies with 95 %: the binomial's normal approximation.
  const double reach = 0.98 * std::sqrt(n);
  const auto low = static_cast<size_t>(std::max(0.0, std::floor(n / 2 - reach)));
  const auto high = std::min(samples.size() - 1, static_cast<size_t>(std::ceil(n / 2 + reach)));
  const double median = quantile(samples, 0.5);
  return median > 0 ? (samples[high] - samples[low]) / 2 / median : 0;
}

}  // namespace fla::harness

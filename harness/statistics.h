// Robust statistics of timing samples.
#pragma once

#include <vector>

namespace fla::harness {

// Linear interpolation between order statistics; 0 for no samples.
double quantile(std::vector<double> samples, double q);

// Half the width of the 95 % interval of the median from order statistics, as a share of the median: no assumption on
// the distribution. Infinite below 6 samples.
double median_uncertainty(std::vector<double> samples);

}  // namespace fla::harness

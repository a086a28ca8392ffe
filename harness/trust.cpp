// Vacuity guards: a comparison that could hardly have failed is no evidence.
#include <cmath>
#include <set>

#include "harness/compare.h"

namespace fla::harness {
namespace {

constexpr size_t kFewElements = 64, kFewValues = 16;
constexpr double kUndecidedShare = 0.01;

std::string percent(double share) { return std::to_string(static_cast<int>(share * 100)) + " %"; }

}  // namespace

Check trust(const std::string& name, DType type, const std::vector<reference::Bound>& expected,
            double allowed_zero_share) {
  size_t zeros = 0, undecided = 0;
  std::set<double> values;
  for (const reference::Bound& y : expected) {
    zeros += y.v == 0;
    undecided += y.ambiguous || !(y.e < reference::bound::kUnbounded);
    if (values.size() < kFewValues && !std::isnan(y.v)) values.insert(round_to(type, y.v));
  }
  Check c;
  c.name = name;
  c.elements = static_cast<int64_t>(expected.size());
  const double n = static_cast<double>(expected.size());
  const double zero_share = n > 0 ? static_cast<double>(zeros) / n : 0;
  const double undecided_share = n > 0 ? static_cast<double>(undecided) / n : 0;
  const bool few_values_by_design = allowed_zero_share > 0.9;

  if (expected.size() > kFewElements && zero_share > allowed_zero_share)
    c.detail = percent(zero_share) + " of the expected values are zero";
  else if (expected.size() > kFewElements && !few_values_by_design && values.size() < kFewValues)
    c.detail = "only " + std::to_string(values.size()) + " distinct expected values";
  else if (undecided_share > kUndecidedShare)
    c.detail = percent(undecided_share) + " of the expected values are undecided";
  c.status = c.detail.empty() ? CaseStatus::passed : CaseStatus::mistrusted;
  return c;
}

}  // namespace fla::harness

#include "harness/compare.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include "harness/buffers.h"

namespace fla::harness {
namespace {

using reference::Bound;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// An infinite answer is one value, not an interval: inf - inf below would be NaN.
bool inside(DType type, double got, double value, double error) {
  if (std::isnan(value)) return std::isnan(got);
  if (std::isnan(error) || error < 0) return false;
  if (std::isinf(value)) return got == round_to(type, value);
  return round_to(type, value - error) <= got && got <= round_to(type, value + error);
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// How far one element is from the answer, in several measures.
struct Distance {
  bool accepted = false;
  bool finite = false;  // both sides: the measures below mean something
  double allowed = 0, error = 0, share = 0, ulps = 0;
};

Distance distance(DType type, double got, const Bound& y) {
  Distance d;
  d.accepted = accepts(type, got, y);
  d.finite = std::isfinite(got) && std::isfinite(y.v);
  d.share = d.accepted ? 0 : kInfinity;
  if (!d.finite) return d;
  const double ulp = spacing(type, y.v);
  d.allowed = y.e + ulp / 2;
  d.error = got - y.v;
  d.ulps = std::abs(got - round_to(type, y.v)) / ulp;
  d.share = std::abs(d.error) / d.allowed;
  return d;
}

Check unusable(Check c, const std::string& why) {
  c.status = CaseStatus::failed;
  c.detail = why;
  return c;
}

int64_t product(const std::vector<int64_t>& size) {
  int64_t n = 1;
  for (const int64_t extent : size) n *= extent;
  return n;
}

// Empty when the tensors can be compared at all. Nothing compared proves nothing.
std::string unfit(const std::vector<int64_t>& size, size_t got, size_t expected) {
  if (got == 0 || expected == 0) return "nothing to compare";
  if (got != expected || static_cast<size_t>(product(size)) != got)
    return "compared " + std::to_string(got) + " elements with " + std::to_string(expected);
  return {};
}

}  // namespace

bool accepts(DType type, double got, const Bound& y) {
  if (inside(type, got, y.v, y.e)) return true;
  return y.ambiguous && inside(type, got, y.other, y.other_e);
}

Check compare(const std::string& name, DType type, const std::vector<int64_t>& size,
              const std::vector<double>& got, const std::vector<Bound>& expected) {
  Check c;
  c.name = name;
  c.elements = static_cast<int64_t>(got.size());
  if (const std::string why = unfit(size, got.size(), expected.size()); !why.empty()) return unusable(c, why);

  double error_sum = 0, allowed_sum = 0, ulp_sum = 0, bound_sum = 0;
  int64_t finite = 0, worst = -1, nan_bounds = 0;
  Distance worst_distance;
  for (size_t i = 0; i < got.size(); ++i) {
    const Distance d = distance(type, got[i], expected[i]);
    c.outside += !d.accepted;
    nan_bounds += std::isnan(expected[i].e) && std::isfinite(expected[i].v);
    if (d.finite) {
      ++finite;
      error_sum += d.error;
      allowed_sum += d.allowed;
      bound_sum += expected[i].e;
      ulp_sum += d.ulps;
      c.max_error = std::max(c.max_error, std::abs(d.error));
      c.max_ulp = std::max(c.max_ulp, d.ulps);
      c.bound_used = std::max(c.bound_used, d.share);
    }
    const bool worse = d.accepted == worst_distance.accepted ? d.share > worst_distance.share : !d.accepted;
    if (worst >= 0 && !worse) continue;
    worst = static_cast<int64_t>(i);
    worst_distance = d;
  }
  const Bound& y = expected[static_cast<size_t>(worst)];
  c.index = index_text(size, worst);
  c.got = got[static_cast<size_t>(worst)];
  c.expected = y.v;
  c.bound = y.e;
  if (finite > 0) c.mean_ulp = ulp_sum / static_cast<double>(finite);
  if (allowed_sum > 0) c.signed_bias = error_sum / allowed_sum;

  if (c.outside > 0) {
    return unusable(c, (nan_bounds > 0 ? "the bound is NaN; " : "") + std::to_string(c.outside) + " of " +
                           std::to_string(c.elements) + " elements outside, worst " + c.index + ": got " +
                           number(c.got) + ", expected " + number(c.expected) + " +- " + number(c.bound));
  }
  // Real kernels use a few per cent of a sound bound; using nearly nothing over many elements says the bound
  // is wrong.
  if (c.elements >= 100000 && c.bound_used < 1e-4 && bound_sum > 0)
    c.detail = "the bound looks loose: " + number(c.bound_used) + " of it used";
  return c;
}

Check compare(const std::string& name, const std::vector<int64_t>& size, const std::vector<int64_t>& got,
              const std::vector<int64_t>& expected) {
  Check c;
  c.name = name;
  c.elements = static_cast<int64_t>(got.size());
  if (const std::string why = unfit(size, got.size(), expected.size()); !why.empty()) return unusable(c, why);
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i]) continue;
    if (++c.outside > 1) continue;
    c.index = index_text(size, static_cast<int64_t>(i));
    c.got = static_cast<double>(got[i]);
    c.expected = static_cast<double>(expected[i]);
    c.max_error = std::abs(c.got - c.expected);
  }
  if (c.outside == 0) return c;
  return unusable(c, std::to_string(c.outside) + " of " + std::to_string(c.elements) +
                         " elements differ, first " + c.index + ": got " + number(c.got) + ", expected " +
                         number(c.expected));
}

}  // namespace fla::harness

// Central differences of the forward text in double: coarser than Dual numbers by four digits, but the text runs as
// it runs for everything else, and no rule of differentiation is involved that could be wrong.
#include <algorithm>
#include <array>
#include <cmath>

#include "harness/gradient_sides.h"

namespace fla::harness {
namespace {

constexpr double kSafety = 10;
constexpr double kDoubleOverSingle = 0x1p-29;  // what Bound counts in 2^-24 is 2^-53 here
// 1e-3 to 1e-7, and a coarser one before them. A factor of 4 between steps tells the term in h^2 by itself.
constexpr int kCoarsest = 8, kSteps = 8;
double step_of(int i) { return std::ldexp(1.0, -kCoarsest - 2 * i); }
// A limit above this share of the terms' magnitudes proves nothing.
constexpr double kUseful = 1e-4;

class Differences {
 public:
  Differences(const Sides& sides, const Gradient& input)
      : sides_(sides), input_(input), signs_(sides.pair.forward.origin.seed() + 1) {
    direction_ = sides.draw_directions({input}, signs_).front();
    weights_ = sides.draw_weights(signs_);
  }

  Check run() {
    const double noise = noise_and_weights();
    if (!std::isfinite(noise)) return skipped("an output that nothing bounds");
    const Vector gradient = sides_.backward<double>(weights_).values[static_cast<size_t>(input_.field)];
    for (size_t k = 0; k < gradient.size(); ++k) magnitude_ += std::abs(gradient[k] * direction_[k]);
    std::array<double, kSteps> by_steps, by_backward;
    for (int i = 0; i < kSteps; ++i) take_step(step_of(i), gradient, by_steps[i], by_backward[i]);

    // D(4h) - D(h) = 15 h^2 M3 / 6. A kink nearer than h is in D(4h) and D(h) alike and shows at a smaller step only,
    // so a step's term is the largest of its own and those of smaller steps, less what noise explains.
    double curvature = 0, best = HUGE_VAL;
    int chosen = kSteps - 1;
    for (int i = kSteps - 1; i > 0; --i) {
      const double h = step_of(i);
      const double defect = (by_steps[i - 1] - by_backward[i - 1]) - (by_steps[i] - by_backward[i]);
      curvature = std::fmax(curvature, (std::abs(defect) - 2 * noise / h) / 15);
      const double limit = kSafety * (noise / h + curvature);
      // Chosen by the limit, which does not know how well the two sides agree.
      if (limit < best) best = limit, chosen = i;
    }
    return judged(by_backward[chosen], by_steps[chosen], best, step_of(chosen));
  }

 private:
  // B64: how far the weighted sum of outputs may lie from the truth. Outputs that nothing bounds get no weight.
  // Seen from the end of the smallest step: at the inputs themselves, which may be small integers, a sum may be exact.
  double noise_and_weights() {
    Evaluation<reference::Bound> e = inputs_as<reference::Bound>(sides_.pair.forward);
    std::vector<reference::Bound>& x = e.values[static_cast<size_t>(input_.input)];
    for (size_t k = 0; k < x.size(); ++k) x[k].v += step_of(kSteps - 1) * direction_[k];
    evaluate(sides_.pair.forward, e);
    double noise = 0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const auto& y = e.values[static_cast<size_t>(sides_.cotangents[i].output)];
      for (size_t k = 0; k < y.size(); ++k) {
        const bool bounded = std::isfinite(y[k].v) && y[k].e < 1e30;
        if (bounded) noise += std::abs(weights_[i][k]) * y[k].e * kDoubleOverSingle;
        else if (sides_.cotangents[i].field >= 0) weights_[i][k] = 0;
        else noise = HUGE_VAL;  // its cotangent is 1 and cannot be taken away
      }
    }
    return noise;
  }

  Vector moved(double by) const {
    Vector x = sides_.forward.values[static_cast<size_t>(input_.input)];
    for (size_t k = 0; k < x.size(); ++k) x[k] += by * direction_[k];
    return x;
  }

  Evaluation<double> outputs_at(const Vector& x) const {
    Evaluation<double> e = inputs_as<double>(sides_.pair.forward);
    e.values[static_cast<size_t>(input_.input)] = x;
    evaluate(sides_.pair.forward, e);
    return e;
  }

  // Both sides for the step that was really taken: x + h u is rounded.
  void take_step(double h, const Vector& gradient, double& by_steps, double& by_backward) const {
    const Vector ahead = moved(h), behind = moved(-h);
    by_backward = by_steps = 0;
    for (size_t k = 0; k < gradient.size(); ++k)
      if (direction_[k] != 0) by_backward += gradient[k] * (ahead[k] - behind[k]) / (2 * h);
    const Evaluation<double> up = outputs_at(ahead), down = outputs_at(behind);
    for (size_t i = 0; i < weights_.size(); ++i) {
      const auto output = static_cast<size_t>(sides_.cotangents[i].output);
      for (size_t k = 0; k < weights_[i].size(); ++k)
        if (weights_[i][k] != 0)
          by_steps += weights_[i][k] * (up.values[output][k] - down.values[output][k]) / (2 * h);
    }
  }

  Check skipped(const std::string& why) const {
    Check c;
    c.name = "differences:" + input_.name;
    c.status = CaseStatus::skipped;
    c.detail = why;
    return c;
  }

  Check judged(double got, double expected, double limit, double h) const {
    Check c;
    c.name = "differences:" + input_.name;
    c.elements = 1;
    c.got = got;
    c.expected = expected;
    c.bound = limit;
    c.max_error = std::abs(got - expected);
    if (limit > kUseful * magnitude_ && magnitude_ > 0 && c.max_error <= limit)
      return skipped("no step is fine enough to tell");
    c.bound_used = limit > 0 ? c.max_error / limit : (c.max_error == 0 ? 0 : HUGE_VAL);
    if (c.max_error <= limit) return c;
    c.outside = 1;
    c.status = CaseStatus::failed;
    c.detail = "backward says " + std::to_string(got) + ", differences of forward over " + std::to_string(h) +
               " say " + std::to_string(expected) + " (" + std::to_string(c.bound_used) + " of the allowed difference)";
    return c;
  }

  const Sides& sides_;
  const Gradient& input_;
  Signs signs_;
  Vector direction_;
  std::vector<Vector> weights_;
  double magnitude_ = 0;
};

// A backward that is a definition must stay one: that differences agree in every input is then the failure.
void expect_disagreement(const std::string& definition, std::vector<Check>& checks) {
  Check* agrees = nullptr;
  bool disagrees = false;
  for (Check& c : checks) {
    disagrees |= c.status == CaseStatus::failed;
    if (c.status == CaseStatus::passed && c.got != 0) agrees = &c;
    if (c.status == CaseStatus::failed) c.status = CaseStatus::passed, c.outside = 0, c.detail.clear();
  }
  if (disagrees || !agrees) return;
  agrees->status = CaseStatus::failed;
  agrees->detail = "declared as '" + definition + "', but the backward is what differences of forward say";
}

}  // namespace

std::vector<Check> prove_by_differences(const Sides& sides) {
  std::vector<Check> checks;
  if (sides.cotangents.empty()) return checks;
  for (const Gradient& g : sides.gradients) checks.push_back(Differences(sides, g).run());
  if (!sides.pair.defined.empty()) expect_disagreement(sides.pair.defined, checks);
  return checks;
}

}  // namespace fla::harness

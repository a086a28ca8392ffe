#include "harness/gradient.h"

#include <algorithm>
#include <cmath>

#include "harness/gradient_sides.h"

namespace fla::harness {
namespace {

using reference::Dual;

// Roundings of one side are independent relative errors of its own terms, about 2^-53 each times a small
// factor for the depth of the formula. So the two sides may differ by that share of the sum of magnitudes of
// both: the right side alone would allow nothing where J^T v cancels to zero and the left side does not.
// Measured: 6e-17.
constexpr double kAgreement = 1e-13;
constexpr double kNullDirection = 1e-6;
constexpr int kTrials = 3;
// Where the Jacobian has few entries every column is taken alone, so that each entry of a gradient is proved: a forward
// for every input, each of about inputs + outputs. A square one has up to 4096 entries.
constexpr int64_t kWholeJacobian = 2 * 4096;

// The two sides along one direction.
struct Agreement {
  double by_backward = 0, by_forward = 0, limit = 0;

  double error() const { return std::abs(by_backward - by_forward); }
  double share() const { return limit > 0 ? error() / limit : (error() == 0 ? 0 : HUGE_VAL); }
  bool holds() const { return error() <= limit; }
};

std::string text_of(const Agreement& a) {
  return "backward says " + std::to_string(a.by_backward) + ", the derivative of forward is " +
         std::to_string(a.by_forward) + " (difference " + std::to_string(a.share()) + " of the allowed)";
}

class Proof {
 public:
  explicit Proof(const Sides& sides) : sides_(sides), signs_(sides.pair.forward.origin.seed()) {}

  std::vector<Check> run() {
    std::vector<Check> checks;
    for (const Gradient& g : sides_.gradients) checks.push_back(named("gradient:" + g.name));
    Check joint = named("gradient:joint");
    for (int trial = 0; trial < kTrials; ++trial) {
      weights_ = sides_.draw_weights(signs_);
      back_ = sides_.backward<double>(weights_);
      bounds_ = sides_.backward<reference::Bound>(weights_);
      for (size_t i = 0; i < sides_.gradients.size(); ++i) project(sides_.gradients[i], checks[i]);
      if (trial > 0) continue;
      record(joint, compare(sides_.gradients, sides_.draw_directions(sides_.gradients, signs_)));
      if (joint.status == CaseStatus::passed) guard_null_direction(joint);
      const int64_t inputs = sides_.input_elements();
      if (inputs * (inputs + sides_.output_elements()) <= kWholeJacobian)
        for (const Gradient& g : sides_.gradients) checks.push_back(every_entry(g));
    }
    if (sides_.gradients.empty() || sides_.cotangents.empty()) {
      joint.status = CaseStatus::mistrusted;
      joint.detail = "no input or no output of this case has a gradient";
    }
    checks.push_back(joint);
    return checks;
  }

 private:
  static Check named(std::string name) {
    Check c;
    c.name = std::move(name);
    return c;
  }

  Agreement compare(const std::vector<Gradient>& inputs, const std::vector<Vector>& directions) {
    const Evaluation<Dual> forward = sides_.tangents(inputs, directions);
    Agreement a;
    double magnitude = rounding(inputs, directions);
    for (size_t i = 0; i < sides_.cotangents.size(); ++i) {
      const std::vector<Dual>& y = forward.values[static_cast<size_t>(sides_.cotangents[i].output)];
      for (size_t k = 0; k < y.size(); ++k) {
        a.by_forward += weights_[i][k] * y[k].d;
        constant_ &= y[k].d == 0;
        magnitude += std::abs(weights_[i][k] * y[k].d);
      }
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Vector& g = back_.values[static_cast<size_t>(inputs[i].field)];
      for (size_t k = 0; k < g.size(); ++k) {
        if (directions[i][k] == 0) continue;
        a.by_backward += g[k] * directions[i][k];
        magnitude += std::abs(g[k] * directions[i][k]);
      }
    }
    a.limit = kAgreement * magnitude;
    return a;
  }

  // What rounding may cost where the backward itself cancels (a norm of one element): the fp32 bound of each gradient,
  // carried over to double precision.
  double rounding(const std::vector<Gradient>& inputs, const std::vector<Vector>& directions) const {
    constexpr double kDoubleOverSingle = 0x1p-29, kSafety = 4;
    double sum = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::vector<reference::Bound>& g = bounds_.values[static_cast<size_t>(inputs[i].field)];
      for (size_t k = 0; k < g.size(); ++k)
        if (std::isfinite(g[k].e) && g[k].e < 1e30) sum += std::abs(directions[i][k]) * g[k].e;
    }
    return sum * kSafety * kDoubleOverSingle / kAgreement;
  }

  void project(const Gradient& g, Check& check) {
    const Vector u = sides_.draw_directions({g}, signs_).front();
    const Agreement a = compare({g}, {u});
    record(check, a);
    if (!a.holds()) locate(g, u, check);
  }

  // Halves the support of u as long as one half alone disagrees.
  void locate(const Gradient& g, const Vector& u, Check& check) {
    size_t first = 0, end = u.size();
    const auto part = [&](size_t from, size_t to) {
      Vector some(u.size());
      std::copy(u.begin() + static_cast<ptrdiff_t>(from), u.begin() + static_cast<ptrdiff_t>(to),
                some.begin() + static_cast<ptrdiff_t>(from));
      return compare({g}, {some});
    };
    Agreement at = part(first, end);
    while (end - first > 1) {
      const size_t middle = first + (end - first) / 2;
      const Agreement left = part(first, middle), right = part(middle, end);
      if (left.holds() && right.holds()) break;  // the halves disagree by less than each may
      const bool go_left = !left.holds() && !(left.share() < right.share());
      at = go_left ? left : right;
      (go_left ? end : first) = middle;
    }
    check.index = sides_.entry(g, first);
    check.detail = (end - first > 1 ? "from " : "at ") + check.index + " " + text_of(at);
  }

  // One column of the Jacobian after another. Where a column cancels in the forward, it rounds as its large terms do:
  // those that the whole tensor's rounding speaks of.
  Check every_entry(const Gradient& g) {
    Check check = named("jacobian:" + g.name);
    const Vector& at = sides_.forward.values[static_cast<size_t>(g.input)];
    const double rounding_of_all = kAgreement * rounding({g}, {Vector(at.size(), 1.0)});
    for (size_t k = 0; k < at.size(); ++k) {
      if (!std::isfinite(at[k])) continue;
      Vector unit(at.size());
      unit[k] = 1;
      Agreement a = compare({g}, {unit});
      a.limit += rounding_of_all;
      const bool worst = check.elements == 0 || !(a.share() <= check.bound_used);
      record(check, a);
      if (!worst) continue;
      check.index = sides_.entry(g, k);
      if (!a.holds()) check.detail = "at " + check.index + " " + text_of(a);
    }
    return check;
  }

  static void record(Check& check, const Agreement& a) {
    ++check.elements;
    if (!a.holds()) {
      ++check.outside;
      check.status = CaseStatus::failed;
    }
    if (check.elements > 1 && a.share() <= check.bound_used) return;
    check.bound_used = a.share();
    check.max_error = a.error();
    check.got = a.by_backward;
    check.expected = a.by_forward;
    check.bound = a.limit;
    if (!a.holds()) check.detail = text_of(a);
  }

  // Cotangents in the null space of J^T are satisfied by a backward that returns zeros.
  void guard_null_direction(Check& joint) const {
    const std::string fill(sides_.pair.forward.origin.find("fill").value_or("normal"));
    if (fill == "zeros" || fill == "constant" || constant_) return;
    double in = 0, out = 0;
    for (const Vector& v : weights_) in += static_cast<double>(v.size());
    for (const Gradient& g : sides_.gradients)
      for (const double x : back_.values[static_cast<size_t>(g.field)])
        if (std::isfinite(x)) out += x * x;
    if (std::sqrt(out) >= kNullDirection * std::sqrt(in)) return;
    joint.status = CaseStatus::mistrusted;
    joint.detail = "the cotangents lie in the null space of the backward";
  }

  const Sides& sides_;
  Signs signs_;
  std::vector<Vector> weights_;  // of this trial
  Evaluation<double> back_;
  Evaluation<reference::Bound> bounds_;
  bool constant_ = true;  // no direction so far moved any output: all rows ignored, one class
};

}  // namespace

std::vector<Check> prove_gradients(const GradientPair& pair, bool differences) {
  const Sides sides(pair);
  std::vector<Check> checks = Proof(sides).run();
  if (!differences) return checks;
  const std::vector<Check> more = prove_by_differences(sides);
  checks.insert(checks.end(), more.begin(), more.end());
  return checks;
}

}  // namespace fla::harness

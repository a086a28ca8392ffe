#include "harness/gradient.h"

#include <algorithm>
#include <cmath>

#include "harness/evaluate.h"

namespace fla::harness {
namespace {

using reference::Dual;
using Vector = std::vector<double>;

// Roundings of one side are independent relative errors of its own terms, about 2^-53 each times a small
// factor for the depth of the formula. So the two sides may differ by that share of the sum of magnitudes of
// both: the right side alone would allow nothing where J^T v cancels to zero and the left side does not.
// Measured: 6e-17.
constexpr double kAgreement = 1e-13;
constexpr double kNullDirection = 1e-6;
constexpr int kTrials = 3;

// Independent +-1: every entry weighs the same, none is near zero.
class Signs {
 public:
  explicit Signs(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  double next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return ((x ^ (x >> 31)) >> 63) ? 1.0 : -1.0;
  }
  Vector vector(size_t n) {
    Vector v(n);
    for (double& x : v) x = next();
    return v;
  }

 private:
  uint64_t state_;
};

struct Gradient {
  std::string name;            // of the input
  int input = -1, field = -1;  // in the forward, and d<name> in the backward
};

struct Cotangent {
  int output = -1, field = -1;  // in the forward, and d<name> in the backward; field -1: implied to be 1
};

bool real_field(const Problem& p, int field) {
  return field >= 0 && p.present(field) &&
         is_float(p.args.tensor(p.signature.fields[static_cast<size_t>(field)]).dtype);
}

class Proof {
 public:
  explicit Proof(const GradientPair& pair) : pair_(pair), signs_(pair.forward.origin.seed()) {
    const Problem& front = pair.forward;
    const Problem& back = pair.backward;
    for (size_t f = 0; f < front.signature.fields.size(); ++f) {
      const Field& field = front.signature.fields[f];
      const int here = static_cast<int>(f);
      const int gradient = back.index_of("d" + field.name);
      if (!real_field(front, here) || gradient < 0) continue;
      const bool is_output = back.signature.fields[static_cast<size_t>(gradient)].role != Role::input;
      if (field.role == Role::input && is_output && back.present(gradient))
        gradients_.push_back({field.name, here, gradient});
      if (field.role != Role::input && !is_output && (back.present(gradient) || pair.fused))
        cotangents_.push_back({here, back.present(gradient) ? gradient : -1});
    }
    forward_ = inputs_as<double>(front);
    evaluate(front, forward_);
  }

  std::vector<Check> run() {
    std::vector<Check> checks;
    for (const Gradient& g : gradients_) checks.push_back(named("gradient:" + g.name));
    Check joint = named("gradient:joint");
    for (int trial = 0; trial < kTrials; ++trial) {
      draw_cotangents();
      const Evaluation<double> back = backward<double>();
      bounds_ = backward<reference::Bound>();
      for (size_t i = 0; i < gradients_.size(); ++i) compare_directions({gradients_[i]}, back, checks[i]);
      if (trial > 0) continue;
      compare_directions(gradients_, back, joint);
      if (joint.status == CaseStatus::passed) guard_null_direction(back, joint);
    }
    if (gradients_.empty() || cotangents_.empty()) {
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

  void draw_cotangents() {
    weights_.clear();
    for (const Cotangent& c : cotangents_) {
      const size_t n = forward_.values[static_cast<size_t>(c.output)].size();
      weights_.push_back(c.field < 0 ? Vector(n, 1.0) : signs_.vector(n));
    }
  }

  // Inputs, outputs and saved tensors of the forward under their own names, cotangents as d<output>.
  template <class S>
  Evaluation<S> backward() const {
    const Problem& problem = pair_.backward;
    Evaluation<S> back = inputs_as<S>(problem);
    for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
      const int source = pair_.forward.index_of(problem.signature.fields[f].name);
      // A gradient that is added to what is there shows itself where nothing is.
      if (problem.signature.fields[f].role == Role::inout)
        std::fill(back.values[f].begin(), back.values[f].end(), S(0.0));
      if (problem.signature.fields[f].role != Role::input || !problem.present(static_cast<int>(f))) continue;
      if (source < 0 || !pair_.forward.present(source)) continue;
      back.values[f].assign(forward_.values[static_cast<size_t>(source)].begin(),
                            forward_.values[static_cast<size_t>(source)].end());
      back.integers[f] = forward_.integers[static_cast<size_t>(source)];
    }
    for (size_t i = 0; i < cotangents_.size(); ++i)
      if (cotangents_[i].field >= 0)
        back.values[static_cast<size_t>(cotangents_[i].field)].assign(weights_[i].begin(), weights_[i].end());
    evaluate(problem, back);
    return back;
  }

  // J u by Dual numbers, u given for some inputs and zero for the others.
  Evaluation<Dual> tangents(const std::vector<Gradient>& inputs,
                            const std::vector<Vector>& directions) const {
    Evaluation<Dual> e = inputs_as<Dual>(pair_.forward);
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::vector<Dual>& values = e.values[static_cast<size_t>(inputs[i].input)];
      for (size_t k = 0; k < values.size(); ++k) values[k].d = directions[i][k];
    }
    evaluate(pair_.forward, e);
    return e;
  }

  // Infinite inputs (masked logits) stay where they are: nothing varies around them.
  std::vector<Vector> draw_directions(const std::vector<Gradient>& inputs) {
    std::vector<Vector> directions;
    for (const Gradient& g : inputs) {
      const Vector& at = forward_.values[static_cast<size_t>(g.input)];
      Vector u = signs_.vector(at.size());
      for (size_t k = 0; k < u.size(); ++k)
        if (!std::isfinite(at[k])) u[k] = 0;
      directions.push_back(std::move(u));
    }
    return directions;
  }

  void compare_directions(const std::vector<Gradient>& inputs, const Evaluation<double>& back, Check& check) {
    const std::vector<Vector> directions = draw_directions(inputs);
    const Evaluation<Dual> forward = tangents(inputs, directions);
    double by_dual = 0, by_backward = 0, magnitude = rounding(inputs, directions);
    for (size_t i = 0; i < cotangents_.size(); ++i) {
      const std::vector<Dual>& y = forward.values[static_cast<size_t>(cotangents_[i].output)];
      for (size_t k = 0; k < y.size(); ++k) {
        by_dual += weights_[i][k] * y[k].d;
        constant_ &= y[k].d == 0;
        magnitude += std::abs(weights_[i][k] * y[k].d);
      }
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Vector& g = back.values[static_cast<size_t>(inputs[i].field)];
      for (size_t k = 0; k < g.size(); ++k) {
        if (directions[i][k] == 0) continue;
        by_backward += g[k] * directions[i][k];
        magnitude += std::abs(g[k] * directions[i][k]);
      }
    }
    record(check, by_backward, by_dual, kAgreement * magnitude);
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

  static void record(Check& check, double got, double expected, double limit) {
    ++check.elements;
    const double error = std::abs(got - expected);
    const double share = limit > 0 ? error / limit : (error == 0 ? 0 : HUGE_VAL);
    const bool agrees = error <= limit;
    if (check.elements == 1 || !(share <= check.bound_used)) {
      check.bound_used = share;
      check.max_error = error;
      check.got = got;
      check.expected = expected;
      check.bound = limit;
    }
    if (agrees) return;
    ++check.outside;
    check.status = CaseStatus::failed;
    check.detail = "backward says " + std::to_string(got) + ", the derivative of forward is " +
                   std::to_string(expected) + " (difference " + std::to_string(share) + " of the allowed)";
  }

  // Cotangents in the null space of J^T are satisfied by a backward that returns zeros.
  void guard_null_direction(const Evaluation<double>& back, Check& joint) const {
    const std::string fill(pair_.forward.origin.find("fill").value_or("normal"));
    if (fill == "zeros" || fill == "constant" || constant_) return;
    double in = 0, out = 0;
    for (const Vector& v : weights_) in += static_cast<double>(v.size());
    for (const Gradient& g : gradients_)
      for (const double x : back.values[static_cast<size_t>(g.field)])
        if (std::isfinite(x)) out += x * x;
    if (std::sqrt(out) >= kNullDirection * std::sqrt(in)) return;
    joint.status = CaseStatus::mistrusted;
    joint.detail = "the cotangents lie in the null space of the backward";
  }

  const GradientPair& pair_;
  Signs signs_;
  std::vector<Gradient> gradients_;
  std::vector<Cotangent> cotangents_;
  std::vector<Vector> weights_;  // parallel to cotangents_
  bool constant_ = true;         // no direction so far moved any output: all rows ignored, one class
  Evaluation<double> forward_;
  Evaluation<reference::Bound> bounds_;
};

}  // namespace

std::vector<Check> prove_gradients(const GradientPair& pair) { return Proof(pair).run(); }

}  // namespace fla::harness

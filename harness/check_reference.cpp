// The reference proves itself, without any device.
#include <chrono>
#include <cmath>

#include "harness/check.h"
#include "harness/compare.h"
#include "harness/evaluate.h"
#include "harness/gradient.h"
#include "harness/judge.h"
#include "harness/verdict.h"

namespace fla::harness {
namespace {

const Direction* backward_of(const Direction& forward) {
  for (const Direction& d : all_directions())
    if (d.op == forward.op && d.backward_of == forward.name) return &d;
  return nullptr;
}

// Inputs at the ends of what fp32 holds, or past them.
bool leaves_fp32(const std::string& fill) {
  return fill == "specials" || fill == "extremes" || fill == "gates" || fill == "exhaustive";
}

bool has_derivative(const Case& c) {
  const std::string fill(c.find("fill").value_or("normal"));
  return !leaves_fp32(fill) && !c.find("labels.invalid") && !c.find("offsets.invalid");
}

Check skipped(const std::string& name, const std::string& why) {
  Check c;
  c.name = name;
  c.status = CaseStatus::skipped;
  c.detail = why;
  return c;
}

void add_gradients(const Case& c, bool differences, std::vector<Check>& checks) {
  const Direction& d = *c.direction;
  const Direction* backward = d.backward_of.empty() ? backward_of(d) : &d;
  const bool fused = !backward && is_fused(d);
  if (!backward && !fused) return;
  if (!has_derivative(c)) return checks.push_back(skipped("gradient", "these numbers have no derivative"));
  const Direction* forward = d.backward_of.empty() ? &d : find_direction(d.op + "." + d.backward_of);
  const GradientPair pair = gradient_pair(c, *forward, fused ? d : *backward);
  const std::vector<Check> proofs = prove_gradients(pair, differences);
  checks.insert(checks.end(), proofs.begin(), proofs.end());
}

// A model of a kernel, the same text in float with tree sums, must pass the judgement that kernels must pass;
// and the values inside the bounds must be those of plain double.
void add_models(const Case& c, std::vector<Check>& checks) {
  const Problem problem = sampled(make_problem(c));
  Evaluation<reference::Bound> expected = inputs_as<reference::Bound>(problem);
  Evaluation<reference::Single> model = inputs_as<reference::Single>(problem);
  Evaluation<double> plain = inputs_as<double>(problem);
  // Intermediates of these leave the range of fp32, where Bound says infinity and double does not.
  const bool beyond_fp32 = leaves_fp32(std::string(c.find("fill").value_or("normal")));
  evaluate(problem, expected);
  evaluate(problem, model);
  evaluate(problem, plain);
  for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
    const Field& field = problem.signature.fields[f];
    const Tensor& t = problem.args.tensor(field);
    if (field.role == Role::input || element_count(t) == 0 || !is_float(t.dtype)) continue;
    const std::vector<int64_t> size(t.size, t.size + t.rank);
    std::vector<double> got;
    for (const reference::Single& x : model.values[f]) got.push_back(round_to(t.dtype, value(x)));
    checks.push_back(compare("single:" + field.name, t.dtype, size, got, expected.values[f]));
    if (beyond_fp32) continue;
    got.clear();
    for (const double x : plain.values[f]) got.push_back(round_to(t.dtype, x));
    checks.push_back(compare("double:" + field.name, t.dtype, size, got, expected.values[f]));
  }
}

}  // namespace

Result check_reference(const Case& c, bool differences) {
  const auto start = std::chrono::steady_clock::now();
  Result r = begin_result(c, "reference");
  add_gradients(c, differences, r.checks);
  add_models(c, r.checks);
  finish_result(r);
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace fla::harness

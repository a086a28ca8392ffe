// Which forward problem belongs to a backward case, and the reverse. Both see the same keys of one case
// (problem.h), so that presence, dims and numbers agree by name.
#include <algorithm>

#include "harness/gradient.h"
#include "harness/judge.h"

namespace fla::harness {
namespace {

// A proof needs few rows: the formula is the same in each, and Dual numbers are slow.
constexpr int64_t kProofElements = int64_t{1} << 16;

void set(Case& c, const std::string& key, const std::string& value) {
  const auto known =
      std::find_if(c.values.begin(), c.values.end(), [&](const auto& v) { return v.first == key; });
  if (known == c.values.end()) c.values.emplace_back(key, value);
  else known->second = value;
}

void keep_small(Case& c) {
  const Problem shapes = make_problem(c, false);
  const std::string& rows = c.direction->sample_dim;
  const int64_t largest = largest_tensor(shapes);
  const auto extent = shapes.dims.find(rows);
  if (largest <= kProofElements || extent == shapes.dims.end() || extent->second == 0) return;
  const int64_t per_row = std::max<int64_t>(1, largest / extent->second);
  set(c, rows, std::to_string(std::clamp<int64_t>(kProofElements / per_row, 1, extent->second)));
}

// A forward that saves nothing has no backward; the proof is about the one that does.
void keep_saved(Case& c, const Direction& forward) {
  Args args = forward.defaults;
  const Signature s = forward.signature(args.get());
  std::erase_if(c.values, [&](const auto& v) {
    const Field* f = s.field(v.first);
    return f && f->role == Role::saved && v.second == "none";
  });
}

Problem unrounded(Problem p) {
  for (const Field& f : p.signature.fields) {
    Tensor& t = p.args.tensor(f);
    if (t && is_float(t.dtype)) t.dtype = DType::f64;
  }
  return p;
}

}  // namespace

bool is_fused(const Direction& d) {
  Args args = d.defaults;
  const Signature s = d.signature(args.get());
  const auto is_own_gradient = [&](const Field& f) {
    const Field* of = f.name[0] == 'd' ? s.field(f.name.substr(1)) : nullptr;
    return f.role == Role::output && of && of->role == Role::input;
  };
  return d.backward_of.empty() && std::any_of(s.fields.begin(), s.fields.end(), is_own_gradient);
}

GradientPair gradient_pair(const Case& c, const Direction& forward, const Direction& backward) {
  Case at = c;
  set(at, "seed", std::to_string(c.seed()));  // before the text changes, of which it is the hash
  keep_saved(at, forward);
  at.direction = &backward;
  keep_small(at);
  Problem back = unrounded(make_problem(at));
  at.direction = &forward;
  return {unrounded(make_problem(at)), std::move(back), &forward == &backward,
          backward.defined_with.empty() || c.find(backward.defined_with) ? backward.defined_backward : ""};
}

}  // namespace fla::harness

// Which forward problem belongs to a backward case, and the reverse; by names alone.
#include <algorithm>

#include "harness/gradient.h"

namespace fla::harness {
namespace {

using Values = std::map<std::string, std::string>;

Signature signature_of(const Direction& d) {
  Args args = d.defaults;
  return d.signature(args.get());
}

bool has_dim(const Signature& s, const std::string& name) {
  return std::any_of(s.dims.begin(), s.dims.end(), [&](const NamedDim& d) { return d.name == name; });
}
bool has_attribute(const Signature& s, const std::string& name) {
  return std::any_of(s.attributes.begin(), s.attributes.end(),
                     [&](const Attribute& a) { return a.name == name; });
}

bool is_gradient(const std::string& name) { return name.size() > 1 && name[0] == 'd'; }
std::string primal(const std::string& name) { return name.substr(1); }

bool present(const Problem& p, const std::string& name) {
  const int field = p.index_of(name);
  return field >= 0 && p.present(field);
}

// Dims, attributes and fill of one direction's case that the other direction knows too. Tensor keys are left
// out: their dtypes do not matter here, and their presence is decided field by field.
Values shared_values(const Case& from, const Signature& to) {
  Values values;
  for (const auto& [key, value] : from.values) {
    const bool of_fill = key == "fill" || key == "lens" || key == "ignore" || key == "seed";
    if (of_fill || has_dim(to, key) || has_attribute(to, key)) values[key] = value;
  }
  return values;
}

// Asks for a tensor, or for its absence. f32 everywhere keeps every rule about equal dtypes.
void want(Values& values, const Field& f, bool wanted, const Problem* model) {
  if (!wanted) {
    if (f.presence == Presence::expected) values[f.name] = "none";
    return;
  }
  const Field* same = model ? model->signature.field(f.name) : nullptr;
  const bool as_model = same && model->args.tensor(*same) && !is_float(model->args.tensor(*same).dtype);
  if (as_model) values[f.name] = name_of(model->args.tensor(*same).dtype);
  else if (f.types & kF32) values[f.name] = "f32";
}

// A proof needs few rows: the formula is the same in each, and Dual numbers are slow.
void keep_small(Values& values, const Case& from) {
  constexpr int64_t kProofElements = int64_t{1} << 16;
  const std::string& rows = from.direction->sample_dim;
  const Problem shapes = make_problem(from, false);
  int64_t largest = 1;
  for (const Field& f : shapes.signature.fields)
    if (shapes.args.tensor(f)) largest = std::max(largest, count(shapes.args.tensor(f)));
  const auto extent = shapes.dims.find(rows);
  if (largest <= kProofElements || extent == shapes.dims.end() || !values.count(rows)) return;
  const int64_t per_row = std::max<int64_t>(1, largest / std::max<int64_t>(1, extent->second));
  values[rows] = std::to_string(std::clamp<int64_t>(kProofElements / per_row, 1, extent->second));
  values.erase("lens");
}

void unround(Problem& p) {
  for (const Field& f : p.signature.fields) {
    Tensor& t = p.args.tensor(f);
    if (t && is_float(t.dtype)) t.dtype = DType::f64;
  }
}

// Whether the operator would accept such a call; addresses are only looked at, so any distinct ones do.
bool acceptable(const Problem& p) {
  Args args = p.args;
  uintptr_t address = 4096;
  for (const Field& f : p.signature.fields) {
    Tensor& t = args.tensor(f);
    if (!t) continue;
    t.data = reinterpret_cast<void*>(address);
    int64_t reach = 1;
    for (int i = 0; i < t.rank; ++i) reach += std::max<int64_t>(0, t.size[i] - 1) * t.stride[i];
    address += static_cast<uintptr_t>((reach * size_of(t.dtype) / 256 + 1) * 256);
  }
  return p.origin.direction->validate(args.get()).ok();
}

// A forward input that the backward needs only where the forward stored nothing better may have to be left
// out: rms_norm takes the rows as x or as the stored sum, never both.
Problem acceptable_backward(const Direction& backward, Values values, const Problem& forward) {
  const std::string where = "the backward of " + forward.origin.text();
  const Problem first = make_problem(make_case(backward, values, where));
  if (acceptable(first)) return first;
  for (const Field& f : first.signature.fields) {
    const Field* source = forward.signature.field(f.name);
    if (f.role != Role::input || f.presence == Presence::required || !source || source->role != Role::input)
      continue;
    Values fewer = values;
    fewer.erase(f.name);
    if (f.presence == Presence::expected) fewer[f.name] = "none";
    const Problem p = make_problem(make_case(backward, fewer, where));
    if (acceptable(p)) return p;
  }
  return first;
}

GradientPair unrounded(Problem forward, Problem backward, bool fused) {
  unround(forward);
  unround(backward);
  return {std::move(forward), std::move(backward), fused};
}

}  // namespace

bool is_fused(const Direction& d) {
  const Signature s = signature_of(d);
  return std::any_of(s.fields.begin(), s.fields.end(),
                     [&](const Field& f) {
                       const Field* source = is_gradient(f.name) ? s.field(primal(f.name)) : nullptr;
                       return f.role == Role::output && source && source->role == Role::input;
                     }) &&
         d.backward_of.empty();
}

GradientPair pair_from_forward(const Case& c, const Direction& backward) {
  const Signature forward_names = signature_of(*c.direction), names = signature_of(backward);
  Values forward_values = shared_values(c, forward_names);
  const Problem asked = make_problem(c, false);
  for (const Field& f : asked.signature.fields) {
    const bool for_backward = f.role == Role::saved && f.presence == Presence::expected;
    want(forward_values, f, for_backward || present(asked, f.name), &asked);
  }
  keep_small(forward_values, c);
  Problem forward = make_problem(make_case(*c.direction, forward_values, c.text()));

  Values values = shared_values(forward.origin, names);
  for (const Field& f : names.fields) {
    const bool of_forward = forward_names.field(f.name) && f.role == Role::input;
    if (of_forward) want(values, f, present(forward, f.name), &forward);
    else if (is_gradient(f.name) && forward_names.field(primal(f.name)))
      want(values, f, present(forward, primal(f.name)), nullptr);
  }
  Problem back = acceptable_backward(backward, values, forward);
  return unrounded(std::move(forward), std::move(back), false);
}

GradientPair pair_from_backward(const Direction& forward, const Case& c) {
  const Signature names = signature_of(forward), backward_names = signature_of(*c.direction);
  const Problem asked = make_problem(c, false);
  Values backward_values = shared_values(c, backward_names);
  for (const Field& f : asked.signature.fields) want(backward_values, f, present(asked, f.name), &asked);
  keep_small(backward_values, c);
  Problem back = make_problem(make_case(*c.direction, backward_values, c.text()));

  Values values = shared_values(back.origin, names);
  for (const Field& f : names.fields) {
    const bool used = present(back, f.name) || present(back, "d" + f.name);
    const bool known = backward_names.field(f.name) || backward_names.field("d" + f.name);
    if (used) want(values, f, true, &back);
    else if (known && f.presence != Presence::required) want(values, f, false, nullptr);
  }
  Problem front = make_problem(make_case(forward, values, "the forward of " + c.text()));
  return unrounded(std::move(front), std::move(back), false);
}

GradientPair fused_pair(const Case& c) {
  Values values(c.values.begin(), c.values.end());
  keep_small(values, c);
  const Problem p = make_problem(make_case(*c.direction, values, c.text()));
  return unrounded(p, p, true);
}

}  // namespace fla::harness

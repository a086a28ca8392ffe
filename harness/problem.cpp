// From a case to shapes, dtypes and presence; then to values. The rules of case.h, in the order in which they apply.
#include "harness/problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "harness/case_keys.h"
#include "harness/every_input.h"
#include "harness/evaluate.h"
#include "harness/generate.h"
#include "harness/sample.h"

namespace fla::harness {
namespace {

[[noreturn]] void refuse(const Case& c, const std::string& message) { throw UsageError(c.text(), message); }

std::optional<DType> dtype_named(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i)
    if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  return std::nullopt;
}

void set_attributes(const Case& c, const Signature& s, Args& args) {
  for (const Attribute& a : s.attributes) {
    const auto given = c.find(a.name);
    if (!given) continue;
    char* at = static_cast<char*>(args.get()) + a.offset;
    const std::string text(*given);
    switch (a.kind) {
      case Attribute::Kind::real: {
        const float value = std::stof(text);
        std::memcpy(at, &value, sizeof value);
        break;
      }
      case Attribute::Kind::integer: {
        const int64_t value = std::stoll(text);
        std::memcpy(at, &value, sizeof value);
        break;
      }
      case Attribute::Kind::boolean: {
        const bool value = text == "1";
        std::memcpy(at, &value, sizeof value);
        break;
      }
      case Attribute::Kind::choice: {
        const auto value = static_cast<int32_t>(std::find(a.choices.begin(), a.choices.end(), text) - a.choices.begin());
        std::memcpy(at, &value, sizeof value);
        break;
      }
    }
  }
}

// Builds the shapes of one problem, given (for a backward) those of its forward.
class Shaper {
 public:
  Shaper(const Case& c, const Direction& direction, const Problem* forward)
      : case_(c), direction_(direction), forward_(forward) {}

  Problem shape() {
    problem_.origin = case_;
    problem_.origin.direction = &direction_;
    problem_.args = direction_.defaults;
    problem_.signature = direction_.signature(problem_.args.get());
    set_attributes(case_, problem_.signature, problem_.args);
    problem_.signature = direction_.signature(problem_.args.get());  // attributes may decide which tensors there are
    decide_presence();
    decide_dtypes();
    decide_dims();
    for (const Field& f : problem_.signature.fields) size_tensor(f);
    lay_out();
    return std::move(problem_);
  }

 private:
  const Tensor* forward_tensor(const std::string& name) const {
    if (!forward_) return nullptr;
    const Field* f = forward_->signature.field(name);
    return f ? &forward_->args.tensor(*f) : nullptr;
  }

  // A forward output that is an output of the backward too is recomputed, on request only.
  bool is_recomputed(const Field& f) const {
    if (!forward_ || f.role == Role::input) return false;
    const Field* of = forward_->signature.field(f.name);
    return of && of->role != Role::input;
  }

  // Its key then speaks of the forward's tensor only.
  bool is_replaced(const Field& f) const {
    for (const auto& [from, to] : direction_.replaced_by) {
      const Tensor* there = forward_tensor(to);
      if (f.name == from && there && *there) return true;
    }
    return false;
  }

  bool by_default(const Field& f) const {
    if (!f.with.empty() && !problem_.args.tensor(*problem_.signature.field(f.with))) return false;
    if (f.presence == Presence::required) return true;
    if (is_recomputed(f)) return false;
    if (const Tensor* same = forward_tensor(f.name)) return static_cast<bool>(*same);
    if (f.name[0] == 'd')
      if (const Tensor* of = forward_tensor(f.name.substr(1))) return static_cast<bool>(*of);
    return f.presence == Presence::expected;
  }

  void decide_presence() {
    for (int round = 0; round < 4; ++round) {
      for (const Field& f : problem_.signature.fields) {
        const auto given = case_.find(f.name);
        // "none" of a backward's optional output says nothing of the forward's required one.
        const bool wanted = given && f.presence != Presence::required ? *given != "none" : by_default(f);
        const bool present = !is_replaced(f) && wanted;
        problem_.args.tensor(f) = {};
        problem_.args.tensor(f).rank = present ? 1 : 0;
      }
      problem_.signature = direction_.signature(problem_.args.get());  // rules may depend on presence
    }
  }

  DType default_dtype(const Field& f) const {
    if (!f.like.empty()) {
      const Field& like = *problem_.signature.field(f.like);
      if (problem_.args.tensor(like)) return problem_.args.tensor(like).dtype;
    }
    const Tensor* same = forward_tensor(f.name);
    if (!same && f.name[0] == 'd') same = forward_tensor(f.name.substr(1));
    if (same && *same && (f.types & only(same->dtype))) return same->dtype;
    if (f.types & only(primary_)) return primary_;
    for (const DType type : {DType::f32, DType::i64, DType::u8, DType::i32, DType::f8e4m3})
      if (f.types & only(type)) return type;
    return DType::f32;
  }

  void decide_dtypes() {
    bool first = true;
    for (const Field& f : problem_.signature.fields) {
      Tensor& t = problem_.args.tensor(f);
      if (!t) continue;
      const auto given = case_.find(f.name);
      const auto named = given ? dtype_named(*given) : std::nullopt;
      t.dtype = named ? *named : default_dtype(f);
      if (first && is_float(t.dtype)) primary_ = t.dtype, first = false;
    }
  }

  int64_t extent(const Dim& d) {
    if (d.symbol < 0) return d.extent(0);
    const NamedDim& named = problem_.signature.dims[static_cast<size_t>(d.symbol)];
    const auto known = problem_.dims.find(named.name);
    int64_t value = 0;
    if (known != problem_.dims.end()) {
      value = known->second;
    } else if (const auto given = case_.find(named.name)) {
      value = std::stoll(std::string(*given));
    } else if (const auto lens = case_.find("lens"); lens && named.name == "N" && *lens != "equal") {
      value = std::count(lens->begin(), lens->end(), '+') + 1;
    } else if (named.has_fallback) {
      value = extent(named.fallback);
    } else {
      refuse(case_, "dimension " + named.name + " is not given");
    }
    problem_.dims[named.name] = value;
    return d.extent(value);
  }

  void decide_dims() {
    for (size_t i = 0; i < problem_.signature.dims.size(); ++i) {
      Dim d;
      d.symbol = static_cast<int32_t>(i);
      extent(d);
    }
  }

  void size_tensor(const Field& f) {
    Tensor& t = problem_.args.tensor(f);
    if (!t) return;
    const bool omit = case_.find("omit").has_value();
    t.rank = 0;
    for (const Dim& d : f.dims) {
      const int64_t n = extent(d);
      if (n < 0) refuse(case_, f.name + ": negative size");
      if (omit && d.omittable) {
        if (n != 1) refuse(case_, f.name + ": only a dimension of 1 can be left out");
        continue;
      }
      t.size[t.rank++] = n;
    }
  }

  int64_t layout_key(const Field& f, const char* what, bool for_all) const {
    if (const auto own = case_.find(f.name + "." + what)) return std::stoll(std::string(*own));
    if (for_all)
      if (const auto all = case_.find(std::string("all.") + what)) return std::stoll(std::string(*all));
    return 0;
  }

  void lay_out() {
    problem_.layouts.resize(problem_.signature.fields.size());
    for (size_t i = 0; i < problem_.signature.fields.size(); ++i) {
      const Field& f = problem_.signature.fields[i];
      Tensor& t = problem_.args.tensor(f);
      if (!t) continue;
      Layout& layout = problem_.layouts[i];
      layout.shift = layout_key(f, "shift", true);
      const int64_t inner = std::max<int64_t>(layout_key(f, "inner", false), 1);
      if (inner != 1 && !f.any_inner_stride) refuse(case_, f.name + ".inner: its inner stride must be 1");
      int64_t step = inner;
      for (int d = t.rank - 1; d >= 0; --d) {
        t.stride[d] = step;
        const int64_t n = std::max<int64_t>(t.size[d], 1);
        if (step > std::numeric_limits<int64_t>::max() / 16 / n) refuse(case_, f.name + ": too large");
        step *= n;
        if (d == t.rank - 1 && t.rank > 1) step += layout_key(f, "pad", true);
        if (d == 1 && t.rank > 2) step += layout_key(f, "gap", false);
      }
      if (layout_key(f, "broadcast", false)) {
        if (f.role != Role::input || is_saved(problem_, f))
          refuse(case_, f.name + ".broadcast: only inputs can be broadcast");
        std::fill(t.stride, t.stride + t.rank, 0);
      }
      if (layout_key(f, "alias", false)) {
        if (f.alias.empty()) refuse(case_, f.name + ".alias: may alias nothing");
        layout.alias_of = f.alias;
      }
    }
    finish_layouts();
  }

  void finish_layouts() {
    for (size_t i = 0; i < problem_.signature.fields.size(); ++i) {
      Tensor& t = problem_.args.tensor(problem_.signature.fields[i]);
      if (!t) continue;
      Layout& layout = problem_.layouts[i];
      if (!layout.alias_of.empty()) {
        const int of = problem_.index_of(layout.alias_of);
        const Tensor& original = problem_.args.tensor(problem_.signature.fields[static_cast<size_t>(of)]);
        if (!original) refuse(case_, layout.alias_of + ": absent, cannot be aliased");
        if (original.dtype != t.dtype) refuse(case_, layout.alias_of + ": of another dtype, cannot be aliased");
        std::copy(original.stride, original.stride + kMaxRank, t.stride);
        layout.shift = problem_.layouts[static_cast<size_t>(of)].shift;
      }
      layout.stride.assign(t.stride, t.stride + t.rank);
      layout.span = count(t) == 0 ? 0 : 1;
      for (int d = 0; d < t.rank && layout.span > 0; ++d) layout.span += (t.size[d] - 1) * t.stride[d];
      if (layout.alias_of.empty()) problem_.bytes += (layout.span + layout.shift) * size_of(t.dtype);
    }
  }

  const Case& case_;
  const Direction& direction_;
  const Problem* forward_;
  Problem problem_;
  DType primary_ = DType::f32;
};

// The forward of the same case, and the problem itself. Both are shapes only.
struct Shapes {
  Problem problem;
  std::optional<Problem> forward;
};

Shapes shapes_of(const Case& c) {
  Shapes s;
  if (const Direction* before = forward_of(*c.direction)) {
    Case at = c;  // keys that only the backward knows mean nothing to its forward
    at.direction = before;
    s.forward = Shaper(at, *before, nullptr).shape();
  }
  s.problem = Shaper(c, *c.direction, s.forward ? &*s.forward : nullptr).shape();
  return s;
}

const Field* present_field(const Problem& p, Content::Kind kind) {
  for (const Field& f : p.signature.fields)
    if (f.content.kind == kind && p.args.tensor(f)) return &f;
  return nullptr;
}

bool has_content(const Shapes& s, Content::Kind kind) {
  return present_field(s.problem, kind) || (s.forward && present_field(*s.forward, kind));
}

void check_lens(const Problem& p) {
  const auto lens = p.origin.find("lens");
  const Field* f = present_field(p, Content::offsets);
  if (!lens || *lens == "equal" || !f) return;
  const int64_t sequences = p.args.tensor(*f).size[0] - 1;
  const int64_t given = std::count(lens->begin(), lens->end(), '+') + 1;
  if (given != sequences)
    refuse(p.origin, "lens: " + std::to_string(given) + " lengths for " + std::to_string(sequences) + " sequences");
  const int64_t tokens = extent_of(p, f->content.bound), sum = lens_offsets(*lens).back();
  if (sum != tokens)
    refuse(p.origin, "lens: sums to " + std::to_string(sum) + ", not to " + std::to_string(tokens));
}

// The backward's inputs that the forward gives out: the field here, the field there.
std::vector<std::pair<size_t, size_t>> saved_fields(const Problem& p, const Problem& forward) {
  std::vector<std::pair<size_t, size_t>> pairs;
  for (size_t i = 0; i < p.signature.fields.size(); ++i) {
    const Field& f = p.signature.fields[i];
    const int from = forward.index_of(f.name);
    if (f.role != Role::input || !p.args.tensor(f) || from < 0) continue;
    if (forward.signature.fields[static_cast<size_t>(from)].role == Role::input) continue;
    if (!forward.present(from)) refuse(p.origin, f.name + ": the forward case does not produce it");
    pairs.emplace_back(i, from);
  }
  return pairs;
}

// A key that speaks of nothing would name the same problem twice.
void check_keys(const Case& c, const Shapes& s) {
  for (const CaseKey& key : case_keys(*c.direction))
    if (key.kind == KeyKind::dim && c.find(key.name) && !s.problem.dims.count(key.name) &&
        !(s.forward && s.forward->dims.count(key.name)))
      refuse(c, key.name + ": no tensor of this case has such a dimension");
  const bool offsets = has_content(s, Content::offsets), groups = has_content(s, Content::groups);
  if (c.find("offsets.invalid") && !offsets) refuse(c, "offsets.invalid: no offsets of packed sequences here");
  if (c.find("lens") && !offsets && !groups) refuse(c, "lens: no packed sequences here");
  if (groups && c.find("lens") && (c.find("lens") == "equal" || lens_offsets(*c.find("lens")).back() == 0))
    refuse(c, "lens: ids of sequences need lengths");
  const bool labels = has_content(s, Content::labels);
  if (c.find("labels.invalid") && !labels) refuse(c, "labels.invalid: no labels here");
  if (c.find("ignore") && !labels && !has_content(s, Content::mask)) refuse(c, "ignore: no labels and no mask here");
  check_lens(s.problem);
  if (fill_of(c) == Fill::every)
    if (const std::string why = why_not_every_input(s.problem); !why.empty()) refuse(c, "fill=every: " + why);
  if (c.find("slices") && fill_of(c) != Fill::every) refuse(c, "slices: only with fill=every");
  if (s.forward) saved_fields(s.problem, *s.forward);
}

// A large weight: of its values nothing is sampled, and all of them are kept to be judged.
bool is_large_weight(const Problem& p, const Field& f) {
  const Tensor& t = p.args.tensor(f);
  return t && f.role == Role::input && f.content.kind == Content::real && sample_axis_of(p, f) < 0 && count(t) > kWholeProblemElements;
}

template <class Keep>
void generate_inputs(Problem& p, const Keep& keep) {
  p.values.resize(p.signature.fields.size());
  for (size_t i = 0; i < p.signature.fields.size(); ++i) {
    const Field& f = p.signature.fields[i];
    if (p.args.tensor(f) && (f.role == Role::input || f.role == Role::inout) && keep(f)) generate_values(p, i);
  }
}

// Fills them from the reference on the (sampled) forward problem.
void take_saved(Problem& p, const Problem& forward) {
  const auto pairs = saved_fields(p, forward);
  if (pairs.empty()) return;
  const Problem part = sampled(forward);
  Evaluation<double> e = inputs_as<double>(part);
  evaluate(part, e);
  for (const auto& [to, from] : pairs) {
    const Tensor& source = part.args.tensor(part.signature.fields[from]);
    HostTensor& host = p.values[to];
    host.size.assign(source.size, source.size + source.rank);
    host.real = std::move(e.values[from]);
    for (double& v : host.real) v = round_to(p.args.tensor(p.signature.fields[to]).dtype, v);
  }
}

}  // namespace

int Problem::index_of(std::string_view field) const {
  for (size_t i = 0; i < signature.fields.size(); ++i)
    if (signature.fields[i].name == field) return static_cast<int>(i);
  return -1;
}

bool Problem::present(int field) const {
  return static_cast<bool>(args.tensor(signature.fields[static_cast<size_t>(field)]));
}

Problem make_problem(const Case& c, bool values) {
  Shapes s = shapes_of(c);
  check_keys(c, s);
  if (!values) return std::move(s.problem);
  s.problem.sample = choose_sample(s.problem);
  const auto all = [](const Field&) { return true; };
  generate_inputs(s.problem, all);
  if (!s.forward) return std::move(s.problem);
  // Same seed, same names: the forward's inputs are the backward's.
  if (!c.find("seed")) s.forward->origin.values.emplace_back("seed", std::to_string(c.seed()));
  s.forward->sample = s.problem.sample;
  generate_inputs(*s.forward, all);
  take_saved(s.problem, *s.forward);
  return std::move(s.problem);
}

Problem make_timed_problem(const Case& c) {
  Problem p = make_problem(c, false);
  const auto large = [&](const Field& f) { return is_large_weight(p, f); };
  if (std::none_of(p.signature.fields.begin(), p.signature.fields.end(), large)) {
    p = make_problem(c);
  } else {
    p.sample = choose_sample(p);
    generate_inputs(p, [&](const Field& f) { return !large(f); });
  }
  p.quiet = false;
  return p;
}

std::string shape_text(const Case& c) {
  const Shapes s = shapes_of(c);
  std::string text;
  for (const Problem* p : {&s.problem, s.forward ? &*s.forward : nullptr}) {
    if (!p) continue;
    for (const auto& [name, extent] : p->dims) text += name + '=' + std::to_string(extent) + ' ';
    for (const Field& f : p->signature.fields)
      text += std::string(p->args.tensor(f) ? name_of(p->args.tensor(f).dtype) : "none") + ' ';
  }
  return text;
}

}  // namespace fla::harness

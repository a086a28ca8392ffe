// From a case to shapes, dtypes and presence; then to values. The rules of case.h, in the order in which they apply.
#include "harness/problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "harness/case_keys.h"
#include "harness/evaluate.h"
#include "harness/generate.h"

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
        const bool present = !is_replaced(f) && (given ? *given != "none" : by_default(f));
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
    for (const DType type : {DType::f32, DType::i64, DType::u8, DType::i32})
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
    if (d.symbol < 0) return d.plus;
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
    return value * d.times / d.over + d.plus;
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
        if (f.role != Role::input) refuse(case_, f.name + ".broadcast: only inputs can be broadcast");
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

// ---------------------------------------------------------------------------------------------------- sampling

// The position of the sample_dim in a tensor, -1 where it has none.
int sample_axis_of(const Problem& p, const Field& f) {
  const Tensor& t = p.args.tensor(f);
  const bool omits = t.rank < static_cast<int>(f.dims.size());
  int axis = 0;
  for (const Dim& d : f.dims) {
    if (omits && d.omittable) continue;
    if (d.symbol >= 0 && d.times == 1 && d.over == 1 && d.plus == 0 &&
        p.signature.dims[static_cast<size_t>(d.symbol)].name == p.origin.direction->sample_dim)
      return axis;
    ++axis;
  }
  return -1;
}

int64_t largest_elements(const Problem& p) {
  int64_t most = 0;
  for (const Field& f : p.signature.fields)
    if (p.args.tensor(f)) most = std::max(most, count(p.args.tensor(f)));
  return most;
}

std::vector<int64_t> choose_sample(const Problem& p) {
  const auto dim = p.dims.find(p.origin.direction->sample_dim);
  const int64_t most = largest_elements(p);
  if (most <= kWholeProblemElements || dim == p.dims.end() || dim->second <= 4) return {};
  const int64_t extent = dim->second, per_index = std::max<int64_t>(most / extent, 1);
  const int64_t wanted = std::clamp<int64_t>((int64_t{1} << 19) / per_index, 4, 64);
  std::vector<int64_t> sample{0, extent - 1};
  for (const int64_t boundary : {int64_t{1} << 31, int64_t{1} << 32})
    if (boundary / per_index < extent) sample.push_back(boundary / per_index);
  for (const int64_t edge : {int64_t{1}, int64_t{263}, int64_t{264}, int64_t{127}, int64_t{128}, int64_t{65535}, int64_t{65536}})
    if (edge < extent) sample.push_back(edge);
  uint64_t state = p.origin.seed() | 1;
  while (static_cast<int64_t>(sample.size()) < wanted) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sample.push_back(static_cast<int64_t>((state >> 20) % static_cast<uint64_t>(extent)));
  }
  sample.resize(static_cast<size_t>(std::min<int64_t>(wanted, static_cast<int64_t>(sample.size()))));
  std::sort(sample.begin(), sample.end());
  sample.erase(std::unique(sample.begin(), sample.end()), sample.end());
  return sample;
}

// Walks an element index of the sampled tensor to that of the whole, or back (-1: outside the sample).
struct SampleMap {
  int64_t inner = 1, whole = 1, kept = 1;  // elements per index, extents of the axis

  SampleMap(const Tensor& t, int axis, int64_t sample_size) : whole(t.size[axis]), kept(sample_size) {
    for (int d = axis + 1; d < t.rank; ++d) inner *= t.size[d];
  }
  int64_t to_whole(int64_t i, const std::vector<int64_t>& sample) const {
    const int64_t within = i % inner, index = i / inner % kept, outer = i / inner / kept;
    return (outer * whole + sample[static_cast<size_t>(index)]) * inner + within;
  }
  int64_t to_sample(int64_t i, const std::vector<int64_t>& sample) const {
    const int64_t within = i % inner, index = i / inner % whole, outer = i / inner / whole;
    const auto at = std::lower_bound(sample.begin(), sample.end(), index);
    if (at == sample.end() || *at != index) return -1;
    return (outer * kept + (at - sample.begin())) * inner + within;
  }
};

// ------------------------------------------------------------------------------------------------------ values

void generate_values(Problem& p, size_t field) {
  const Field& f = p.signature.fields[field];
  const Tensor& t = p.args.tensor(f);
  HostTensor& host = p.values[field];
  host.size.assign(t.size, t.size + t.rank);
  const int axis = p.sample.empty() ? -1 : sample_axis_of(p, f);
  if (axis >= 0) host.size[static_cast<size_t>(axis)] = static_cast<int64_t>(p.sample.size());
  int64_t n = 1;
  for (const int64_t extent : host.size) n *= extent;
  if (f.content.kind == Content::offsets) {
    host.integer = sequence_offsets(p, t.size[0] - 1, p.dims.count("T") ? p.dims.at("T") : 0, p.origin.seed());
    return;
  }
  const Generator make(p, static_cast<int>(field));
  auto at = [&](int64_t i) { return axis < 0 ? i : SampleMap(t, axis, host.size[static_cast<size_t>(axis)]).to_whole(i, p.sample); };
  if (is_float(t.dtype)) {
    host.real.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) host.real[static_cast<size_t>(i)] = round_to(t.dtype, make.real(at(i)));
  } else {
    host.integer.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) host.integer[static_cast<size_t>(i)] = make.integer(at(i));
  }
}

void check_lens(const Problem& p) {
  const auto lens = p.origin.find("lens");
  if (!lens || *lens == "equal" || !p.dims.count("N") || !p.dims.count("T")) return;
  const std::vector<int64_t> offsets = sequence_offsets(p, p.dims.at("N"), p.dims.at("T"), 0);
  if (!p.origin.find("offsets.invalid") && offsets.back() != p.dims.at("T"))
    refuse(p.origin, "lens: sums to " + std::to_string(offsets.back()) + ", T is " + std::to_string(p.dims.at("T")));
}

// Fills the backward's inputs that the forward produces, from the reference on the (sampled) forward problem.
void take_saved(Problem& p, const Problem& forward) {
  std::vector<std::pair<size_t, int>> wanted;
  for (size_t i = 0; i < p.signature.fields.size(); ++i) {
    const Field& f = p.signature.fields[i];
    const int from = forward.index_of(f.name);
    if (f.role != Role::input || !p.args.tensor(f) || from < 0) continue;
    if (forward.signature.fields[static_cast<size_t>(from)].role == Role::input) continue;
    if (!forward.present(from)) refuse(p.origin, f.name + ": the forward case does not produce it");
    wanted.emplace_back(i, from);
  }
  if (wanted.empty()) return;
  const Problem part = sampled(forward);
  Evaluation<double> e = inputs_as<double>(part);
  evaluate(part, e);
  for (const auto& [to, from] : wanted) {
    const Tensor& source = part.args.tensor(part.signature.fields[static_cast<size_t>(from)]);
    HostTensor& host = p.values[to];
    host.size.assign(source.size, source.size + source.rank);
    host.real = e.values[static_cast<size_t>(from)];
    for (double& v : host.real) v = round_to(p.args.tensor(p.signature.fields[to]).dtype, v);
  }
}

Problem make(const Case& c, bool values, const std::vector<int64_t>* sample) {
  const Direction* before = forward_of(*c.direction);
  Problem forward;
  if (before) {
    Case at = c;
    at.direction = before;
    // The forward sees the same keys; those that only the backward knows mean nothing to it.
    forward = Shaper(at, *before, nullptr).shape();
  }
  Problem p = Shaper(c, *c.direction, before ? &forward : nullptr).shape();
  p.origin = c;
  check_lens(p);
  if (!values) return p;
  p.sample = sample ? *sample : choose_sample(p);
  p.values.resize(p.signature.fields.size());
  for (size_t i = 0; i < p.signature.fields.size(); ++i) {
    const Field& f = p.signature.fields[i];
    if (p.args.tensor(f) && (f.role == Role::input || f.role == Role::inout)) generate_values(p, i);
  }
  if (!before) return p;
  // Same seed, same names: the forward's inputs are the backward's.
  forward.origin.values = c.values;
  if (!c.find("seed")) forward.origin.values.emplace_back("seed", std::to_string(c.seed()));
  forward.sample = p.sample;
  forward.values.resize(forward.signature.fields.size());
  for (size_t i = 0; i < forward.signature.fields.size(); ++i) {
    const Field& f = forward.signature.fields[i];
    if (forward.args.tensor(f) && (f.role == Role::input || f.role == Role::inout)) generate_values(forward, i);
  }
  take_saved(p, forward);
  return p;
}

}  // namespace

int Problem::index_of(const std::string& field) const {
  for (size_t i = 0; i < signature.fields.size(); ++i)
    if (signature.fields[i].name == field) return static_cast<int>(i);
  return -1;
}

bool Problem::present(int field) const {
  return static_cast<bool>(args.tensor(signature.fields[static_cast<size_t>(field)]));
}

Problem make_problem(const Case& c, bool values) { return make(c, values, nullptr); }

Problem sampled(const Problem& whole) {
  if (whole.sample.empty()) return whole;
  Problem part = whole;
  part.sample.clear();
  part.dims[whole.origin.direction->sample_dim] = static_cast<int64_t>(whole.sample.size());
  part.bytes = 0;
  for (size_t i = 0; i < part.signature.fields.size(); ++i) {
    const Field& f = part.signature.fields[i];
    Tensor& t = part.args.tensor(f);
    if (!t) continue;
    const int axis = sample_axis_of(whole, f);
    if (axis >= 0) t.size[axis] = static_cast<int64_t>(whole.sample.size());
    int64_t step = 1;
    for (int d = t.rank - 1; d >= 0; --d) {
      t.stride[d] = step;
      step *= t.size[d];
    }
    part.layouts[i] = {{t.stride, t.stride + t.rank}, 0, step, {}};
    part.bytes += step * size_of(t.dtype);
  }
  return part;
}

void fill_storage(const Problem& p, int field, int64_t first, int64_t count, void* bytes) {
  const auto index = static_cast<size_t>(field);
  const Field& f = p.signature.fields[index];
  const Tensor& t = p.args.tensor(f);
  const HostTensor& host = p.values[index];
  const int axis = p.sample.empty() ? -1 : sample_axis_of(p, f);
  if (axis < 0) return encode(t.dtype, host, first, count, bytes);

  const SampleMap map(t, axis, static_cast<int64_t>(p.sample.size()));
  const Direction* forward = forward_of(*p.origin.direction);
  const Signature forward_signature = forward ? full_signature(*forward, true) : Signature{};
  const Field* before = forward_signature.field(f.name);
  const bool saved = before && before->role != Role::input, upstream = is_upstream(p, f);
  const bool labels = f.content.kind == Content::labels;
  const Generator make(p, field);
  auto fill = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t at = map.to_sample(first + i, p.sample);
      if (!is_float(t.dtype)) {
        const int64_t v = at >= 0 ? host.integer[static_cast<size_t>(at)] : labels ? f.content.special : make.integer(first + i);
        encode_integer(t.dtype, v, bytes, i);
      } else if (at >= 0) {
        encode_real(t.dtype, host.real[static_cast<size_t>(at)], bytes, i);
      } else {
        encode_real(t.dtype, upstream ? 0.0 : saved ? 1.0 : make.cheap_real(first + i), bytes, i);
      }
    }
  };
  const int64_t threads = count < 100000 ? 1 : std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, 16);
  std::vector<std::thread> workers;
  for (int64_t w = 1; w < threads; ++w) workers.emplace_back(fill, count * w / threads, count * (w + 1) / threads);
  fill(0, count / threads);
  for (std::thread& w : workers) w.join();
}

}  // namespace fla::harness

#include "harness/sample.h"

#include <algorithm>

#include "harness/case_keys.h"
#include "harness/generate.h"

namespace fla::harness {
namespace {

constexpr int64_t kSampledElements = int64_t{1} << 19;

// Outside the sample these hold a constant that keeps sums over rows to the sample; one shared element
// cannot.
bool must_be_neutral(const Problem& p, const Field& f) {
  return f.content.kind == Content::labels || is_upstream(p, f) || is_saved(p, f);
}

// What sums over rows needs rows that add nothing: of ignored labels, or of zero upstream gradients.
bool sums_are_of_the_sample(const Problem& p) {
  const auto& fields = p.signature.fields;
  const bool sums = std::any_of(fields.begin(), fields.end(), [&](const Field& f) {
    return f.role == Role::output && p.args.tensor(f) && sample_axis_of(p, f) < 0;
  });
  return !sums || std::any_of(fields.begin(), fields.end(), [&](const Field& f) {
    return p.args.tensor(f) && sample_axis_of(p, f) >= 0 && (f.content.kind == Content::labels || is_upstream(p, f));
  });
}

bool can_be_sampled(const Problem& p) {
  if (const std::string& key = p.origin.direction->coupled_by; !key.empty() && p.origin.find(key)) return false;
  return sums_are_of_the_sample(p) && std::none_of(p.signature.fields.begin(), p.signature.fields.end(), [&](const Field& f) {
    return p.args.tensor(f) && sample_axis_of(p, f) >= 0 && is_broadcast(p, f) && must_be_neutral(p, f);
  });
}

int64_t largest_elements(const Problem& p) {
  int64_t most = 0;
  for (const Field& f : p.signature.fields)
    if (p.args.tensor(f)) most = std::max(most, count(p.args.tensor(f)));
  return most;
}

}  // namespace

int sample_axis_of(const Problem& p, const Field& f) {
  const Tensor& t = p.args.tensor(f);
  const bool omits = t.rank < static_cast<int>(f.dims.size());
  int axis = 0;
  for (const Dim& d : f.dims) {
    if (omits && d.omittable) continue;
    if (d.plain() &&
        p.signature.dims[static_cast<size_t>(d.symbol)].name == p.origin.direction->sample_dim)
      return axis;
    ++axis;
  }
  return -1;
}

bool is_broadcast(const Problem& p, const Field& f) {
  return p.origin.find(f.name + ".broadcast").has_value();
}

bool is_saved(const Problem& p, const Field& f) {
  const Direction* forward = forward_of(*p.origin.direction);
  if (!forward || f.role != Role::input) return false;
  const Signature before = full_signature(*forward, true);
  const Field* there = before.field(f.name);
  return there && there->role != Role::input;
}

std::vector<int64_t> choose_sample(const Problem& p) {
  const auto dim = p.dims.find(p.origin.direction->sample_dim);
  const int64_t most = largest_elements(p);
  if (most <= kWholeProblemElements || dim == p.dims.end() || dim->second <= 4 || !can_be_sampled(p))
    return {};
  const int64_t extent = dim->second, per_index = std::max<int64_t>(most / extent, 1);
  const auto wanted = static_cast<size_t>(std::clamp<int64_t>(kSampledElements / per_index, 4, 64));
  std::vector<int64_t> sample{0, extent - 1};
  const auto add = [&](int64_t index) {
    const bool fresh = std::find(sample.begin(), sample.end(), index) == sample.end();
    if (index < extent && fresh && sample.size() < wanted) sample.push_back(index);
  };
  for (const int64_t boundary : {int64_t{1} << 31, int64_t{1} << 32}) add(boundary / per_index);
  for (const int64_t edge : {1, 263, 264, 127, 128, 65535, 65536}) add(edge);
  uint64_t state = p.origin.seed() | 1;
  for (int tries = 0; tries < 1000; ++tries) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    add(static_cast<int64_t>((state >> 20) % static_cast<uint64_t>(extent)));
  }
  std::sort(sample.begin(), sample.end());
  return sample;
}

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

}  // namespace fla::harness

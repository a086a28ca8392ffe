#include "harness/rejects.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>

#include "harness/verdict.h"

namespace fla::harness {

bool names_argument(const std::string& text, const std::string& argument) {
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t at = text.find(argument); at != std::string::npos; at = text.find(argument, at + 1)) {
    const size_t end = at + argument.size();
    if ((at == 0 || !in_word(text[at - 1])) && (end == text.size() || !in_word(text[end]))) return true;
  }
  return false;
}

std::vector<Dim> axes_of(const Field& field, const Tensor& t) {
  std::vector<Dim> axes;
  const bool omits = t.rank < static_cast<int>(field.dims.size());
  for (const Dim& d : field.dims)
    if (!(omits && d.omittable)) axes.push_back(d);
  return axes;
}

std::vector<std::string> carriers_of(const Problem& problem, int symbol) {
  std::vector<std::string> names;
  for (const Field& f : problem.signature.fields) {
    const Tensor& t = problem.args.tensor(f);
    if (!t) continue;
    const std::vector<Dim> axes = axes_of(f, t);
    if (std::any_of(axes.begin(), axes.end(), [&](const Dim& d) { return d.symbol == symbol; }))
      names.push_back(f.name);
  }
  return names;
}

namespace {

class Rejects {
 public:
  explicit Rejects(Trial& trial) : trial_(trial), problem_(trial.problem), good_(trial.buffers.args()) {}

  Check run() {
    trial_.prepare(Poison::nan);
    for (const Field& f : problem_.signature.fields) {
      if (!good_.tensor(f)) continue;
      pointers(f);
      dtypes(f);
      extents(f);
      strides(f);
      if (f.role != Role::input) aliases(f);
    }
    for (const Attribute& a : problem_.signature.attributes) attribute(a);
    trial_.device.synchronize();
    if (const std::string written = trial_.buffers.written_output(); !written.empty())
      fail("a refused call", written);
    Check c = verdict("rejects", first_failure_);
    c.elements = tried_;
    c.outside = failures_;
    return c;
  }

 private:
  using Names = std::vector<std::string>;

  void fail(const std::string& what, const std::string& why) {
    if (++failures_ == 1) first_failure_ = what + ": " + why;
  }

  // A call that validation accepts is not run: it would be free to destroy anything.
  void expect(const Args& bad, const Names& names, const std::string& what) {
    ++tried_;
    const Direction& direction = *problem_.origin.direction;
    if (direction.validate(bad.get()).ok()) return fail(what, "accepted by validation");
    const Status status = trial_.launch(bad, trial_.workspace_bytes(), trial_.device.stream(0));
    if (status.ok()) return fail(what, "accepted by run");
    const std::string text = status.text;
    const auto named = [&](const std::string& name) { return names_argument(text, name); };
    if (std::none_of(names.begin(), names.end(), named))
      fail(what, "refused, but \"" + text + "\" does not name it");
  }

  // A copy of the good arguments with one tensor changed.
  template <class Change>
  void with(const Field& f, const Names& names, const std::string& what, Change change) {
    Args bad = good_;
    change(bad.tensor(f));
    expect(bad, names, f.name + " " + what);
  }

  static bool empty(const Tensor& t) {
    return std::any_of(t.size, t.size + t.rank, [](int64_t n) { return n == 0; });
  }

  void pointers(const Field& f) {
    const Tensor& t = good_.tensor(f);
    if (f.presence == Presence::required) with(f, {f.name}, "absent", [](Tensor& x) { x = Tensor{}; });
    if (const Field* mate = f.with.empty() ? nullptr : problem_.signature.field(f.with); mate)
      with(*mate, {f.name, mate->name}, "absent while " + f.name + " is given",
           [](Tensor& x) { x = Tensor{}; });
    if (empty(t)) return;
    with(f, {f.name}, "null", [](Tensor& x) { x.data = nullptr; });
    if (size_of(t.dtype) > 1)
      with(f, {f.name}, "misaligned", [](Tensor& x) { x.data = static_cast<char*>(x.data) + 1; });
  }

  void dtypes(const Field& f) {
    for (int i = 0; i < kDTypeCount; ++i) {
      const DType type = static_cast<DType>(i);
      const auto change = [&](Tensor& x) { x.dtype = type; };
      const Field* like = f.like.empty() ? nullptr : problem_.signature.field(f.like);
      if (!(f.types & only(type))) with(f, {f.name}, std::string("of dtype ") + name_of(type), change);
      else if (like && good_.tensor(*like) && good_.tensor(*like).dtype != type)
        with(f, {f.name, f.like}, std::string("of dtype ") + name_of(type) + " beside " + f.like, change);
    }
    with(f, {f.name}, "of unknown dtype", [](Tensor& x) { x.dtype = static_cast<DType>(kDTypeCount); });
  }

  // One more element along an axis contradicts the other tensors; where no other axis shares the extent, it
  // is legal.
  void extents(const Field& f) {
    const Tensor& t = good_.tensor(f);
    const std::vector<Dim> axes = axes_of(f, t);
    for (int axis = 0; axis < t.rank; ++axis) {
      const std::string place = " in axis " + std::to_string(axis);
      with(f, {f.name}, "of negative size" + place, [&](Tensor& x) { x.size[axis] = -1; });
      const Dim& d = axes[static_cast<size_t>(axis)];
      const Names names = d.symbol < 0 ? Names{f.name} : carriers_of(problem_, d.symbol);
      if (d.symbol < 0 || (names.size() > 1 && (d.rounds_up || exact_everywhere(d.symbol))))
        with(f, names, "one longer" + place, [&](Tensor& x) { ++x.size[axis]; });
    }
    if (t.rank == static_cast<int>(f.dims.size()) && t.rank < kMaxRank)
      with(f, {f.name}, "of higher rank", [](Tensor& x) {
        x.size[x.rank] = 1;
        x.stride[x.rank++] = 1;
      });
  }

  // Halved extents hide an off-by-one of the whole.
  bool exact_everywhere(int symbol) const {
    for (const Field& f : problem_.signature.fields)
      for (const Dim& d : f.dims)
        if (d.symbol == symbol && d.over != 1) return false;
    return true;
  }

  void strides(const Field& f) {
    const Tensor& t = good_.tensor(f);
    if (empty(t) || t.rank == 0) return;
    if (t.stride[0] > 0)
      with(f, {f.name}, "with a negative stride", [](Tensor& x) { x.stride[0] = -x.stride[0]; });
    const int last = t.rank - 1;
    if (!f.any_inner_stride && t.size[last] > 1)
      with(f, {f.name}, "with inner stride 2", [&](Tensor& x) { x.stride[last] = 2; });
    if (f.role != Role::input && t.rank >= 2 && t.size[0] > 1 && t.size[1] > 1)
      with(f, {f.name}, "with rows on top of each other", [](Tensor& x) { x.stride[0] = 0; });
  }

  void aliases(const Field& f) {
    if (empty(good_.tensor(f))) return;
    for (const Field& other : problem_.signature.fields) {
      const Tensor& there = good_.tensor(other);
      if (other.name == f.name || !there || empty(there)) continue;
      const Names names{f.name, other.name};
      if (f.alias != other.name && other.alias != f.name)
        with(f, names, "in the memory of " + other.name, [&](Tensor& x) { x.data = there.data; });
      else if (f.alias == other.name && Strided(there).count() > 1 && !Strided(there).has_gaps())
        with(f, names, "one element into " + other.name,
             [&](Tensor& x) { x.data = static_cast<char*>(there.data) + size_of(there.dtype); });
    }
  }

  template <class T>
  void with_value(const Attribute& a, T value, const std::string& what) {
    Args bad = good_;
    std::memcpy(static_cast<char*>(bad.get()) + a.offset, &value, sizeof value);
    expect(bad, {a.name}, a.name + " = " + what);
  }

  void attribute(const Attribute& a) {
    const Range& r = a.range;
    const bool bounded_below = std::isfinite(r.min), bounded_above = std::isfinite(r.max);
    switch (a.kind) {
      case Attribute::Kind::real:
        with_value(a, std::numeric_limits<float>::quiet_NaN(), "NaN");
        if (!r.allow_infinite) with_value(a, std::numeric_limits<float>::infinity(), "inf");
        if (bounded_below)
          with_value(a, static_cast<float>(r.exclude_min ? r.min : r.min - 1), "below its minimum");
        if (bounded_above) with_value(a, static_cast<float>(r.max + 1), "above its maximum");
        return;
      case Attribute::Kind::integer:
        if (bounded_below) with_value(a, static_cast<int64_t>(r.min) - 1, "below its minimum");
        if (bounded_above) with_value(a, static_cast<int64_t>(r.max) + 1, "above its maximum");
        return;
      case Attribute::Kind::choice:
        with_value(a, int32_t{-1}, "-1");
        with_value(a, static_cast<int32_t>(a.choices.size()), "one past its names");
        return;
      case Attribute::Kind::boolean:
        return;
    }
  }

  Trial& trial_;
  const Problem& problem_;
  const Args good_;
  std::string first_failure_;
  int64_t tried_ = 0, failures_ = 0;
};

}  // namespace

Check check_rejects(Trial& trial) { return Rejects(trial).run(); }

}  // namespace fla::harness

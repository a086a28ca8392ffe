// One call of a reference in a test: tensors made from the struct's own description, addressed by name.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fla/describe.h"
#include "reference/scalar/scalars.h"

namespace fla::reference::test {

using Extents = std::map<std::string, int64_t>;
using Names = std::set<std::string>;

// What one visit of describe() is asked to make: every required tensor and those named.
template <class S>
struct Tensors {
  std::map<std::string, std::vector<S>> real;
  std::map<std::string, std::vector<int64_t>> integer;
  Names inputs, outputs, integers;

  std::vector<S>& operator[](const std::string& name) { return real.at(name); }
  const std::vector<S>& operator[](const std::string& name) const { return real.at(name); }
  bool has(const std::string& name) const { return inputs.count(name) || outputs.count(name); }
};

template <class S>
class Allocator {
 public:
  Allocator(const Extents& extents, const Names& wanted, Tensors<S>& tensors)
      : extents_(extents), wanted_(wanted), tensors_(tensors) {}

  Dim dim(const char* name) { return dim(name, Dim(-1)); }
  Dim dim(const char* name, Dim fallback) {
    const auto found = extents_.find(name);
    return found == extents_.end() ? fallback : Dim(found->second);
  }
  template <class T>
  void attribute(const char*, T&, Range = {}) {}
  template <class E, int n>
  void option(const char*, E&, const char* const (&)[n]) {}
  void input(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) {
    place(name, t, s, r, true, false);
  }
  void output(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) {
    place(name, t, s, r, false, true);
  }
  void saved(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) {
    place(name, t, s, r, false, true);
  }
  void inout(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) {
    place(name, t, s, r, true, true);
  }

 private:
  void place(const std::string& name, Tensor& t, const Shape& shape, const Rule& rule, bool in, bool out) {
    t = Tensor{};
    if (rule.presence != Presence::required && !wanted_.count(name)) return;
    if (in) tensors_.inputs.insert(name);
    if (out) tensors_.outputs.insert(name);
    const bool integer = (rule.types & kFloats) == 0;
    t.dtype = integer ? DType::i64 : DType::f32;
    t.rank = shape.rank;
    int64_t n = 1;
    for (int i = shape.rank - 1; i >= 0; --i) {
      t.size[i] = shape.dims[i].extent(0);
      t.stride[i] = n;
      n *= t.size[i];
    }
    if (integer) {
      tensors_.integers.insert(name);
      auto& data = tensors_.integer[name];
      data.resize(static_cast<size_t>(n));
      t.data = data.data();
    } else {
      auto& data = tensors_.real[name];
      data.resize(static_cast<size_t>(n));
      t.data = data.data();
    }
  }

  const Extents& extents_;
  const Names& wanted_;
  Tensors<S>& tensors_;
};

// Twice, because shapes may depend on the presence of tensors that are visited later.
template <class S, class A>
void allocate(A& args, const Extents& extents, const Names& wanted, Tensors<S>& tensors) {
  for (int visit = 0; visit < 2; ++visit) {
    tensors = {};
    Allocator<S> allocator(extents, wanted, tensors);
    describe(allocator, args);
  }
}

// The same inputs as scalars of another type.
template <class To, class From>
void copy_inputs(const Tensors<From>& from, Tensors<To>& to) {
  for (const std::string& name : to.inputs) {
    if (to.integers.count(name)) {
      to.integer[name].assign(from.integer.at(name).begin(), from.integer.at(name).end());
      continue;
    }
    for (size_t i = 0; i < to.real[name].size(); ++i) to.real[name][i] = To(value(from.real.at(name)[i]));
  }
}

inline void fill_normal(std::vector<double>& data, std::mt19937_64& random, double mean = 0) {
  std::normal_distribution<double> normal(mean, 1);
  for (double& x : data) x = static_cast<double>(static_cast<float>(normal(random)));
}

inline void fill_signs(std::vector<double>& data, std::mt19937_64& random) {
  for (double& x : data) x = (random() & 1) != 0 ? 1 : -1;
}

}  // namespace fla::reference::test

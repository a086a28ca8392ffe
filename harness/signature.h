// From describe() to the run-time Signature.
#pragma once

#include "fla/describe.h"
#include "harness/operator.h"

namespace fla::harness {

// The visitor behind signature_of; kept out of line so that describe() is all that is instantiated per struct.
class SignatureBuilder {
 public:
  explicit SignatureBuilder(void* object) : object_(static_cast<char*>(object)) {}
  Signature take();

  Dim dim(const char* name);
  Dim dim(const char* name, Dim fallback);
  void attribute(const char* name, float& value, Range range = {});
  void attribute(const char* name, int64_t& value, Range range = {});
  void attribute(const char* name, bool& value, Range range = {});
  template <class E, int n>
  void option(const char* name, E& value, const char* const (&names)[n]) {
    static_assert(sizeof(E) == sizeof(int32_t));
    choice(name, reinterpret_cast<int32_t*>(&value), names, n);
  }
  void input(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) { field(name, t, s, r, Role::input); }
  void output(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) { field(name, t, s, r, Role::output); }
  void saved(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) { field(name, t, s, r, Role::saved); }
  void inout(const char* name, Tensor& t, const Shape& s, const Rule& r = {}) { field(name, t, s, r, Role::inout); }

 private:
  void choice(const char* name, int32_t* value, const char* const* names, int count);
  void field(const char* name, Tensor&, const Shape&, const Rule&, Role);
  size_t offset_of(const void* member) const {
    return static_cast<size_t>(static_cast<const char*>(member) - object_);
  }

  struct Links {
    const Tensor *like, *with, *alias;
  };

  char* object_;
  Signature signature_;
  std::vector<Links> links_;  // parallel to signature_.fields
};

template <class A>
Signature signature_of(A& args) {
  SignatureBuilder builder(&args);
  describe(builder, args);
  return builder.take();
}

}  // namespace fla::harness

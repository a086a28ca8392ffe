// Tensors of an argument struct as the references read them: float tensors point to arrays of the scalar
// type, integer tensors to int64_t, whatever their dtype says; strides are in elements (harness/operator.h,
// Direction::reference).
#pragma once

#include <cstdint>
#include <type_traits>

#include "fla/tensor.h"
#include "reference/scalar/scalars.h"

namespace fla::reference {

// The tensor with all dimensions of its description: a dimension of extent 1 is put back at `axis` where the
// caller left it out ([M, G, N] given as [M, N]). Absent tensors stay absent.
inline Tensor lifted(const Tensor& t, int rank, int axis) {
  if (!t || t.rank != rank - 1) return t;
  Tensor full = t;
  full.rank = rank;
  for (int from = axis; from < t.rank; ++from) {
    full.size[from + 1] = t.size[from];
    full.stride[from + 1] = t.stride[from];
  }
  full.size[axis] = 1;
  full.stride[axis] = 0;
  return full;
}

template <class E>
class View {
 public:
  explicit View(const Tensor& t) : data_(static_cast<E*>(t.data)), tensor_(t) {}
  View(const Tensor& t, int rank, int axis) : View(lifted(t, rank, axis)) {}

  explicit operator bool() const { return static_cast<bool>(tensor_); }
  int64_t size(int axis) const { return tensor_.size[axis]; }

  template <class... Index>
  E& operator()(Index... index) const {
    int64_t offset = 0;
    int axis = 0;
    ((offset += static_cast<int64_t>(index) * tensor_.stride[axis++]), ...);
    return data_[offset];
  }

 private:
  E* data_;
  Tensor tensor_;
};

// An input that may be of a float or of an integer dtype (masks).
template <class S>
class NumberView {
 public:
  NumberView(const Tensor& t, int rank, int axis)
      : numbers_(t, rank, axis), integers_(t, rank, axis), is_integer_(t && !is_float(t.dtype)) {}

  explicit operator bool() const { return static_cast<bool>(numbers_); }
  template <class... Index>
  S operator()(Index... index) const {
    return is_integer_ ? S(static_cast<double>(integers_(index...))) : numbers_(index...);
  }

 private:
  View<S> numbers_;
  View<int64_t> integers_;
  bool is_integer_;
};

// An attribute or a count as a scalar: exact.
template <class S, class Number>
constexpr S constant(Number n) {
  return S(static_cast<double>(n));
}

}  // namespace fla::reference

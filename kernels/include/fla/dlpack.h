// Conversion from and to DLPack, the exchange format of PyTorch, JAX, CuPy and others. A header of its own, so that
// nobody else needs <dlpack/dlpack.h>; include that (any version from 0.8) before this.
#pragma once

#include "fla/tensor.h"

namespace fla {

// kDLFloat8_e4m3fn of DLPack 1.1 and later, which an older header does not name.
inline constexpr uint8_t kDLFloat8E4m3 = 10;

// False when the DLPack dtype has lanes, is none of ours, or the rank exceeds five; `tensor` is then absent. Borrowed
// memory: the DLTensor must outlive every call that uses the result. A DLTensor without strides is row-major.
inline bool from_dlpack(const DLTensor& from, Tensor& tensor) {
  tensor = {};
  if (from.dtype.lanes != 1 || from.ndim < 0 || from.ndim > kMaxRank) return false;
  const int bits = from.dtype.bits;
  switch (from.dtype.code) {
    case kDLFloat:
      if (bits != 16 && bits != 32 && bits != 64) return false;
      tensor.dtype = bits == 16 ? DType::f16 : bits == 32 ? DType::f32 : DType::f64;
      break;
    case kDLBfloat:
      if (bits != 16) return false;
      tensor.dtype = DType::bf16;
      break;
    case kDLFloat8E4m3:
      if (bits != 8) return false;
      tensor.dtype = DType::f8e4m3;
      break;
    case kDLInt:
      if (bits != 8 && bits != 32 && bits != 64) return false;
      tensor.dtype = bits == 8 ? DType::i8 : bits == 32 ? DType::i32 : DType::i64;
      break;
    case kDLUInt:
    case kDLBool:
      if (bits != 8) return false;
      tensor.dtype = DType::u8;
      break;
    default: return false;
  }
  tensor.data = static_cast<char*>(from.data) + from.byte_offset;
  tensor.rank = from.ndim;
  int64_t step = 1;
  for (int i = from.ndim - 1; i >= 0; --i) {
    tensor.size[i] = from.shape[i];
    tensor.stride[i] = from.strides ? from.strides[i] : step;
    step *= from.shape[i];
  }
  return true;
}

// The view of `tensor` as DLPack sees it; its shape and strides point into `tensor`, which must outlive it.
inline DLTensor to_dlpack(Tensor& tensor, DLDevice device) {
  DLTensor view = {};
  view.data = tensor.data;
  view.device = device;
  view.ndim = tensor.rank;
  view.dtype.bits = static_cast<uint8_t>(8 * size_of(tensor.dtype));
  view.dtype.lanes = 1;
  view.dtype.code = static_cast<uint8_t>(tensor.dtype == DType::bf16  ? kDLBfloat
                                         : tensor.dtype == DType::f8e4m3 ? kDLFloat8E4m3
                                         : is_float(tensor.dtype)     ? kDLFloat
                                         : tensor.dtype == DType::u8  ? kDLUInt
                                                                      : kDLInt);
  view.shape = tensor.size;
  view.strides = tensor.stride;
  return view;
}

}  // namespace fla

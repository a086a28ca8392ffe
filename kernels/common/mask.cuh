// Masks, whose dtype is known at run time only.
#pragma once

#include "common/vector.cuh"

namespace fla::detail {

// A mask over tokens, [B, T] of floats or integers (kMaskTypes).
struct MaskOperand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride_b = 0, stride_t = 0;

  FLA_HOST_DEVICE explicit operator bool() const { return data != nullptr; }
  FLA_DEVICE float read(int64_t b, int64_t t) const {
    const int64_t index = b * stride_b + t * stride_t;
    if (dtype == DType::i32) return static_cast<float>(load_index({data, dtype}, index));
    if (dtype != DType::u8) return load_float(AnyFloat{const_cast<void*>(data), dtype}, index);
    const auto* bytes = static_cast<const uint8_t*>(data) + index;
#if !defined(FLA_GPU)
    emulator::on_load(bytes, 1);
#endif
    return static_cast<float>(*bytes);
  }
};

inline MaskOperand mask_operand(const Tensor& t) {
  if (t.rank < 1) return {};
  return {t.data, t.dtype, t.rank > 1 ? t.stride[0] : 0, t.stride[t.rank - 1]};
}

}  // namespace fla::detail

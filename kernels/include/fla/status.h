// What every public function returns: one code for the project, and a text that names the argument.
#pragma once

#include <cstdint>

namespace fla {

// The specs name errors each in their own way; this is the one list. (INVALID_ARGUMENT, E_ATTR, E_VALUE and
// BAD_OPTION are invalid_argument; SHAPE_MISMATCH, E_SHAPE and E_RANK are shape_mismatch; E_CONFLICT is
// unsupported_combination; E_LIMIT is unsupported_shape; E_STRIDE, E_ALIAS, E_DTYPE as one expects.)
// Values are stable.
enum class StatusCode : int32_t {
  ok = 0,
  invalid_argument = 1,
  null_pointer = 2,
  shape_mismatch = 3,
  overflow = 4,  // a product of extents, strides or bytes does not fit 63 bits
  bad_stride = 5,
  misaligned = 6,
  aliasing = 7,
  unsupported_dtype = 8,
  unsupported_shape = 9,
  unsupported_combination = 10,
  workspace_too_small = 11,
  device_mismatch = 12,
  not_capturable = 13,
  cuda_error = 14,
  comm_error = 15,
  internal = 16,
};

constexpr const char* name_of(StatusCode code) {
  constexpr const char* names[] = {"ok",
                                   "invalid_argument",
                                   "null_pointer",
                                   "shape_mismatch",
                                   "overflow",
                                   "bad_stride",
                                   "misaligned",
                                   "aliasing",
                                   "unsupported_dtype",
                                   "unsupported_shape",
                                   "unsupported_combination",
                                   "workspace_too_small",
                                   "device_mismatch",
                                   "not_capturable",
                                   "cuda_error",
                                   "comm_error",
                                   "internal"};
  const auto index = static_cast<uint32_t>(code);
  return index <= 16 ? names[index] : "unknown";
}

// Plain data, returned by value: no allocation, nothing thread-local, safe to keep.
struct [[nodiscard]] Status {
  StatusCode code = StatusCode::ok;
  int32_t cuda_code = 0;  // the cudaError_t behind cuda_error, else 0
  char text[120];         // "weight: size 4095 in dimension N, expected 4096"; empty when ok

  Status() { text[0] = 0; }
  constexpr bool ok() const { return code == StatusCode::ok; }
};

}  // namespace fla

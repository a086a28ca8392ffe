// From run-time dtypes to template arguments, without macros:
//
//   return dispatch_float(a.x.dtype, [&](auto tag) { using T = typename decltype(tag)::type; ... });
#pragma once

#include "common/vector.cuh"
#include "fla/status.h"

namespace fla::detail {

template <class T>
struct TypeTag {
  using type = T;
};

// f32, f16 or bf16; validation has refused everything else before.
template <class F>
Status dispatch_float(DType dtype, F&& body) {
  switch (dtype) {
    case DType::f32: return body(TypeTag<float>{});
    case DType::f16: return body(TypeTag<f16>{});
    default: return body(TypeTag<bf16>{});
  }
}

}  // namespace fla::detail

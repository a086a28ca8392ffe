// Copies of matrices, converted on the way where the dtypes differ.
#pragma once

#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

// [rows, columns] to the same shape, any float dtypes and row strides; one rounding.
Status copy_rows(const Tensor& from, const Tensor& to, Stream);

}  // namespace fla::detail

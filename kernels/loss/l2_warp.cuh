// The largest logits of rows, for whoever has the logits in parts.
#pragma once

#include "loss/logit_row.cuh"

namespace fla::detail {

// By row. Absent: nobody asks.
struct RowPeaks {
  float* max = nullptr;
  int32_t* argmax = nullptr;
  int64_t max_stride = 1, argmax_stride = 1;

  explicit operator bool() const { return max != nullptr; }
  RowPeaks from(int64_t row) const {
    if (!max) return {};
    return {max + row * max_stride, argmax + row * argmax_stride, max_stride, argmax_stride};
  }
};

// Of logits [rows, columns], the classes from `first_class` on. Beyond class 0, what is there already is of the classes
// before.
Status find_peaks(const Tensor& logits, const RowPeaks&, int64_t first_class, Stream);

// dlogits[t, argmax[t]], where these columns have it, once more with the penalty: formed with *factor max[t] in fp32 and
// rounded once. Skipped rows have it too. Needs lse.
Status add_peaks(const LogitArgs&, DType, const RowPeaks&, const float* factor, Stream);

}  // namespace fla::detail

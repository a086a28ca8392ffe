// What every public row norm is lowered to (norms.cu): one problem description per direction. Absent tensors are null.
#pragma once

#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

struct RowNormOptions {
  bool centred = false;      // rows lose their mean first (layer norm)
  bool sum = false;          // the statistic is a sum over the row, not a mean (l2 norm)
  bool swish = true;         // the gate's activation: swish or sigmoid
  bool gate_before = false;  // the gate multiplies the norm's input, not its output
  bool per_group = false;    // weight and bias are [G, N], not [N]
  float weight_offset = 0;

  bool operator==(const RowNormOptions&) const = default;
};

struct RowNormForward {
  Tensor x, residual, gate, weight, bias;
  Tensor y, residual_out, mean, rstd;
  float eps = 0;
  RowNormOptions options;
};

struct RowNormBackward {
  Tensor u;                  // the normalised rows as stored
  bool normalised = false;   // u is the norm's output (l2 norm): xhat itself
  Tensor gate, weight, bias, mean, rstd, dy, dresidual_out;
  Tensor dx, dgate, dresidual, dweight, dbias, y;
  bool accumulate = false;   // onto dweight and dbias
  RowNormOptions options;
};

// Arguments are valid.
Status run(const RowNormForward&, Stream);
// Both, in one launch where they are short rows of one length and the same dtypes.
Status run(const RowNormForward&, const RowNormForward&, Stream);
size_t workspace_bytes(const RowNormBackward&);
Status run(const RowNormBackward&, Workspace, Stream);

}  // namespace fla::detail

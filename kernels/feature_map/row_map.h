// The row-wise functions of learned maps over stored layers, where the map is not fused with its products.
#pragma once

#include "fla/learned_map.h"

namespace fla::detail {

enum class RowMap : int32_t { softmax, relu, product };
constexpr RowMap row_map_of(LearnedMap kind) {
  return kind == LearnedMap::hedgehog ? RowMap::softmax : kind == LearnedMap::t2r ? RowMap::relu : RowMap::product;
}

// h [M, E] or [M, 2E] f32, without the biases, which are added here; [E] any float, optional.
struct RowMapCall {
  RowMap kind = RowMap::relu;
  Tensor h = {}, bias = {}, bias2 = {};
  float scale = 1;      // of a product
  bool in_base_2 = false;  // exponentials in one part, for results of 16 bits
};

// y: [M, E], softmax [M, 2E]; any float.
Status run_row_map(const RowMapCall&, const Tensor& y, Stream);
// dh: as h in shape; dy as y; any float.
Status run_row_map_backward(const RowMapCall&, const Tensor& dy, const Tensor& dh, Stream);

}  // namespace fla::detail

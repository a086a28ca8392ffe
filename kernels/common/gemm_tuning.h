// Choosing cuBLASLt's algorithm. Nothing is timed at run time: a product takes the algorithm that the offline table names
// for its bucket, if the library accepts it here, else the library's first guess. fla-tune measures and writes the table.
#pragma once

#include <cstdint>

#include "gemm.h"

namespace fla::detail {

// The attributes that identify an algorithm of cuBLASLt, from one version of the library to the next as far as it can.
struct GemmAlgorithm {
  int32_t id = -1;
  uint32_t tile = 0, stages = 0;
  int32_t split_k = 1;
  uint32_t reduction = 0, swizzle = 0, custom = 0;
  uint16_t inner_shape = 0, cluster_shape = 0;

  bool operator==(const GemmAlgorithm&) const = default;
};

// Products that share an algorithm: types and layout equal, every extent within the same half octave.
struct GemmBucket {
  int32_t sm = 0;  // 90
  DType operands = DType::bf16, result = DType::bf16;
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  int32_t m = 0, n = 0, k = 0;  // half octaves

  bool operator==(const GemmBucket&) const = default;
};

struct GemmTableRow {
  GemmBucket bucket;
  GemmAlgorithm algorithm;
};

// floor(2 log2 extent), for extents of at least 1: steps at 1, 1.41, 2, 2.83, 4, ...
constexpr int32_t half_octave(int64_t extent) {
  int32_t octave = 0;
  while (octave < 61 && (int64_t{2} << octave) <= extent) ++octave;
  const double above = static_cast<double>(extent) / static_cast<double>(int64_t{1} << octave);
  return 2 * octave + (above * above >= 2 ? 1 : 0);
}

GemmBucket bucket_of(const Gemm&, int sm);

// For fla-tune, GPU builds only. Up to `most` algorithms that the library proposes for the product, best guess first;
// the number found, or 0 with the reason in `status`.
int gemm_candidates(const Gemm&, GemmAlgorithm* out, int most, Status& status);
Status multiply_with(const Gemm&, const GemmAlgorithm&, Workspace, Stream);
// The table's choice for the product, or an algorithm of id -1.
GemmAlgorithm gemm_table_choice(const Gemm&);
// The table that this library was built with.
const GemmTableRow* gemm_table(int& rows);
// Of the current device: 90.
int current_sm();

}  // namespace fla::detail

// Expansions of rows of 16 elements, forward. Per row 32 bytes come and 272 or 306 go: a block makes a tile of 64 in shared
// memory, with one store of a word for two columns, and ten blocks of a multiprocessor take turns between making and
// writing (79 % of a copy on an H200; blocks that stay and fetch their next rows ahead are no faster).
#include "feature_map/expansion_narrow.cuh"

namespace fla::detail {
namespace {

constexpr int kBlocksPerMultiprocessor = 10;

template <class T, bool kAffine>
FLA_KERNEL void FLA_BOUNDS(kNarrowRows, kBlocksPerMultiprocessor) narrow_forward_kernel(FLA_PARAMETERS ExpansionTile a, T* out) {
  using Columns = NarrowColumns<kAffine>;
  constexpr int kWide = 16 / sizeof(T);
  wait_for_predecessor();
  T* staged = shared_memory<T>();
  float* parameters = shared_memory<float>() + kNarrowRows * Columns::kCount / 2;
  if constexpr (kAffine) {
    stage_parameters(a, parameters, parameters + kNarrowWidth);
    block_barrier();
  }
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kNarrowRows, left = a.rows - first_row;
  NarrowInput<T> x;
  x.fetch(a, first_row + thread);
  NarrowRow r;
  r.take(x);
  if constexpr (kAffine) r.prepare(a, parameters, parameters + kNarrowWidth);
  else r.scale(a);

  NarrowLine<T, Columns::kCount> line(staged, thread);
  if constexpr (!kAffine) {
    line.put(0, 1.0f);
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) line.put(Columns::kLinear + i, r.t[i]);
  }
  FLA_UNROLL
  for (int i = 0; i < kNarrowWidth; ++i) line.put(Columns::kSquares + i, r.t[i] * (r.t[i] * kRootHalf));
  int column = Columns::kTriangle;
  FLA_UNROLL
  for (int i = 0; i < kNarrowWidth; ++i) {
    FLA_UNROLL
    for (int j = i + 1; j < kNarrowWidth; ++j) line.put(column++, r.t[i] * r.t[j]);
  }
  block_barrier();

  const int elements = (left < kNarrowRows ? static_cast<int>(left) : kNarrowRows) * Columns::kCount;
  T* to = out + first_row * Columns::kCount;
  FLA_UNROLL_BY(4)
  for (int i = thread; i < elements / kWide; i += kNarrowRows) store(to + i * kWide, load<T, kWide>(staged + i * kWide));
  for (int i = elements / kWide * kWide + thread; i < elements; i += kNarrowRows) store(to + i, load<T, 1>(staged + i));
}

template <class T, bool kAffine>
Status launch_narrow(const ExpansionTile& a, void* out, Stream stream) {
  constexpr size_t kWords = kNarrowRows * NarrowColumns<kAffine>::kCount / 2 + (kAffine ? 2 * kNarrowWidth : 0);
  return launch<&narrow_forward_kernel<T, kAffine>>({.grid = divide_up(a.rows, kNarrowRows),
                                                     .block = kNarrowRows,
                                                     .shared_bytes = 4 * kWords,
                                                     .stream = stream,
                                                     .dependent = true},
                                                    a, static_cast<T*>(out));
}

}  // namespace

Status run_narrow(const ExpansionTile& a, void* out, DType dtype, Stream stream) {
  const bool affine = !a.columns.linear;
  if (dtype == DType::bf16) return affine ? launch_narrow<bf16, true>(a, out, stream) : launch_narrow<bf16, false>(a, out, stream);
  return affine ? launch_narrow<f16, true>(a, out, stream) : launch_narrow<f16, false>(a, out, stream);
}

}  // namespace fla::detail

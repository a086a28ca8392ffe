// Expansions, forward: a block stages a tile of rows and writes its products as one flat run of 16-byte vectors, wherever
// rows start in it. Rows of a period (as few as make a whole number of vectors) repeat the same pairs, so a thread finds
// the pairs of its vector once and serves every period of the tile with them: two shared loads and a product an element.
#include "feature_map/expansion_narrow.cuh"

#include <numeric>

#include "common/dispatch.h"
#include "common/workspace.h"

namespace fla::detail {
namespace {

struct ForwardArgs {
  ExpansionTile tile;
  AnyFloat out, diagonal;
  int64_t out_stride = 0, diagonal_stride = 0;
  int32_t columns = 0;                // of out
  int32_t period = 1, slots = 0;      // rows of a period, and its vectors
  int32_t lanes = 1;                  // threads that share a vector's periods
};

// Walks the columns of a row and says which two staged words each multiplies.
class Pairs {
 public:
  FLA_DEVICE Pairs(const ExpansionColumns& columns, int column) : columns_(columns) { seek(column); }

  FLA_DEVICE void operands(int& first, int& second) const {
    const int width = columns_.width;
    if (column_ >= columns_.triangle_begin()) {
      first = i_;
      second = columns_.partner ? width + j_ : j_;
    } else if (column_ >= columns_.squares_begin()) {
      first = column_ - columns_.squares_begin();
      second = width + first;
    } else {
      first = column_ >= columns_.linear_begin() ? column_ - columns_.linear_begin() : 2 * width;
      second = 2 * width;
    }
  }
  FLA_DEVICE void next() {
    if (column_ >= columns_.triangle_begin()) {
      ++column_;
      if (++j_ < columns_.width) return;
      ++i_;
      j_ = columns_.with_diagonal ? i_ : i_ + 1;
    } else {
      seek(column_ + 1);
    }
  }

  FLA_DEVICE void seek(int column) {
    column_ = column;
    const int begin = columns_.triangle_begin();
    if (column < begin || !columns_.triangle) return;
    // i as the root of a quadratic, put right where fp32 is not exact.
    const int longest = columns_.with_diagonal ? columns_.width : columns_.width - 1;
    const float b = 2.0f * static_cast<float>(longest) + 1.0f;
    const float under = b * b - 8.0f * static_cast<float>(column - begin);
    int i = under > 0.0f ? static_cast<int>((b - under * math::rsqrt(under)) * 0.5f) : longest - 1;
    i = i < 0 ? 0 : i >= longest ? longest - 1 : i;
    const int inset = columns_.with_diagonal ? 0 : 1;
    while (i > 0 && columns_.pairs_of(i) + i + inset > column) --i;
    while (i + 1 < longest && columns_.pairs_of(i + 1) + i + 1 + inset <= column) ++i;
    i_ = i;
    j_ = column - columns_.pairs_of(i);
  }

 private:
  const ExpansionColumns& columns_;
  int column_ = 0, i_ = 0, j_ = 0;
};

// V = 1 stores any dtype, wider vectors T.
template <class T, int V>
FLA_KERNEL void FLA_BOUNDS(kExpansionThreads, 4) expand_kernel(FLA_PARAMETERS ForwardArgs a) {
  wait_for_predecessor();
  float* staged = shared_memory<float>();
  const ExpansionTile& tile = a.tile;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * tile.tile_rows;
  stage_rows<false>(tile, first_row, staged, nullptr);

  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), periods = tile.tile_rows / a.period;
  const int64_t rows_left = tile.rows - first_row;
  for (int item = thread; item < a.slots * a.lanes; item += threads) {
    const int lane = item / a.slots, slot = item - lane * a.slots;
    int row = slot * V / a.columns;
    const int column = slot * V - row * a.columns;
    int first[V], second[V];
    Pairs pairs(tile.columns, column);
    int at = column;
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      pairs.operands(first[e], second[e]);
      first[e] = row * tile.row_words + first[e];
      second[e] = row * tile.row_words + second[e];
      if (++at == a.columns) {
        at = 0;
        ++row;
        pairs.seek(0);
      } else {
        pairs.next();
      }
    }
    for (int p = lane; p < periods; p += a.lanes) {
      const int64_t left = (rows_left - p * a.period) * a.columns - slot * V;
      if (left <= 0) break;
      const float* words = staged + p * a.period * tile.row_words;
      float out[V];
      FLA_UNROLL
      for (int e = 0; e < V; ++e) out[e] = words[first[e]] * words[second[e]];
      const int64_t place = (first_row + p * a.period) * a.out_stride + slot * V;
      if constexpr (V == 1) {
        store_float(a.out, place, out[0]);
      } else if (left >= V) {
        store_floats(static_cast<T*>(a.out.data) + place, out);
      } else {
        FLA_UNROLL
        for (int e = 0; e < V; ++e)
          if (e < left) store_float(static_cast<T*>(a.out.data) + place + e, out[e]);
      }
    }
  }
  if (!a.diagonal) return;
  const int width = tile.columns.width;
  for (int i = thread; i < tile.tile_rows * width; i += threads) {
    const int row = i / width, column = i - row * width;
    if (row >= rows_left) break;
    const float* words = staged + row * tile.row_words;
    store_float(a.diagonal, (first_row + row) * a.diagonal_stride + column,
                words[column] * words[width + column]);
  }
}

bool is_narrow(const Expansion& e) {
  const bool dense = e.out.size[0] == 1 || e.out.stride[0] == e.out.size[1];
  return is_narrow(e.columns, e.x, e.out) && dense && reinterpret_cast<uintptr_t>(e.out.data) % 16 == 0;
}

}  // namespace

ExpansionTile expansion_tile(const ExpansionColumns& columns, const ExpansionRow& row, const Tensor& x,
                             const Tensor& partner) {
  ExpansionTile t;
  t.x = any_float(x);
  t.partner = any_float(partner);
  t.gamma = any_float(row.gamma);
  t.beta = any_float(row.beta);
  t.x_stride = row_stride(x);
  t.partner_stride = row_stride(partner);
  t.rows = x.size[0];
  t.columns = columns;
  t.eps = row.eps;
  t.scale = row.scale;
  t.normalize = row.normalize;
  t.prepares = !columns.partner;
  t.aligned = columns.width % 8 == 0 && all_rows_allow(8, x, partner);
  t.row_words = expansion_row_words(columns.width);
  t.lanes = 1;
  while (t.lanes < kWarp && t.lanes < columns.width) t.lanes *= 2;
  return t;
}

Status check_expansion(const char* name, int64_t width) {
  constexpr int64_t kMostWidth = 6000;  // backward keeps 8 words of every element
  if (width >= 1 && width <= kMostWidth) return {};
  return error(StatusCode::unsupported_shape, "%s: rows of %lld elements, 1 to %lld are supported", name,
               static_cast<long long>(width), static_cast<long long>(kMostWidth));
}

Status run(const Expansion& e, Stream stream) {
  ForwardArgs a;
  a.tile = expansion_tile(e.columns, e.row, e.x, e.partner);
  if (a.tile.rows == 0) return {};
  a.columns = static_cast<int32_t>(e.out.size[1]);
  a.out = any_float(e.out);
  a.out_stride = a.tile.rows > 1 ? e.out.stride[0] : a.columns;
  if (e.diagonal) {
    a.diagonal = any_float(e.diagonal);
    a.diagonal_stride = row_stride(e.diagonal);
  }
  if (is_narrow(e)) return run_narrow(a.tile, e.out.data, e.out.dtype, stream);
  // Vectors run across rows where these lie without gaps, and else within rows.
  const int wide = static_cast<int>(16 / size_of(e.out.dtype));
  constexpr int64_t kShared = 24 * 1024;
  const int64_t row_bytes = a.tile.row_words * static_cast<int64_t>(sizeof(float));
  int width = wide, period = wide / std::gcd(wide, a.columns);
  if (a.out_stride != a.columns && (period > 1 || !rows_allow(e.out, wide))) width = 1;
  if (reinterpret_cast<uintptr_t>(e.out.data) % 16 != 0 || period * row_bytes > 4 * kShared) width = 1;
  if (width == 1) period = 1;
  a.period = period;
  a.slots = static_cast<int32_t>(static_cast<int64_t>(period) * a.columns / width);
  const int64_t periods = kShared / (period * row_bytes);
  a.tile.tile_rows = static_cast<int32_t>(period * (periods < 1 ? 1 : periods * period > 128 ? 128 / period : periods));
  a.lanes = a.slots < 1 || a.slots > kExpansionThreads ? 1 : kExpansionThreads / a.slots;
  const int64_t items = divide_up(a.slots * a.lanes, kWarp) * kWarp;
  const Launch shape{.grid = divide_up(a.tile.rows, a.tile.tile_rows),
                     .block = items > 0 && items < kExpansionThreads ? static_cast<int>(items) : kExpansionThreads,
                     .shared_bytes = static_cast<size_t>(a.tile.tile_rows * row_bytes),
                     .stream = stream,
                     .dependent = true};
  if (width == 1) return launch<&expand_kernel<float, 1>>(shape, a);
  return dispatch_float(e.out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch<&expand_kernel<T, 16 / sizeof(T)>>(shape, a);
  });
}

}  // namespace fla::detail

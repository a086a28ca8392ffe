// The rotation of one tensor or of q and k.
//
// A thread owns two 16-byte vectors of one head, channels i V and R + i V of the rotated slice, in either
// layout: half-split they are each other's partners; interleaved each holds whole pairs, and what differs is
// which columns of the tables go with them. Both loads leave before the token's position is looked up. Tables
// come from L1, where the heads of a token meet. Channels that are not rotated are copied by further threads
// of the same launch. Rows that are not aligned to vectors go one pair of channels per thread.
#pragma once

#include "common/ptx.cuh"
#include "common/sequence.cuh"
#include "common/vector.cuh"
#include "rotary/rotary_plan.h"

namespace fla::detail {

struct HeadStrides {
  int64_t b = 0, t = 0, h = 0, d = 0;
};

struct TableOperand {
  const void* data = nullptr;
  int64_t stride_b = 0, stride = 0;  // stride_b: gathered tables only
};

// One rotated tensor, with its tables.
struct RotatedOperand {
  void *in = nullptr, *out = nullptr;
  HeadStrides from, to;
  TableOperand cos, sin;
};

// The positions of tokens, from whatever the caller gave.
struct PositionMap {
  AnyIndex ids, offsets;
  int64_t ids_axis = 0, ids_b = 0, ids_t = 0, offsets_stride = 0;
  SequenceMap sequences;
  int64_t offset = 0;
  int64_t table_rows = 0;

  FLA_DEVICE int64_t at(int axis, int64_t b, int64_t t) const {
    if (ids) return load_index(ids, axis * ids_axis + b * ids_b + t * ids_t);
    const Sequence s = sequences.covering(b, t);
    if (t < s.begin || t >= s.end) return -1;
    int64_t first = offset;
    if (offsets) {
      constexpr int64_t kFar = int64_t{1} << 62;  // the sum with a token's number stays in range
      const int64_t given = load_index(offsets, s.index * offsets_stride);
      first = given < -kFar ? -kFar : given > kFar ? kFar : given;
    }
    return t - s.begin + first;
  }
};

struct RotaryArgs {
  RotatedOperand tensor[2];  // x, or q and k
  uint32_t heads[2] = {};
  PositionMap positions;
  int64_t* outside_rows = nullptr;
  int64_t tokens = 0;
  uint32_t pairs = 0, rotary_offset = 0, rotated_items = 0, copied_vectors = 0, items = 0;
  uint32_t rows = 1, heads_per_block = 1, tokens_per_block = 1, head_blocks = 1, chunk_log2 = 0;
  uint32_t mrope_t = 0, mrope_h = 0, mrope_w = 0;
  float sign = 1;  // of sin
  bool interleaved = false, gathered = false, sections = false, mrope_interleaved = false;
  bool f32_tables = false, zero_outside = false, inplace = false;

  FLA_DEVICE int axis_of(uint32_t pair) const {
    if (!mrope_interleaved) return pair < mrope_t ? 0 : pair < mrope_t + mrope_h ? 1 : 2;
    const uint32_t phase = pair % 3;
    return phase == 1 && pair < 3 * mrope_h ? 1 : phase == 2 && pair < 3 * mrope_w ? 2 : 0;
  }
};

// The rows of the tables that a token takes: one, or one per axis.
template <bool kSections>
struct TokenRows {
  int64_t row[kSections ? 3 : 1];
  bool outside;
};

template <bool kSections>
FLA_DEVICE TokenRows<kSections> rows_of_token(const RotaryArgs& a, int64_t b, int64_t t) {
  TokenRows<kSections> r;
  r.row[0] = t;
  r.outside = false;
  if (!kSections && a.gathered) return r;
  FLA_UNROLL
  for (int axis = 0; axis < (kSections ? 3 : 1); ++axis) {
    r.row[axis] = a.positions.at(axis, b, t);
    r.outside |= r.row[axis] < 0 || r.row[axis] >= a.positions.table_rows;
  }
  return r;
}

// Two neighbouring pieces of a table as one.
template <class E, int V>
FLA_DEVICE void join(const Vector<E, V / 2>& first, const Vector<E, V / 2>& second, float (&out)[V]) {
  float low[V / 2], high[V / 2];
  unpack(first, low);
  unpack(second, high);
  FLA_UNROLL
  for (int e = 0; e < V / 2; ++e) {
    out[e] = low[e];
    out[V / 2 + e] = high[e];
  }
}

// Columns [first, first + V / 2) and [second, second + V / 2) of both tables, side by side.
template <class E, int V, bool kSections>
FLA_DEVICE void load_columns(const RotaryArgs& a, const RotatedOperand& o, int64_t b,
                             const TokenRows<kSections>& rows, uint32_t first, uint32_t second, float (&c)[V],
                             float (&s)[V]) {
  const E* cos = static_cast<const E*>(o.cos.data) + b * o.cos.stride_b;
  const E* sin = static_cast<const E*>(o.sin.data) + b * o.sin.stride_b;
  if constexpr (kSections || V == 1) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      const uint32_t column = V == 1 || e < V / 2 ? first + e : second + (e - V / 2);
      int64_t row = rows.row[0];
      if constexpr (kSections) {
        const int axis = a.axis_of(column);
        row = axis == 0 ? row : axis == 1 ? rows.row[1] : rows.row[2];
      }
      c[e] = load_float(cos + row * o.cos.stride + column);
      s[e] = load_float(sin + row * o.sin.stride + column);
    }
  } else {
    // All four leave before the first is converted.
    cos += rows.row[0] * o.cos.stride;
    sin += rows.row[0] * o.sin.stride;
    const Vector<E, V / 2> c1 = load<E, V / 2>(cos + first), c2 = load<E, V / 2>(cos + second);
    const Vector<E, V / 2> s1 = load<E, V / 2>(sin + first), s2 = load<E, V / 2>(sin + second);
    join<E, V>(c1, c2, c);
    join<E, V>(s1, s2, s);
  }
}

FLA_DEVICE void rotate_pair(float cos, float sin, float& x, float& y) {
  const float turned = fmaf(sin, x, y * cos);
  x = fmaf(x, cos, -(sin * y));
  y = turned;
}

// The two vectors of an item, `c` and `s` their columns of the tables.
template <int V>
FLA_DEVICE void rotate(bool within, const float (&c)[V], const float (&s)[V], float (&first)[V],
                       float (&second)[V]) {
  if (within) {
    FLA_UNROLL
    for (int e = 0; e < V / 2; ++e) {
      rotate_pair(c[e], s[e], first[2 * e], first[2 * e + 1]);
      rotate_pair(c[V / 2 + e], s[V / 2 + e], second[2 * e], second[2 * e + 1]);
    }
  } else {
    FLA_UNROLL
    for (int e = 0; e < V; ++e)
      rotate_pair(c[e], s[e], first[e], second[e]);
  }
}

template <class T, int V, bool kSections>
FLA_DEVICE void rotate_item(const RotaryArgs& a, const RotatedOperand& o, const T* in, T* out, int64_t b,
                            int64_t t, uint32_t item, bool counts) {
  // A vector of interleaved channels holds whole pairs; one channel does not.
  const bool within = V > 1 && a.interleaved;
  const uint32_t first = V == 1 && a.interleaved ? 2 * item : item * V;
  const uint32_t second = V == 1 && a.interleaved ? 2 * item + 1 : a.pairs + item * V;
  const Vector<T, V> x1 = load<T, V>(in + (a.rotary_offset + first) * (V == 1 ? o.from.d : 1));
  const Vector<T, V> x2 = load<T, V>(in + (a.rotary_offset + second) * (V == 1 ? o.from.d : 1));
  T* y1 = out + (a.rotary_offset + first) * (V == 1 ? o.to.d : 1);
  T* y2 = out + (a.rotary_offset + second) * (V == 1 ? o.to.d : 1);
  const TokenRows<kSections> rows = rows_of_token<kSections>(a, b, t);
  if (rows.outside) {
    if (counts && item == 0 && a.outside_rows) atomic_add(a.outside_rows, 1);
    if (!a.zero_outside && a.inplace) return;
    store(y1, a.zero_outside ? zero_vector<T, V>() : x1);
    store(y2, a.zero_outside ? zero_vector<T, V>() : x2);
    return;
  }
  float c[V], s[V], v1[V], v2[V];
  const uint32_t column = within ? first / 2 : item * V;
  const uint32_t other = within ? second / 2 : item * V + V / 2;
  if (sizeof(T) < 4 && a.f32_tables) load_columns<float>(a, o, b, rows, column, other, c, s);
  else load_columns<T>(a, o, b, rows, column, other, c, s);
  FLA_UNROLL
  for (int e = 0; e < V; ++e)
    s[e] *= a.sign;
  unpack(x1, v1);
  unpack(x2, v2);
  rotate(within, c, s, v1, v2);
  store_floats(y1, v1);
  store_floats(y2, v2);
}

// Vector `index` of the channels that are not rotated.
template <class T, int V>
FLA_DEVICE void copy_vector(const RotaryArgs& a, const RotatedOperand& o, const T* in, T* out,
                            uint32_t index) {
  const uint32_t channel = index * V < a.rotary_offset ? index * V : index * V + 2 * a.pairs;
  store(out + channel * (V == 1 ? o.to.d : 1), load<T, V>(in + channel * (V == 1 ? o.from.d : 1)));
}

// Two 16-byte loads per thread: 1536 threads have 48 KiB of them in flight on a multiprocessor. The others
// would spill.
template <class T, bool kSections>
inline constexpr int kResidentBlocks = kSections ? 8 : kDTypeOf<T> == DType::f16 ? 10 : 12;

template <class T, int V, bool kSections>
FLA_KERNEL void FLA_BOUNDS(kRotaryThreads, (kResidentBlocks<T, kSections>))
    rotary_kernel(FLA_PARAMETERS RotaryArgs a) {
  wait_for_predecessor();
  const uint32_t group = blockIdx.x / a.head_blocks, head_block = blockIdx.x - group * a.head_blocks;
  const uint32_t row_of_chunk = group >> a.chunk_log2;
  const uint32_t chunk = row_of_chunk / a.rows, b = row_of_chunk - chunk * a.rows;
  const uint32_t token_block = (chunk << a.chunk_log2) + (group & ((1u << a.chunk_log2) - 1));
  const uint32_t item = blockIdx.y * blockDim.x + threadIdx.x, token = threadIdx.y / a.heads_per_block;
  uint32_t head = head_block * a.heads_per_block + threadIdx.y - token * a.heads_per_block;
  const int64_t t = static_cast<int64_t>(token_block) * a.tokens_per_block + token;
  if (item >= a.items || t >= a.tokens || head >= a.heads[0] + a.heads[1]) return;
  const bool counts = head == 0;
  const int which = head >= a.heads[0];
  if (which) head -= a.heads[0];
  const RotatedOperand& o = a.tensor[which];
  const T* in = static_cast<const T*>(o.in) + b * o.from.b + t * o.from.t + head * o.from.h;
  T* out = static_cast<T*>(o.out) + b * o.to.b + t * o.to.t + head * o.to.h;
  if (item < a.rotated_items) {
    rotate_item<T, V, kSections>(a, o, in, out, b, t, item, counts);
  } else {
    const uint32_t vector = 2 * (item - a.rotated_items);
    copy_vector<T, V>(a, o, in, out, vector);
    if (vector + 1 < a.copied_vectors) copy_vector<T, V>(a, o, in, out, vector + 1);
  }
}

}  // namespace fla::detail

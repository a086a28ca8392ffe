// Rotary embeddings of one tensor or of q and k, forward and backward. Traffic: the rotated tensors once in and once
// out, in place only their rotated channels; a row of the tables per token.
//
// A thread owns two 16-byte vectors of one head, channels i V and R + i V of the rotated slice, in either layout:
// half-split they are each other's partners; interleaved each holds whole pairs, and what differs is which columns of
// the tables go with them. Both loads leave before the token's position is looked up. Tables come from L1, where the
// heads of a token meet. Channels that are not rotated are copied by further threads of the same launch. Rows that
// are not aligned to vectors go one pair of channels per thread.
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/workspace.h"
#include "conv/causal_window.cuh"
#include "fla/rotary.h"
#include "fla/validate.h"
#include "rotary/rotary_plan.h"

namespace fla {
namespace {

using namespace detail;

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
  uint32_t heads_per_block = 1, tokens_per_block = 1, head_blocks = 1, token_blocks = 1;
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

// Columns [first, first + V / 2) and [second, second + V / 2) of a table, side by side.
template <class E, int V, bool kSections>
FLA_DEVICE void load_columns(const RotaryArgs& a, const TableOperand& table, int64_t b, const TokenRows<kSections>& rows,
                             uint32_t first, uint32_t second, float (&out)[V]) {
  const E* data = static_cast<const E*>(table.data) + b * table.stride_b;
  if constexpr (kSections) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      const uint32_t column = V == 1 || e < V / 2 ? first + e : second + (e - V / 2);
      const int axis = a.axis_of(column);
      const int64_t row = axis == 0 ? rows.row[0] : axis == 1 ? rows.row[1] : rows.row[2];
      out[e] = load_float(data + row * table.stride + column);
    }
  } else if constexpr (V == 1) {
    out[0] = load_float(data + rows.row[0] * table.stride + first);
  } else {
    float half[V / 2];
    const E* row = data + rows.row[0] * table.stride;
    load_floats(row + first, half);
    FLA_UNROLL
    for (int e = 0; e < V / 2; ++e) out[e] = half[e];
    load_floats(row + second, half);
    FLA_UNROLL
    for (int e = 0; e < V / 2; ++e) out[V / 2 + e] = half[e];
  }
}

template <class T, int V, bool kSections>
FLA_DEVICE void load_table(const RotaryArgs& a, const TableOperand& table, int64_t b, const TokenRows<kSections>& rows,
                           uint32_t first, uint32_t second, float (&out)[V]) {
  if (sizeof(T) < 4 && a.f32_tables) load_columns<float>(a, table, b, rows, first, second, out);
  else load_columns<T>(a, table, b, rows, first, second, out);
}

FLA_DEVICE void rotate_pair(float cos, float sin, float& x, float& y) {
  const float turned = fmaf(sin, x, y * cos);
  x = fmaf(x, cos, -(sin * y));
  y = turned;
}

// The two vectors of an item, `c` and `s` their columns of the tables.
template <int V>
FLA_DEVICE void rotate(bool within, const float (&c)[V], const float (&s)[V], float (&first)[V], float (&second)[V]) {
  if (within) {
    FLA_UNROLL
    for (int e = 0; e < V / 2; ++e) {
      rotate_pair(c[e], s[e], first[2 * e], first[2 * e + 1]);
      rotate_pair(c[V / 2 + e], s[V / 2 + e], second[2 * e], second[2 * e + 1]);
    }
  } else {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) rotate_pair(c[e], s[e], first[e], second[e]);
  }
}

template <class T, int V, bool kSections>
FLA_DEVICE void rotate_item(const RotaryArgs& a, const RotatedOperand& o, const T* in, T* out, int64_t b, int64_t t,
                            uint32_t item, bool counts) {
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
  load_table<T>(a, o.cos, b, rows, column, other, c);
  load_table<T>(a, o.sin, b, rows, column, other, s);
  FLA_UNROLL
  for (int e = 0; e < V; ++e) s[e] *= a.sign;
  unpack(x1, v1);
  unpack(x2, v2);
  rotate(within, c, s, v1, v2);
  store_floats(y1, v1);
  store_floats(y2, v2);
}

// Vector `index` of the channels that are not rotated.
template <class T, int V>
FLA_DEVICE void copy_vector(const RotaryArgs& a, const RotatedOperand& o, const T* in, T* out, uint32_t index) {
  const uint32_t channel = index * V < a.rotary_offset ? index * V : index * V + 2 * a.pairs;
  store(out + channel * (V == 1 ? o.to.d : 1), load<T, V>(in + channel * (V == 1 ? o.from.d : 1)));
}

// Two 16-byte loads per thread: 1536 threads have 48 KiB of them in flight on a multiprocessor. The others would spill.
template <class T, bool kSections>
inline constexpr int kResidentBlocks = kSections ? 8 : kDTypeOf<T> == DType::f16 ? 10 : 12;

template <class T, int V, bool kSections>
FLA_KERNEL void FLA_BOUNDS(kRotaryThreads, (kResidentBlocks<T, kSections>)) rotary_kernel(FLA_PARAMETERS RotaryArgs a) {
  wait_for_predecessor();
  const uint32_t group = blockIdx.x / a.head_blocks, head_block = blockIdx.x - group * a.head_blocks;
  const uint32_t b = group / a.token_blocks, token_block = group - b * a.token_blocks;
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

// [B, T, H, D], or without B.
HeadStrides head_strides(const Tensor& t) {
  const int r = t.rank;
  return {r > 3 ? t.stride[0] : 0, t.stride[r - 3], t.stride[r - 2], t.stride[r - 1]};
}

// [TR, R], gathered [B, T, R] or [T, R].
TableOperand table_operand(const Tensor& t) {
  return {t.data, t.rank > 2 ? t.stride[0] : 0, t.stride[t.rank - 2]};
}

// One rotated tensor of a call as its caller names it.
struct Rotated {
  const Tensor &in, &out, &cos, &sin;
  const char *in_name, *out_name;
};

struct Call {
  const Rotated* tensors;
  int count;
  const RotaryOptions& options;
};

RotaryExtent extent_of(const Call& c) {
  const Tensor& x = c.tensors[0].in;
  RotaryExtent e;
  e.rows = x.rank > 3 ? x.size[0] : 1;
  e.tokens = x.size[x.rank - 3];
  e.channels = x.size[x.rank - 1];
  for (int i = 0; i < c.count; ++i) e.heads += c.tensors[i].in.size[c.tensors[i].in.rank - 2];
  e.pairs = c.tensors[0].cos.size[c.tensors[0].cos.rank - 1];
  return e;
}

// Channels per 16-byte access, or 1 where addresses or strides do not allow it.
int vector_of(const Call& c) {
  const auto vector = static_cast<int>(16 / size_of(c.tensors[0].in.dtype));
  for (int i = 0; i < c.count; ++i) {
    const Rotated& r = c.tensors[i];
    const auto contiguous = [](const Tensor& t) { return t.size[t.rank - 1] == 1 || t.stride[t.rank - 1] == 1; };
    const bool aligned = all_rows_allow(vector, r.in, r.out) && all_rows_allow(vector / 2, r.cos, r.sin);
    if (!aligned || !contiguous(r.in) || !contiguous(r.out)) return 1;
  }
  return vector;
}

PositionMap position_map(const RotaryOptions& o, const RotaryExtent& e, const Tensor& cos) {
  PositionMap p;
  p.offset = o.seqlen_offset;
  p.table_rows = cos.size[0];
  p.sequences = sequence_map(o.cu_seqlens, e.rows, e.tokens);
  if (o.seqlen_offsets) {
    p.offsets = any_index(o.seqlen_offsets);
    p.offsets_stride = o.seqlen_offsets.stride[0];
  }
  if (const Tensor& ids = o.position_ids; ids) {
    const int axes = has_sections(o) ? 1 : 0;
    p.ids = any_index(ids);
    p.ids_axis = axes ? ids.stride[0] : 0;
    p.ids_b = ids.rank > axes + 1 ? ids.stride[axes] : 0;
    p.ids_t = ids.stride[ids.rank - 1];
  }
  return p;
}

Status check_call(const Call& c) {
  const RotaryOptions& o = c.options;
  const RotaryExtent e = extent_of(c);
  const Tensor& cos = c.tensors[0].cos;
  const auto at = [](int64_t n) { return static_cast<long long>(n); };
  if (o.rotary_offset + 2 * e.pairs > e.channels)
    return error(StatusCode::shape_mismatch, "cos: R = %lld pairs from rotary_offset %lld on exceed D = %lld channels",
                 at(e.pairs), at(o.rotary_offset), at(e.channels));
  if (cos.dtype != DType::f32 && cos.dtype != c.tensors[0].in.dtype)
    return error(StatusCode::unsupported_dtype, "cos: dtype %s, expected f32 or that of %s", name_of(cos.dtype),
                 c.tensors[0].in_name);
  if (o.cu_seqlens && e.rows != 1)
    return error(StatusCode::shape_mismatch, "cu_seqlens: packed sequences need B = 1, not %lld", at(e.rows));
  const auto conflict = [](const char* one, const char* other) {
    return error(StatusCode::unsupported_combination, "%s: excludes %s", one, other);
  };
  if (o.seqlen_offsets && o.seqlen_offset != 0) return conflict("seqlen_offset", "seqlen_offsets");
  if (o.position_ids && o.cu_seqlens) return conflict("position_ids", "cu_seqlens");
  if (o.position_ids && o.seqlen_offsets) return conflict("position_ids", "seqlen_offsets");
  if (o.position_ids && o.seqlen_offset != 0) return conflict("position_ids", "seqlen_offset");
  if (o.gathered && (o.position_ids || o.cu_seqlens || o.seqlen_offsets || o.seqlen_offset != 0))
    return conflict("gathered", "position_ids, cu_seqlens, seqlen_offsets and seqlen_offset");
  if (has_sections(o) && !o.position_ids)
    return error(StatusCode::unsupported_combination, "position_ids: required by mrope_t, mrope_h, mrope_w");
  if (has_sections(o) && o.mrope_t + o.mrope_h + o.mrope_w != e.pairs)
    return error(StatusCode::invalid_argument, "mrope_t: sections of %lld + %lld + %lld pairs, cos has R = %lld (D = %lld)",
                 at(o.mrope_t), at(o.mrope_h), at(o.mrope_w), at(e.pairs), at(e.channels));
  if (o.mrope_interleaved && !has_sections(o))
    return error(StatusCode::unsupported_combination, "mrope_interleaved: without sections");
  const bool moved = o.seqlen_offsets || o.cu_seqlens || o.position_ids || o.gathered;
  if (!moved && e.tokens > 0 && o.seqlen_offset + e.tokens > cos.size[0])
    return error(StatusCode::invalid_argument, "cos: seqlen_offset %lld + T = %lld tokens exceed its TR = %lld rows",
                 at(o.seqlen_offset), at(e.tokens), at(cos.size[0]));
  if (o.oob_rows == OutsideRows::error && !o.outside_rows)
    return error(StatusCode::invalid_argument, "outside_rows: required by oob_rows=error");
  for (int i = 0; i < c.count; ++i) {
    const Rotated& r = c.tensors[i];
    if (r.cos && !r.sin) return error(StatusCode::invalid_argument, "sin_k: required beside cos_k");
    if (count(r.in) > 0 && same_view(r.in, r.out) != o.inplace)
      return error(StatusCode::aliasing, o.inplace ? "%s: is not %s, as inplace says" : "%s: is %s, without inplace",
                   r.out_name, r.in_name);
  }
  return {};
}

template <class T, int V>
Status launch_rotary(const Launch& shape, const RotaryArgs& a) {
  return a.sections ? launch<&rotary_kernel<T, V, true>>(shape, a) : launch<&rotary_kernel<T, V, false>>(shape, a);
}

Status run_call(const Call& c, bool conjugate, Stream stream) {
  const RotaryOptions& o = c.options;
  const RotaryExtent e = extent_of(c);
  if (e.rows * e.tokens * e.heads * e.channels == 0) return {};
  const RotaryPlan p = plan_rotary(e, o.rotary_offset, vector_of(c), !o.inplace);
  if (p.items == 0) return {};
  RotaryArgs a;
  for (int i = 0; i < c.count; ++i) {
    const Rotated& r = c.tensors[i];
    a.tensor[i] = {r.in.data,           r.out.data, head_strides(r.in), head_strides(r.out), table_operand(r.cos),
                   table_operand(r.sin)};
    a.heads[i] = static_cast<uint32_t>(r.in.size[r.in.rank - 2]);
  }
  const int64_t limit = int64_t{1} << 22;  // their numbers are 32-bit, and blocks along y 65535 at most
  if (e.channels > limit || e.heads > limit) return launch_shape_error("channels or heads", std::max(e.channels, e.heads));
  a.positions = position_map(o, e, c.tensors[0].cos);
  a.outside_rows = static_cast<int64_t*>(o.outside_rows.data);
  a.tokens = e.tokens;
  a.pairs = static_cast<uint32_t>(e.pairs);
  a.rotary_offset = static_cast<uint32_t>(o.rotary_offset);
  a.rotated_items = static_cast<uint32_t>(p.rotated_items);
  a.copied_vectors = static_cast<uint32_t>(p.copied_vectors);
  a.items = static_cast<uint32_t>(p.items);
  a.heads_per_block = static_cast<uint32_t>(p.heads_per_block);
  a.tokens_per_block = static_cast<uint32_t>(p.tokens_per_block);
  a.head_blocks = static_cast<uint32_t>(p.head_blocks);
  a.token_blocks = static_cast<uint32_t>(p.token_blocks);
  a.mrope_t = static_cast<uint32_t>(o.mrope_t);
  a.mrope_h = static_cast<uint32_t>(o.mrope_h);
  a.mrope_w = static_cast<uint32_t>(o.mrope_w);
  a.sign = conjugate ? -1.0f : 1.0f;
  a.interleaved = o.interleaved;
  a.gathered = o.gathered;
  a.sections = has_sections(o);
  a.mrope_interleaved = o.mrope_interleaved;
  a.f32_tables = c.tensors[0].cos.dtype == DType::f32;
  a.zero_outside = o.oob_rows == OutsideRows::zero || (o.oob_rows != OutsideRows::keep && !o.inplace);
  a.inplace = o.inplace;
  const int64_t grid = p.grid(e.rows);
  const Launch shape = {.grid = grid,
                        .grid_y = static_cast<int>(p.item_blocks),
                        .block = static_cast<int>(p.threads_per_head),
                        .block_y = static_cast<int>(p.heads_per_block * p.tokens_per_block),
                        .stream = stream,
                        .dependent = grid <= 1024};
  return dispatch_float(c.tensors[0].in.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return p.vector > 1 ? launch_rotary<T, 16 / sizeof(T)>(shape, a) : launch_rotary<T, 1>(shape, a);
  });
}

// What each struct is in these terms.
template <class Body>
Status with_call(const RotaryForward& a, Body body) {
  const Rotated x[] = {{a.x, a.y, a.cos, a.sin, "x", "y"}};
  return body(Call{x, 1, a.options}, a.options.conjugate);
}
template <class Body>
Status with_call(const RotaryBackward& a, Body body) {
  const Rotated dy[] = {{a.dy, a.dx, a.cos, a.sin, "dy", "dx"}};
  return body(Call{dy, 1, a.options}, !a.options.conjugate);
}
template <class Body>
Status with_call(const RotaryQkForward& a, Body body) {
  const Rotated qk[] = {{a.q, a.q_out, a.cos, a.sin, "q", "q_out"},
                        {a.k, a.k_out, a.cos_k ? a.cos_k : a.cos, a.cos_k ? a.sin_k : a.sin, "k", "k_out"}};
  return body(Call{qk, 2, a.options}, a.options.conjugate);
}
template <class Body>
Status with_call(const RotaryQkBackward& a, Body body) {
  const Rotated qk[] = {{a.dq_out, a.dq, a.cos, a.sin, "dq_out", "dq"},
                        {a.dk_out, a.dk, a.cos_k ? a.cos_k : a.cos, a.cos_k ? a.sin_k : a.sin, "dk_out", "dk"}};
  return body(Call{qk, 2, a.options}, !a.options.conjugate);
}

template <class A>
Status check_any(const A& a) {
  return with_call(a, [](const Call& c, bool) { return check_call(c); });
}
template <class A>
Status run_any(const A& a, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return with_call(a, [stream](const Call& c, bool conjugate) { return run_call(c, conjugate, stream); });
}

}  // namespace

Status check(const RotaryForward& a) { return check_any(a); }
Status check(const RotaryBackward& a) { return check_any(a); }
Status check(const RotaryQkForward& a) { return check_any(a); }
Status check(const RotaryQkBackward& a) { return check_any(a); }

size_t workspace_bytes(const RotaryForward&) { return 0; }
size_t workspace_bytes(const RotaryBackward&) { return 0; }
size_t workspace_bytes(const RotaryQkForward&) { return 0; }
size_t workspace_bytes(const RotaryQkBackward&) { return 0; }

Status run(const RotaryForward& a, Workspace, Stream stream) { return run_any(a, stream); }
Status run(const RotaryBackward& a, Workspace, Stream stream) { return run_any(a, stream); }
Status run(const RotaryQkForward& a, Workspace, Stream stream) { return run_any(a, stream); }
Status run(const RotaryQkBackward& a, Workspace, Stream stream) { return run_any(a, stream); }

}  // namespace fla

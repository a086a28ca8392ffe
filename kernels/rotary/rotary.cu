// Rotary embeddings, forward and backward, of one tensor or of q and k in one launch. Traffic: the rotated
// tensors once in and once out, in place only their rotated channels; a row of the tables per token.
#include "rotary/rotary.cuh"

#include "common/dispatch.h"
#include "common/launch.h"
#include "common/workspace.h"
#include "fla/rotary.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

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
  for (int i = 0; i < c.count; ++i)
    e.heads += c.tensors[i].in.size[c.tensors[i].in.rank - 2];
  e.pairs = c.tensors[0].cos.size[c.tensors[0].cos.rank - 1];
  return e;
}

// Channels per 16-byte access, or 1 where addresses or strides do not allow it.
int vector_of(const Call& c) {
  const auto vector = static_cast<int>(16 / size_of(c.tensors[0].in.dtype));
  for (int i = 0; i < c.count; ++i) {
    const Rotated& r = c.tensors[i];
    const auto contiguous = [](const Tensor& t) {
      return t.size[t.rank - 1] == 1 || t.stride[t.rank - 1] == 1;
    };
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
    return error(StatusCode::shape_mismatch,
                 "cos: R = %lld pairs from rotary_offset %lld on exceed D = %lld channels", at(e.pairs),
                 at(o.rotary_offset), at(e.channels));
  if (cos.dtype != DType::f32 && cos.dtype != c.tensors[0].in.dtype)
    return error(StatusCode::unsupported_dtype, "cos: dtype %s, expected f32 or that of %s",
                 name_of(cos.dtype), c.tensors[0].in_name);
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
    return error(StatusCode::invalid_argument,
                 "mrope_t: sections of %lld + %lld + %lld pairs, cos has R = %lld (D = %lld)", at(o.mrope_t),
                 at(o.mrope_h), at(o.mrope_w), at(e.pairs), at(e.channels));
  if (o.mrope_interleaved && !has_sections(o))
    return error(StatusCode::unsupported_combination, "mrope_interleaved: without sections");
  const bool moved = o.seqlen_offsets || o.cu_seqlens || o.position_ids || o.gathered;
  if (!moved && e.tokens > 0 && o.seqlen_offset + e.tokens > cos.size[0])
    return error(StatusCode::invalid_argument,
                 "cos: seqlen_offset %lld + T = %lld tokens exceed its TR = %lld rows", at(o.seqlen_offset),
                 at(e.tokens), at(cos.size[0]));
  if (o.oob_rows == OutsideRows::error && !o.outside_rows)
    return error(StatusCode::invalid_argument, "outside_rows: required by oob_rows=error");
  for (int i = 0; i < c.count; ++i) {
    const Rotated& r = c.tensors[i];
    if (r.cos && !r.sin) return error(StatusCode::invalid_argument, "sin_k: required beside cos_k");
    if (count(r.in) > 0 && same_view(r.in, r.out) != o.inplace)
      return error(StatusCode::aliasing,
                   o.inplace ? "%s: is not %s, as inplace says" : "%s: is %s, without inplace", r.out_name,
                   r.in_name);
  }
  return {};
}

template <class T, int V>
Status launch_rotary(const Launch& shape, const RotaryArgs& a) {
  return a.sections ? launch<&rotary_kernel<T, V, true>>(shape, a)
                    : launch<&rotary_kernel<T, V, false>>(shape, a);
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
    a.tensor[i] = {r.in.data,           r.out.data,           head_strides(r.in),
                   head_strides(r.out), table_operand(r.cos), table_operand(r.sin)};
    a.heads[i] = static_cast<uint32_t>(r.in.size[r.in.rank - 2]);
  }
  const int64_t limit = int64_t{1} << 22;  // their numbers are 32-bit, and blocks along y 65535 at most
  if (e.channels > limit || e.heads > limit)
    return launch_shape_error("channels or heads", std::max(e.channels, e.heads));
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
  a.chunk_log2 = static_cast<uint32_t>(p.chunk_log2);
  a.rows = static_cast<uint32_t>(e.rows);
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
template <class A>
const Tensor& k_cos(const A& a) {
  return a.cos_k ? a.cos_k : a.cos;
}
template <class A>
const Tensor& k_sin(const A& a) {
  return a.cos_k ? a.sin_k : a.sin;
}
template <class Body>
Status with_call(const RotaryQkForward& a, Body body) {
  const Rotated qk[] = {{a.q, a.q_out, a.cos, a.sin, "q", "q_out"},
                        {a.k, a.k_out, k_cos(a), k_sin(a), "k", "k_out"}};
  return body(Call{qk, 2, a.options}, a.options.conjugate);
}
template <class Body>
Status with_call(const RotaryQkBackward& a, Body body) {
  const Rotated qk[] = {{a.dq_out, a.dq, a.cos, a.sin, "dq_out", "dq"},
                        {a.dk_out, a.dk, k_cos(a), k_sin(a), "dk_out", "dk"}};
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

Status check(const RotaryForward& a) {
  return check_any(a);
}
Status check(const RotaryBackward& a) {
  return check_any(a);
}
Status check(const RotaryQkForward& a) {
  return check_any(a);
}
Status check(const RotaryQkBackward& a) {
  return check_any(a);
}

size_t workspace_bytes(const RotaryForward&) {
  return 0;
}
size_t workspace_bytes(const RotaryBackward&) {
  return 0;
}
size_t workspace_bytes(const RotaryQkForward&) {
  return 0;
}
size_t workspace_bytes(const RotaryQkBackward&) {
  return 0;
}

Status run(const RotaryForward& a, Workspace, Stream stream) {
  return run_any(a, stream);
}
Status run(const RotaryBackward& a, Workspace, Stream stream) {
  return run_any(a, stream);
}
Status run(const RotaryQkForward& a, Workspace, Stream stream) {
  return run_any(a, stream);
}
Status run(const RotaryQkBackward& a, Workspace, Stream stream) {
  return run_any(a, stream);
}

}  // namespace fla

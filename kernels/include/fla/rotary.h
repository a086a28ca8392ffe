// Rotary position embeddings. The tables come from rotary_table.h.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// What becomes of tokens whose position has no row in the tables.
enum class OutsideRows : int32_t {
  automatic,  // keep in place, zero otherwise
  zero,       // the rotated channels become 0, the others are copied
  keep,       // the token is copied
  error,      // as automatic, and outside_rows must be there to tell
};
inline constexpr const char* kOutsideRowsNames[] = {"auto", "zero", "keep", "error"};

// What the calls below share: which rows of the tables the tokens take, and how channels pair up.
//
//   p(b, t)   = local t + offset     local t: t, or with cu_seqlens t minus the start of its sequence;
//                                    offset: seqlen_offset, or seqlen_offsets[n] of batch row or sequence n
//             = position_ids[b, t]   or, with sections, position_ids[axis(j), b, t] of each pair j
//   row(b, t) = p(b, t), or with gathered tables [b, t] itself
//   pair j    = channels (j, j + R), or interleaved (2j, 2j + 1), counted from rotary_offset on
//   axis(j)   = 0, 1, 2 in sections of mrope_t, mrope_h, mrope_w pairs (Qwen2-VL, arXiv 2409.12191);
//               interleaved: 1 where j % 3 = 1 and j < 3 mrope_h, 2 where j % 3 = 2 and j < 3 mrope_w,
//               else 0 (Qwen3-VL)
//
// A token is outside where any of its positions is negative or >= TR, or where no packed sequence holds it.
// Offsets, ids and cu_seqlens of any content stay in bounds: entries of cu_seqlens are clamped into
// [previous, T].
struct RotaryOptions {
  bool interleaved = false;
  bool conjugate = false;     // rotate the other way round: sin enters with its sign changed
  bool inplace = false;       // y is x: same pointer, same strides. Required for that, and refused otherwise
  int64_t rotary_offset = 0;  // first rotated channel; the channels before it and behind the last are copied
  int64_t seqlen_offset = 0;  // may be negative (left padding)
  bool gathered = false;      // tables are [B, T, R]: no positions
  OutsideRows oob_rows = OutsideRows::automatic;
  int64_t mrope_t = 0, mrope_h = 0, mrope_w = 0;  // pairs per section, R in all; all 0: no sections
  bool mrope_interleaved = false;
  Tensor seqlen_offsets = {};  // [N] i32/i64, optional
  Tensor cu_seqlens = {};      // [N + 1] i32/i64, optional
  Tensor position_ids = {};    // [B, T] i32/i64, optional; [3, B, T] with sections
  Tensor outside_rows = {};    // [1] i64, optional; += the number of tokens outside
};

constexpr bool has_sections(const RotaryOptions& o) {
  return o.mrope_t != 0 || o.mrope_h != 0 || o.mrope_w != 0;
}

struct RotaryDims {
  Dim B, T, D, R, TR, N;
};

template <class V>
RotaryDims describe_rotary(V& v, RotaryOptions& o) {
  constexpr Range natural{.min = 0, .max = 0x1p40};
  v.attribute("interleaved", o.interleaved);
  v.attribute("conjugate", o.conjugate);
  v.attribute("inplace", o.inplace);
  v.attribute("rotary_offset", o.rotary_offset, natural);
  v.attribute("seqlen_offset", o.seqlen_offset, {.min = -0x1p40, .max = 0x1p40});
  v.attribute("gathered", o.gathered);
  v.option("oob_rows", o.oob_rows, kOutsideRowsNames);
  v.attribute("mrope_t", o.mrope_t, natural);
  v.attribute("mrope_h", o.mrope_h, natural);
  v.attribute("mrope_w", o.mrope_w, natural);
  v.attribute("mrope_interleaved", o.mrope_interleaved);
  RotaryDims d;
  d.B = v.dim("B", 1);
  d.T = v.dim("T");
  d.D = v.dim("D");
  d.R = v.dim("R", d.D / 2);
  d.TR = o.gathered ? Dim() : v.dim("TR", d.T);
  d.N = o.cu_seqlens ? v.dim("N", 4) : d.B;
  return d;
}

template <class V>
void describe_table(V& v, const char* name, Tensor& table, const RotaryOptions& o, const RotaryDims& d,
                    Rule rule) {
  if (o.gathered) v.input(name, table, {d.B, d.T, d.R}, rule);
  else v.input(name, table, {d.TR, d.R}, rule);
}

template <class V>
void describe_positions(V& v, RotaryOptions& o, const RotaryDims& d) {
  const Rule positions{
      .presence = Presence::optional, .types = kIndex, .content = {Content::labels, d.TR, -1}};
  v.input("seqlen_offsets", o.seqlen_offsets, {d.N}, positions);
  v.input("cu_seqlens", o.cu_seqlens, {d.N + 1},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::offsets, d.T}});
  if (has_sections(o)) v.input("position_ids", o.position_ids, {3, d.B, d.T}, positions);
  else v.input("position_ids", o.position_ids, {d.B, d.T}, positions);
  v.inout("outside_rows", o.outside_rows, {1},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

// Rotates pairs of channels (a, b) of every head by the angle that the token's position has in the tables
// (Su et al. 2021, arXiv 2104.09864):
//
//   y[a] = x[a] cos[p, j] - sin[p, j] x[b]
//   y[b] = sin[p, j] x[a] + x[b] cos[p, j]        all other channels: the bits of x
//
// fp32, one rounding at the store. B rows, T tokens, H heads of D channels, 2R <= D of them rotated, TR table
// rows, N sequences (B without cu_seqlens). x may have any strides, inner stride included (slow path), so that
// slices of a fused QKV buffer can be rotated, in place too. B = 1 may be left out of any shape. No workspace.
//
// Errors: as validation; shape_mismatch for rotary_offset + 2R > D, cu_seqlens with B != 1; unsupported_dtype
// for a table that has neither x's dtype nor f32; invalid_argument for sections that do not add up to R,
// seqlen_offset + T past the table where no tensor moves the tokens, oob_rows=error without outside_rows;
// aliasing for inplace where y is not x, or the reverse; unsupported_combination for more than one of
// seqlen_offset, seqlen_offsets and position_ids, position_ids with cu_seqlens, gathered with any of these,
// sections without position_ids; unsupported_shape for heads or channels beyond 2^22.
struct RotaryForward {
  Tensor x;         // [B, T, H, D] f32/f16/bf16
  Tensor cos, sin;  // [TR, R], gathered [B, T, R]; both f32 or both of x's dtype; row stride free
  Tensor y = {};    // [B, T, H, D] dtype of x
  RotaryOptions options = {};
};

template <class V>
void describe_rotated(V& v, const char* from, Tensor& x, const char* to, Tensor& y, Tensor& cos, Tensor& sin,
                      RotaryOptions& options) {
  const RotaryDims d = describe_rotary(v, options);
  const Dim H = v.dim("H");
  v.input(from, x, {d.B, d.T, H, d.D}, {.any_inner_stride = true});
  describe_table(v, "cos", cos, options, d, {});
  describe_table(v, "sin", sin, options, d, {.like = &cos});
  describe_positions(v, options, d);
  v.output(to, y, {d.B, d.T, H, d.D}, {.like = &x, .alias = &x, .any_inner_stride = true});
}

template <class V>
void describe(V& v, RotaryForward& a) {
  describe_rotated(v, "x", a.x, "y", a.y, a.cos, a.sin, a.options);
}

Status check(const RotaryForward&);
size_t workspace_bytes(const RotaryForward&);
Status run(const RotaryForward&, Workspace, Stream);

// The map is linear: dx is dy rotated the other way round. Of tokens outside, what was zeroed gives 0 and
// what was copied gives dy. Options as in the forward call; inplace: dx is dy. The tables get no gradient.
struct RotaryBackward {
  Tensor cos, sin;  // as forward
  Tensor dy;        // [B, T, H, D] f32/f16/bf16; may be broadcast (strides 0)
  Tensor dx;        // [B, T, H, D] dtype of dy
  RotaryOptions options = {};
};

template <class V>
void describe(V& v, RotaryBackward& a) {
  describe_rotated(v, "dy", a.dy, "dx", a.dx, a.cos, a.sin, a.options);
}

Status check(const RotaryBackward&);
size_t workspace_bytes(const RotaryBackward&);
Status run(const RotaryBackward&, Workspace, Stream);

// q and k in one launch, each as RotaryForward does it. cos_k and sin_k are k's tables where they differ from
// q's (xPos, Sun et al. 2022, arXiv 2212.10554). Hk is independent of H. inplace holds for both.
struct RotaryQkForward {
  Tensor q;             // [B, T, H, D] f32/f16/bf16
  Tensor k;             // [B, T, Hk, D] dtype of q
  Tensor cos, sin;      // as RotaryForward
  Tensor cos_k = {}, sin_k = {};  // optional, both or neither; dtype of cos
  Tensor q_out = {}, k_out = {};  // shapes and dtype of q and k
  RotaryOptions options = {};
};

struct RotaryQkNames {
  const char *q, *k, *q_out, *k_out;
};

template <class V>
void describe_rotated(V& v, const RotaryQkNames& names, Tensor& q, Tensor& k, Tensor& q_out, Tensor& k_out,
                      Tensor& cos, Tensor& sin, Tensor& cos_k, Tensor& sin_k, RotaryOptions& options) {
  const RotaryDims d = describe_rotary(v, options);
  const Dim H = v.dim("H"), Hk = v.dim("Hk");
  v.input(names.q, q, {d.B, d.T, H, d.D}, {.any_inner_stride = true});
  v.input(names.k, k, {d.B, d.T, Hk, d.D}, {.like = &q, .any_inner_stride = true});
  describe_table(v, "cos", cos, options, d, {});
  describe_table(v, "sin", sin, options, d, {.like = &cos});
  describe_table(v, "cos_k", cos_k, options, d, {.presence = Presence::optional, .like = &cos});
  describe_table(v, "sin_k", sin_k, options, d,
                 {.presence = Presence::expected, .like = &cos, .with = &cos_k});
  describe_positions(v, options, d);
  v.output(names.q_out, q_out, {d.B, d.T, H, d.D}, {.like = &q, .alias = &q, .any_inner_stride = true});
  v.output(names.k_out, k_out, {d.B, d.T, Hk, d.D}, {.like = &k, .alias = &k, .any_inner_stride = true});
}

template <class V>
void describe(V& v, RotaryQkForward& a) {
  describe_rotated(v, {"q", "k", "q_out", "k_out"}, a.q, a.k, a.q_out, a.k_out, a.cos, a.sin, a.cos_k,
                   a.sin_k, a.options);
}

Status check(const RotaryQkForward&);
size_t workspace_bytes(const RotaryQkForward&);
Status run(const RotaryQkForward&, Workspace, Stream);

// As RotaryBackward, for both.
struct RotaryQkBackward {
  Tensor cos, sin, cos_k, sin_k;  // as forward
  Tensor dq_out, dk_out;          // [B, T, H, D], [B, T, Hk, D] f32/f16/bf16
  Tensor dq, dk;                  // the same shapes and dtype
  RotaryOptions options = {};
};

template <class V>
void describe(V& v, RotaryQkBackward& a) {
  describe_rotated(v, {"dq_out", "dk_out", "dq", "dk"}, a.dq_out, a.dk_out, a.dq, a.dk, a.cos, a.sin,
                   a.cos_k, a.sin_k, a.options);
}

Status check(const RotaryQkBackward&);
size_t workspace_bytes(const RotaryQkBackward&);
Status run(const RotaryQkBackward&, Workspace, Stream);

}  // namespace fla

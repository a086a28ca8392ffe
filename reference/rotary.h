// Rotary position embeddings.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "fla/rotary.h"
#include "reference/sequences.h"
#include "reference/view.h"

namespace fla::reference {

// Which rows of the tables the tokens of a call take.
class RotaryRows {
 public:
  RotaryRows(const RotaryOptions& o, int64_t B, int64_t T, int64_t R, int64_t table_rows)
      : o_(o),
        B_(B),
        T_(T),
        axes_(has_sections(o) ? 3 : 1),
        table_rows_(table_rows),
        local_(B * T, -1),
        owner_(B * T) {
    for (const Sequence& s : sequences_of(o.cu_seqlens, B, T)) {
      for (int64_t t = 0; t < s.length; ++t) {
        local_[at(s.row * T + s.begin + t)] = t;
        owner_[at(s.row * T + s.begin + t)] = sequences_;
      }
      ++sequences_;
    }
    for (int64_t j = 0; j < R; ++j)
      axis_.push_back(axis_of(j));
  }

  // Of pair j; where the token is not outside.
  int64_t row(int64_t j, int64_t b, int64_t t) const {
    return o_.gathered ? t : position(axis_[at(j)], b, t);
  }
  bool outside(int64_t b, int64_t t) const {
    if (o_.gathered) return false;
    for (int axis = 0; axis < axes_; ++axis) {
      const int64_t p = position(axis, b, t);
      if (p < 0 || p >= table_rows_) return true;
    }
    return false;
  }
  int64_t count_outside() const {
    int64_t n = 0;
    for (int64_t b = 0; b < B_; ++b)
      for (int64_t t = 0; t < T_; ++t)
        n += outside(b, t);
    return n;
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }

  int axis_of(int64_t j) const {
    if (axes_ == 1) return 0;
    if (!o_.mrope_interleaved) return j < o_.mrope_t ? 0 : j < o_.mrope_t + o_.mrope_h ? 1 : 2;
    if (j % 3 == 1 && j < 3 * o_.mrope_h) return 1;
    return j % 3 == 2 && j < 3 * o_.mrope_w ? 2 : 0;
  }

  // -1 for tokens of no sequence. Offsets that are far off are cut, so that the sum stays in range.
  int64_t position(int axis, int64_t b, int64_t t) const {
    if (o_.position_ids && axes_ == 3) return View<int64_t>(o_.position_ids, 3, 1)(axis, b, t);
    if (o_.position_ids) return View<int64_t>(o_.position_ids, 2, 0)(b, t);
    const int64_t local = local_[at(b * T_ + t)];
    if (local < 0) return -1;
    if (!o_.seqlen_offsets) return local + o_.seqlen_offset;
    const int64_t given = View<int64_t>(o_.seqlen_offsets)(owner_[at(b * T_ + t)]);
    return local + std::clamp<int64_t>(given, -(int64_t{1} << 60), int64_t{1} << 60);
  }

  RotaryOptions o_;
  int64_t B_, T_;
  int axes_;
  int64_t table_rows_, sequences_ = 0;
  std::vector<int64_t> local_, owner_;
  std::vector<int> axis_;
};

// Every head of one tensor.
template <class S>
void rotate_heads(const RotaryOptions& o, bool conjugate, const RotaryRows& rows, const Tensor& from,
                  const Tensor& to, const Tensor& cos_table, const Tensor& sin_table) {
  const int table_rank = o.gathered ? 3 : 2;
  const View<S> x(from, 4, 0), y(to, 4, 0), cos(cos_table, table_rank, 0), sin(sin_table, table_rank, 0);
  const int64_t H = x.size(2), D = x.size(3), R = cos.size(table_rank - 1);
  const bool zero = o.oob_rows == OutsideRows::zero || (o.oob_rows != OutsideRows::keep && !o.inplace);
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t t = 0; t < x.size(1); ++t) {
      const bool outside = rows.outside(b, t);
      for (int64_t h = 0; h < H; ++h) {
        for (int64_t d = 0; d < D; ++d) {
          const bool rotated = d >= o.rotary_offset && d < o.rotary_offset + 2 * R;
          if (!rotated || outside) y(b, t, h, d) = rotated && zero ? S(0.0) : x(b, t, h, d);
        }
      }
      for (int64_t j = 0; j < R && !outside; ++j) {
        const int64_t p = rows.row(j, b, t);
        const S c = o.gathered ? cos(b, t, j) : cos(p, j), angle = o.gathered ? sin(b, t, j) : sin(p, j);
        const S s = conjugate ? -angle : angle;
        const int64_t first = o.rotary_offset + (o.interleaved ? 2 * j : j);
        const int64_t second = first + (o.interleaved ? 1 : R);
        for (int64_t h = 0; h < H; ++h) {
          y(b, t, h, first) = x(b, t, h, first) * c - s * x(b, t, h, second);
          y(b, t, h, second) = s * x(b, t, h, first) + x(b, t, h, second) * c;
        }
      }
    }
  }
}

// The rows of a call, and its count of tokens outside, where any channel of any head is rotated.
inline RotaryRows rotary_rows(const RotaryOptions& o, const Tensor& x, const Tensor& cos, int64_t heads) {
  const Tensor full = lifted(x, 4, 0);
  const int64_t R = cos.size[cos.rank - 1];
  const RotaryRows rows(o, full.size[0], full.size[1], R, cos.size[0]);
  if (o.outside_rows && heads * R > 0) View<int64_t>(o.outside_rows)(0) += rows.count_outside();
  return rows;
}

template <class S>
void evaluate(const RotaryForward& a) {
  const RotaryRows rows = rotary_rows(a.options, a.x, a.cos, a.x.size[a.x.rank - 2]);
  rotate_heads<S>(a.options, a.options.conjugate, rows, a.x, a.y, a.cos, a.sin);
}

template <class S>
void evaluate(const RotaryBackward& a) {
  const RotaryRows rows = rotary_rows(a.options, a.dy, a.cos, a.dy.size[a.dy.rank - 2]);
  rotate_heads<S>(a.options, !a.options.conjugate, rows, a.dy, a.dx, a.cos, a.sin);
}

template <class S>
void evaluate(const RotaryQkForward& a) {
  const RotaryRows rows = rotary_rows(a.options, a.q, a.cos, a.q.size[a.q.rank - 2] + a.k.size[a.k.rank - 2]);
  rotate_heads<S>(a.options, a.options.conjugate, rows, a.q, a.q_out, a.cos, a.sin);
  rotate_heads<S>(a.options, a.options.conjugate, rows, a.k, a.k_out, a.cos_k ? a.cos_k : a.cos,
                  a.cos_k ? a.sin_k : a.sin);
}

template <class S>
void evaluate(const RotaryQkBackward& a) {
  const RotaryRows rows = rotary_rows(a.options, a.dq_out, a.cos,
                                      a.dq_out.size[a.dq_out.rank - 2] + a.dk_out.size[a.dk_out.rank - 2]);
  rotate_heads<S>(a.options, !a.options.conjugate, rows, a.dq_out, a.dq, a.cos, a.sin);
  rotate_heads<S>(a.options, !a.options.conjugate, rows, a.dk_out, a.dk, a.cos_k ? a.cos_k : a.cos,
                  a.cos_k ? a.sin_k : a.sin);
}

}  // namespace fla::reference

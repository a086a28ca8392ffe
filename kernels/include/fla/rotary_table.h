// The tables of cosines and sines that the calls of rotary.h read. Built on the host, in fp64.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// How the frequencies f_j follow from e_j = base^(-2j / dim), j = 0 .. R - 1; s is `factor`, Lo `original_length`:
//
//   standard      e_j                                                            Su et al. 2021, arXiv 2104.09864
//   linear        e_j / s                                                        Chen et al. 2023, arXiv 2306.15595
//   ntk           e_j of base s^(dim / (dim - 2))
//   dynamic       ntk with s (L / Lo) - (s - 1) for s, L = max(length, Lo)
//   llama3        e_j where 2 pi / e_j < Lo / high_frequency, e_j / s where it is > Lo / low_frequency, between them
//                 e_j ((1 - g) / s + g), g = (Lo e_j / 2 pi - low_frequency) / (high_frequency - low_frequency)
//   yarn          e_j ((1 - r) + r / s), r the ramp in j from q(beta_fast) to q(beta_slow), cut to [0, 1];
//                 q(b) = dim ln(Lo / (2 pi b)) / (2 ln base), cut to [0, dim - 1], rounded outwards by `truncate`;
//                 tables times m(mscale) / m(mscale_all_dim) where both are set, else m(1);
//                 m(k) = 0.1 k ln s + 1                                          Peng et al. 2023, arXiv 2309.00071
//   longrope      e_j / extension_j, long_factors where length > Lo, else short_factors; tables times
//                 sqrt(1 + ln s / ln Lo)                                         Ding et al. 2024, arXiv 2402.13753
//   proportional  e_j / s for j < floor(proportion dim / 2), else 0
//   linspace      base^(-j / (R - 1))
enum class RopeType : int32_t { standard, linear, ntk, dynamic, llama3, yarn, longrope, proportional, linspace };

//   exact         everything in fp64, one rounding to the tables' dtype
//   fp32_compat   as frameworks do it: f_j rounded to fp32 (to pos_dtype, with the position, where that is narrower),
//                 the product of position and f_j too, then cosine and sine of that angle
enum class RopeMode : int32_t { exact, fp32_compat };

//   cos[p, j] = a cos(p f_j)       sin[p, j] = a sin(p f_j)       p = 0 .. TR - 1; a as the type says, else 1
//
// xPos (Sun et al. 2022, arXiv 2212.10554) multiplies them by g = z_j^((p - xpos_center) / scale_base) for q and
// divides them by g for k, z_j = (2j + 0.4 dim) / (1.4 dim). The centre is an argument: tables of different lengths
// agree only with the same one.
//
// All tensors and arrays are in host memory. Errors: as validation; invalid_argument for odd dim, dim != 2R, unknown
// types and modes, and numbers outside what is said beside them; unsupported_combination for cos_k without xpos or the
// reverse, pos_dtype other than f32 in exact mode.
struct RotaryTable {
  Tensor cos, sin;      // [TR, R] f32/f16/bf16
  Tensor cos_k = {}, sin_k = {};  // [TR, R] dtype of cos; with xpos only
  int64_t dim = 0;      // 2R: even
  double base = 10000;  // > 0
  RopeType rope_type = RopeType::standard;
  RopeMode mode = RopeMode::exact;
  DType pos_dtype = DType::f32;  // f32, f16, bf16

  bool xpos = false;
  double scale_base = 512;   // > 0
  int64_t xpos_center = -1;  // -1: floor(TR / 2)

  double factor = 1;                // s >= 1
  double original_length = 8192;    // Lo > 0; longrope: > 1
  int64_t length = 0;               // tokens that will be seen: dynamic, longrope. 0: TR
  double attention_factor = 0;      // yarn, longrope: a. 0: by their formula
  double low_frequency = 1, high_frequency = 4;         // llama3: 0 < low < high
  double beta_fast = 32, beta_slow = 1;                 // yarn: > 0
  double mscale = 0, mscale_all_dim = 0;                // yarn; 0: not set
  bool truncate = true;                                 // yarn
  const double *short_factors = nullptr, *long_factors = nullptr;  // longrope: [R], > 0
  double proportion = 1;                                // proportional: 0 .. 1
};

template <class V>
void describe(V& v, RotaryTable& a) {
  const Dim R = v.dim("R"), TR = v.dim("TR");
  v.output("cos", a.cos, {TR, R});
  v.output("sin", a.sin, {TR, R}, {.like = &a.cos});
  v.output("cos_k", a.cos_k, {TR, R}, {.presence = Presence::optional, .like = &a.cos});
  v.output("sin_k", a.sin_k, {TR, R}, {.presence = Presence::optional, .like = &a.cos, .with = &a.cos_k});
}

Status check(const RotaryTable&);

// Fills the tables, in the calling thread.
Status build(const RotaryTable&);

}  // namespace fla

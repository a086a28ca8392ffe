// Fast Fourier transforms of 512 to 8192 complex points in shared memory, one to a block, 16 points to a thread.
//
// The spectrum is sampled between the usual frequencies, at the N roots of x^N = -i instead of x^N = 1:
//
//   X[k] = sum_t x[t] exp(-2 pi i t (k + 1/4) / N)
//
// so that products of spectra multiply polynomials modulo x^N + i. Of real signals, a power from N on then lands in the
// imaginary part (times -i), and so does one below 0 (times i): N points hold the N real terms in the middle of a product
// free of what wraps around, for which a plain transform needs 2 N. The shift is free, folded into the first pass.
//
// In place, by passes of radix 16 between exchanges through shared memory and one of radix 2 to 8 where N asks for it.
// Frequencies stay in the order that the passes leave; the inverse runs the same passes backwards. Twiddle factors are
// computed, two exponentials a pass (about 20 instructions of 350): a table would cost as many loads as the exchange.
#pragma once

#include "common/gpu.h"
#include "common/warp.cuh"

namespace fla::detail {

struct alignas(8) Complex {
  float re, im;
};
FLA_DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
FLA_DEVICE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
FLA_DEVICE Complex operator*(Complex a, Complex b) {
  return {fmaf(a.re, b.re, -a.im * b.im), fmaf(a.re, b.im, a.im * b.re)};
}
FLA_DEVICE Complex conjugate(Complex a) { return {a.re, -a.im}; }

inline constexpr int kFftPoints = 16;  // of a thread
inline constexpr int kSmallestFft = 512, kLargestFft = 8192;

// exp(-i angle) for angles up to pi/2, within 2^-23: Taylor's terms that matter there.
FLA_DEVICE Complex unit(float angle) {
  const float q = angle * angle;
  float c = 2.08767570e-9f, s = 1.60590438e-10f;
  c = fmaf(c, q, -2.75573192e-7f);
  s = fmaf(s, q, -2.50521084e-8f);
  c = fmaf(c, q, 2.48015873e-5f);
  s = fmaf(s, q, 2.75573192e-6f);
  c = fmaf(c, q, -1.38888889e-3f);
  s = fmaf(s, q, -1.98412698e-4f);
  c = fmaf(c, q, 4.16666667e-2f);
  s = fmaf(s, q, 8.33333333e-3f);
  c = fmaf(c, q, -0.5f);
  s = fmaf(s, q, -1.66666667e-1f);
  return {fmaf(c, q, 1.0f), -fmaf(angle * q, s, angle)};
}

// exp(-i pi e / 32), e = 0 .. 16, known when loops are unrolled.
FLA_DEVICE constexpr Complex thirty_second(int e) {
  constexpr float kCosine[] = {1.0f,         0.995184727f, 0.980785280f, 0.956940336f, 0.923879533f, 0.881921264f,
                               0.831469612f, 0.773010453f, 0.707106781f, 0.634393284f, 0.555570233f, 0.471396737f,
                               0.382683432f, 0.290284677f, 0.195090322f, 0.0980171403f, 0.0f};
  return {kCosine[e], -kCosine[16 - e]};
}

// w^e with w = exp(-2 pi i / 16), e < 8, or its conjugate.
template <bool kInverse>
FLA_DEVICE Complex times_sixteenth(Complex x, int e) {
  if (e == 0) return x;
  if (e == 4) return kInverse ? Complex{-x.im, x.re} : Complex{x.im, -x.re};
  const Complex root = e < 4 ? thirty_second(4 * e) : Complex{thirty_second(4 * (e - 4)).im, -thirty_second(4 * (e - 4)).re};
  return x * (kInverse ? conjugate(root) : root);
}

// The transform of R points in registers, from their order to bit-reversed order; the inverse goes back.
template <int R, int kFirst = 0>
FLA_DEVICE void small_transform(Complex (&x)[kFftPoints]) {
  if constexpr (R > 1) {
    FLA_UNROLL
    for (int j = kFirst; j < kFirst + R / 2; ++j) {
      const Complex a = x[j], b = x[j + R / 2];
      x[j] = a + b;
      x[j + R / 2] = times_sixteenth<false>(a - b, (j - kFirst) * (16 / R));
    }
    small_transform<R / 2, kFirst>(x);
    small_transform<R / 2, kFirst + R / 2>(x);
  }
}
template <int R, int kFirst = 0>
FLA_DEVICE void small_inverse(Complex (&x)[kFftPoints]) {
  if constexpr (R > 1) {
    small_inverse<R / 2, kFirst>(x);
    small_inverse<R / 2, kFirst + R / 2>(x);
    FLA_UNROLL
    for (int j = kFirst; j < kFirst + R / 2; ++j) {
      const Complex a = x[j], b = times_sixteenth<true>(x[j + R / 2], (j - kFirst) * (16 / R));
      x[j] = a + b;
      x[j + R / 2] = a - b;
    }
  }
}
template <int R, bool kInverse, int kFirst = 0>
FLA_DEVICE void small_transforms(Complex (&x)[kFftPoints]) {
  if constexpr (kFirst < kFftPoints) {
    if constexpr (kInverse) small_inverse<R, kFirst>(x);
    else small_transform<R, kFirst>(x);
    small_transforms<R, kInverse, kFirst + R>(x);
  }
}

// Point i is multiplied by w^q, q the bit-reversed i; w4 = w^4.
FLA_DEVICE void twiddle(Complex (&x)[kFftPoints], Complex w, Complex w4) {
  const Complex w2 = w * w, w8 = w4 * w4;
  FLA_UNROLL
  for (int i = 0; i < kFftPoints; ++i) {
    if (i & 8) x[i] = x[i] * w;
    if (i & 4) x[i] = x[i] * w2;
    if (i & 2) x[i] = x[i] * w4;
    if (i & 1) x[i] = x[i] * w8;
  }
}

// By a whole block of points / 16 threads. A point in time lies in x[j] of thread t at j threads + t; a frequency in x[i]
// of some thread, the same for every transform of the size.
class BlockFft {
 public:
  static FLA_HOST_DEVICE int64_t shared_points(int64_t points) { return points + points / 16; }

  FLA_DEVICE BlockFft(Complex* shared, int thread, int threads)
      : shared_(shared), thread_(thread), threads_(threads), inverse_threads_(1.0f / static_cast<float>(threads)) {}

  FLA_DEVICE void forward(Complex (&x)[kFftPoints]) const {
    FLA_UNROLL
    for (int j = 1; j < kFftPoints; ++j) x[j] = x[j] * thirty_second(j);
    small_transform<16>(x);
    const Complex shift = quarter_shift();
    FLA_UNROLL
    for (int i = 0; i < kFftPoints; ++i) x[i] = x[i] * shift;
    twiddle_pass<false>(x, threads_, inverse_threads_);
    block_barrier();  // whoever still reads from the transform before
    int stride = threads_;
    float inverse = inverse_threads_;
    for (; stride >= 16; stride >>= 4) {
      exchange(x, stride, stride >> 4);
      inverse *= 16;
      small_transform<16>(x);
      if (stride > 16) twiddle_pass<false>(x, stride >> 4, inverse);
    }
    if (stride == 1) return;
    exchange(x, stride, 1);
    if (stride == 2) small_transforms<2, false>(x);
    else if (stride == 4) small_transforms<4, false>(x);
    else small_transforms<8, false>(x);
  }

  // Unscaled: N times what forward() was given.
  FLA_DEVICE void inverse(Complex (&x)[kFftPoints]) const {
    int stride = threads_;
    float inverse = inverse_threads_;
    for (; stride >= 16; stride >>= 4) inverse *= 16;
    if (stride > 1) {
      if (stride == 2) small_transforms<2, true>(x);
      else if (stride == 4) small_transforms<4, true>(x);
      else small_transforms<8, true>(x);
      exchange(x, 1, stride);
    }
    for (; stride < threads_; stride <<= 4) {
      if (stride > 1) twiddle_pass<true>(x, stride, inverse);
      inverse *= 0.0625f;
      small_inverse<16>(x);
      exchange(x, stride, stride << 4);
    }
    const Complex shift = conjugate(quarter_shift());
    FLA_UNROLL
    for (int i = 0; i < kFftPoints; ++i) x[i] = x[i] * shift;
    twiddle_pass<true>(x, threads_, inverse_threads_);
    small_inverse<16>(x);
    FLA_UNROLL
    for (int j = 1; j < kFftPoints; ++j) x[j] = x[j] * conjugate(thirty_second(j));
  }

 private:
  static constexpr float kTwoPi = 6.28318530717958648f;

  // The part of the sampling points' shift that the thread's points have in common.
  FLA_DEVICE Complex quarter_shift() const {
    return unit(static_cast<float>(thread_) * (kTwoPi / 64 * inverse_threads_));
  }

  // Between the pass of this stride, a power of two, and those of smaller ones.
  template <bool kInverse>
  FLA_DEVICE void twiddle_pass(Complex (&x)[kFftPoints], int stride, float inverse_stride) const {
    const float turn = static_cast<float>(thread_ & (stride - 1)) * (kTwoPi / 16 * inverse_stride);
    const Complex w = unit(turn), w4 = unit(4 * turn);
    if constexpr (kInverse) twiddle(x, conjugate(w), conjugate(w4));
    else twiddle(x, w, w4);
  }

  // From the points that the pass of one stride leaves with the thread to those of another. One barrier: the places that a
  // thread writes are those that nobody but itself read last.
  FLA_DEVICE void exchange(Complex (&x)[kFftPoints], int from, int to) const {
    Complex* own = shared_ + place(from);
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j) own[j * from + (j * from >> 4)] = x[j];
    block_barrier();
    own = shared_ + place(to);
    FLA_UNROLL
    for (int j = 0; j < kFftPoints; ++j) x[j] = own[j * to + (j * to >> 4)];
  }
  // Of the thread's first point at this stride; point p lies at p + p / 16, which keeps the banks of every stride apart.
  FLA_DEVICE int place(int stride) const {
    const int within = thread_ & (stride - 1);
    return (thread_ - within) * 17 + within + (within >> 4);
  }

  Complex* shared_;
  int thread_, threads_;
  float inverse_threads_;  // exact: a power of two
};

}  // namespace fla::detail

// The penalty on the largest logit, and scaling by a number on the device.
#pragma once

#include <cmath>

#include "fla/l2_warp.h"
#include "reference/view.h"

namespace fla::reference {

// The column of the largest logit of a row, the first of several; a NaN is larger than every number.
template <class S>
int64_t first_peak(const View<S>& logits, int64_t t) {
  int64_t best = 0;
  for (int64_t v = 1; v < logits.size(1); ++v) {
    const double now = value(logits(t, v)), before = value(logits(t, best));
    if (!std::isnan(before) && (std::isnan(now) || now > before)) best = v;
  }
  return best;
}

template <class S>
void evaluate(const L2WarpForward& a) {
  const View<S> logits(a.logits), max(a.max);
  const View<int64_t> argmax(a.argmax);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    const int64_t best = first_peak(logits, t);
    max(t) = logits(t, best);
    argmax(t) = best;
  }
}

template <class S>
void evaluate(const L2WarpAdd& a) {
  const View<S> max(a.max), dloss(a.dloss), dlogits(a.dlogits);
  const View<int64_t> argmax(a.argmax);
  const S factor = constant<S>(a.factor) / constant<S>(a.num_tokens > 0 ? a.num_tokens : dlogits.size(0));
  const S g = dloss ? factor * dloss(0) : factor;
  for (int64_t t = 0; t < dlogits.size(0); ++t) {
    const int64_t v = argmax(t);
    if (v >= 0 && v < dlogits.size(1)) dlogits(t, v) = dlogits(t, v) + g * max(t);
  }
}

template <class S>
void evaluate(const ScaleInplace& a) {
  const View<S> x(a.x), factor(a.factor);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t n = 0; n < x.size(1); ++n) x(m, n) = x(m, n) * factor(0);
}

}  // namespace fla::reference

// Activations and gated units.
#pragma once

#include "fla/activation.h"
#include "reference/view.h"

namespace fla::reference {

template <class S>
void evaluate(const SwigluForward& a) {
  const View<S> x(a.x), y(a.y), z(a.z);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t f = 0; f < x.size(1); ++f) z(m, f) = x(m, f) * sigmoid_(x(m, f)).plus * y(m, f);
}

template <class S>
void evaluate(const SwigluBackward& a) {
  const View<S> x(a.x), y(a.y), dz(a.dz), dx(a.dx), dy(a.dy), z(a.z);
  for (int64_t m = 0; m < x.size(0); ++m) {
    for (int64_t f = 0; f < x.size(1); ++f) {
      const S gate = x(m, f), up = y(m, f), upstream = dz(m, f);
      const Sigmoid<S> s = sigmoid_(gate);
      const S swish = gate * s.plus;
      if (dx) dx(m, f) = upstream * up * s.plus * (S(1.0) + gate * s.minus);
      if (dy) dy(m, f) = upstream * swish;
      if (z) z(m, f) = swish * up;
    }
  }
}

}  // namespace fla::reference

// Running a reference on a problem, over any of its scalars.
#pragma once

#include <vector>

#include "harness/problem.h"
#include "reference/scalar/scalars.h"

namespace fla::harness {

// One array per field of the signature, dense and row-major; integer tensors stay in Problem::values. Inputs are
// filled from the problem by the caller or by inputs_as(), outputs by evaluate().
template <class S>
struct Evaluation {
  std::vector<std::vector<S>> values;
  std::vector<std::vector<int64_t>> integers;
};

// The problem's inputs as scalars S (exact conversion, zero error, zero tangent), outputs sized and zero.
template <class S>
Evaluation<S> inputs_as(const Problem&);

// Points a copy of the problem's argument struct at the arrays and runs the reference.
template <class S>
void evaluate(const Problem&, Evaluation<S>&);

extern template Evaluation<double> inputs_as(const Problem&);
extern template Evaluation<reference::Bound> inputs_as(const Problem&);
extern template Evaluation<reference::Dual> inputs_as(const Problem&);
extern template Evaluation<reference::Single> inputs_as(const Problem&);
extern template Evaluation<reference::SingleSerial> inputs_as(const Problem&);
extern template Evaluation<reference::SingleBf16Sum> inputs_as(const Problem&);
extern template void evaluate(const Problem&, Evaluation<double>&);
extern template void evaluate(const Problem&, Evaluation<reference::Bound>&);
extern template void evaluate(const Problem&, Evaluation<reference::Dual>&);
extern template void evaluate(const Problem&, Evaluation<reference::Single>&);
extern template void evaluate(const Problem&, Evaluation<reference::SingleSerial>&);
extern template void evaluate(const Problem&, Evaluation<reference::SingleBf16Sum>&);

}  // namespace fla::harness

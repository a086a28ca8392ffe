#include "harness/evaluate.h"

namespace fla::harness {
namespace {

int64_t elements_of(const Tensor& t) { return count(t); }

}  // namespace

template <class S>
Evaluation<S> inputs_as(const Problem& problem) {
  const auto& fields = problem.signature.fields;
  Evaluation<S> e;
  e.values.resize(fields.size());
  e.integers.resize(fields.size());
  for (size_t i = 0; i < fields.size(); ++i) {
    const Tensor& t = problem.args.tensor(fields[i]);
    if (!t) continue;
    const HostTensor& host = problem.values[i];
    const auto n = static_cast<size_t>(elements_of(t));
    if (is_float(t.dtype)) {
      e.values[i].resize(n);
      for (size_t k = 0; k < host.real.size() && k < n; ++k) e.values[i][k] = S(host.real[k]);
    } else {
      e.integers[i] = host.integer;
      e.integers[i].resize(n);
    }
  }
  return e;
}

template <class S>
void evaluate(const Problem& problem, Evaluation<S>& e);

namespace {

template <class S>
constexpr Scalar kScalar = Scalar::real;
template <>
constexpr Scalar kScalar<reference::Bound> = Scalar::bound;
template <>
constexpr Scalar kScalar<reference::Dual> = Scalar::dual;
template <>
constexpr Scalar kScalar<reference::Single> = Scalar::single;
template <>
constexpr Scalar kScalar<reference::SingleSerial> = Scalar::single_serial;
template <>
constexpr Scalar kScalar<reference::SingleBf16Sum> = Scalar::single_bf16_sum;

}  // namespace

template <class S>
void evaluate(const Problem& problem, Evaluation<S>& e) {
  Args args = problem.args;
  const auto& fields = problem.signature.fields;
  for (size_t i = 0; i < fields.size(); ++i) {
    Tensor& t = args.tensor(fields[i]);
    if (!t) continue;
    t.data = is_float(t.dtype) ? static_cast<void*>(e.values[i].data()) : static_cast<void*>(e.integers[i].data());
    int64_t step = 1;
    for (int d = t.rank - 1; d >= 0; --d) {
      t.stride[d] = step;
      step *= t.size[d];
    }
  }
  problem.origin.direction->reference(kScalar<S>, args.get());
}

template Evaluation<double> inputs_as(const Problem&);
template Evaluation<reference::Bound> inputs_as(const Problem&);
template Evaluation<reference::Dual> inputs_as(const Problem&);
template Evaluation<reference::Single> inputs_as(const Problem&);
template Evaluation<reference::SingleSerial> inputs_as(const Problem&);
template Evaluation<reference::SingleBf16Sum> inputs_as(const Problem&);
template void evaluate(const Problem&, Evaluation<double>&);
template void evaluate(const Problem&, Evaluation<reference::Bound>&);
template void evaluate(const Problem&, Evaluation<reference::Dual>&);
template void evaluate(const Problem&, Evaluation<reference::Single>&);
template void evaluate(const Problem&, Evaluation<reference::SingleSerial>&);
template void evaluate(const Problem&, Evaluation<reference::SingleBf16Sum>&);

}  // namespace fla::harness

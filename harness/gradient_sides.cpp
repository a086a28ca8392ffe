#include "harness/gradient_sides.h"

#include <algorithm>
#include <cmath>

#include "harness/buffers.h"

namespace fla::harness {
namespace {

using reference::Dual;

bool real_field(const Problem& p, int field) {
  return field >= 0 && p.present(field) &&
         is_float(p.args.tensor(p.signature.fields[static_cast<size_t>(field)]).dtype);
}

}  // namespace

double Signs::next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t x = state_;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return ((x ^ (x >> 31)) >> 63) ? 1.0 : -1.0;
}

Vector Signs::vector(size_t n) {
  Vector v(n);
  for (double& x : v) x = next();
  return v;
}

Sides::Sides(const GradientPair& both) : pair(both) {
  const Problem& front = pair.forward;
  const Problem& back = pair.backward;
  for (size_t f = 0; f < front.signature.fields.size(); ++f) {
    const Field& field = front.signature.fields[f];
    const int here = static_cast<int>(f);
    const int gradient = back.index_of("d" + field.name);
    if (!real_field(front, here) || gradient < 0) continue;
    const bool is_output = back.signature.fields[static_cast<size_t>(gradient)].role != Role::input;
    if (field.role == Role::input && is_output && back.present(gradient))
      gradients.push_back({field.name, here, gradient});
    if (field.role != Role::input && !is_output && (back.present(gradient) || pair.fused))
      cotangents.push_back({here, back.present(gradient) ? gradient : -1});
  }
  forward = inputs_as<double>(front);
  evaluate(front, forward);
}

std::vector<Vector> Sides::draw_weights(Signs& signs) const {
  std::vector<Vector> weights;
  for (const Cotangent& c : cotangents) {
    const size_t n = forward.values[static_cast<size_t>(c.output)].size();
    weights.push_back(c.field < 0 ? Vector(n, 1.0) : signs.vector(n));
  }
  return weights;
}

std::vector<Vector> Sides::draw_directions(const std::vector<Gradient>& inputs, Signs& signs) const {
  std::vector<Vector> directions;
  for (const Gradient& g : inputs) {
    const Vector& at = forward.values[static_cast<size_t>(g.input)];
    Vector u = signs.vector(at.size());
    for (size_t k = 0; k < u.size(); ++k)
      if (!std::isfinite(at[k])) u[k] = 0;
    directions.push_back(std::move(u));
  }
  return directions;
}

template <class S>
Evaluation<S> Sides::backward(const std::vector<Vector>& weights) const {
  const Problem& problem = pair.backward;
  Evaluation<S> back = inputs_as<S>(problem);
  for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
    const int source = pair.forward.index_of(problem.signature.fields[f].name);
    // A gradient that is added to what is there shows itself where nothing is.
    if (problem.signature.fields[f].role == Role::inout)
      std::fill(back.values[f].begin(), back.values[f].end(), S(0.0));
    if (problem.signature.fields[f].role != Role::input || !problem.present(static_cast<int>(f))) continue;
    if (source < 0 || !pair.forward.present(source)) continue;
    back.values[f].assign(forward.values[static_cast<size_t>(source)].begin(),
                          forward.values[static_cast<size_t>(source)].end());
    back.integers[f] = forward.integers[static_cast<size_t>(source)];
  }
  for (size_t i = 0; i < cotangents.size(); ++i)
    if (cotangents[i].field >= 0)
      back.values[static_cast<size_t>(cotangents[i].field)].assign(weights[i].begin(), weights[i].end());
  evaluate(problem, back);
  return back;
}

template Evaluation<double> Sides::backward(const std::vector<Vector>&) const;
template Evaluation<reference::Bound> Sides::backward(const std::vector<Vector>&) const;

Evaluation<Dual> Sides::tangents(const std::vector<Gradient>& inputs,
                                 const std::vector<Vector>& directions) const {
  Evaluation<Dual> e = inputs_as<Dual>(pair.forward);
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<Dual>& values = e.values[static_cast<size_t>(inputs[i].input)];
    for (size_t k = 0; k < values.size(); ++k) values[k].d = directions[i][k];
  }
  evaluate(pair.forward, e);
  return e;
}

int64_t Sides::input_elements() const {
  size_t n = 0;
  for (const Gradient& g : gradients) n += forward.values[static_cast<size_t>(g.input)].size();
  return static_cast<int64_t>(n);
}

int64_t Sides::output_elements() const {
  size_t n = 0;
  for (const Cotangent& c : cotangents) n += forward.values[static_cast<size_t>(c.output)].size();
  return static_cast<int64_t>(n);
}

std::string Sides::entry(const Gradient& g, size_t k) const {
  const Tensor& t = pair.forward.args.tensor(pair.forward.signature.fields[static_cast<size_t>(g.input)]);
  return "d" + g.name + index_text({t.size, t.size + t.rank}, static_cast<int64_t>(k));
}

}  // namespace fla::harness

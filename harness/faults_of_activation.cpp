// How gated units go wrong.
#include <cmath>

#include "fla/activation.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

Fault elementwise(const char* output, double (*formula)(double x, double y, double dz)) {
  return with_answers([=](const Problem& p, Answers& a) {
    const bool backward = p.index_of("dz") >= 0;
    for (size_t i = 0; i < real(p, "x").size(); ++i)
      real(p, a, output)[i] = formula(real(p, "x")[i], real(p, "y")[i], backward ? real(p, "dz")[i] : 0);
  });
}

void swap_inputs(Problem& p) {
  std::swap(real(p, "x"), real(p, "y"));
}

}  // namespace

void add_activation_faults(std::vector<SemanticFault>& all) {
  const std::string forward = "swiglu.fwd:M=12,F=96,x=?,y=?", backward = "swiglu.bwd:M=12,F=96,x=?,y=?";
  all.push_back({"sigmoid alone", forward,
                 elementwise("z", [](double x, double y, double) { return sigmoid(x) * y; })});
  all.push_back({"up branch ignored", forward,
                 elementwise("z", [](double x, double, double) { return sigmoid(x) * x; })});
  all.push_back({"gate and up exchanged", forward, of_other_call(swap_inputs)});
  all.push_back(
      {"gate of another row", forward, of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 96); })});
  all.push_back({"sigmoid by a tanh of 11 bits",
                 "swiglu.fwd:M=12,F=96,x=f32",
                 elementwise("z",
                             [](double x, double y, double) {
                               const double t = std::tanh(x / 2);
                               return x * y * (0.5 + 0.5 * (t + std::ldexp(t, -12)));
                             }),
                 {"f32"}});
  all.push_back({"derivative without its second term", backward,
                 elementwise("dx", [](double x, double y, double dz) { return dz * y * sigmoid(x); })});
  all.push_back(
      {"derivative of sigmoid alone", backward,
       elementwise("dx", [](double x, double y, double dz) { return dz * y * sigmoid(x) * sigmoid(-x); })});
  all.push_back({"dx and dy exchanged", backward, with_answers([](const Problem& p, Answers& a) {
                   std::swap(real(p, a, "dx"), real(p, a, "dy"));
                 })});
  all.push_back({"dx without dz", backward,
                 of_other_call(
                     [](Problem& p) {
                       for (double& v : real(p, "dz")) v = 1;
                     },
                     {"dx"})});
  for (const char* gradient : {"dx", "dy"}) {
    all.push_back({std::string(gradient) + " all zeros", backward, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
  }
}

}  // namespace fla::harness

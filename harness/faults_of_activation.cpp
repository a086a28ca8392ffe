// How activations and gated units go wrong. Numbers in names are those of the specification's list of traps.
#include <cmath>

#include "fla/activation.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

// In fp32 where the point is what fp32 loses, else in double.
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
float sigmoid_f(double x) { return 1 / (1 + std::exp(-static_cast<float>(x))); }
// The hardware's tanh: 11 bits.
double coarse_tanh(double x) { return std::tanh(x) * (1 + std::ldexp(1.0, -12)); }

constexpr double kRoot2OverPi = 0.7978845608028654;
double gelu_q(double x) { return kRoot2OverPi * (x + 0.044715 * x * x * x); }
double gelu_erf(double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0)); }

// One output element by element from the inputs of the same place; d is the upstream gradient.
using Formula = double (*)(double x, double d);
using UnitFormula = double (*)(double x, double y, double d);

Fault unary(const char* output, Formula formula) {
  return with_answers([=](const Problem& p, Answers& a) {
    const bool backward = p.index_of("dy") >= 0;
    for (size_t i = 0; i < real(p, "x").size(); ++i)
      real(p, a, output)[i] = formula(real(p, "x")[i], backward ? real(p, "dy")[i] : 0);
  });
}

Fault unit(const char* output, UnitFormula formula) {
  return with_answers([=](const Problem& p, Answers& a) {
    const bool backward = p.index_of("dz") >= 0;
    for (size_t i = 0; i < real(p, "x").size(); ++i)
      real(p, a, output)[i] = formula(real(p, "x")[i], real(p, "y")[i], backward ? real(p, "dz")[i] : 0);
  });
}

void swap_inputs(Problem& p) { std::swap(real(p, "x"), real(p, "y")); }

template <class A>
Fault with_attribute(void (*change)(A&), std::vector<std::string> only = {}) {
  return of_other_call([=](Problem& p) { change(arguments<A>(p)); }, std::move(only));
}

void add_sigmoids(std::vector<SemanticFault>& all) {
  const std::string large = ":M=12,C=96,x=?,fill=scaled", plain = ":M=12,C=96,x=?";
  all.push_back({"1: 1 - sigmoid for sigmoid(-x)", "sigmoid.bwd" + large, unary("dx", [](double x, double dy) {
                   const float s = sigmoid_f(x);
                   return dy * static_cast<double>(s * (1 - s));
                 })});
  all.push_back({"3: by the hardware's tanh", "sigmoid.fwd" + large,
                 unary("y", [](double x, double) { return 0.5 + 0.5 * coarse_tanh(x / 2); })});
  all.push_back({"swish", "sigmoid.fwd" + plain, unary("y", [](double x, double) { return x * sigmoid(x); })});

  all.push_back({"1: log(1 + e)", "logsigmoid.fwd" + large, unary("y", [](double x, double) {
                   const float e = std::exp(-std::abs(static_cast<float>(x)));
                   return static_cast<double>(std::min(static_cast<float>(x), 0.0f) - std::log(1 + e));
                 })});
  all.push_back({"1: 1 - sigmoid for sigmoid(-x)", "logsigmoid.bwd" + large, unary("dx", [](double x, double dy) {
                   return dy * static_cast<double>(1 - sigmoid_f(x));
                 })});
  all.push_back({"temperature ignored", "logsigmoid.fwd" + plain + ",temperature=16",
                 with_attribute<ActivationForward>([](ActivationForward& a) { a.temperature = 1; })});
  all.push_back({"temperature ignored", "logsigmoid.bwd" + plain + ",temperature=16",
                 with_attribute<ActivationBackward>([](ActivationBackward& a) { a.temperature = 1; })});
  all.push_back({"temperature multiplied", "logsigmoid.fwd" + plain + ",temperature=16",
                 with_attribute<ActivationForward>([](ActivationForward& a) { a.temperature = 1.0f / 16; })});

  all.push_back({"sigmoid alone", "swish.fwd" + plain, unary("y", [](double x, double) { return sigmoid(x); })});
  all.push_back({"3: by the hardware's tanh", "swish.fwd" + large,
                 unary("y", [](double x, double) { return x * (0.5 + 0.5 * coarse_tanh(x / 2)); })});
  all.push_back({"derivative without its second term", "swish.bwd" + plain,
                 unary("dx", [](double x, double dy) { return dy * sigmoid(x); })});
}

void add_gelus(std::vector<SemanticFault>& all) {
  const std::string plain = ":M=12,C=96,x=?", large = plain + ",fill=scaled", biased = "bias_gelu_tanh.bwd" + plain;
  all.push_back({"2: x / 2 (1 + tanh q)", "gelu_tanh.fwd:M=256,C=256,x=?,fill=exhaustive", unary("y", [](double x, double) {
                   const auto t = static_cast<float>(std::tanh(gelu_q(x)));
                   return static_cast<double>(0.5f * static_cast<float>(x) * (1 + t));
                 })});
  all.push_back({"the form with erf", "gelu_tanh.fwd" + plain,
                 unary("y", [](double x, double) { return gelu_erf(x); })});
  all.push_back({"no cubic term", "gelu_tanh.fwd" + plain,
                 unary("y", [](double x, double) { return x * sigmoid(2 * kRoot2OverPi * x); })});
  all.push_back({"2: 0 times infinity in the slope", "gelu_tanh.bwd" + plain + ",fill=gates",
                 with_answers([](const Problem& p, Answers& a) {
                   for (size_t i = 0; i < real(p, "x").size(); ++i)
                     if (std::abs(real(p, "x")[i]) > 1e19) real(p, a, "dx")[i] = NAN;
                 })});
  all.push_back({"slope of q without its cubic term", "gelu_tanh.bwd" + plain, unary("dx", [](double x, double dy) {
                   const double s = sigmoid(2 * gelu_q(x));
                   return dy * s * (1 + 2 * x * (1 - s) * kRoot2OverPi);
                 })});

  for (const char* direction : {"fwd", "bwd"}) {
    const std::string text = std::string("bias_gelu_tanh.") + direction + plain;
    all.push_back({"bias ignored", text, of_other_call([](Problem& p) {
                     for (double& b : real(p, "bias")) b = 0;
                   })});
    all.push_back({"bias of another column", text,
                   of_other_call([](Problem& p) { rotate_rows(real(p, "bias"), 1); })});
  }
  all.push_back({"dbias of rounded dx",
                 "bias_gelu_tanh.bwd:M=512,C=96,x=bf16,bias=f32,dbias=f32",
                 with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>&dx = real(p, a, "dx"), &dbias = real(p, a, "dbias");
                   std::fill(dbias.begin(), dbias.end(), 0.0);
                   for (size_t i = 0; i < dx.size(); ++i)
                     dbias[i % dbias.size()] += round_to(DType::bf16, dx[i]);
                 }),
                 {"bf16"}});
  all.push_back({"dbias without the last row", biased,
                 of_other_call([](Problem& p) { std::fill(real(p, "dy").end() - 96, real(p, "dy").end(), 0.0); },
                               {"dbias"})});
  all.push_back({"dbias of dy", biased, with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& dbias = real(p, a, "dbias");
                   std::fill(dbias.begin(), dbias.end(), 0.0);
                   for (size_t i = 0; i < real(p, "dy").size(); ++i) dbias[i % 96] += real(p, "dy")[i];
                 })});
  all.push_back({"dbias summed in bf16", "bias_gelu_tanh.bwd:M=96,C=96,x=?", accumulated(Scalar::single_bf16_sum)});
}

void add_relus(std::vector<SemanticFault>& all) {
  const std::string plain = ":M=12,C=96,x=?";
  all.push_back({"7: NaN lost", "relu.fwd" + plain + ",fill=specials",
                 unary("y", [](double x, double) { return std::fmax(x, 0); })});
  all.push_back({"7: NaN lost", "sqrelu.fwd" + plain + ",fill=specials",
                 unary("y", [](double x, double) { return std::fmax(x, 0) * std::fmax(x, 0); })});
  all.push_back({"7: no gradient at NaN", "relu.bwd" + plain + ",fill=specials",
                 unary("dx", [](double x, double dy) { return x > 0 ? dy : 0; })});
  all.push_back({"gradient at zero", "relu.bwd" + plain + ",fill=gates",
                 with_attribute<ActivationBackward>([](ActivationBackward& a) { a.grad_at_zero = true; })});
  all.push_back({"no gradient at zero", "relu.bwd" + plain + ",fill=gates,grad_at_zero=1",
                 with_attribute<ActivationBackward>([](ActivationBackward& a) { a.grad_at_zero = false; })});
  all.push_back({"not squared", "sqrelu.fwd" + plain, unary("y", [](double x, double) { return std::fmax(x, 0); })});
  all.push_back({"factor 2 forgotten", "sqrelu.bwd" + plain,
                 unary("dx", [](double x, double dy) { return dy * std::fmax(x, 0); })});
  all.push_back({"6: saturates", "sqrelu.fwd:M=12,C=96,x=f16,fill=scaled", unary("y", [](double x, double) {
                   return std::fmin(std::fmax(x, 0) * std::fmax(x, 0), 65504);
                 }), {"f16"}});
}

// What any unit may get wrong.
void add_units(std::vector<SemanticFault>& all) {
  for (const char* op : kGatedUnitNames) {
    const std::string forward = std::string(op) + ".fwd:M=12,F=96,x=?,y=?", backward = std::string(op) + ".bwd:M=12,F=96,x=?,y=?";
    all.push_back({"gate and up exchanged", forward, of_other_call(swap_inputs)});
    all.push_back({"gate of another row", forward, of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 96); })});
    all.push_back({"up branch ignored", forward, of_other_call([](Problem& p) {
                     for (double& y : real(p, "y")) y = 1;
                   })});
    all.push_back({"gate alone", forward, unit("z", [](double x, double y, double) { return x * y; })});
    all.push_back({"dx and dy exchanged", backward, with_answers([](const Problem& p, Answers& a) {
                     std::swap(real(p, a, "dx"), real(p, a, "dy"));
                   })});
    all.push_back({"dx without dz", backward,
                   of_other_call(
                       [](Problem& p) {
                         for (double& v : real(p, "dz")) v = 1;
                       },
                       {"dx"})});
    all.push_back({"z without y", backward + ",z=?", of_other_call(
                       [](Problem& p) {
                         for (double& v : real(p, "y")) v = 1;
                       },
                       {"z"})});
    for (const char* gradient : {"dx", "dy"}) {
      all.push_back({std::string(gradient) + " all zeros", backward, zeroed(gradient)});
      all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
    }
  }
}

void add_swiglus(std::vector<SemanticFault>& all) {
  const std::string plain = ":M=12,F=96,x=?", large = plain + ",fill=scaled";
  all.push_back({"sigmoid alone", "swiglu.fwd" + plain, unit("z", [](double x, double y, double) { return sigmoid(x) * y; })});
  all.push_back({"3: by the hardware's tanh",
                 "swiglu.fwd" + plain,
                 unit("z", [](double x, double y, double) { return x * y * (0.5 + 0.5 * coarse_tanh(x / 2)); }),
                 {"f32"}});
  all.push_back({"derivative without its second term", "swiglu.bwd" + plain,
                 unit("dx", [](double x, double y, double dz) { return dz * y * sigmoid(x); })});
  all.push_back({"derivative of sigmoid alone", "swiglu.bwd" + plain,
                 unit("dx", [](double x, double y, double dz) { return dz * y * sigmoid(x) * sigmoid(-x); })});
  all.push_back({"swish", "sigmoidglu.fwd" + plain, unit("z", [](double x, double y, double) { return x * sigmoid(x) * y; })});
  all.push_back({"1: 1 - sigmoid for sigmoid(-x)", "sigmoidglu.bwd" + large, unit("dx", [](double x, double y, double dz) {
                   const float s = sigmoid_f(x);
                   return dz * y * static_cast<double>(s * (1 - s));
                 })});
  all.push_back({"the form with erf", "geglu.fwd" + plain, unit("z", [](double x, double y, double) { return gelu_erf(x) * y; })});
  all.push_back({"2: x / 2 (1 + tanh q)", "geglu.fwd" + large, unit("z", [](double x, double y, double) {
                   const auto t = static_cast<float>(std::tanh(gelu_q(x)));
                   return y * static_cast<double>(0.5f * static_cast<float>(x) * (1 + t));
                 })});
}

void add_powglu(std::vector<SemanticFault>& all) {
  const std::string plain = ":M=12,F=96,x=?";
  all.push_back({"power ignored", "powglu.fwd" + plain + ",power=2",
                 with_attribute<GluForward>([](GluForward& a) { a.parameters.power = 3; })});
  all.push_back({"power ignored", "powglu.bwd" + plain + ",power=2",
                 with_attribute<GluBackward>([](GluBackward& a) { a.parameters.power = 3; }, {"dx"})});
  all.push_back({"power everywhere", "powglu.fwd" + plain, unit("z", [](double x, double y, double) {
                   return y * sigmoid(x) * (x > 0 ? x * x * x : x);
                 })});
  all.push_back({"swish", "powglu.fwd" + plain, unit("z", [](double x, double y, double) { return x * sigmoid(x) * y; })});
  all.push_back({"slope of a constant exponent", "powglu.bwd" + plain, unit("dx", [](double x, double y, double dz) {
                   if (x <= 0) return dz * y * sigmoid(x) * (1 + x * sigmoid(-x));
                   const double p = 3 / (std::sqrt(x) + 1);
                   return dz * y * sigmoid(x) * (p * std::pow(x, p - 1) + std::pow(x, p) * sigmoid(-x));
                 })});
  all.push_back({"5: NaN where p / x overflows", "powglu.bwd" + plain + ",fill=extremes",
                 with_answers([](const Problem& p, Answers& a) {
                   for (size_t i = 0; i < real(p, "x").size(); ++i)
                     if (real(p, "x")[i] > 0 && real(p, "x")[i] < 9e-39) real(p, a, "dx")[i] = NAN;
                 })});
  all.push_back({"5: the gate of infinity is 0", "powglu.fwd" + plain + ",fill=gates",
                 unit("z", [](double x, double y, double) {
                   const double p = 3 / (std::sqrt(std::fmax(x, 0)) + 1);
                   return x > 1e38 ? 0 : y * sigmoid(x) * (x > 0 ? std::pow(x, p) : x);
                 })});
}

void add_clamped_swiglu(std::vector<SemanticFault>& all) {
  const std::string forward = "clamped_swiglu.fwd:M=12,F=96,x=?,limit=1", backward = "clamped_swiglu.bwd:M=12,F=96,x=?,limit=1";
  all.push_back({"offset forgotten", forward,
                 with_attribute<GluForward>([](GluForward& a) { a.parameters.offset = 0; })});
  all.push_back({"alpha of 1", forward, with_attribute<GluForward>([](GluForward& a) { a.parameters.alpha = 1; })});
  all.push_back({"nothing clamped", forward, with_attribute<GluForward>([](GluForward& a) { a.parameters.limit = 1e30f; })});
  all.push_back({"the gate clamped below too", forward, of_other_call([](Problem& p) {
                   for (double& x : real(p, "x")) x = std::fmax(x, -1);
                 })});
  all.push_back({"up clamped above alone", forward, unit("z", [](double x, double y, double) {
                   const double g = std::fmin(x, 1);
                   return g * sigmoid(static_cast<double>(1.702f) * g) * (std::fmin(y, 1) + 1);
                 })});
  for (const char* gradient : {"dx", "dy"})
    all.push_back({std::string(gradient) + " passes the clamp", backward,
                   of_other_call(
                       [](Problem& p) {
                         for (const char* field : {"x", "y"})
                           for (double& v : real(p, field)) v = std::fmin(std::fmax(v, -1), 1);
                       },
                       {gradient})});
}

}  // namespace

void add_activation_faults(std::vector<SemanticFault>& all) {
  add_sigmoids(all);
  add_gelus(all);
  add_relus(all);
  add_units(all);
  add_swiglus(all);
  add_powglu(all);
  add_clamped_swiglu(all);
}

}  // namespace fla::harness

// How the row norms beside RMS norm go wrong: means, gates, offsets, lengths.
#include <cmath>

#include "fla/gated_norm.h"
#include "fla/l2_norm.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

void set_to(std::vector<double>& values, double value) { std::fill(values.begin(), values.end(), value); }

template <class A>
Fault of_other(std::function<void(A&)> change, std::vector<std::string> only = {}) {
  return of_other_call([change](Problem& p) { change(arguments<A>(p)); }, std::move(only));
}

// The unbiased variance, over N - 1.
void divide_variance_by_one_less(const Problem& p, Answers& a) {
  const auto& args = arguments<LayerNormForward>(p);
  const auto N = static_cast<double>(args.x.size[2]);
  std::vector<double>&y = real(p, a, "y"), &rstd = real(p, a, "rstd");
  const double eps = static_cast<double>(args.eps);
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t m = i / static_cast<size_t>(N);
    const double variance = 1 / (rstd[m] * rstd[m]) - eps;
    y[i] *= std::sqrt((variance + eps) / (variance * N / (N - 1) + eps));
  }
}

void add_pairs(std::vector<SemanticFault>& all) {
  const std::string forward = "qk_norm.fwd:M=5,H=4,K=2,N=64,q=?", backward = "qk_norm.bwd:M=5,H=4,K=2,N=64,q=?";
  all.push_back({"k with the weight of q", forward,
                 of_other_call([](Problem& p) { real(p, "k_weight") = real(p, "q_weight"); }, {"k_out"})});
  all.push_back({"rstd of q's next head", forward,
                 with_answers([](const Problem& p, Answers& a) { rotate_rows(real(p, a, "q_rstd"), 1); })});
  all.push_back({"dk with the weight of q", backward,
                 of_other_call([](Problem& p) { real(p, "k_weight") = real(p, "q_weight"); }, {"dk"})});
  all.push_back({"dk_weight without the last row", backward,
                 of_other_call([](Problem& p) { std::fill(real(p, "dk_out").end() - 64, real(p, "dk_out").end(), 0.0); },
                               {"dk_weight"})});
}

void add_centred(std::vector<SemanticFault>& all) {
  const std::string forward = "layer_norm.fwd:M=12,N=96,x=?,bias=?", backward = "layer_norm.bwd:M=12,N=96,x=?,bias=?";
  all.push_back({"mean not subtracted", forward,
                 of_other<LayerNormForward>([](LayerNormForward& a) { a.kind = NormKind::rms; }, {"y", "rstd"})});
  // Trap 8: what a padded lane does to the variance is of this size and less.
  all.push_back({"variance over N - 1", "layer_norm.fwd:M=12,N=16,x=?", with_answers(divide_variance_by_one_less)});
  all.push_back({"mean of another row", forward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 96); }, {"mean"})});
  all.push_back({"weight offset ignored", forward + ",weight_offset=1",
                 of_other<LayerNormForward>([](LayerNormForward& a) { a.weight_offset = 0; })});
  // Trap 19.
  all.push_back({"weight offset folded into a bf16 weight", "layer_norm.fwd:M=12,N=96,x=bf16,weight_offset=1",
                 of_other_call([](Problem& p) {
                   for (double& w : real(p, "weight")) w = round_to(DType::bf16, w + 1) - 1;
                 }),
                 {"bf16"}});
  all.push_back({"no mean of s in dx", backward,
                 of_other<LayerNormBackward>([](LayerNormBackward& a) { a.kind = NormKind::rms; }, {"dx"})});
  all.push_back({"dweight of x, not of x - mean", backward,
                 of_other_call([](Problem& p) { set_to(real(p, "mean"), 0); }, {"dweight"})});
  all.push_back({"weight offset ignored in dx", backward + ",weight_offset=1",
                 of_other<LayerNormBackward>([](LayerNormBackward& a) { a.weight_offset = 0; }, {"dx"})});
  all.push_back({"dbias without the last row", backward,
                 of_other_call([](Problem& p) { std::fill(real(p, "dy").end() - 96, real(p, "dy").end(), 0.0); },
                               {"dbias"})});
  const std::string groups = "group_norm.bwd:M=6,G=3,N=48,x=?,bias=?";
  for (const char* gradient : {"dweight", "dbias"})
    all.push_back({std::string(gradient) + " of the next group", groups,
                   with_answers([gradient](const Problem& p, Answers& a) { rotate_rows(real(p, a, gradient), 48); })});
  all.push_back({"groups normalised as rms", "group_norm.fwd:M=6,G=3,N=48,x=?",
                 of_other<GroupNormForward>([](GroupNormForward& a) { a.kind = NormKind::rms; }, {"y", "rstd"})});
}

void add_l2(std::vector<SemanticFault>& all) {
  const std::string forward = "l2_norm.fwd:M=12,N=96,x=?", backward = "l2_norm.bwd:M=12,N=96,x=?";
  all.push_back({"mean instead of the sum", forward, with_answers([](const Problem& p, Answers& a) {
                   for (const char* field : {"y", "rstd"})
                     for (double& v : real(p, a, field)) v *= std::sqrt(96.0);
                 })});
  all.push_back({"eps beside the length", forward + ",fill=tiny",
                 of_other<L2NormForward>([](L2NormForward& a) { a.eps = 0; })});
  all.push_back({"projection divided by N", backward, with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& dx = real(p, a, "dx");
                   const std::vector<double>&dy = real(p, "dy"), &rstd = real(p, "rstd");
                   for (size_t i = 0; i < dx.size(); ++i) {
                     const double plain = rstd[i / 96] * dy[i];
                     dx[i] = plain + (dx[i] - plain) / 96;
                   }
                 })});
  all.push_back({"y multiplied by rstd again", backward, of_other_call([](Problem& p) {
                   for (size_t i = 0; i < real(p, "y").size(); ++i) real(p, "y")[i] *= real(p, "rstd")[i / 96];
                 })});
}

void add_gated(std::vector<SemanticFault>& all) {
  using Forward = RmsNormGatedForward;
  using Backward = RmsNormGatedBackward;
  const std::string forward = "rms_norm_gated.fwd:M=12,N=96,x=?", backward = "rms_norm_gated.bwd:M=12,N=96,x=?,bias=?";
  auto other_order = [](auto& a) {
    a.gate_order = a.gate_order == GateOrder::after ? GateOrder::before : GateOrder::after;
  };
  auto other_activation = [](auto& a) {
    a.activation = a.activation == GateActivation::swish ? GateActivation::sigmoid : GateActivation::swish;
  };
  for (const std::string order : {",gate_order=after", ",gate_order=before"}) {
    all.push_back({"the other gate order" + order, forward + order, of_other<Forward>(other_order)});
    all.push_back({"the other activation" + order, forward + order, of_other<Forward>(other_activation)});
    all.push_back({"gate of another row" + order, forward + order,
                   of_other_call([](Problem& p) { rotate_rows(real(p, "gate"), 96); })});
    for (const char* gradient : {"dx", "dgate", "dweight"}) {
      // dweight of an RMS norm is the same sum in both orders.
      if (gradient != std::string("dweight"))
        all.push_back({std::string("the other gate order in ") + gradient + order, backward + order,
                       of_other<Backward>(other_order, {gradient})});
      all.push_back({std::string("the other activation in ") + gradient + order, backward + order,
                     of_other<Backward>(other_activation, {gradient})});
    }
    // Trap 9.
    all.push_back({"recomputed output without the gate" + order, backward + order + ",y=?",
                   of_other<Backward>(other_order, {"y"})});
  }
  all.push_back({"dgate without the bias", backward,
                 of_other<Backward>([](Backward& a) { a.bias = {}; }, {"dgate"})});
  // Trap 1: 1 - sigmoid(g) in fp32.
  all.push_back({"dgate by 1 - sigmoid", "rms_norm_gated.bwd:M=8,N=64,activation=sigmoid,x=f32,fill=scaled",
                 with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& dgate = real(p, a, "dgate");
                   const std::vector<double>& gate = real(p, "gate");
                   for (size_t i = 0; i < dgate.size(); ++i) {
                     const double minus = 1 / (1 + std::exp(gate[i]));
                     const double naive = 1 - round_to(DType::f32, 1 / (1 + std::exp(-gate[i])));
                     dgate[i] *= minus > 0 ? naive / minus : 1;
                   }
                 }),
                 {"f32"}});
}

}  // namespace

void add_norm_family_faults(std::vector<SemanticFault>& all) {
  add_centred(all);
  add_pairs(all);
  add_l2(all);
  add_gated(all);
}

}  // namespace fla::harness

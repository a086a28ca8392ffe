// How products, and operators made of them, go wrong.
#include <cmath>

#include "fla/mlp.h"
#include "harness/self_test_layers.h"
#include "kernels/common/gemm.h"

namespace fla::harness {
namespace {

// Bits below the tenth lost, as tensor cores lose them of f32 numbers.
double cut(double x) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::trunc(std::ldexp(fraction, 11)), exponent - 11);
}

void clear_tail(std::vector<double>& values, size_t count) {
  std::fill(values.end() - static_cast<std::ptrdiff_t>(count), values.end(), 0.0);
}

void add_products(std::vector<SemanticFault>& all) {
  const std::string square = "gemm.fwd:M=40,N=40,K=40,a=?", wide = "gemm.fwd:M=12,N=20,K=200,a=?";
  using detail::Gemm;
  all.push_back({"second operand as its transpose", square,
                 of_other_call([](Problem& p) { arguments<Gemm>(p).transpose_b = true; })});
  all.push_back({"first operand as its transpose", square,
                 of_other_call([](Problem& p) { arguments<Gemm>(p).transpose_a = true; })});
  all.push_back({"old result forgotten", "gemm.fwd:M=12,N=20,K=30,a=?,c=f32,accumulate=1",
                 of_other_call([](Problem& p) { std::fill(real(p, "c").begin(), real(p, "c").end(), 0.0); })});
  all.push_back({"alpha forgotten", wide + ",alpha=0.5",
                 of_other_call([](Problem& p) { arguments<Gemm>(p).alpha = 1; })});
  all.push_back({"bias of the next column", wide + ",bias=?",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "bias"), 1); })});
  all.push_back({"last term left out", wide, of_other_call([](Problem& p) {
                   for (size_t i = 199; i < real(p, "a").size(); i += 200) real(p, "a")[i] = 0;
                 })});
  all.push_back({"accumulator in bf16", wide + ",c=f32", accumulated(Scalar::single_bf16_sum)});
  all.push_back({"operands cut to 10 bits", wide,
                 of_other_call([](Problem& p) {
                   for (const char* operand : {"a", "b"})
                     for (double& v : real(p, operand)) v = cut(v);
                 }),
                 {"f32"}});
}

void add_glu_linear(std::vector<SemanticFault>& all) {
  const std::string forward = "swiglu_linear.fwd:M=12,F=96,O=20,x=?,linear_bias=?";
  const std::string backward = "swiglu_linear.bwd:M=12,F=96,O=20,x=?,linear_bias=?";
  using Forward = GluLinearForward;
  using Backward = GluLinearBackward;
  all.push_back({"bias forgotten", forward, of_other_call([](Problem& p) { arguments<Forward>(p).linear_bias = {}; })});
  all.push_back({"weight of another output", forward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "linear_weight"), 96); })});
  all.push_back({"z not rounded in front of the product", forward,
                 of_other_call([](Problem& p) { arguments<Forward>(p).x.dtype = DType::f32; }), {"bf16"}});
  all.push_back({"accumulator in bf16", forward, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"dz not rounded in front of the gate", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).x.dtype = DType::f32; }, {"dx", "dy"}), {"bf16"}});
  all.push_back({"dlinear_weight of the gate alone", backward,
                 of_other_call([](Problem& p) { std::fill(real(p, "y").begin(), real(p, "y").end(), 1.0); },
                               {"dlinear_weight"})});
  all.push_back({"dlinear_weight of another row's z", backward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 96); }, {"dlinear_weight"})});
  all.push_back({"main gradient overwritten", backward + ",accumulate=1",
                 of_other_call([](Problem& p) { arguments<Backward>(p).accumulate = false; }, {"dlinear_weight"})});
  all.push_back({"dlinear_bias without the last row", backward,
                 of_other_call([](Problem& p) { clear_tail(real(p, "dout"), 20); }, {"dlinear_bias"})});
  for (const char* gradient : {"dx", "dy", "dlinear_weight", "dlinear_bias"}) {
    all.push_back({std::string(gradient) + " all zeros", backward, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
  }
}

void add_norm_linear(std::vector<SemanticFault>& all) {
  const std::string forward = "rms_norm_linear.fwd:M=12,C=96,O=20,x=?,num_groups=2,bias=?";
  const std::string backward = "rms_norm_linear.bwd:M=12,C=96,O=20,x=?,num_groups=2,bias=?";
  using Forward = NormLinearForward;
  using Backward = NormLinearBackward;
  all.push_back({"y not rounded in front of the product", "rms_norm_linear.fwd:M=12,C=96,O=20,x=?,rstd=none",
                 of_other_call([](Problem& p) { arguments<Forward>(p).x.dtype = DType::f32; }), {"bf16"}});
  all.push_back({"norm's weight ignored", forward,
                 of_other_call([](Problem& p) { arguments<Forward>(p).weight = {}; })});
  all.push_back({"weights of the groups exchanged", forward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "weight"), 48); })});
  // The recomputed output must be all that the product saw: fla's weight gradient once lacked a factor.
  all.push_back({"dlinear_weight of the norm without its weight", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).weight = {}; }, {"dlinear_weight"})});
  all.push_back({"dlinear_weight of the norm without its bias", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).bias = {}; }, {"dlinear_weight"})});
  all.push_back({"statistics of another row", backward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "rstd"), 2); })});
  for (const char* gradient : {"dx", "dweight", "dlinear_weight"})
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
}

// What the family adds to rms_norm_linear: means and gates, in front of the product and in what its backward makes again.
void add_centred_linear(std::vector<SemanticFault>& all) {
  const std::string shape = ":M=12,C=96,O=20,x=?,bias=?", forward = "layer_norm_linear.fwd" + shape;
  const std::string backward = "layer_norm_linear.bwd" + shape;
  using Forward = NormLinearForward;
  using Backward = NormLinearBackward;
  all.push_back({"mean not subtracted", forward,
                 of_other_call([](Problem& p) { arguments<Forward>(p).kind = NormKind::rms; }, {"out", "rstd"})});
  all.push_back({"weight offset ignored", forward + ",weight_offset=1",
                 of_other_call([](Problem& p) { arguments<Forward>(p).weight_offset = 0; })});
  all.push_back({"no mean of s in dx", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).kind = NormKind::rms; }, {"dx"})});
  all.push_back({"dlinear_weight of x, not of x - mean", backward,
                 of_other_call([](Problem& p) { real(p, "mean").assign(real(p, "mean").size(), 0.0); },
                               {"dlinear_weight"})});
  all.push_back({"weight offset ignored in dlinear_weight", backward + ",weight_offset=1",
                 of_other_call([](Problem& p) { arguments<Backward>(p).weight_offset = 0; }, {"dlinear_weight"})});
  const std::string groups = "group_norm_linear.fwd:M=12,C=96,O=20,x=?,num_groups=3";
  all.push_back({"one norm over all groups", groups + ",mean=none,rstd=none",
                 of_other_call([](Problem& p) { arguments<Forward>(p).num_groups = 1; })});
  all.push_back({"groups normalised as rms", groups,
                 of_other_call([](Problem& p) { arguments<Forward>(p).kind = NormKind::rms; }, {"out", "rstd"})});
  all.push_back({"statistics of the next group", "group_norm_linear.bwd:M=12,C=96,O=20,x=?,num_groups=3",
                 of_other_call([](Problem& p) {
                   for (const char* statistic : {"mean", "rstd"}) rotate_rows(real(p, statistic), 1);
                 })});
}

void add_gated_linear(std::vector<SemanticFault>& all) {
  using Forward = NormLinearForward;
  using Backward = NormLinearBackward;
  const auto other_order = [](auto& a) {
    a.gate_order = a.gate_order == GateOrder::after ? GateOrder::before : GateOrder::after;
  };
  for (const std::string op : {"rms_norm_gated_linear", "layer_norm_gated_linear"}) {
    for (const std::string order : {",gate_order=after", ",gate_order=before"}) {
      const std::string forward = op + ".fwd:M=12,C=96,O=20,x=?" + order;
      const std::string backward = op + ".bwd:M=12,C=96,O=20,x=?,bias=?" + order;
      all.push_back({"the other gate order" + order, forward,
                     of_other_call([=](Problem& p) { other_order(arguments<Forward>(p)); })});
      all.push_back({"sigmoid for swish" + order, forward, of_other_call([](Problem& p) {
                       arguments<Forward>(p).activation = GateActivation::sigmoid;
                     })});
      all.push_back({"gate of another row" + order, forward,
                     of_other_call([](Problem& p) { rotate_rows(real(p, "gate"), 96); })});
      for (const char* gradient : {"dx", "dgate"}) {
        all.push_back({std::string("the other gate order in ") + gradient + order, backward,
                       of_other_call([=](Problem& p) { other_order(arguments<Backward>(p)); }, {gradient})});
        all.push_back({std::string(gradient) + " of other sign" + order, backward, negated(gradient)});
      }
    }
    // fla's weight gradient once lacked this factor, in rows of up to 512 elements and in longer ones.
    for (const char* width : {"96", "520"})
      all.push_back({std::string("dlinear_weight of the norm without its gate, rows of ") + width,
                     op + ".bwd:M=12,O=20,x=?,bias=?,C=" + width,
                     of_other_call([](Problem& p) { arguments<Backward>(p).activation = GateActivation::none; },
                                   {"dlinear_weight"})});
  }
}

void add_mlp(std::vector<SemanticFault>& all) {
  const std::string forward = "gated_mlp.fwd:M=12,H=24,F=40,x=?", backward = "gated_mlp.bwd:M=12,H=24,F=40,x=?";
  all.push_back({"gate and up exchanged", forward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "gate_up_weight"), 40 * 24); }, {"out"})});
  all.push_back({"gate's weight for both", forward, of_other_call([](Problem& p) {
                   std::vector<double>& w = real(p, "gate_up_weight");
                   std::copy(w.begin(), w.begin() + 40 * 24, w.begin() + 40 * 24);
                 })});
  all.push_back({"down weight of another output", forward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "down_weight"), 40); })});
  all.push_back({"gate and up not rounded", "gated_mlp.fwd:M=12,H=24,F=40,x=?,gate_up=none",
                 of_other_call([](Problem& p) { arguments<GatedMlpForward>(p).x.dtype = DType::f32; }), {"bf16"}});
  all.push_back({"dx without up's share", backward,
                 of_other_call([](Problem& p) { clear_tail(real(p, "gate_up_weight"), 40 * 24); }, {"dx"})});
  all.push_back({"dx without gate's share", "gated_mlp.bwd:M=12,H=24,F=40,x=?,gate_up_weight=none,gate_weight=?,up_weight=?",
                 of_other_call([](Problem& p) { clear_tail(real(p, "gate_weight"), 40 * 24); }, {"dx"})});
  all.push_back({"dgate and dup exchanged", backward, with_answers([](const Problem& p, Answers& a) {
                   rotate_rows(real(p, a, "dgate_up_weight"), 40 * 24);
                 })});
  all.push_back({"ddown_weight of another row's z", backward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "gate_up"), 80); }, {"ddown_weight"})});
  all.push_back({"saved z ignored", backward + ",z=?",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "z"), 40); }, {"ddown_weight"})});
  all.push_back({"dgate and dup not rounded", backward,
                 of_other_call([](Problem& p) { arguments<GatedMlpBackward>(p).x.dtype = DType::f32; }, {"dx"}),
                 {"bf16"}});
  all.push_back({"main gradients overwritten", backward + ",accumulate=1",
                 of_other_call([](Problem& p) { arguments<GatedMlpBackward>(p).accumulate = false; }, {"ddown_weight"})});
  for (const char* gradient : {"dx", "dgate_up_weight", "ddown_weight"}) {
    all.push_back({std::string(gradient) + " all zeros", backward, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
  }
}

}  // namespace

void add_linear_faults(std::vector<SemanticFault>& all) {
  add_products(all);
  add_glu_linear(all);
  add_norm_linear(all);
  add_centred_linear(all);
  add_gated_linear(all);
  add_mlp(all);
}

}  // namespace fla::harness

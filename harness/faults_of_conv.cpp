// How causal convolutions go wrong.
#include <cmath>

#include "fla/conv.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using Forward = CausalConv1dForward;
using Backward = CausalConv1dBackward;

void reverse_taps(Problem& p, int64_t taps) {
  std::vector<double>& weight = real(p, "weight");
  for (auto first = weight.begin(); first != weight.end(); first += taps) std::reverse(first, first + taps);
}
void reverse_forward_taps(Problem& p) {
  reverse_taps(p, arguments<Forward>(p).weight.size[1]);
}
void reverse_backward_taps(Problem& p) {
  reverse_taps(p, arguments<Backward>(p).weight.size[1]);
}

// Slot c of every sequence and channel holds what belongs into slot c + 1.
void shift_slots(const Problem& p, Answers& a) {
  const Tensor& t = arguments<Forward>(p).final_state;
  std::vector<double>& state = real(p, a, "final_state");
  for (auto first = state.begin(); first != state.end(); first += t.size[2])
    std::rotate(first, first + 1, first + t.size[2]);
}

void padding_as_group(Problem& p) {
  for (int64_t& id : integer(p, "seq_idx")) id = id < 0 ? 1000000 - id : id;
}

// Ids that come back are taken for new ones.
void groups_as_runs(Problem& p) {
  std::vector<int64_t>& ids = integer(p, "seq_idx");
  int64_t run = 0, before = ids.front();
  for (int64_t& id : ids) {
    run += id != before;
    before = id;
    if (id >= 0) id = run;
  }
}

void zero_initial_state(Problem& p) {
  for (double& v : real(p, "initial_state")) v = 0;
}

// The slope of SiLU without z sigmoid(z) sigmoid(-z): dy times sigmoid(z) instead of dy, and no activation.
void drop_second_term_of_slope(Problem& p) {
  Backward& args = arguments<Backward>(p);
  const auto B = args.x.size[0], T = args.x.size[1], D = args.x.size[2], W = args.weight.size[1];
  const std::vector<double>&x = real(p, "x"), &weight = real(p, "weight"), &bias = real(p, "bias");
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  for (int64_t i = 0; i < B * T * D; ++i) {
    const int64_t d = i % D, t = i / D % T;
    double z = bias[at(d)];
    for (int64_t k = std::max<int64_t>(0, W - 1 - t); k < W; ++k)
      z += weight[at(d * W + k)] * x[at(i - (W - 1 - k) * D)];
    real(p, "dy")[at(i)] /= 1 + std::exp(-z);
  }
  args.activation = ConvActivation::none;
}

void add_forward(std::vector<SemanticFault>& all) {
  const std::string plain = "causal_conv1d.fwd:B=2,T=20,D=24,x=?";
  const std::string silu = plain + ",activation=silu,bias=?";
  const std::string packed = "causal_conv1d.fwd:T=40,D=24,x=?,cu_seqlens=i32,lens=0+5+3+31+1";
  const std::string state = "causal_conv1d.fwd:B=3,T=2,D=24,x=?,initial_state=?,final_state=?,S=4";
  all.push_back({"sequence boundary ignored", packed,
                 of_other_call([](Problem& p) { arguments<Forward>(p).cu_seqlens = {}; })});
  all.push_back({"boundaries one token late", packed, of_other_call([](Problem& p) {
                   std::vector<int64_t>& offsets = integer(p, "cu_seqlens");
                   for (size_t n = 1; n + 1 < offsets.size(); ++n) ++offsets[n];
                 })});
  const std::string grouped = "causal_conv1d.fwd:B=2,T=150,D=24,x=?,seq_idx=i32,seed=3";
  all.push_back({"ids ignored", grouped, of_other_call([](Problem& p) { arguments<Forward>(p).seq_idx = {}; })});
  all.push_back({"padding is a group", grouped, of_other_call(padding_as_group)});
  all.push_back({"a group ends where another begins", grouped, of_other_call(groups_as_runs)});
  all.push_back({"final state shifted by a slot", state, with_answers(shift_slots)});
  all.push_back(
      {"final state without the initial one", state, of_other_call(zero_initial_state, {"final_state"})});
  all.push_back({"initial state ignored", state, of_other_call(zero_initial_state, {"y"})});
  all.push_back({"initial state of another sequence", state,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "initial_state"), 24 * 4); })});
  all.push_back({"taps reversed", plain, of_other_call(reverse_forward_taps)});
  all.push_back({"bias forgotten", silu, of_other_call([](Problem& p) { arguments<Forward>(p).bias = {}; })});
  all.push_back({"activation forgotten", silu,
                 of_other_call([](Problem& p) { arguments<Forward>(p).activation = ConvActivation::none; })});
  all.push_back({"residual forgotten", silu + ",residual=?",
                 of_other_call([](Problem& p) { arguments<Forward>(p).residual = {}; })});
  all.push_back({"mask ignored", plain + ",mask=u8",
                 of_other_call([](Problem& p) { arguments<Forward>(p).mask = {}; })});
  all.push_back({"weight of another channel", plain,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "weight"), 4); })});
  all.push_back(
      {"looks one token ahead", plain, of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 24); })});
  all.push_back({"accumulator in bf16", plain, accumulated(Scalar::single_bf16_sum)});
}

void add_backward(std::vector<SemanticFault>& all) {
  const std::string silu = "causal_conv1d.bwd:B=2,T=20,D=24,x=?,activation=silu,bias=?";
  const std::string packed = "causal_conv1d.bwd:T=40,D=24,x=?,cu_seqlens=i32,lens=0+5+3+31+1";
  const std::string state =
      "causal_conv1d.bwd:B=3,T=2,D=24,x=?,initial_state=?,final_state=?,dfinal_state=?,S=4";
  all.push_back({"sequence boundary ignored", packed,
                 of_other_call([](Problem& p) { arguments<Backward>(p).cu_seqlens = {}; })});
  all.push_back({"slope without the z term", silu, of_other_call(drop_second_term_of_slope)});
  all.push_back({"slope forgotten", silu, of_other_call([](Problem& p) {
                   arguments<Backward>(p).activation = ConvActivation::none;
                 })});
  all.push_back({"slope of z without bias", silu, of_other_call([](Problem& p) {
                   for (double& v : real(p, "bias")) v = 0;
                 })});
  all.push_back({"taps not reversed in dx", silu, of_other_call(reverse_backward_taps, {"dx"})});
  all.push_back({"dfinal_state forgotten", state,
                 of_other_call([](Problem& p) { arguments<Backward>(p).dfinal_state = {}; })});
  all.push_back({"initial state missing in dweight", state, of_other_call(zero_initial_state, {"dweight"})});
  all.push_back({"mask missing in dx", "causal_conv1d.bwd:B=2,T=20,D=24,x=?,mask=u8",
                 of_other_call([](Problem& p) { arguments<Backward>(p).mask = {}; }, {"dx"})});
  all.push_back({"dweight from another token's dy", silu,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "dy"), 24); }, {"dweight"})});
  all.push_back(
      {"dbias without the last batch row", silu,
       of_other_call([](Problem& p) { std::fill(real(p, "dy").begin() + 20 * 24, real(p, "dy").end(), 0.0); },
                     {"dbias"})});
  for (const char* gradient : {"dx", "dweight", "dbias"}) {
    all.push_back({std::string(gradient) + " all zeros", silu, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", silu, negated(gradient)});
  }
  all.push_back({"accumulator in bf16", silu, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"serial accumulator of dbias",
                 "causal_conv1d.bwd:B=4,T=4096,D=4,x=f32,bias=f32,dy.broadcast=1,fill=positive",
                 accumulated(Scalar::single_serial),
                 {"f32"}});
}

void add_update(std::vector<SemanticFault>& all) {
  const std::string pool = "causal_conv1d.update:N=5,M=2,Q=9,D=24,x=?,conv_state_indices=i32";
  all.push_back({"states of other sequences", pool,
                 of_other_call([](Problem& p) { rotate_rows(integer(p, "conv_state_indices"), 1); })});
  all.push_back({"padding takes a slot", pool, of_other_call([](Problem& p) {
                   std::vector<int64_t>& places = integer(p, "conv_state_indices");
                   std::replace(places.begin(), places.end(), int64_t{-1}, int64_t{0});  // which no sequence has
                 })});
  all.push_back({"tokens of a call in another order", pool,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 24); })});
}

}  // namespace

void add_conv_faults(std::vector<SemanticFault>& all) {
  add_forward(all);
  add_backward(all);
  add_update(all);
}

}  // namespace fla::harness

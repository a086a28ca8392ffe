// How log-probabilities of tokens and the losses on them go wrong.
#include <algorithm>
#include <cmath>
#include <limits>

#include "fla/l2_warp.h"
#include "fla/policy_loss.h"
#include "fla/token_logp.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

bool is_forward(const Problem& p) { return p.origin.direction->name == "fwd"; }

float& beta(Problem& p) {
  return is_forward(p) ? arguments<GrpoLossForward>(p).beta : arguments<GrpoLossBackward>(p).beta;
}
LogitChainOptions& chain(Problem& p) {
  return is_forward(p) ? static_cast<LogitChainOptions&>(arguments<SelectiveLogSoftmaxForward>(p))
                       : arguments<SelectiveLogSoftmaxBackward>(p);
}

void keep_all_tokens(Problem& p) {
  for (double& m : real(p, "completion_mask")) m = 1;
}
// The token of the row itself, not the one that it predicts.
void shift_ids(Problem& p) {
  std::vector<int64_t>& ids = integer(p, "input_ids");
  std::rotate(ids.begin(), ids.end() - 1, ids.end());
}
void first_advantage_for_all(Problem& p) {
  for (double& a : real(p, "advantages")) a = real(p, "advantages").front();
}
void other_sign(std::vector<double>& values) {
  for (double& v : values) v = -v;
}

void add_grpo(std::vector<SemanticFault>& all, const char* direction) {
  const std::string plain = std::string("grpo_loss.") + direction + ":B=3,L=12,S=16,V=48,logits=?";
  all.push_back({"masked tokens kept", plain + ",completion_mask=f32", of_other_call(keep_all_tokens)});
  all.push_back({"token of the row itself", plain, of_other_call(shift_ids)});
  all.push_back({"advantage of sequence 0 for all", plain, of_other_call(first_advantage_for_all)});
  all.push_back({"advantage of other sign", plain, of_other_call([](Problem& p) { other_sign(real(p, "advantages")); })});
  all.push_back({"kl missing", plain, of_other_call([](Problem& p) { beta(p) = 0; })});
  all.push_back({"kl of other sign", plain, of_other_call([](Problem& p) { beta(p) = -beta(p); })});
}

void add_selective(std::vector<SemanticFault>& all) {
  const std::string forward = "selective_log_softmax.fwd:T=12,V=96,logits=?,entropy=f32";
  const std::string backward = "selective_log_softmax.bwd:T=12,V=96,logits=?,entropy=f32";
  for (const std::string& plain : {forward, backward}) {
    all.push_back({"scale missing", plain + ",logit_scale=0.5", of_other_call([](Problem& p) { chain(p).logit_scale = 1; })});
    all.push_back({"label of another row", plain, of_other_call([](Problem& p) { rotate_rows(integer(p, "labels"), 1); })});
  }
  all.push_back({"logp of other sign", forward, negated("logp")});
  all.push_back({"entropy of other sign", forward, negated("entropy")});
  all.push_back({"accumulator in bf16", forward, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"gradient of the entropy missing", backward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dentropy")) v = 0;
                 })});
  all.push_back({"entropy of another row", backward, of_other_call([](Problem& p) { rotate_rows(real(p, "entropy"), 1); })});
  all.push_back({"dlogits of other sign", backward, negated("dlogits")});
}

template <class A>
void add_log_sum_of(std::vector<SemanticFault>& all, const std::string& plain) {
  const auto change = [](auto edit) { return of_other_call([edit](Problem& p) { edit(arguments<A>(p)); }); };
  all.push_back({"scale missing", plain + ",logit_scale=0.5", change([](A& a) { a.logit_scale = 1; })});
  all.push_back({"softcap missing", plain + ",softcap=2",
                 change([](A& a) { a.softcap = std::numeric_limits<float>::infinity(); })});
  all.push_back({"softcap before scale", plain + ",softcap=2,logit_scale=0.5",
                 change([](A& a) { a.softcap *= a.logit_scale; })});
  all.push_back({"logits of the row after", plain, of_other_call([](Problem& p) { rotate_rows(real(p, "logits"), 96); })});
}

void add_log_sum(std::vector<SemanticFault>& all) {
  const std::string forward = "logsumexp.fwd:T=12,V=96,logits=?,lse=f32", backward = "logsumexp.bwd:T=12,V=96,logits=?";
  add_log_sum_of<LogSumExpForward>(all, forward);
  add_log_sum_of<LogSumExpBackward>(all, backward);
  all.push_back({"last class missing", forward, of_other_call([](Problem& p) {
                   std::vector<double>& logits = real(p, "logits");
                   for (size_t last = 95; last < logits.size(); last += 96)
                     logits[last] = -std::numeric_limits<double>::infinity();
                 })});
  // What tanh makes of a lane that was loaded as -inf.
  all.push_back({"lanes beyond the row count once capped", forward + ",softcap=5",
                 with_answers([](const Problem& p, Answers& a) {
                   for (double& v : real(p, a, "lse")) v = std::log(std::exp(v) + std::exp(-5.0));
                 })});
  all.push_back({"logarithm in base 2", forward, with_answers([](const Problem& p, Answers& a) {
                   for (double& v : real(p, a, "lse")) v /= std::log(2.0);
                 })});
  all.push_back({"NaN logits lost in the maximum", forward + ",fill=specials", of_other_call([](Problem& p) {
                   for (double& v : real(p, "logits"))
                     if (std::isnan(v)) v = -std::numeric_limits<double>::infinity();
                 })});
  all.push_back({"accumulator in bf16", forward, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"lse of another row", backward, of_other_call([](Problem& p) { rotate_rows(real(p, "lse"), 1); })});
  all.push_back({"dlse of row 0 for all", backward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dlse")) v = real(p, "dlse").front();
                 })});
  all.push_back({"dlogits all zeros", backward, zeroed("dlogits")});
  all.push_back({"dlogits of other sign", backward, negated("dlogits")});
}

void add_penalty(std::vector<SemanticFault>& all) {
  const std::string add = "l2_warp.add:T=5,V=40,dloss=f32,factor=1,dlogits=?";
  all.push_back({"maximum of the row after", "l2_warp.fwd:T=12,V=96,logits=?",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "logits"), 96); })});
  all.push_back({"maximum of magnitudes", "l2_warp.fwd:T=12,V=96,logits=?", of_other_call([](Problem& p) {
                   for (double& v : real(p, "logits")) v = std::abs(v);
                 })});
  all.push_back({"divided by the vocabulary too", add,
                 of_other_call([](Problem& p) { arguments<L2WarpAdd>(p).num_tokens = 5 * 40; })});
  all.push_back({"upstream gradient ignored", add, of_other_call([](Problem& p) { real(p, "dloss")[0] = 1; })});
  all.push_back({"added to another class", add,
                 of_other_call([](Problem& p) { rotate_rows(integer(p, "argmax"), 1); })});
  all.push_back({"scaled twice", "scale_inplace.fwd:M=5,N=64,x=?", of_other_call([](Problem& p) {
                   real(p, "factor")[0] *= real(p, "factor")[0];
                 })});
}

PolicyLossCall& policy(Problem& p) {
  return is_forward(p) ? static_cast<PolicyLossCall&>(arguments<PolicyLossForward>(p)) : arguments<PolicyLossBackward>(p);
}

// The bounds of a ratio of 1 that are 1: a hair beyond them.
void nudge_ratios(Problem& p) {
  for (double& old : real(p, "old_logps")) old -= 1e-6;
}
// The ratio of a sequence as a product, not the geometric mean.
void multiply_ratios(Problem& p) {
  const std::vector<double>& old = real(p, "old_logps");
  std::vector<double>& now = real(p, "logps");
  const auto L = static_cast<size_t>(policy(p).logps.size[1]);
  for (size_t i = 0; i < now.size(); ++i) {
    const double* mask = real(p, "pad_mask").data() + i / L * L;
    now[i] = old[i] + static_cast<double>(std::count(mask, mask + L, 1.0)) * (now[i] - old[i]);
  }
}
// Of groups of six, divided by six and not by five. What is left out of the loss is the KL, so that all is advantages.
void bias_deviation(const Problem& p, Answers& a) {
  for (const char* field : {"loss", "dlogps"})
    if (p.signature.field(field))
      for (double& v : real(p, a, field)) v *= std::sqrt(6.0 / 5.0);
}
void swap_clip_sides(Problem& p) { std::swap(policy(p).epsilon_low, policy(p).epsilon_high); }

void add_policy(std::vector<SemanticFault>& all, const std::string& direction) {
  const auto add = [&](const char* name, const char* op, const std::string& options, std::function<void(Problem&)> change) {
    all.push_back({name, std::string(op) + "." + direction + ":B=6,L=10,logps=?" + options, of_other_call(std::move(change))});
  };
  const auto clip = [&](const char* name, const std::string& options, std::function<void(Problem&)> change) {
    add(name, "grpo_clip_loss", options, std::move(change));
  };
  clip("clip sides swapped", ",epsilon_low=0.1,epsilon_high=0.4", swap_clip_sides);
  clip("bounds excluded", ",fill=exact,group_size=2,epsilon_low=0,epsilon_high=0,clip_fraction=f32", nudge_ratios);
  clip("second bound missing", ",delta=1.5", [](Problem& p) { policy(p).delta = std::numeric_limits<float>::infinity(); });
  clip("kl missing", "", [](Problem& p) { policy(p).beta = 0; });
  clip("kl of other sign", "", [](Problem& p) { policy(p).beta = -policy(p).beta; });
  clip("kl without the ratio", ",kl_by_ratio=1", [](Problem& p) { policy(p).kl_by_ratio = false; });
  clip("padding kept", "", [](Problem& p) {
    for (double& m : real(p, "pad_mask")) m = 1;
  });
  clip("advantages over the batch", ",group_size=3", [](Problem& p) { policy(p).group_size = 0; });
  clip("mismatch ratio ignored", ",mismatch_ratio=f32", [](Problem& p) {
    for (double& w : real(p, "mismatch_ratio")) w = 1;
  });
  clip("mean over sequences, not tokens", "", [](Problem& p) { policy(p).normalization = PolicyNormalization::grpo; });
  clip("mean over tokens, not sequences", ",normalization=grpo",
       [](Problem& p) { policy(p).normalization = PolicyNormalization::bnpo; });
  clip("lengths not weighted", ",normalization=luspo",
       [](Problem& p) { policy(p).normalization = PolicyNormalization::dr_grpo; });
  clip("longest of the batch for max_tokens", ",normalization=dr_grpo,max_tokens=64", [](Problem& p) { policy(p).max_tokens = 0; });
  clip("ratio of the token", ",level=sequence", [](Problem& p) { policy(p).level = PolicyLevel::token; });
  clip("ratio of a sequence without its mean", ",level=sequence,beta=0,ref_logps=none", multiply_ratios);
  add("bound missing", "cispo_loss", ",epsilon_high=1.2", [](Problem& p) { policy(p).epsilon_high = 1e30f; });
  add("temperatures swapped", "sapo_loss", ",tau_positive=0.5,tau_negative=3",
      [](Problem& p) { std::swap(policy(p).tau_positive, policy(p).tau_negative); });
  const std::string plain = "grpo_clip_loss." + direction + ":B=6,L=10,beta=0,logps=?,ref_logps=none";
  all.push_back({"biased deviation", plain, with_answers(bias_deviation)});
  all.push_back({"accumulator in bf16", plain, accumulated(Scalar::single_bf16_sum)});
}

}  // namespace

void add_token_loss_faults(std::vector<SemanticFault>& all) {
  add_grpo(all, "fwd");
  add_grpo(all, "bwd");
  add_policy(all, "fwd");
  add_policy(all, "bwd");
  add_selective(all);
  add_log_sum(all);
  add_penalty(all);
}

}  // namespace fla::harness

// How divergences go wrong.
#include <cmath>

#include "fla/distribution_loss.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using Call = KlDivForwardBackward;

Fault with_divergence(Divergence divergence) {
  return of_other_call([divergence](Problem& p) { arguments<Call>(p).divergence = divergence; });
}

void swap_teacher_and_student(Problem& p) {
  std::swap(real(p, "logits"), real(p, "target_logits"));
}

// The factor temperature^2 that some put in front, in loss or gradient.
Fault hidden_temperature(const char* output) {
  return with_answers([output](const Problem& p, Answers& a) {
    for (double& v : real(p, a, output)) v *= std::pow(arguments<Call>(p).temperature, 2);
  });
}

void take_ignored_rows(Problem& p) {
  for (int64_t& label : integer(p, "labels")) label = 0;
}

}  // namespace

void add_distribution_loss_faults(std::vector<SemanticFault>& all) {
  const std::string rows = "kl_div_logits.fwd_bwd:T=12,V=96,logits=?,reduction=none,dloss=f32";
  const std::string mean = "kl_div_logits.fwd_bwd:T=12,V=96,logits=?,labels=i64,ignore=0.4";
  const std::string shannon = rows + ",divergence=jensen_shannon,beta=0.25";
  all.push_back({"forward for reverse", rows + ",divergence=reverse_kl", with_divergence(Divergence::forward_kl)});
  all.push_back({"reverse for forward", rows, with_divergence(Divergence::reverse_kl)});
  all.push_back({"teacher and student exchanged", rows, of_other_call(swap_teacher_and_student)});
  all.push_back({"beta of the student", shannon,
                 of_other_call([](Problem& p) { arguments<Call>(p).beta = 1 - arguments<Call>(p).beta; })});
  all.push_back({"temperature forgotten", rows + ",temperature=2",
                 of_other_call([](Problem& p) { arguments<Call>(p).temperature = 1; })});
  all.push_back({"temperature squared in the loss", rows + ",temperature=2", hidden_temperature("loss")});
  all.push_back({"temperature squared in the gradient", rows + ",temperature=2", hidden_temperature("dlogits")});
  all.push_back({"dloss of row 0 for all", rows, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dloss")) v = real(p, "dloss").front();
                 })});
  all.push_back({"ignored rows counted", mean, of_other_call(take_ignored_rows)});
  all.push_back({"sum, not batchmean", mean,
                 of_other_call([](Problem& p) { arguments<Call>(p).reduction = Reduction::sum; })});
  all.push_back({"gradient of other sign", mean, negated("dlogits")});
  all.push_back({"accumulator in bf16", rows, accumulated(Scalar::single_bf16_sum)});
}

}  // namespace fla::harness

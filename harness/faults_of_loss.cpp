// How cross entropy goes wrong.
#include <cmath>

#include "fla/loss.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using Forward = CrossEntropyForward;
using Backward = CrossEntropyBackward;

CrossEntropyOptions& options(Problem& p) {
  return p.origin.direction->name == "fwd" ? static_cast<CrossEntropyOptions&>(arguments<Forward>(p))
                                           : arguments<Backward>(p);
}

// Labels of a shard beyond this one: legal, but none of these columns is the label.
void make_labels_foreign(Problem& p) {
  CrossEntropyOptions& o = options(p);
  const int64_t classes = arguments<Forward>(p).logits.size[1];
  o.class_start = classes;
  o.total_classes = 2 * classes;
}

void swap_softcap_and_scale(Problem& p) {
  // scale cap tanh(l / cap) is cap' tanh(scale l / cap') with cap' = scale cap.
  options(p).softcap *= options(p).logit_scale;
}

void first_dloss_for_all(Problem& p) {
  for (double& v : real(p, "dloss")) v = real(p, "dloss").front();
}

void treat_ignored_as_class_0(Problem& p) {
  for (int64_t& label : integer(p, "labels"))
    if (label == options(p).ignore_index) label = 0;
}

void treat_invalid_as_class_0(Problem& p) {
  const int64_t classes = arguments<Forward>(p).logits.size[1];
  for (int64_t& label : integer(p, "labels"))
    if (label != options(p).ignore_index && (label < 0 || label >= classes)) label = 0;
}

void shift_labels(Problem& p) {
  rotate_rows(integer(p, "labels"), 1);
}
void shift_classes(Problem& p) {
  const int64_t classes = arguments<Forward>(p).logits.size[1];
  for (int64_t& label : integer(p, "labels")) label = (label + 1) % classes;
}
void forget_smoothing(Problem& p) {
  options(p).label_smoothing = 0;
}
void forget_z_loss(Problem& p) {
  options(p).lse_square_scale = 0;
}
void forget_softcap(Problem& p) {
  options(p).softcap = std::numeric_limits<float>::infinity();
}
void forget_scale(Problem& p) {
  options(p).logit_scale = 1;
}
void count_one_class_more(Problem& p) {
  options(p).total_classes = arguments<Forward>(p).logits.size[1] + 1;
}

// The divisor of `mean` counts ignored rows too.
Fault divide_by_all(const char* output) {
  return with_answers([output](const Problem& p, Answers& a) {
    const std::vector<int64_t>& labels = p.values[static_cast<size_t>(p.index_of("labels"))].integer;
    const auto counted =
        std::count_if(labels.begin(), labels.end(), [](int64_t label) { return label != -100; });
    for (double& v : real(p, a, output))
      v *= static_cast<double>(counted) / static_cast<double>(labels.size());
  });
}

void add_forward(std::vector<SemanticFault>& all) {
  const std::string rows = "cross_entropy.fwd:T=24,V=96,logits=?,reduction=none";
  const std::string mean = "cross_entropy.fwd:T=24,V=96,logits=?";
  all.push_back({"label term missing", rows, of_other_call(make_labels_foreign)});
  all.push_back({"label of another row", rows, of_other_call(shift_labels)});
  all.push_back({"label off by one", rows, of_other_call(shift_classes)});
  all.push_back({"smoothing forgotten", rows + ",label_smoothing=0.1", of_other_call(forget_smoothing)});
  all.push_back({"smoothing divided by one class more", rows + ",label_smoothing=0.1",
                 of_other_call(count_one_class_more)});
  all.push_back({"z-loss missing", rows + ",lse_square_scale=0.0001", of_other_call(forget_z_loss)});
  all.push_back({"softcap missing", rows + ",softcap=5", of_other_call(forget_softcap)});
  all.push_back({"scale missing", rows + ",logit_scale=0.5", of_other_call(forget_scale)});
  all.push_back(
      {"softcap before scale", rows + ",softcap=2,logit_scale=0.5", of_other_call(swap_softcap_and_scale)});
  all.push_back(
      {"ignored rows counted as class 0", rows + ",ignore=0.4", of_other_call(treat_ignored_as_class_0)});
  all.push_back({"invalid labels taken as class 0", rows + ",labels.invalid=1",
                 of_other_call(treat_invalid_as_class_0)});
  // Defect 9.
  all.push_back({"mean over ignored rows too", mean + ",ignore=0.4", divide_by_all("loss")});
  all.push_back(
      {"sum, not mean", mean, of_other_call([](Problem& p) { options(p).reduction = Reduction::sum; })});
  all.push_back({"NaN logits lost in the maximum", rows + ",fill=specials", of_other_call([](Problem& p) {
                   for (double& v : real(p, "logits"))
                     if (std::isnan(v)) v = -std::numeric_limits<double>::infinity();
                 })});
  all.push_back({"accumulator in bf16", rows, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"serial accumulator",
                 "cross_entropy.fwd:T=1,V=524288,logits=f32,reduction=none,fill=positive",
                 accumulated(Scalar::single_serial),
                 {"f32"}});
}

void add_backward(std::vector<SemanticFault>& all) {
  const std::string rows = "cross_entropy.bwd:T=24,V=96,logits=?,reduction=none";
  const std::string mean = "cross_entropy.bwd:T=24,V=96,logits=?";
  all.push_back({"label term missing", mean, of_other_call(make_labels_foreign)});
  all.push_back({"label of another row", mean, of_other_call(shift_labels)});
  all.push_back({"smoothing forgotten", rows + ",label_smoothing=0.1", of_other_call(forget_smoothing)});
  all.push_back({"smoothing divided by one class more", rows + ",label_smoothing=0.1",
                 of_other_call(count_one_class_more)});
  all.push_back({"z-loss gradient missing", rows + ",lse_square_scale=0.01", of_other_call(forget_z_loss)});
  all.push_back({"softcap gradient missing", rows + ",softcap=5", of_other_call(forget_softcap)});
  all.push_back(
      {"softcap before scale", rows + ",softcap=2,logit_scale=0.5", of_other_call(swap_softcap_and_scale)});
  all.push_back({"scale missing", rows + ",logit_scale=0.5", of_other_call(forget_scale)});
  all.push_back({"dloss of row 0 for all", rows, of_other_call(first_dloss_for_all)});
  all.push_back({"ignored rows not zeroed", "cross_entropy.bwd:T=24,V=96,logits=?,reduction=sum,ignore=0.4",
                 of_other_call(treat_ignored_as_class_0)});
  all.push_back({"invalid labels taken as class 0", rows + ",labels.invalid=1",
                 of_other_call(treat_invalid_as_class_0)});
  all.push_back({"mean over ignored rows too", mean + ",ignore=0.4", divide_by_all("dlogits")});
  all.push_back(
      {"lse of another row", mean, of_other_call([](Problem& p) { rotate_rows(real(p, "lse"), 1); })});
  all.push_back({"dlogits all zeros", mean, zeroed("dlogits")});
  all.push_back({"dlogits of other sign", mean, negated("dlogits")});
  // Defect 4: p - 1 in bf16 keeps nothing of a confident p; in the output, only its rounding.
  all.push_back(
      {"p - 1 formed in bf16", mean + ",fill=confident", with_answers([](const Problem& p, Answers& a) {
         const double n = static_cast<double>(arguments<Backward>(p).logits.size[0]);
         const double dloss = real(p, "dloss").front();
         for (double& v : real(p, a, "dlogits"))
           if (v * dloss < 0) v = (round_to(DType::bf16, v * n / dloss + 1) - 1) * dloss / n;
       })});
}

}  // namespace

void add_loss_faults(std::vector<SemanticFault>& all) {
  add_forward(all);
  add_backward(all);
}

}  // namespace fla::harness

// How cross entropy goes wrong.
#include <cmath>

#include "fla/cross_entropy_shards.h"
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

// Labels lie in [0, 200): in this shard, before it and behind it.
void add_shard_stats(std::vector<SemanticFault>& all) {
  using Stats = CrossEntropyShardStats;
  const std::string plain = "cross_entropy_shards.stats:T=24,V=96,logits=?,class_start=40,total_classes=200";
  const auto change = [](auto edit) { return of_other_call([edit](Problem& p) { edit(arguments<Stats>(p)); }); };
  all.push_back({"labels counted from this shard", plain, change([](Stats& a) { a.class_start = 0; })});
  all.push_back({"label term missing", plain, change([](Stats& a) { a.class_start = 100; })});
  all.push_back({"label of another row", plain, of_other_call(shift_labels)});
  all.push_back({"smoothing forgotten", plain + ",label_smoothing=0.1", change([](Stats& a) { a.label_smoothing = 0; })});
  all.push_back({"smoothing over the classes of this shard", plain + ",label_smoothing=0.1",
                 change([](Stats& a) { a.total_classes = 136; })});
  all.push_back({"scale missing", plain + ",logit_scale=0.5", change([](Stats& a) { a.logit_scale = 1; })});
  all.push_back({"softcap missing", plain + ",softcap=2",
                 change([](Stats& a) { a.softcap = std::numeric_limits<float>::infinity(); })});
  all.push_back({"ignored rows counted", plain + ",ignore=0.4", change([](Stats& a) { a.ignore_index = -1000; })});
  all.push_back({"lse within the rest", plain, with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& stats = real(p, a, "stats");
                   for (size_t i = 0; i < stats.size(); i += 2) stats[i + 1] += stats[i];
                 })});
  all.push_back({"accumulator in bf16", plain, accumulated(Scalar::single_bf16_sum)});
}

void add_shard_combine(std::vector<SemanticFault>& all) {
  using Combine = CrossEntropyShardCombine;
  const std::string mean = "cross_entropy_shards.combine:P=3,T=24,lse=f32", rows = mean + ",reduction=none";
  const auto plant = [&](const char* name, const std::string& text, Fault fault) {
    all.push_back({name, text, std::move(fault), {"f32"}});
  };
  const auto change = [](auto edit) { return of_other_call([edit](Problem& p) { edit(arguments<Combine>(p)); }); };
  // One of the pair's numbers, of the ranks from `rank` on.
  const auto fill_from = [](size_t rank, size_t which, double value) {
    return of_other_call([=](Problem& p) {
      std::vector<double>& stats = real(p, "stats");
      for (size_t i = rank * 48 + which; i < stats.size(); i += 2) stats[i] = value;
    });
  };
  plant("log-sum-exp without the last rank", rows, fill_from(2, 0, -std::numeric_limits<double>::infinity()));
  plant("rest of rank 0 alone", rows, fill_from(1, 1, 0));
  plant("pairs of another row", rows, of_other_call([](Problem& p) { rotate_rows(real(p, "stats"), 2); }));
  plant("log-sum-exps added", rows, with_answers([](const Problem& p, Answers& a) {
          const std::vector<double>& stats = real(p, "stats");
          std::vector<double>& lse = real(p, a, "lse");
          for (size_t t = 0; t < lse.size(); ++t) lse[t] = stats[2 * t] + stats[2 * t + 48] + stats[2 * t + 96];
        }));
  plant("z-loss missing", rows + ",lse_square_scale=0.01", change([](Combine& a) { a.lse_square_scale = 0; }));
  plant("ignored rows counted", rows + ",ignore=0.4", change([](Combine& a) { a.ignore_index = -1000; }));
  plant("mean over ignored rows too", mean + ",ignore=0.4", divide_by_all("loss"));
  plant("sum, not mean", mean, change([](Combine& a) { a.reduction = Reduction::sum; }));
}

}  // namespace

void add_loss_faults(std::vector<SemanticFault>& all) {
  add_shard_stats(all);
  add_shard_combine(all);
  add_forward(all);
  add_backward(all);
}

}  // namespace fla::harness

// How losses of a linear layer go wrong, beyond what cross entropy and products do by themselves.
#include <algorithm>
#include <cmath>

#include "fla/linear_loss_shards.h"
#include "fla/linear_token_logp.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using Forward = LinearCrossEntropyForward;
using ForwardBackward = LinearCrossEntropyForwardBackward;

// What a product over some of the chunks alone would give.
void drop_last_rows(Problem& p, const char* rows, int64_t columns, int64_t count) {
  std::vector<double>& values = real(p, rows);
  std::fill(values.end() - static_cast<std::ptrdiff_t>(columns * count), values.end(), 0.0);
}

void add_forward(std::vector<SemanticFault>& all) {
  const std::string mean = "linear_cross_entropy.fwd:T=12,H=16,V=96,x=?", rows = mean + ",reduction=none";
  all.push_back({"bias forgotten", rows + ",bias=?", of_other_call([](Problem& p) { arguments<Forward>(p).bias = {}; })});
  all.push_back({"weight of the next class", rows, of_other_call([](Problem& p) { rotate_rows(real(p, "weight"), 16); })});
  all.push_back({"labels of the first chunk again", rows + ",strategy=fast,chunk=4", of_other_call([](Problem& p) {
                   std::vector<int64_t>& labels = integer(p, "labels");
                   std::copy(labels.begin(), labels.begin() + 4, labels.begin() + 4);
                 })});
  all.push_back({"statistics without the last chunk", rows + ",strategy=lean,chunk=64",
                 of_other_call([](Problem& p) { drop_last_rows(p, "weight", 16, 32); })});
  all.push_back({"smoothing over a chunk's classes", rows + ",strategy=lean,chunk=64,label_smoothing=0.2",
                 of_other_call([](Problem& p) { arguments<Forward>(p).label_smoothing *= 1.5f; })});
  all.push_back({"token weights ignored", mean + ",token_weights=f32",
                 of_other_call([](Problem& p) { arguments<Forward>(p).token_weights = {}; })});
  all.push_back({"mean of the last chunk", mean + ",ignore=0.3", of_other_call([](Problem& p) {
                   for (size_t t = 0; t < 6; ++t) integer(p, "labels")[t] = arguments<Forward>(p).ignore_index;
                 })});
  all.push_back({"accumulator in bf16", rows, accumulated(Scalar::single_bf16_sum)});
}

void add_gradients(std::vector<SemanticFault>& all) {
  const std::string both = "linear_cross_entropy.fwd_bwd:T=12,H=16,V=96,x=?";
  const std::string backward = "linear_cross_entropy.bwd:T=12,H=16,V=96,x=?,reduction=none";
  const auto change = [](auto edit) {
    return of_other_call([edit](Problem& p) { edit(arguments<ForwardBackward>(p)); }, {"dx", "dweight"});
  };
  all.push_back({"divisor forgotten", both + ",dloss=f32", change([](auto& a) { a.reduction = Reduction::sum; })});
  all.push_back({"upstream gradient forgotten", both + ",dloss=f32", change([](auto& a) { a.dloss = {}; })});
  all.push_back({"token weights ignored in gradients", both + ",token_weights=f32", change([](auto& a) { a.token_weights = {}; })});
  all.push_back({"z-loss without gradient", both + ",lse_square_scale=0.1", change([](auto& a) { a.lse_square_scale = 0; })});
  all.push_back({"bias forgotten when logits are made again", both + ",bias=?,dbias=?", change([](auto& a) { a.bias = {}; })});
  all.push_back({"dlogits not rounded in front of the products", both, change([](auto& a) { a.x.dtype = DType::f32; }), {"bf16"}});
  all.push_back({"main gradients overwritten", both + ",accumulate=1", change([](auto& a) { a.accumulate = false; })});
  all.push_back({"dweight without the last chunk", both, of_other_call([](Problem& p) { drop_last_rows(p, "x", 16, 4); }, {"dweight"})});
  all.push_back({"dx without the last chunk", both,
                 of_other_call([](Problem& p) { drop_last_rows(p, "weight", 16, 32); }, {"dx"})});
  all.push_back({"dloss of row 0 for all", backward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dloss")) v = real(p, "dloss").front();
                 })});
  all.push_back({"lse of another row", backward, of_other_call([](Problem& p) { rotate_rows(real(p, "lse"), 1); })});
  for (const char* gradient : {"dx", "dweight", "dbias"}) {
    all.push_back({std::string(gradient) + " all zeros", both + ",bias=?,dbias=?", zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", both + ",bias=?,dbias=?", negated(gradient)});
  }
}

void add_penalty(std::vector<SemanticFault>& all) {
  const auto scaled = [](double by) {
    return of_other_call([by](Problem& p) { arguments<ForwardBackward>(p).l2_warp_factor *= static_cast<float>(by); });
  };
  for (const char* strategy : {"fast", "lean"}) {
    const std::string plain =
        std::string("linear_cross_entropy.fwd_bwd:T=12,H=16,V=96,x=?,l2_warp_factor=1,chunk=40,strategy=") + strategy;
    all.push_back({"penalty missing", plain, scaled(0)});
    all.push_back({"penalty divided by the divisor of the mean too", plain, scaled(1.0 / 12)});
    all.push_back({"penalty of ignored tokens missing", plain + ",ignore=1", scaled(0)});
    // Equal logits: with the classes in reverse, the first of them is the last.
    Fault last = of_other_call([](Problem& p) {
      for (int64_t& label : integer(p, "labels")) label = 95 - label;
    });
    last.answers = [](const Problem& p, Answers& a) {
      std::vector<double>& rows = real(p, a, "dweight");
      for (int64_t low = 0, high = 95; low < high; ++low, --high)
        std::swap_ranges(rows.begin() + low * 16, rows.begin() + (low + 1) * 16, rows.begin() + high * 16);
    };
    all.push_back({"penalty on the last of equal logits", plain + ",fill=constant", last});
  }
}

void add_token_logp(std::vector<SemanticFault>& all) {
  using LogpForward = LinearTokenLogpForward;
  using LogpBackward = LinearTokenLogpBackward;
  const std::string sizes = ":T=12,H=16,V=96,x=?,entropy=f32";
  const std::string forward = "linear_token_logp.fwd" + sizes, lean = forward + ",strategy=lean,chunk=40";
  const std::string backward = "linear_token_logp.bwd" + sizes;
  all.push_back({"bias forgotten", forward + ",bias=?",
                 of_other_call([](Problem& p) { arguments<LogpForward>(p).bias = {}; })});
  all.push_back({"temperature, not its inverse", forward + ",logit_scale=0.5",
                 of_other_call([](Problem& p) { arguments<LogpForward>(p).logit_scale = 2; })});
  all.push_back({"token of another row", forward, of_other_call([](Problem& p) { rotate_rows(integer(p, "labels"), 1); })});
  all.push_back({"statistics without the last chunk", lean,
                 of_other_call([](Problem& p) { drop_last_rows(p, "weight", 16, 16); })});
  all.push_back({"entropy of other sign", lean, negated("entropy")});
  all.push_back({"argmax counted from its chunk", lean + ",argmax=i32", with_answers([](const Problem& p, Answers& a) {
                   for (int64_t& v : a.integers[static_cast<size_t>(p.index_of("argmax"))]) v %= 40;
                 })});
  all.push_back({"accumulator in bf16", forward, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"bias forgotten when logits are made again", backward + ",bias=?",
                 of_other_call([](Problem& p) { arguments<LogpBackward>(p).bias = {}; })});
  all.push_back({"softcap without slope", backward + ",softcap=5", of_other_call([](Problem& p) {
                   arguments<LogpBackward>(p).softcap = std::numeric_limits<float>::infinity();
                 })});
  all.push_back({"dlogp of row 0 for all", backward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dlogp")) v = real(p, "dlogp").front();
                 })});
  all.push_back({"gradient of the entropy missing", backward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "dentropy")) v = 0;
                 })});
  all.push_back({"entropy of another row", backward, of_other_call([](Problem& p) { rotate_rows(real(p, "entropy"), 1); })});
  all.push_back({"main gradients overwritten", backward + ",accumulate=1",
                 of_other_call([](Problem& p) { arguments<LogpBackward>(p).accumulate = false; })});
  all.push_back({"dweight without the last chunk", backward,
                 of_other_call([](Problem& p) { drop_last_rows(p, "x", 16, 4); }, {"dweight"})});
  for (const char* gradient : {"dx", "dweight", "dbias"})
    all.push_back({std::string(gradient) + " of other sign", backward + ",bias=?,dbias=?", negated(gradient)});
}

void add_shards(std::vector<SemanticFault>& all) {
  using Stats = LinearCrossEntropyShardStats;
  using Backward = LinearCrossEntropyBackward;
  const std::string sizes = ":T=12,H=16,V=96,x=?,class_start=40,total_classes=200,label_smoothing=0.1";
  const std::string stats = "linear_cross_entropy_shards.stats" + sizes;
  const auto change = [](auto edit) { return of_other_call([edit](Problem& p) { edit(arguments<Stats>(p)); }); };
  for (const std::string& plain : {stats + ",strategy=fast,chunk=5", stats + ",strategy=lean,chunk=40"}) {
    all.push_back({"labels counted from this shard", plain, change([](Stats& a) { a.class_start = 0; })});
    all.push_back({"smoothing over the classes of this shard", plain, change([](Stats& a) { a.total_classes = 136; })});
    all.push_back({"lse within the rest", plain, with_answers([](const Problem& p, Answers& a) {
                     std::vector<double>& pairs = real(p, a, "stats");
                     for (size_t i = 0; i < pairs.size(); i += 2) pairs[i + 1] += pairs[i];
                   })});
  }
  all.push_back({"labels counted from this shard", "linear_cross_entropy.bwd" + sizes + ",dx=f32",
                 of_other_call([](Problem& p) { arguments<Backward>(p).class_start = 0; })});
}

}  // namespace

void add_linear_loss_faults(std::vector<SemanticFault>& all) {
  add_forward(all);
  add_gradients(all);
  add_penalty(all);
  add_token_logp(all);
  add_shards(all);
}

}  // namespace fla::harness

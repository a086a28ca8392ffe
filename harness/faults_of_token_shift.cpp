// How token shifts go wrong.
#include "fla/token_shift.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

Fault without(const std::string& field, std::vector<std::string> only = {}) {
  return of_other_call(
      [field](Problem& p) {
        for (double& v : real(p, field)) v = 0;
      },
      std::move(only));
}

template <class A>
void ignore_boundaries(Problem& p) {
  arguments<A>(p).cu_seqlens = {};
}
void delay_boundaries(Problem& p) {
  std::vector<int64_t>& offsets = integer(p, "cu_seqlens");
  for (size_t n = 1; n + 1 < offsets.size(); ++n) ++offsets[n];
}
Fault rotated(const std::string& field, std::vector<std::string> only = {}) {
  return of_other_call([field](Problem& p) { rotate_rows(real(p, field), 24); }, std::move(only));
}

// Of the shift and of its mixes.
void add_forward(std::vector<SemanticFault>& all, const std::string& op, void (*ignore_boundaries)(Problem&)) {
  const std::string plain = op + ".fwd:B=2,T=20,D=24,x=?";
  const std::string packed = op + ".fwd:T=40,D=24,x=?,cu_seqlens=i32,lens=0+5+3+31+1";
  const std::string carried = packed + ",cache=?,cache_out=?";
  all.push_back({"sequence boundary ignored", packed, of_other_call(ignore_boundaries)});
  all.push_back({"boundaries one token late", packed, of_other_call(delay_boundaries)});
  all.push_back({"cache ignored", carried, without("cache", {"y"})});
  all.push_back({"cache of another sequence", carried, rotated("cache")});
  all.push_back({"cache_out of an empty sequence not passed on", carried, without("cache", {"cache_out"})});
  all.push_back({"decode without the cache", op + ".fwd:B=3,T=1,D=24,x=?,cache=?,cache_out=?",
                 without("cache", {"y"})});
  all.push_back({"looks one token ahead", plain, rotated("x")});
}

void add_backward(std::vector<SemanticFault>& all, const std::string& op, void (*ignore_boundaries)(Problem&)) {
  const std::string plain = op + ".bwd:B=2,T=20,D=24,x=?";
  const std::string packed = op + ".bwd:T=40,D=24,x=?,cu_seqlens=i32,lens=0+5+3+31+1";
  const std::string carried = packed + ",cache=?,cache_out=?";
  all.push_back({"sequence boundary ignored", packed, of_other_call(ignore_boundaries)});
  all.push_back({"dcache_out forgotten", carried,
                 without("dcache_out", {"dx"})});
  all.push_back({"dcache of an empty sequence not written", carried,
                 without("dcache_out", {"dcache"})});
  all.push_back({"gradient of another token", plain, rotated("dy", {"dx"})});
  all.push_back({"dx of other sign", plain, negated("dx")});
  all.push_back({"dcache of other sign", carried, negated("dcache")});
}

void add_mix(std::vector<SemanticFault>& all) {
  const std::string forward = "token_shift_mix.fwd:B=2,T=20,D=24,K=3,x=?";
  const std::string backward = "token_shift_mix.bwd:B=2,T=20,D=24,K=3,x=?,cache=?";
  all.push_back({"mu of another mix", forward, rotated("mu")});
  all.push_back({"lerp from the other end", forward, of_other_call([](Problem& p) {
                   for (double& v : real(p, "mu")) v = 1 - v;
                 })});
  all.push_back({"mu of another mix in dx", backward, rotated("mu", {"dx"})});
  all.push_back({"cache missing in dmu", backward, without("cache", {"dmu"})});
  all.push_back({"dmu without the last batch row", backward,
                 of_other_call(
                     [](Problem& p) {
                       std::vector<double>& dy = real(p, "dy");
                       for (size_t i = 0; i < dy.size(); ++i)
                         if (i / (20 * 24) % 2 == 1) dy[i] = 0;
                     },
                     {"dmu"})});
  all.push_back({"dmu all zeros", backward, zeroed("dmu")});
  all.push_back({"accumulator in bf16", backward, accumulated(Scalar::single_bf16_sum)});
}

}  // namespace

void add_token_shift_faults(std::vector<SemanticFault>& all) {
  add_forward(all, "token_shift", ignore_boundaries<TokenShiftForward>);
  add_forward(all, "token_shift_mix", ignore_boundaries<TokenShiftMixForward>);
  add_backward(all, "token_shift", ignore_boundaries<TokenShiftBackward>);
  add_backward(all, "token_shift_mix", ignore_boundaries<TokenShiftMixBackward>);
  add_mix(all);
}

}  // namespace fla::harness

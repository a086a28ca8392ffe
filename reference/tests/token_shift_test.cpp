#include "reference/token_shift.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

TEST(TokenShift, GivesHandComputedValues) {
  TokenShiftForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 4}, {"D", 1}, {"N", 3}}, {"cache", "cu_seqlens", "cache_out"}, t);
  t["x"] = {1, 3, 10, 7};
  t["cache"] = {100, 200, 300};
  t.integer["cu_seqlens"] = {0, 3, 3, 4};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{99, -2, -7, 293}));
  EXPECT_EQ(t["cache_out"], (std::vector<double>{10, 200, 7}));
}

TEST(TokenShift, MixesGiveHandComputedValues) {
  TokenShiftMixForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 2}, {"D", 1}, {"K", 2}}, {"cache"}, t);
  t["x"] = {1, 3};
  t["cache"] = {5};
  t["mu"] = {0.5, 1};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{3, 2, 5, 1}));
}

template <class Forward, class Backward>
void prove(Extents extents) {
  for (const Names& with : {Names{}, Names{"cache"}, Names{"cache", "cache_out"}, Names{"cache_out"}}) {
    for (const bool packed : {false, true}) {
      Proof<Forward, Backward> p;
      p.extents = extents;
      p.with = with;
      if (packed) {
        p.extents["B"] = 1;
        p.with.insert("cu_seqlens");
        p.prepare = [](Tensors<double>& t) { t.integer["cu_seqlens"] = {0, 3, 3, 4, 8}; };  // the last token: nowhere
      }
      if (!with.count("cache")) p.without = {"dcache"};
      EXPECT_LE(p.worst(), kAgreement) << with.size() << packed;
    }
  }
}

TEST(TokenShift, BackwardIsTheDerivative) {
  prove<TokenShiftForward, TokenShiftBackward>({{"B", 2}, {"T", 9}, {"D", 3}, {"N", 4}});
}

TEST(TokenShift, BackwardOfTheMixesIsTheDerivative) {
  prove<TokenShiftMixForward, TokenShiftMixBackward>({{"B", 2}, {"T", 9}, {"D", 3}, {"N", 4}, {"K", 3}});
}

TEST(TokenShift, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"B", 2}, {"T", 300}, {"D", 16}, {"K", 6}};
  TokenShiftMixForward f;
  TokenShiftMixBackward b;
  const Names back{"cache", "dx", "dmu", "dcache"};
  EXPECT_LE(share_used<Single>(f, shape, {"cache"}, normal_inputs(f, shape, {"cache"})), 1);
  EXPECT_LE(share_used<Single>(b, shape, back, normal_inputs(b, shape, back)), 1);
}

}  // namespace
}  // namespace fla::reference

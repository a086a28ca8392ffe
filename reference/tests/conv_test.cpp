#include "reference/conv.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;
using ConvProof = Proof<CausalConv1dForward, CausalConv1dBackward>;

TEST(CausalConv1d, GivesHandComputedValues) {
  CausalConv1dForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 4}, {"D", 1}, {"W", 3}, {"S", 3}},
           {"bias", "residual", "final_state", "initial_state"}, t);
  t["x"] = {1, 2, 3, 4};
  t["weight"] = {100, 10, 1};
  t["bias"] = {0.5};
  t["residual"] = {0, 0, 0, 1000};
  t["initial_state"] = {7, 8, 9};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{891.5, 912.5, 123.5, 1234.5}));
  EXPECT_EQ(t["final_state"], (std::vector<double>{2, 3, 4}));
}

TEST(CausalConv1d, BackwardGivesHandComputedValues) {
  CausalConv1dBackward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 2}, {"D", 1}, {"W", 2}, {"S", 2}},
           {"bias", "initial_state", "dfinal_state", "dx", "dweight", "dbias", "dinitial_state", "dresidual"},
           t);
  t["x"] = {1, 2};
  t["weight"] = {10, 1};
  t["initial_state"] = {7, 8};
  t["dy"] = {3, 5};
  t["dfinal_state"] = {100, 200};
  evaluate<double>(a);
  EXPECT_EQ(t["dx"], (std::vector<double>{3 + 50 + 100, 5 + 200}));
  EXPECT_EQ(t["dweight"], (std::vector<double>{3 * 8 + 5 * 1, 3 * 1 + 5 * 2}));
  EXPECT_EQ(t["dbias"], std::vector<double>{8});
  EXPECT_EQ(t["dinitial_state"], (std::vector<double>{0, 30}));
  EXPECT_EQ(t["dresidual"], (std::vector<double>{3, 5}));
}

TEST(CausalConv1d, ShortAndEmptySequencesShiftTheStateThrough) {
  CausalConv1dForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 2}, {"D", 1}, {"W", 2}, {"N", 3}, {"S", 3}},
           {"cu_seqlens", "initial_state", "final_state"}, t);
  t["x"] = {1, 2};
  t["weight"] = {10, 1};
  t.integer["cu_seqlens"] = {0, 0, 1, 2};
  t["initial_state"] = {3, 4, 5, 6, 7, 8, 0, 0, 9};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{81, 92}));
  EXPECT_EQ(t["final_state"], (std::vector<double>{3, 4, 5, 7, 8, 1, 0, 9, 2}));
}

TEST(CausalConv1d, HostileOffsetsAreClampedAndStrayTokensAreZero) {
  CausalConv1dForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 4}, {"D", 1}, {"W", 2}, {"N", 3}, {"S", 1}}, {"cu_seqlens", "residual"}, t);
  t["x"] = {1, 2, 3, 4};
  t["weight"] = {10, 1};
  t["residual"] = {1000, 1000, 1000, 1000};
  t.integer["cu_seqlens"] = {1, -5, 3, 2};  // pieces [1, 1), [1, 3), [3, 3)
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{0, 1002, 1023, 0}));
  t.integer["cu_seqlens"] = {-1, 2, std::numeric_limits<int64_t>::max(), 0};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{1001, 1012, 1003, 1034}));

  CausalConv1dBackward b;
  Tensors<double> back;
  allocate(b, {{"B", 1}, {"T", 4}, {"D", 1}, {"W", 2}, {"N", 1}, {"S", 1}},
           {"cu_seqlens", "dx", "dweight", "dresidual"}, back);
  back["x"] = {1, 2, 3, 4};
  back["weight"] = {10, 1};
  back["dy"] = {1, 1, 1, 1};
  back.integer["cu_seqlens"] = {1, 3};
  evaluate<double>(b);
  EXPECT_EQ(back["dx"], (std::vector<double>{0, 11, 1, 0}));
  EXPECT_EQ(back["dresidual"], (std::vector<double>{0, 1, 1, 0}));
  EXPECT_EQ(back["dweight"], (std::vector<double>{2, 5}));
}

TEST(CausalConv1d, MaskMayBeIntegerAndReachesTheFinalState) {
  double x[] = {1, 2, 3}, weight[] = {10, 1}, y[3], state[2];
  int64_t mask[] = {1, 0, 1};
  CausalConv1dForward a;
  a.x = dense(x, DType::bf16, {3, 1});  // without B
  a.weight = dense(weight, DType::f32, {1, 2});
  a.mask = dense(mask, DType::u8, {3});
  a.y = dense(y, DType::bf16, {3, 1});
  a.final_state = dense(state, DType::bf16, {1, 2});
  evaluate<double>(a);
  EXPECT_EQ(std::vector<double>(y, y + 3), (std::vector<double>{1, 10, 3}));
  EXPECT_EQ(std::vector<double>(state, state + 2), (std::vector<double>{0, 3}));
}

TEST(CausalConv1d, BackwardIsTheDerivativeInEveryOptionSet) {
  const Names some[] = {
      {}, {"bias", "residual"}, {"initial_state"}, {"bias", "initial_state", "final_state", "residual"}};
  for (const ConvActivation activation : {ConvActivation::none, ConvActivation::silu}) {
    for (const int64_t W : {1, 2, 4, 7}) {
      for (const int64_t T : {1, 2, 9}) {
        for (const Names& with : some) {
          ConvProof p;
          p.forward.activation = p.backward.activation = activation;
          p.extents = {{"B", 2}, {"T", T}, {"D", 3}, {"W", W}, {"S", W + 1}};
          p.with = with;
          p.without = {"dmask"};
          EXPECT_LE(p.worst(), kAgreement) << "W " << W << " T " << T << " with " << with.size();
          p.with.insert("mask");
          EXPECT_LE(p.worst(), kAgreement) << "masked, W " << W << " T " << T << " with " << with.size();
        }
      }
    }
  }
}

TEST(CausalConv1d, BackwardIsTheDerivativeForPackedSequences) {
  for (const int64_t S : {3, 4, 6}) {
    ConvProof p;
    p.forward.activation = p.backward.activation = ConvActivation::silu;
    p.extents = {{"B", 1}, {"T", 13}, {"D", 2}, {"W", 4}, {"N", 5}, {"S", S}};
    p.with = {"bias", "cu_seqlens", "initial_state", "final_state", "residual"};
    p.prepare = [](Tensors<double>& t) {
      t.integer["cu_seqlens"] = {0, 5, 5, 6, 8, 12};
    };  // the last token: nowhere
    EXPECT_LE(p.worst(), kAgreement) << S;
  }
}

// Cut anywhere, with the state carried over, a sequence gives what it gives whole.
TEST(CausalConv1d, ChunksEqualTheWhole) {
  const Extents shape{{"B", 1}, {"T", 7}, {"D", 2}, {"W", 4}, {"S", 4}};
  const Names with{"bias", "initial_state", "final_state"};
  const Tensors<double> inputs = normal_inputs(CausalConv1dForward{}, shape, with);
  CausalConv1dForward whole;
  Tensors<double> t;
  allocate(whole, shape, with, t);
  copy_inputs(inputs, t);
  evaluate<double>(whole);
  for (int64_t cut = 0; cut <= 7; ++cut) {
    std::vector<double> y(14), state(8);
    CausalConv1dForward first = whole, second = whole;
    first.y.data = y.data();
    first.x.size[1] = first.y.size[1] = cut;
    first.final_state.data = state.data();
    evaluate<double>(first);
    second.x.data = static_cast<double*>(whole.x.data) + 2 * cut;
    second.y.data = y.data() + 2 * cut;
    second.x.size[1] = second.y.size[1] = 7 - cut;
    second.initial_state.data = second.final_state.data = state.data();  // in place
    evaluate<double>(second);
    EXPECT_EQ(y, t["y"]) << cut;
    EXPECT_EQ(state, t["final_state"]) << cut;
  }
}

TEST(CausalConv1d, DecodeEqualsPrefill) {
  for (const int64_t S : {3, 4, 6}) {
    const Extents shape{{"B", 2}, {"T", 5}, {"D", 2}, {"W", 4}, {"S", S}};
    const Names with{"bias", "initial_state", "final_state", "residual"};
    CausalConv1dForward prefill;
    prefill.activation = ConvActivation::silu;
    Tensors<double> t, step;
    allocate(prefill, shape, with, t);
    copy_inputs(normal_inputs(prefill, shape, with), t);
    evaluate<double>(prefill);
    CausalConv1dUpdate decode;
    decode.activation = ConvActivation::silu;
    allocate(decode, {{"N", 2}, {"D", 2}, {"W", 4}, {"S", S}}, {"bias", "residual"}, step);
    step["conv_state"] = t["initial_state"];
    step["weight"] = t["weight"];
    step["bias"] = t["bias"];
    decode.conv_state.data = step["conv_state"].data();
    decode.weight.data = step["weight"].data();
    decode.bias.data = step["bias"].data();
    for (size_t time = 0; time < 5; ++time) {
      for (size_t i = 0; i < 4; ++i) {
        step["x"][i] = t["x"][(i / 2 * 5 + time) * 2 + i % 2];
        step["residual"][i] = t["residual"][(i / 2 * 5 + time) * 2 + i % 2];
      }
      evaluate<double>(decode);
      for (size_t i = 0; i < 4; ++i)
        EXPECT_EQ(step["y"][i], t["y"][(i / 2 * 5 + time) * 2 + i % 2]) << S << " " << time;
    }
    EXPECT_EQ(step["conv_state"], t["final_state"]);
  }
}

TEST(CausalConv1d, StatesAreTheForwardsFinalStates) {
  const Extents shape{{"B", 1}, {"T", 6}, {"D", 2}, {"W", 2}, {"N", 3}, {"S", 4}};
  const Names with{"cu_seqlens", "initial_state", "final_state"};
  CausalConv1dForward forward;
  CausalConv1dStates states;
  Tensors<double> inputs = normal_inputs(forward, shape, with), f, s;
  inputs.integer["cu_seqlens"] = {0, 1, 1, 6};
  allocate(forward, shape, with, f);
  allocate(states, shape, with, s);
  copy_inputs(inputs, f);
  copy_inputs(inputs, s);
  evaluate<double>(forward);
  evaluate<double>(states);
  EXPECT_EQ(s["final_state"], f["final_state"]);
}

TEST(CausalConv1d, GoodKernelsStayInsideTheBound) {
  for (const int64_t W : {4, 64}) {
    const Extents shape{{"B", 2}, {"T", 300}, {"D", 16}, {"W", W}, {"S", W}};
    const Names with{"bias", "initial_state", "residual"};
    const Names back{"bias", "initial_state", "dx", "dweight", "dbias", "dinitial_state"};
    CausalConv1dForward f;
    CausalConv1dBackward b;
    f.activation = b.activation = ConvActivation::silu;
    const double forward = share_used<Single>(f, shape, with, normal_inputs(f, shape, with));
    const double backward = share_used<Single>(b, shape, back, normal_inputs(b, shape, back));
    EXPECT_LE(forward, 1) << W;
    EXPECT_LE(backward, 1) << W;
    EXPECT_GE(std::fmin(forward, backward), 0.02) << "the bound is loose";
  }
}

}  // namespace
}  // namespace fla::reference

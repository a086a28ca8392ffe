#include "reference/distribution_loss.h"
#include "reference/loss.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

constexpr double kInf = std::numeric_limits<double>::infinity();

template <class A>
A with_reduction(Reduction reduction) {
  A a;
  a.reduction = reduction;
  return a;
}

// One row of logits without reduction: loss, z-loss, lse and, by the fused form, the gradient.
struct Row {
  CrossEntropyForwardBackward a = with_reduction<CrossEntropyForwardBackward>(Reduction::none);
  Tensors<double> t;

  void run(const std::vector<double>& logits, int64_t label) {
    allocate(a, {{"T", 1}, {"V", static_cast<int64_t>(logits.size())}}, {"z_loss", "lse", "invalid_labels"},
             t);
    t["logits"] = logits;
    t.integer["labels"] = {label};
    t.integer["invalid_labels"] = {0, 100};
    evaluate<double>(a);
  }
  double loss() { return t["loss"][0]; }
  double lse() { return t["lse"][0]; }
  double gradient(size_t v) { return t["dlogits"][v]; }
};

const double kLn2 = std::log(2.0), kLn3 = std::log(3.0), kLn6 = std::log(6.0);
const std::vector<double> kSixths{0, kLn2, kLn3};  // softmax 1/6, 2/6, 3/6

TEST(CrossEntropy, GivesHandComputedValues) {
  Row r;
  r.run(kSixths, 1);
  EXPECT_NEAR(r.loss(), kLn3, 1e-15);
  EXPECT_NEAR(r.lse(), kLn6, 1e-15);
  EXPECT_NEAR(r.gradient(0), 1.0 / 6, 1e-15);
  EXPECT_NEAR(r.gradient(1), 1.0 / 3 - 1, 1e-15);
  EXPECT_NEAR(r.gradient(2), 0.5, 1e-15);
}

TEST(CrossEntropy, SmoothingAndZLossGiveHandComputedValues) {
  Row r;
  r.a.label_smoothing = 0.25f;
  r.a.lse_square_scale = 0.5f;
  r.run(kSixths, 2);
  EXPECT_NEAR(r.loss(), kLn6 - 0.75 * kLn3 - 0.25 / 3 * kLn6 + 0.5 * kLn6 * kLn6, 1e-14);
  EXPECT_NEAR(r.t["z_loss"][0], 0.5 * kLn6 * kLn6, 1e-15);
  EXPECT_NEAR(r.gradient(0), (1 + kLn6) / 6 - 0.25 / 3, 1e-15);
  EXPECT_NEAR(r.gradient(2), (1 + kLn6) / 2 - 0.25 / 3 - 0.75, 1e-15);
}

TEST(CrossEntropy, ScalesBeforeItCaps) {
  Row r;
  r.a.logit_scale = 2;
  r.a.softcap = 4;
  r.run({1, -1}, 0);
  const double z = 4 * std::tanh(0.5), p = 1 / (1 + std::exp(2 * z)),
               slope = 1 - std::tanh(0.5) * std::tanh(0.5);
  EXPECT_NEAR(r.loss(), -std::log(1 - p), 1e-15);
  EXPECT_NEAR(r.gradient(0), 2 * slope * -p, 1e-15);
  EXPECT_NEAR(r.gradient(1), 2 * slope * p, 1e-15);
}

TEST(CrossEntropy, MasksOfMinusInfinityContributeNothing) {
  Row r;
  r.run({-kInf, 0, kLn2, -kInf}, 2);
  EXPECT_NEAR(r.lse(), kLn3, 1e-15);
  EXPECT_EQ(r.gradient(0), 0);
  EXPECT_NEAR(r.gradient(2), -1.0 / 3, 1e-15);

  r.run({-kInf, 0}, 0);
  EXPECT_EQ(r.loss(), kInf);
  EXPECT_EQ(r.gradient(0), -1);

  r.a.label_smoothing = 0.1f;
  r.run({-kInf, 0}, 1);
  EXPECT_EQ(r.loss(), kInf);

  r.a.label_smoothing = 1;  // no label term: its factor is 0, its logit infinite
  r.run({0, 0}, 1);
  EXPECT_NEAR(r.loss(), kLn2, 1e-15);
}

TEST(CrossEntropy, RowsWithoutAnAnswerAreNan) {
  for (const std::vector<double>& logits :
       {std::vector<double>{-kInf, -kInf}, std::vector<double>{0, kInf}, std::vector<double>{0, NAN}}) {
    Row r;
    r.run(logits, 0);
    EXPECT_TRUE(std::isnan(r.loss()));
    EXPECT_TRUE(std::isnan(r.gradient(0)) && std::isnan(r.gradient(1)));
  }
  Row masked;
  masked.run({-kInf, -kInf}, 0);
  EXPECT_EQ(masked.lse(), -kInf);
}

TEST(CrossEntropy, SkippedRowsAreNotLookedAt) {
  Row r;
  r.a.ignore_index = 1;  // a legal class, ignored all the same
  r.run({NAN, kInf}, 1);
  EXPECT_EQ(r.loss(), 0);
  EXPECT_EQ(r.lse(), 0);
  EXPECT_EQ(r.gradient(0), 0);
  EXPECT_EQ(r.t.integer["invalid_labels"], (std::vector<int64_t>{0, 100}));
  for (const int64_t label :
       {int64_t{-1}, int64_t{2}, std::numeric_limits<int64_t>::min(), int64_t{1} << 62}) {
    r.run({0, 0}, label);
    EXPECT_TRUE(std::isnan(r.loss()));
    EXPECT_TRUE(std::isnan(r.t["z_loss"][0]));
    EXPECT_EQ(r.lse(), 0);
    EXPECT_EQ(r.gradient(0), 0);
    EXPECT_EQ(r.t.integer["invalid_labels"], (std::vector<int64_t>{1, 0}));
  }
}

TEST(CrossEntropy, ForeignLabelsHaveNoLabelTerm) {
  Row r;
  r.a.class_start = 10;
  r.a.total_classes = 20;
  r.run(kSixths, 3);
  EXPECT_NEAR(r.loss(), kLn6, 1e-15);
  EXPECT_NEAR(r.gradient(1), 1.0 / 3, 1e-15);
  r.run(kSixths, 11);
  EXPECT_NEAR(r.loss(), kLn3, 1e-15);
  EXPECT_NEAR(r.gradient(1), 1.0 / 3 - 1, 1e-15);
}

TEST(CrossEntropy, MeanDividesByWhatIsNotIgnored) {
  CrossEntropyForwardBackward a;
  Tensors<double> t;
  allocate(a, {{"T", 3}, {"V", 3}}, {"dloss"}, t);
  for (size_t i = 0; i < 9; ++i) t["logits"][i] = kSixths[i % 3];
  t.integer["labels"] = {1, -100, 2};
  t["dloss"] = {4};
  evaluate<double>(a);
  EXPECT_NEAR(t["loss"][0], (kLn3 + kLn2) / 2, 1e-15);
  EXPECT_NEAR(t["dlogits"][0], 2.0 / 6, 1e-15);
  EXPECT_EQ(t["dlogits"][3], 0);

  allocate(a, {{"T", 3}, {"V", 3}}, {"normalizer"}, t);
  for (size_t i = 0; i < 9; ++i) t["logits"][i] = kSixths[i % 3];
  t.integer["labels"] = {1, -100, 2};
  t["normalizer"] = {8};
  evaluate<double>(a);
  EXPECT_NEAR(t["loss"][0], (kLn3 + kLn2) / 8, 1e-15);
  EXPECT_NEAR(t["dlogits"][0], 1.0 / 48, 1e-15);
}

TEST(CrossEntropy, MeanOfNothingIsWhatTheCallerChose) {
  for (const int64_t T : {int64_t{0}, int64_t{2}}) {
    CrossEntropyForwardBackward a;
    Tensors<double> t;
    allocate(a, {{"T", T}, {"V", 2}}, {"z_loss"}, t);
    t.integer["labels"].assign(static_cast<size_t>(T), -100);
    evaluate<double>(a);
    EXPECT_EQ(t["loss"][0], 0);
    a.empty_mean = EmptyMean::nan;
    evaluate<double>(a);
    EXPECT_TRUE(std::isnan(t["loss"][0]) && std::isnan(t["z_loss"][0]));
    for (const double g : t["dlogits"]) EXPECT_EQ(g, 0);
    a.reduction = Reduction::sum;
    evaluate<double>(a);
    EXPECT_EQ(t["loss"][0], 0);
  }
}

struct Options {
  float smoothing, scale, z_loss, softcap;
};

template <class A>
void apply(const Options& o, Reduction reduction, A& a) {
  a.label_smoothing = o.smoothing;
  a.logit_scale = o.scale;
  a.lse_square_scale = o.z_loss;
  a.softcap = o.softcap;
  a.reduction = reduction;
}

constexpr float kUncapped = std::numeric_limits<float>::infinity();
constexpr Options kOptions[] = {
    {0, 1, 0, kUncapped}, {0.1f, 1, 0, kUncapped}, {0, -0.5f, 0, kUncapped}, {0, 1, 1e-2f, kUncapped},
    {0, 1, 0, 2},         {0.2f, 1.5f, 0.1f, 3},   {1, 1, 0, kUncapped}};

TEST(CrossEntropy, BackwardIsTheDerivativeInEveryOptionSet) {
  for (const Options& o : kOptions) {
    for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
      for (const bool normalized : {false, true}) {
        Proof<CrossEntropyForward, CrossEntropyBackward> p;
        apply(o, reduction, p.forward);
        apply(o, reduction, p.backward);
        p.forward.total_classes = p.backward.total_classes = 40;
        p.forward.class_start = p.backward.class_start = 2;
        p.extents = {{"T", 6}, {"V", 31}};
        p.with = {"lse"};
        if (normalized) p.with.insert("normalizer");
        p.without = {"dlse", "dnormalizer"};
        p.prepare = [&](Tensors<double>& t) {
          t.integer["labels"] = {2, 32, -100, 35, 0, 17};  // first, last, ignored, two foreign
          if (normalized) t["normalizer"] = {3.5};
          if (o.smoothing == 0 && o.softcap == kUncapped && o.scale > 0) t["logits"][3] = -kInf;
        };
        EXPECT_LE(p.worst(), kAgreement)
            << o.smoothing << " " << o.scale << " " << o.z_loss << " " << o.softcap;
      }
    }
  }
}

TEST(CrossEntropy, TheFusedFormIsBothOthers) {
  const Extents shape{{"T", 5}, {"V", 17}};
  for (const Options& o : kOptions) {
    for (const Reduction reduction : {Reduction::mean, Reduction::none}) {
      CrossEntropyForwardBackward fused;
      CrossEntropyForward forward;
      CrossEntropyBackward backward;
      apply(o, reduction, fused);
      apply(o, reduction, forward);
      apply(o, reduction, backward);
      Tensors<double> inputs = normal_inputs(fused, shape, {"dloss"}), f, b, whole;
      inputs.integer["labels"] = {0, -100, 16, 99, 3};
      allocate(fused, shape, {"dloss", "lse"}, whole);
      allocate(forward, shape, {"lse"}, f);
      allocate(backward, shape, {}, b);
      copy_inputs(inputs, whole);
      copy_inputs(inputs, f);
      evaluate<double>(fused);
      evaluate<double>(forward);
      inputs.real["lse"] = f["lse"];
      copy_inputs(inputs, b);
      evaluate<double>(backward);
      EXPECT_EQ(whole["lse"], f["lse"]);
      EXPECT_EQ(whole["dlogits"], b["dlogits"]);
      for (size_t i = 0; i < f["loss"].size(); ++i)
        EXPECT_TRUE(whole["loss"][i] == f["loss"][i] ||
                    (std::isnan(whole["loss"][i]) && std::isnan(f["loss"][i])));
    }
  }
}

TEST(CrossEntropy, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"T", 16}, {"V", 5003}};
  const Names with{"dloss", "lse", "z_loss"};
  for (const Options& o : kOptions) {
    CrossEntropyForwardBackward a;
    apply(o, Reduction::none, a);
    Tensors<double> inputs = normal_inputs(a, shape, with);
    for (size_t t = 0; t < 16; ++t) inputs.integer["labels"][t] = static_cast<int64_t>(t) * 312;
    for (double& x : inputs["logits"]) x = rounded(DType::bf16, 4 * x);
    const double used = share_used<Single>(a, shape, with, inputs);
    EXPECT_LE(used, 1) << o.smoothing << " " << o.scale << " " << o.z_loss << " " << o.softcap;
    EXPECT_GE(used, 0.02) << "the bound is loose";
  }
}

// p = (1/6, 2/6, 3/6) of the teacher, q = (1/4, 1/2, 1/4) of the student.
struct TwoRows {
  KlDivForwardBackward a;
  Tensors<double> t;

  explicit TwoRows(Divergence divergence, const std::vector<double>& student = {0, kLn2, 0},
                   const std::vector<double>& teacher = kSixths) {
    a.divergence = divergence;
    a.reduction = Reduction::none;
    allocate(a, {{"T", 1}, {"V", 3}}, {}, t);
    std::ranges::copy(student, t["logits"].begin());
    std::ranges::copy(teacher, t["target_logits"].begin());
    evaluate<double>(a);
  }
};

TEST(KlDiv, GivesHandComputedValues) {
  const double q[] = {0.25, 0.5, 0.25}, p[] = {1.0 / 6, 1.0 / 3, 0.5};
  double forward = 0, reverse = 0, student = 0, teacher = 0;
  for (int v = 0; v < 3; ++v) {
    const double m = (p[v] + q[v]) / 2;
    forward += p[v] * std::log(p[v] / q[v]);
    reverse += q[v] * std::log(q[v] / p[v]);
    student += q[v] * std::log(q[v] / m);
    teacher += p[v] * std::log(p[v] / m);
  }
  TwoRows one(Divergence::forward_kl), two(Divergence::reverse_kl), three(Divergence::jensen_shannon);
  EXPECT_NEAR(one.t["loss"][0], forward, 1e-15);
  EXPECT_NEAR(two.t["loss"][0], reverse, 1e-15);
  EXPECT_NEAR(three.t["loss"][0], (student + teacher) / 2, 1e-15);
  EXPECT_NEAR(one.t["dlogits"][2], 0.25 - 0.5, 1e-15);
  EXPECT_NEAR(two.t["dlogits"][2], 0.25 * (std::log(0.5) - reverse), 1e-15);
  EXPECT_NEAR(three.t["dlogits"][2], 0.5 * 0.25 * (std::log(2.0 / 3) - student), 1e-15);
}

TEST(KlDiv, ProbabilitiesOfZeroAddNothing) {
  for (const Divergence d : {Divergence::forward_kl, Divergence::reverse_kl, Divergence::jensen_shannon}) {
    TwoRows both(d, {0, -kInf, 0}, {0, -kInf, kLn2});
    EXPECT_TRUE(std::isfinite(both.t["loss"][0]));
    EXPECT_EQ(both.t["dlogits"][1], 0);
  }
  EXPECT_EQ(TwoRows(Divergence::forward_kl, {0, -kInf, 0}, {0, 0, 0}).t["loss"][0], kInf);
  EXPECT_NEAR(TwoRows(Divergence::forward_kl, {0, 0, 0}, {0, -kInf, 0}).t["loss"][0], std::log(1.5), 1e-15);
}

}  // namespace
}  // namespace fla::reference

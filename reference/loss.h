// Losses.
#pragma once

#include <algorithm>
#include <limits>
#include <numbers>
#include <vector>

#include "fla/loss.h"
#include "reference/view.h"

namespace fla::reference {

enum class LabelState { ignored, invalid, local, foreign };

// The attributes of cross entropy as scalars, and the formulas that need nothing else.
template <class S>
class CrossEntropyTerms {
 public:
  CrossEntropyTerms(const CrossEntropyOptions& options, const Tensor& logits, const Tensor& labels)
      : options_(options),
        labels_(labels),
        columns_(logits.size[1]),
        classes_(options.total_classes != 0 ? options.total_classes : logits.size[1]),
        capped_(options.softcap < std::numeric_limits<float>::infinity()),
        in_base_2_(size_of(logits.dtype) == 2) {}

  LabelState state(int64_t t) const {
    const int64_t label = labels_(t);
    if (label == options_.ignore_index) return LabelState::ignored;
    if (label < 0 || label >= classes_) return LabelState::invalid;
    return column(t) >= 0 && column(t) < columns_ ? LabelState::local : LabelState::foreign;
  }
  bool is_skipped(int64_t t) const {
    const LabelState s = state(t);
    return s == LabelState::ignored || s == LabelState::invalid;
  }
  // Of the label in this shard.
  int64_t column(int64_t t) const { return labels_(t) - options_.class_start; }
  bool is_label(int64_t t, int64_t v) const { return column(t) == v; }

  int64_t not_ignored(int64_t rows) const {
    int64_t count = 0;
    for (int64_t t = 0; t < rows; ++t) count += state(t) != LabelState::ignored;
    return count;
  }

  // z and, as what its slope is made of, tanh (0 without a cap).
  struct Capped {
    S z, tanh;
  };
  Capped chain(const S& logit) const {
    if (!capped_) return {logit * scale_, S(0.0)};
    const S t = tanh_(logit * scale_over_cap_);
    return {cap_ * t, t};
  }

  S z_loss(const S& lse) const { return options_.lse_square_scale == 0 ? S(0.0) : z_factor_ * (lse * lse); }

  // lse - (1 - smoothing) z_label - smoothing / K sum z + z-loss. A term with factor 0 is absent, for z may
  // be -inf.
  S loss(const S& lse, const S* z_label, const S& z_sum) const {
    S total = lse;
    if (z_label && options_.label_smoothing != 1) total = total - (S(1.0) - smoothing_) * *z_label;
    if (options_.label_smoothing != 0) total = total - smoothing_per_class_ * z_sum;
    return total + z_loss(lse);
  }

  // d loss / d logit of one element of a row that is not skipped, times `g`.
  S gradient(const S& g, const S& logit, const S& lse, bool is_label) const {
    const Capped chained = chain(logit);
    S inner = exp_(exponent(chained.z, lse));
    if (options_.lse_square_scale != 0) inner = (S(1.0) + S(2.0) * z_factor_ * lse) * inner;
    if (options_.label_smoothing != 0) inner = inner - smoothing_per_class_;
    if (is_label) inner = inner - (S(1.0) - smoothing_);
    const S slope = S(1.0) - chained.tanh * chained.tanh;
    return g * scale_ * (slope * inner);
  }

  // d entropy / d logit of one element, times `h`. A probability of 0 adds nothing.
  S entropy_gradient(const S& h, const S& logit, const S& lse, const S& entropy) const {
    const Capped chained = chain(logit);
    const S log_p = exponent(chained.z, lse);
    if (value(log_p) == -std::numeric_limits<double>::infinity()) return S(0.0);
    const S slope = S(1.0) - chained.tanh * chained.tanh;
    return -(h * scale_ * (slope * (exp_(log_p) * (log_p + entropy))));
  }

 private:
  // z - lse. For 16-bit gradients kernels form it in base 2, where each term is rounded once more.
  S exponent(const S& z, const S& lse) const {
    if (!in_base_2_) return z - lse;
    const S log2_e(std::numbers::log2e), ln_2(std::numbers::ln2);
    return (z * log2_e - lse * log2_e) * ln_2;
  }

  CrossEntropyOptions options_;
  View<int64_t> labels_;
  int64_t columns_, classes_;
  bool capped_, in_base_2_;
  S scale_ = constant<S>(options_.logit_scale);
  S cap_ = constant<S>(options_.softcap);
  S scale_over_cap_ = capped_ ? scale_ / cap_ : scale_;
  S smoothing_ = constant<S>(options_.label_smoothing);
  S smoothing_per_class_ = smoothing_ / constant<S>(classes_);
  S z_factor_ = constant<S>(options_.lse_square_scale);
};

// log sum exp of a row. It does not depend on the pivot, so the pivot's derivative and error do not matter.
template <class S>
S log_sum_exp(const std::vector<S>& z) {
  S top(-std::numeric_limits<double>::infinity());
  for (const S& v : z) top = max_(top, v);
  // A row of -inf has no finite pivot, and needs none.
  const S pivot = value(top) == -std::numeric_limits<double>::infinity() ? S(0.0) : S(value(top));
  const S total = sum<S>(
      static_cast<int64_t>(z.size()), [&](int64_t v) { return exp_(z[static_cast<size_t>(v)] - pivot); },
      kVocabularyLanes);
  return log_(total) + pivot;
}

template <class S>
struct RowLoss {
  S loss, z_loss, lse;
};

// `z` is scratch: the row after the chain.
template <class S>
RowLoss<S> row_loss(const CrossEntropyTerms<S>& terms, const View<S>& logits, int64_t t, std::vector<S>& z) {
  const LabelState state = terms.state(t);
  if (state == LabelState::ignored) return {S(0.0), S(0.0), S(0.0)};
  const S nan(std::numeric_limits<double>::quiet_NaN());
  if (state == LabelState::invalid) return {nan, nan, S(0.0)};
  z.resize(static_cast<size_t>(logits.size(1)));
  for (size_t v = 0; v < z.size(); ++v) z[v] = terms.chain(logits(t, v)).z;
  const S lse = log_sum_exp(z);
  const S z_sum = sum<S>(
      logits.size(1), [&](int64_t v) { return z[static_cast<size_t>(v)]; }, kVocabularyLanes);
  const S* z_label = state == LabelState::local ? &z[static_cast<size_t>(terms.column(t))] : nullptr;
  return {terms.loss(lse, z_label, z_sum), terms.z_loss(lse), lse};
}

// What `mean` divides by; 1 for the other reductions.
template <class S, class A>
S loss_divisor(const A& a, const CrossEntropyTerms<S>& terms) {
  if (a.reduction != Reduction::mean) return S(1.0);
  if (a.normalizer) return View<S>(a.normalizer)(0);
  return constant<S>(terms.not_ignored(a.logits.size[0]));
}

// Rows into the output tensor: as they are, or summed and divided.
template <class S, class A>
void reduce_rows(const A& a, const CrossEntropyTerms<S>& terms, const std::vector<S>& rows,
                 const Tensor& out) {
  if (!out) return;
  const View<S> to(out);
  const auto count = static_cast<int64_t>(rows.size());
  if (a.reduction == Reduction::none) {
    for (int64_t t = 0; t < count; ++t) to(t) = rows[static_cast<size_t>(t)];
    return;
  }
  if (a.reduction == Reduction::mean && !a.normalizer && terms.not_ignored(count) == 0) {
    to(0) = S(a.empty_mean == EmptyMean::zero ? 0.0 : std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const S total = sum<S>(
      count, [&](int64_t t) { return rows[static_cast<size_t>(t)]; }, kVocabularyLanes);
  to(0) = a.reduction == Reduction::mean ? total / loss_divisor(a, terms) : total;
}

// loss, z_loss, lse and the counters, of either struct that has them. Returns lse by row.
template <class S, class A>
std::vector<S> evaluate_losses(const A& a, const CrossEntropyTerms<S>& terms) {
  const View<S> logits(a.logits), lse_out(a.lse);
  const View<int64_t> invalid(a.invalid_labels);
  const auto rows = static_cast<size_t>(logits.size(0));
  std::vector<S> loss(rows), z_loss(rows), lse(rows), z;
  for (size_t t = 0; t < rows; ++t) {
    const auto row = static_cast<int64_t>(t);
    const RowLoss<S> r = row_loss(terms, logits, row, z);
    loss[t] = r.loss;
    z_loss[t] = r.z_loss;
    lse[t] = r.lse;
    if (lse_out) lse_out(row) = r.lse;
    if (!invalid || terms.state(row) != LabelState::invalid) continue;
    invalid(0) += 1;
    invalid(1) = std::min(invalid(1), row);
  }
  reduce_rows(a, terms, loss, a.loss);
  reduce_rows(a, terms, z_loss, a.z_loss);
  return lse;
}

// dlogits from lse(t), of either struct that has them. A missing dloss is 1.
template <class S, class A, class Lse>
void evaluate_dlogits(const A& a, const CrossEntropyTerms<S>& terms, Lse lse) {
  const View<S> logits(a.logits), dloss(a.dloss), dlogits(a.dlogits);
  const S divisor = loss_divisor(a, terms);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    if (terms.is_skipped(t)) {
      for (int64_t v = 0; v < logits.size(1); ++v) dlogits(t, v) = S(0.0);
      continue;
    }
    S g = dloss ? dloss(a.reduction == Reduction::none ? t : 0) : S(1.0);
    if (a.reduction == Reduction::mean) g = g / divisor;
    for (int64_t v = 0; v < logits.size(1); ++v)
      dlogits(t, v) = terms.gradient(g, logits(t, v), lse(t), terms.is_label(t, v));
  }
}

template <class S>
void evaluate(const CrossEntropyForward& a) {
  evaluate_losses(a, CrossEntropyTerms<S>(a, a.logits, a.labels));
}

template <class S>
void evaluate(const CrossEntropyBackward& a) {
  const View<S> lse(a.lse);
  evaluate_dlogits(a, CrossEntropyTerms<S>(a, a.logits, a.labels), [&](int64_t t) { return lse(t); });
}

template <class S>
void evaluate(const CrossEntropyForwardBackward& a) {
  const CrossEntropyTerms<S> terms(a, a.logits, a.labels);
  const std::vector<S> lse = evaluate_losses(a, terms);
  evaluate_dlogits(a, terms, [&](int64_t t) { return lse[static_cast<size_t>(t)]; });
}

}  // namespace fla::reference

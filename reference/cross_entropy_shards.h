// Cross entropy over vocabulary shards.
#pragma once

#include "fla/cross_entropy_shards.h"
#include "reference/loss.h"

namespace fla::reference {

template <class S>
void evaluate(const CrossEntropyShardStats& a) {
  CrossEntropyOptions o;
  o.ignore_index = a.ignore_index;
  o.class_start = a.class_start;
  o.total_classes = a.total_classes;
  o.label_smoothing = a.label_smoothing;
  o.logit_scale = a.logit_scale;
  o.softcap = a.softcap;
  const CrossEntropyTerms<S> terms(o, a.logits, a.labels);
  const View<S> logits(a.logits), stats(a.stats);
  const View<int64_t> invalid(a.invalid_labels);
  for (int64_t t = 0; t < logits.size(0); ++t) {
    const LabelState state = terms.state(t);
    S lse(0.0), rest(state == LabelState::invalid ? std::numeric_limits<double>::quiet_NaN() : 0.0);
    if (!terms.is_skipped(t)) {
      std::vector<S> z(static_cast<size_t>(logits.size(1)));
      for (size_t v = 0; v < z.size(); ++v) z[v] = terms.chain(logits(t, v)).z;
      lse = log_sum_exp(z);
      const S z_sum = sum<S>(
          logits.size(1), [&](int64_t v) { return z[static_cast<size_t>(v)]; }, kVocabularyLanes);
      rest = terms.loss(S(0.0), state == LabelState::local ? &z[static_cast<size_t>(terms.column(t))] : nullptr, z_sum);
    }
    stats(t, 0) = lse;
    stats(t, 1) = rest;
    if (!invalid || state != LabelState::invalid) continue;
    invalid(0) += 1;
    invalid(1) = std::min(invalid(1), t);
  }
}

template <class S>
void evaluate(const CrossEntropyShardCombine& a) {
  const View<S> stats(a.stats), loss(a.loss), z_loss(a.z_loss), lse_out(a.lse);
  const View<int64_t> labels(a.labels);
  const int64_t ranks = stats.size(0), rows = labels.size(0);
  const S factor = constant<S>(a.lse_square_scale);
  std::vector<S> losses(static_cast<size_t>(rows), S(0.0)), z_losses = losses;
  int64_t kept = 0;
  for (int64_t t = 0; t < rows; ++t) {
    S lse(0.0);
    const auto row = static_cast<size_t>(t);
    if (labels(t) != a.ignore_index) {
      ++kept;
      std::vector<S> parts;
      for (int64_t p = 0; p < ranks; ++p) parts.push_back(stats(p, t, 0));
      lse = log_sum_exp(parts);
      if (a.lse_square_scale != 0) z_losses[row] = factor * (lse * lse);
      const S rest = sum<S>(
          ranks, [&](int64_t p) { return stats(p, t, 1); }, kOneLane);
      losses[row] = rest + lse + z_losses[row];
    }
    if (lse_out) lse_out(t) = lse;
  }
  const bool mean = a.reduction == Reduction::mean;
  const auto give = [&](const View<S>& to, const std::vector<S>& of) {
    if (!to) return;
    if (a.reduction == Reduction::none) {
      for (int64_t t = 0; t < rows; ++t) to(t) = of[static_cast<size_t>(t)];
      return;
    }
    const S total = sum<S>(
        rows, [&](int64_t t) { return of[static_cast<size_t>(t)]; }, kVocabularyLanes);
    if (!mean) to(0) = total;
    else if (a.normalizer) to(0) = total / View<S>(a.normalizer)(0);
    else if (kept > 0) to(0) = total / constant<S>(kept);
    else to(0) = S(a.empty_mean == EmptyMean::zero ? 0.0 : std::numeric_limits<double>::quiet_NaN());
  };
  give(loss, losses);
  give(z_loss, z_losses);
}

}  // namespace fla::reference

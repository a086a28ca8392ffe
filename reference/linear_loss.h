// Losses of the last linear layer. Rounded on the way are the logits and their gradients, to the dtype of x, both in front
// of products whose sums are fp32; the factor that all gradients share comes last.
#pragma once

#include "fla/linear_loss_shards.h"
#include "reference/cross_entropy_shards.h"
#include "reference/l2_warp.h"
#include "reference/linear.h"
#include "reference/loss.h"

namespace fla::reference {

// x weight^T + bias, as stored.
template <class S>
Matrix<S> linear_logits(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Matrix<S> logits(x.size[0], weight.size[0]);
  linear<S>(Factor<S>(x), Factor<S>(weight).transpose(), bias, tensor_of(logits, x.dtype), x.dtype);
  return stored(x.dtype, std::move(logits));
}

// dx, dweight and, where there is one, dbias of any struct that has them, from stored dlogits.
template <class S, class A>
void logit_gradients(const A& a, const Matrix<S>& dlogits, const S& alpha) {
  const auto write = [&](const Tensor& to, bool accumulate, const Factor<S>& left, const Tensor& right) {
    if (!to) return;
    const Matrix<S> sums = product_of<S>(left, Factor<S>(right), unit_of(a.x.dtype));
    const View<S> out(to);
    for (int64_t i = 0; i < sums.rows(); ++i)
      for (int64_t j = 0; j < sums.cols(); ++j)
        out(i, j) = accumulate ? out(i, j) + alpha * sums(i, j) : alpha * sums(i, j);
  };
  write(a.dx, false, dlogits, a.weight);
  write(a.dweight, a.accumulate, transposed(dlogits), a.x);
  if constexpr (requires { a.dbias; }) {
    if (!a.dbias) return;
    const View<S> dbias(a.dbias);
    for (int64_t v = 0; v < dlogits.cols(); ++v) {
      const S total = alpha * sum<S>(dlogits.rows(), [&](int64_t t) { return dlogits(t, v); });
      dbias(v) = a.accumulate ? dbias(v) + total : total;
    }
  }
}

template <class S>
class LinearLoss {
 public:
  template <class A>
  explicit LinearLoss(const A& a) : x_(a.x), logits_(linear_logits<S>(a.x, a.weight, a.bias)) {
    static_cast<CrossEntropyOptions&>(inner_) = a;
    inner_.logits = tensor_of(logits_, a.x.dtype);
    inner_.labels = a.labels;
    inner_.normalizer = a.normalizer;
  }

  // Returns lse by row.
  template <class A>
  std::vector<S> losses(const A& a) {
    const CrossEntropyTerms<S> terms(inner_, inner_.logits, inner_.labels);
    std::vector<S> loss(static_cast<size_t>(rows())), z_loss(loss);
    CrossEntropyForward by_row = inner_;
    by_row.reduction = Reduction::none;
    by_row.loss = column(loss);
    by_row.z_loss = column(z_loss);
    by_row.lse = a.lse;
    by_row.invalid_labels = a.invalid_labels;
    const std::vector<S> lse = evaluate_losses(by_row, terms);
    if (const View<S> weights(a.token_weights); weights) {
      for (int64_t t = 0; t < rows(); ++t) {
        loss[static_cast<size_t>(t)] = weights(t) * loss[static_cast<size_t>(t)];
        z_loss[static_cast<size_t>(t)] = weights(t) * z_loss[static_cast<size_t>(t)];
      }
    }
    reduce_rows(inner_, terms, loss, a.loss);
    inject_penalty(a);
    reduce_rows(inner_, terms, z_loss, a.z_loss);
    return lse;
  }

  // dx, dweight and dbias from lse(t).
  template <class A, class Lse>
  void gradients(const A& a, Lse lse) {
    const CrossEntropyTerms<S> terms(inner_, inner_.logits, inner_.labels);
    const bool by_row = inner_.reduction == Reduction::none;
    Matrix<S> dlogits(rows(), classes());
    CrossEntropyBackward backward;
    static_cast<CrossEntropyOptions&>(backward) = inner_;
    backward.reduction = Reduction::none;
    backward.logits = inner_.logits;
    backward.dloss = by_row ? a.dloss : a.token_weights;
    backward.dlogits = tensor_of(dlogits, x_.dtype);
    evaluate_dlogits(backward, terms, lse);
    const bool empty = !a.normalizer && terms.not_ignored(rows()) == 0;
    const S divisor = empty ? S(1.0) : loss_divisor(inner_, terms);
    if (a.l2_warp_factor != 0) add_penalty(a, divisor, dlogits);
    dlogits = stored(x_.dtype, std::move(dlogits));

    S alpha(1.0);
    if (!by_row && a.dloss) alpha = View<S>(a.dloss)(0);
    if (inner_.reduction == Reduction::mean) alpha = alpha / divisor;
    logit_gradients(a, dlogits, alpha);
  }

 private:
  // The penalty has a gradient, but no value.
  template <class A>
  void inject_penalty(const A& a) {
    if constexpr (std::is_same_v<S, Dual>) {
      if (a.l2_warp_factor == 0) return;
      const View<S> logits(inner_.logits), loss(a.loss);
      const S squares = sum<S>(rows(), [&](int64_t t) {
        const S peak = logits(t, first_peak(logits, t));
        return peak * peak;
      });
      const S penalty = constant<S>(a.l2_warp_factor / 2) / constant<S>(rows()) * squares;
      loss(0) = loss(0) + (penalty - detach(penalty));
    }
  }

  // A second logit within its error of the largest may be the one that a kernel takes.
  template <class A>
  void add_penalty(const A& a, const S& divisor, Matrix<S>& dlogits) {
    const S factor = constant<S>(a.l2_warp_factor) / constant<S>(rows()) * divisor;
    const View<S> logits(inner_.logits);
    for (int64_t t = 0; t < rows(); ++t) {
      const int64_t peak = first_peak(logits, t);
      const auto raised = [&](int64_t v) { return dlogits(t, v) + factor * logits(t, v); };
      if constexpr (std::is_same_v<S, Bound>) {
        bool contested = false;
        for (int64_t v = 0; v < classes(); ++v) {
          if (v == peak || !less_(logits(t, v), logits(t, peak)).ambiguous) continue;
          contested = true;
          dlogits(t, v) = bound::with_other(dlogits(t, v), raised(v));
        }
        dlogits(t, peak) = contested ? bound::with_other(raised(peak), dlogits(t, peak)) : raised(peak);
      } else {
        dlogits(t, peak) = raised(peak);
      }
    }
  }

  int64_t rows() const { return x_.size[0]; }
  int64_t classes() const { return logits_.cols(); }
  static Tensor column(std::vector<S>& rows) {
    return dense(rows.data(), DType::f32, {static_cast<int64_t>(rows.size())});
  }
  Tensor x_;
  Matrix<S> logits_;
  CrossEntropyForward inner_;
};

template <class S>
void evaluate(const LinearCrossEntropyForward& a) {
  LinearLoss<S>(a).losses(a);
}

template <class S>
void evaluate(const LinearCrossEntropyBackward& a) {
  const View<S> lse(a.lse);
  LinearLoss<S>(a).gradients(a, [&](int64_t t) { return lse(t); });
}

template <class S>
void evaluate(const LinearCrossEntropyForwardBackward& a) {
  LinearLoss<S> loss(a);
  const std::vector<S> lse = loss.losses(a);
  loss.gradients(a, [&](int64_t t) { return lse[static_cast<size_t>(t)]; });
}

template <class S>
void evaluate(const LinearCrossEntropyShardStats& a) {
  Matrix<S> logits = linear_logits<S>(a.x, a.weight, a.bias);
  evaluate<S>(CrossEntropyShardStats{.logits = tensor_of(logits, a.x.dtype),
                                     .labels = a.labels,
                                     .stats = a.stats,
                                     .invalid_labels = a.invalid_labels,
                                     .ignore_index = a.ignore_index,
                                     .class_start = a.class_start,
                                     .total_classes = a.total_classes,
                                     .label_smoothing = a.label_smoothing,
                                     .logit_scale = a.logit_scale,
                                     .softcap = a.softcap});
  if (a.label_smoothing == 0) return;
  // Chunks of classes take their factor before they are added, where the sum may be smaller than they are.
  const CrossEntropyTerms<S> terms(a, tensor_of(logits, a.x.dtype), a.labels);
  const S per_class = constant<S>(a.label_smoothing) / constant<S>(a.total_classes != 0 ? a.total_classes : logits.cols());
  const View<S> stats(a.stats);
  for (int64_t t = 0; t < logits.rows(); ++t) {
    if (terms.is_skipped(t)) continue;
    const S parts = detach(sum<S>(
        logits.cols(), [&](int64_t v) { return per_class * terms.chain(logits(t, v)).z; }, kVocabularyLanes));
    stats(t, 1) = stats(t, 1) + (parts - S(value(parts)));
  }
}

}  // namespace fla::reference

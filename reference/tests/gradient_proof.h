// Proof that a hand-written backward is the derivative of its forward text: <v, J u> by Dual numbers against
// <J^T v, u> by the backward, for directions u, v of independent +-1.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "reference/tests/call.h"

namespace fla::reference::test {

template <class Forward, class Backward>
struct Proof {
  Forward forward;    // attributes set
  Backward backward;  // likewise
  Extents extents;
  Names with;     // optional tensors of the forward
  Names without;  // tensors of the backward that it could have but shall not
  std::function<void(Tensors<double>&)> prepare = [](Tensors<double>&) {};  // labels, offsets, special inputs

  // The largest disagreement, as a share of the sum of magnitudes of both sides; 1e-13 is the bar.
  double worst() {
    Tensors<double> front;
    allocate(forward, extents, with, front);
    for (const std::string& name : front.inputs)
      if (!front.integers.count(name)) fill_normal(front[name], random_);
    prepare(front);
    evaluate<double>(forward);
    double worst = 0;
    for (int trial = 0; trial < 3; ++trial) worst = std::fmax(worst, one_trial(front));
    EXPECT_GT(compared_, 0);
    return worst;
  }

 private:
  double one_trial(const Tensors<double>& front) {
    Tensors<double> back;
    allocate(backward, extents, backward_names(front), back);
    std::map<std::string, std::vector<double>> cotangents;
    for (const std::string& name : back.inputs) {
      if (back.integers.count(name)) {
        back.integer[name].assign(front.integer.at(name).begin(), front.integer.at(name).end());
      } else if (front.has(name)) {
        std::copy(front[name].begin(), front[name].end(), back[name].begin());
      } else {
        fill_signs(back[name], random_);
        cotangents[name.substr(1)] = back[name];
      }
    }
    evaluate<double>(backward);
    expect_recomputed(front, back);
    Names inputs;
    for (const std::string& name : front.inputs)
      if (back.outputs.count("d" + name)) inputs.insert(name);
    double worst = disagreement(front, back, cotangents, inputs);
    for (const std::string& name : inputs)
      worst = std::fmax(worst, disagreement(front, back, cotangents, {name}));
    return worst;
  }

  Names backward_names(const Tensors<double>& front) const {
    Names names;
    for (const Names* some : {&front.inputs, &front.outputs}) {
      for (const std::string& name : *some) {
        names.insert(name);
        names.insert("d" + name);
      }
    }
    for (const std::string& name : without) names.erase(name);
    return names;
  }

  void expect_recomputed(const Tensors<double>& front, const Tensors<double>& back) {
    for (const std::string& name : back.outputs) {
      if (!front.outputs.count(name)) continue;
      for (size_t i = 0; i < back[name].size(); ++i)
        EXPECT_NEAR(back[name][i], front[name][i], 1e-12 * (1 + std::abs(front[name][i])))
            << name << " " << i;
    }
  }

  // Numbers that are not finite (masked logits) do not vary.
  double disagreement(const Tensors<double>& front, const Tensors<double>& back,
                      const std::map<std::string, std::vector<double>>& cotangents, const Names& inputs) {
    Tensors<Dual> dual;
    Forward call = forward;
    allocate(call, extents, with, dual);
    copy_inputs(front, dual);
    double by_backward = 0, by_dual = 0, magnitude = 0;
    for (const std::string& name : inputs) {
      const std::vector<double>& gradient = back["d" + name];
      for (size_t i = 0; i < gradient.size(); ++i) {
        if (!std::isfinite(dual[name][i].v)) continue;
        dual[name][i].d = (random_() & 1) != 0 ? 1 : -1;
        by_backward += gradient[i] * dual[name][i].d;
        magnitude += std::abs(gradient[i]);
      }
    }
    evaluate<Dual>(call);
    for (const auto& [name, v] : cotangents) {
      for (size_t i = 0; i < v.size(); ++i) {
        by_dual += v[i] * dual[name][i].d;
        magnitude += std::abs(dual[name][i].d);
      }
    }
    ++compared_;
    const double share = std::abs(by_backward - by_dual) / magnitude;
    if (magnitude == 0) return 0;
    return share <= HUGE_VAL ? share : HUGE_VAL;  // NaN is the worst
  }

  std::mt19937_64 random_{20240607};
  int compared_ = 0;
};

inline constexpr double kAgreement = 1e-13;

}  // namespace fla::reference::test

// What tests of whole calls share: memory for f32 tensors, and a workspace of the size that a call asks for.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// Dense f32 tensors that live as long as it does: zeros, or normal numbers, the same in every object.
class Numbers {
 public:
  Tensor zeros(std::initializer_list<int64_t> size) {
    int64_t count = 1;
    for (const int64_t extent : size) count *= extent;
    blocks_.emplace_back(static_cast<size_t>(count));
    return dense(blocks_.back().data(), DType::f32, size);
  }
  Tensor normal(std::initializer_list<int64_t> size) {
    const Tensor t = zeros(size);
    for (float& v : blocks_.back()) v = normal_(random_);
    return t;
  }

 private:
  std::deque<std::vector<float>> blocks_;
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
};

// The elements of dense f32 tensors, one behind the other.
inline std::vector<float> elements_of(std::initializer_list<Tensor> tensors) {
  std::vector<float> all;
  for (const Tensor& t : tensors) {
    const auto* first = static_cast<const float*>(t.data);
    all.insert(all.end(), first, first + t.size[0] * t.stride[0]);
  }
  return all;
}

template <class A>
void launch(const A& call) {
  std::vector<char> memory(workspace_bytes(call) + 256);
  void* at = memory.data();
  size_t space = memory.size();
  std::align(256, 1, at, space);
  const Status s = run(call, {at, space}, nullptr);
  EXPECT_TRUE(s.ok()) << s.text;
}

inline void expect_close(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-5 * (0.01 + std::abs(expected[i]))) << i;
}

}  // namespace fla

// What case strings cannot say: combinations that are refused, by name.
#include "fla/learned_map.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace fla {
namespace {

float memory[4096];
Tensor matrix(int64_t rows, int64_t columns) { return dense(memory, DType::f32, {rows, columns}); }
Tensor apart(int64_t at, int64_t rows, int64_t columns) { return dense(memory + at, DType::f32, {rows, columns}); }

void expect_refused(const Status& s, StatusCode code, const char* argument) {
  EXPECT_EQ(s.code, code) << s.text;
  EXPECT_EQ(std::strncmp(s.text, argument, std::strlen(argument)), 0) << s.text;
}

TEST(FeatureMap, RefusesWhatItsDescriptionCannotSay) {
  RebasedMapForward rebased;
  rebased.x = matrix(2, 4);
  rebased.y = apart(64, 2, 10);
  rebased.normalize = false;
  expect_refused(run(rebased, {}, {}), StatusCode::unsupported_combination, "gamma");
  rebased.beta = dense(memory + 128, DType::f32, {4});
  expect_refused(run(rebased, {}, {}), StatusCode::unsupported_combination, "gamma");
  rebased.normalize = true;
  EXPECT_TRUE(run(rebased, {}, {}).ok());

  TaylorMapForward taylor{.x = matrix(2, 4), .y = apart(64, 2, 14)};
  expect_refused(run(taylor, {}, {}), StatusCode::shape_mismatch, "y");
  taylor = {.x = matrix(2, 0), .y = apart(64, 2, 1)};
  expect_refused(run(taylor, {}, {}), StatusCode::unsupported_shape, "x");

  PolysketchMapForward sketch;
  sketch.x = matrix(2, 4);
  sketch.a = apart(64, 3, 4);
  sketch.b = apart(128, 3, 4);
  sketch.y = apart(192, 2, 6);
  sketch.degree = 3;
  expect_refused(run(sketch, {}, {}), StatusCode::invalid_argument, "degree");
  sketch.degree = 8;
  expect_refused(run(sketch, {}, {}), StatusCode::null_pointer, "later_a");
}

TEST(LearnedMap, RefusesToDoNothing) {
  LearnedMapBackward a;
  a.x = matrix(2, 4);
  a.weight = apart(64, 4, 4);
  a.dy = apart(128, 2, 8);
  expect_refused(run(a, {}, {}), StatusCode::invalid_argument, "dx");
}

}  // namespace
}  // namespace fla

// The numbers of an input: a pure function of the seed, the field's name and the element's index, so that any part of
// any tensor can be made anywhere, by any thread, again.
//
// Fills of the data inputs (weights and upstream gradients stay normal, except under exact and positive):
//   normal     N(0, 1)
//   exact      small multiples of 1/2: sums of thousands of products are exact in fp32, tolerance 0
//   scaled     rows scaled by 1e-3 .. 1e3: mixed-up rows and wrong statistics show
//   tiny       mean square 1e-6, below the square root of eps
//   offset     mean 1000, spread 1: cancellation
//   positive   1 + |N|: long one-sign sums
//   constant   one value a row, every third row zeros
//   zeros
//   ties       three values only: equal maxima
//   masked     -inf patterns by row: tail block, first block, all but one, all; vectors stay normal
//   confident  the label's logit ahead by 0 .. 40
//   extremes   largest, smallest normal, subnormal, -0
//   specials   one NaN or infinity in some rows
//   gates      the first data input only, where exponentials overflow or vanish: +-{0, 1e-3, 20, 88.8, 104, 1e4, 65504, 3e38, inf}, NaN
//   exhaustive every bit pattern: 65536 elements hold all of a 16-bit dtype, and as many of f32 spread over all
//   every      all 2^32 inputs, made and judged on the device (every_input.h); not made here
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "harness/problem.h"

namespace fla::harness {

enum class Fill {
  normal, exact, scaled, tiny, offset, positive, constant, zeros, ties, masked, confident, extremes, specials, gates,
  exhaustive, every
};
// In the order of the enum.
const std::vector<std::string>& fill_names();
Fill fill_of(const Case&);

class Generator {
 public:
  // For one present field of a problem whose shapes are known.
  Generator(const Problem& problem, int field);

  double real(int64_t index) const;      // unrounded
  int64_t integer(int64_t index) const;
  uint64_t bits(int64_t index) const;  // random ones, for values that need not be natural

 private:
  double filled(int64_t index) const;
  int64_t label(int64_t index) const;
  int64_t group(int64_t index) const;
  bool is_ignored(int64_t index) const;
  bool is_kept(int64_t index) const;

  const Field& field_;
  uint64_t seed_;
  Fill fill_;
  DType dtype_;
  bool data_input_ = false;
  int64_t columns_ = 1, ignore_index_ = 0, classes_ = 0;
  double ignore_share_ = 0;
  bool hostile_ = false;
  std::vector<int64_t> runs_;  // of groups: where each begins, and the end
  std::shared_ptr<const Generator> labels_;  // whose logits these are, for confident ones
};

// Makes the values of one input or inout: all of them, or those of the problem's sample.
void generate_values(Problem& problem, size_t field);

// Whether this input is an upstream gradient: named d<tensor> after a tensor of the forward or of the struct itself.
bool is_upstream(const Problem& problem, const Field& field);

// The offsets of packed sequences: sequences + 1 values, from 0 to tokens. As `lens` says, else drawn with an empty
// sequence among three or more; after offsets.invalid, anything.
std::vector<int64_t> sequence_offsets(const Problem& problem, int64_t sequences, int64_t tokens, uint64_t seed);

// lens=0+5+3 as offsets: 0, 0, 5, 8.
std::vector<int64_t> lens_offsets(std::string_view lens);

// The extent that a dimension has in the problem.
int64_t extent_of(const Problem& problem, const Dim& dim);

}  // namespace fla::harness

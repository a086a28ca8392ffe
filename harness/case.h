// A case and its one name: "rms_norm.bwd:M=16384,N=4096,x=bf16,fill=normal,seed=7".
//
// Keys, in the order they are printed:
//   dims of the signature            M=16384
//   attributes                       eps=0.001, reduction=sum, weight_per_group=1
//   tensors                          x=bf16 sets a dtype; residual=bf16 adds an optional one, weight=none removes an
//                                    expected one. Unnamed: present as the description says, dtype that of `like`, or
//                                    of the forward tensor it is the gradient of, or of the first float input, or the
//                                    only dtype allowed
//   layout, per tensor               x.pad=8 lengthens every row by 8 elements; x.gap=8 the slices of the outermost
//                                    dimension; x.shift=3 moves the base by 3 elements; x.inner=2 sets the inner
//                                    stride; x.broadcast=1 makes every stride 0; all.shift=, all.pad= apply to all tensors
//   aliases                          y.alias=1: this output is exactly the tensor its rule allows
//   fill                             normal (default), exact, scaled, tiny, offset, positive, constant, zeros, ties,
//                                    confident, masked, extremes, specials (see generate.h)
//   omit=1                           tensors leave out dimensions of 1 where they may: [M, N] for [M, G, N]
//   lens=0+5+3, ignore=0.5           lengths of packed sequences (or lens=equal), of runs of ids over and over; share of ignored labels,
//                                    and of zeros in masks (without it a fifth)
//   labels.invalid=1                 plants labels outside the range; offsets.invalid=1 hostile cu_seqlens
//   slices=N                         how much of fill=every
//   seed                             defaults to a hash of the rest
//
// parse and print are inverse on every case of every suite (tested); defaults are not printed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/operator.h"

namespace fla::harness {

struct Case {
  const Direction* direction = nullptr;
  std::vector<std::pair<std::string, std::string>> values;  // canonical order, defaults left out
  // Not part of the identity:
  std::string name;   // "llama3-8b", shown in reports
  std::string tier;   // of the suite entry that made it

  std::optional<std::string_view> find(std::string_view key) const;
  std::string text() const;  // the case string
  std::string key() const;   // the case string without its seed: what comparisons join on
  uint64_t seed() const;
};

// A malformed case, suite or command line: `where` is a file and JSON pointer, or the argument; printed as
// one line, exit code 2.
struct UsageError : std::exception {
  std::string where, message;
  UsageError(std::string where_, std::string message_);
  const char* what() const noexcept override { return full.c_str(); }
  std::string full;
};

// Throws UsageError: unknown operator, key, dtype or value (with the nearest known name), missing dim.
Case parse_case(std::string_view text);
// The canonical case of these values in any order; the same errors.
Case make_case(const Direction& direction, const std::map<std::string, std::string>& values,
               const std::string& where);

}  // namespace fla::harness

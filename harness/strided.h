// The way from logical elements (dense, row-major) to a strided tensor in memory, and back.
#pragma once

#include <cstdint>
#include <vector>

#include "fla/tensor.h"

namespace fla::harness {

// Logical elements [first, first + count) and the memory [memory_first, memory_first + memory_count) that
// holds them, gaps up to the next chunk included. In elements.
struct Chunk {
  int64_t first = 0, count = 0, memory_first = 0, memory_count = 0;
};

// A tensor whose strides do not increase inwards, as all layouts of a case: elements in logical order are
// also in memory order. A tensor broadcast with strides 0 has one element here.
class Strided {
 public:
  explicit Strided(const Tensor&);

  int64_t count() const { return run_ * runs_; }
  int64_t span() const { return span_; }  // from the base to one past the last element
  bool has_gaps() const { return span_ > count(); }

  // Pieces of at most `limit` elements, whole runs where there are gaps.
  std::vector<Chunk> chunks(int64_t limit) const;
  // Between `dense`, the chunk's logical elements, and `memory`, the chunk's memory.
  void scatter(const Chunk&, int64_t element_bytes, const void* dense, void* memory) const;
  void gather(const Chunk&, int64_t element_bytes, const void* memory, void* dense) const;
  // Memory offset of a logical element.
  int64_t offset(int64_t element) const;

 private:
  struct Outer {
    int64_t size, stride;
  };
  std::vector<Outer> outer_;    // dimensions around the runs, outermost first
  int64_t run_ = 1, step_ = 1;  // elements of one run, distance between them
  int64_t runs_ = 1, span_ = 0;
};

}  // namespace fla::harness

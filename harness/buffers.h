// The tensors of one problem in device memory: laid out as the case says, filled so that whatever a kernel
// does beside its contract is seen afterwards, and read back as logical elements.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/guarded_memory.h"
#include "harness/problem.h"
#include "harness/strided.h"

namespace fla::harness {

// The stored bits of what a kernel wrote: per field of the signature, empty for inputs and absent tensors. Of
// a sampled problem `bytes` holds the sample and `digest` is a hash of every element.
struct Snapshot {
  std::vector<std::vector<unsigned char>> bytes;
  std::vector<uint64_t> digest;
};

class Buffers {
 public:
  // Allocates; keeps references to both. Throws OutOfMemory.
  Buffers(const Problem&, Device&);

  const Args& args() const { return args_; }
  static int64_t bytes_needed(const Problem&, const Device&);

  // Inputs and inouts as in `contents` (a problem of the same shapes, by default this one); outputs, gaps
  // between rows and guard bands poisoned. Inputs of sampled problems, which may be many GB, are stored once.
  void prepare(Poison, const Problem& contents);
  void prepare(Poison poison) { prepare(poison, problem_); }

  Snapshot read() const;
  // The first field whose guards or gaps are not as prepare() left them, and where; empty when all are.
  std::string damage() const;
  // The first input that is not as prepare() left it; empty when all are.
  std::string changed_input() const;
  // The first output that holds anything but poison; empty when there is none. Outputs that share an input's
  // memory have no poison and are not looked at.
  std::string written_output() const;

  bool written(int field) const;  // present and not a pure input
  bool aliased(int field) const;  // an output in an input's memory

 private:
  struct Entry {
    std::unique_ptr<GuardedMemory> memory;  // null: absent, or aliased
    std::unique_ptr<Strided> elements;
    const Problem* contents = nullptr;  // what prepare() stored last
    Poison poison = Poison::nan;
    uint64_t hash = 0;         // of the stored memory image, gaps included
    bool overwritten = false;  // inout, or the target of an alias
  };

  void store(int field, Poison, const Problem& contents);
  void poison(int field, Poison);
  uint64_t hash_memory(int field) const;
  std::string damaged_gap(int field) const;
  std::string stray_element(int field) const;
  std::vector<unsigned char> read(int field) const;
  std::vector<unsigned char> read_sample(int field, int axis) const;
  uint64_t digest(int field) const;
  DType dtype(int field) const;

  const Problem& problem_;
  Device& device_;
  Args args_;
  std::vector<Entry> entries_;
};

// "y differs at [3,17]", or empty when all bits are equal.
std::string difference(const Problem&, const Snapshot& expected, const Snapshot& got);

// The axis of a present tensor that runs along the problem's sample dimension, -1 for none.
int sample_axis(const Problem&, int field);

// "[3,0,17]" of a row-major element.
std::string index_text(const std::vector<int64_t>& size, int64_t element);

}  // namespace fla::harness

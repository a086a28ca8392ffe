// A case made concrete on the host: extents, and the stored value of every input, rounded to its dtype. That
// rounded value IS the input; the kernel and the reference both see it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "harness/case.h"
#include "harness/operator.h"

namespace fla::harness {

// The logical elements of one tensor, dense and row-major whatever the case's layout. Exactly one of the two
// arrays is used: `real` for float dtypes, `integer` for the others. Empty for absent tensors.
struct HostTensor {
  std::vector<int64_t> size;
  std::vector<double> real;
  std::vector<int64_t> integer;
};

// How a tensor lies in device memory, in elements (from x.pad, x.gap, x.shift, x.inner, x.broadcast, y.alias).
struct Layout {
  std::vector<int64_t> stride;
  int64_t shift = 0;       // base offset from a 256-byte boundary
  int64_t span = 0;        // elements from the base to one past the last, gaps included
  std::string alias_of;    // the field whose memory this output is, or empty
};

struct Problem {
  Case origin;
  Args args;            // attributes set; tensors carry dtype, rank, sizes and the case's strides; data is null
  Signature signature;  // of args
  std::map<std::string, int64_t> dims;
  // Parallel to signature.fields. Inputs and inouts hold their values. Saved tensors of a backward case hold what
  // the forward reference gives, rounded to their dtype. Outputs are empty. In a sampled problem, tensors that have
  // the sample_dim hold the sample only.
  std::vector<HostTensor> values;
  std::vector<Layout> layouts;

  // Large problems: only these indices of the direction's sample_dim are filled with real data and judged. Outside
  // the sample, upstream gradients (inputs named d...) are zero, labels ignored and saved tensors 1, so that sums over
  // rows involve the sample alone. Empty: everything is judged.
  std::vector<int64_t> sample;
  // False for timing: outside the sample there is data like inside it (labels valid, gradients not zero).
  bool quiet = true;

  int64_t bytes = 0;  // device memory of all tensors, gaps included

  int index_of(std::string_view field) const;  // -1: none
  bool present(int field) const;
};

// Problems up to this many elements in their largest tensor are judged whole; larger ones by sample.
inline constexpr int64_t kWholeProblemElements = int64_t{1} << 21;

// Expands dims, presence, dtypes, layouts; throws UsageError when the case contradicts its signature.
// With `values` false, only shapes and bytes (for --dry-run and memory planning).
Problem make_problem(const Case&, bool values = true);

// The problem with quiet = false. Large weights have no `values`, which nobody will judge (fill_storage makes them as it does
// what lies outside a sample), and where there are such, saved tensors hold random numbers.
Problem make_timed_problem(const Case&);

// Extents, presence and dtypes in one line: two cases with the same text differ in attributes, layout or data only.
std::string shape_text(const Case&);

// The part of the problem that the sample covers, as a problem of its own (the whole problem without a sample).
Problem sampled(const Problem&);

// The storage bytes of elements [first, first + count) of an input, in logical row-major order: those of `values`, and
// outside a sample what Problem::sample says. Any range of any size; large ones are made by several threads.
void fill_storage(const Problem&, int field, int64_t first, int64_t count, void* bytes);

// Rounds to a storage dtype and back, to nearest even; overflow goes to infinity, in f8e4m3 to +-448.
double round_to(DType, double value);
// Distance between neighbouring values of the dtype around `value`.
double spacing(DType, double value);
// Stores element i of an array of `type`, rounding reals to nearest even.
void encode_real(DType type, double value, void* bytes, int64_t i);
void encode_integer(DType type, int64_t value, void* bytes, int64_t i);
// Encodes logical values (either array of a HostTensor) into storage bytes, and back.
void encode(DType, const HostTensor&, int64_t first, int64_t count, void* bytes);
void decode(DType, const void* bytes, int64_t count, HostTensor& into, int64_t first);

}  // namespace fla::harness

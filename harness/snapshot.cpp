// Reading buffers back.
#include <algorithm>

#include "harness/buffers.h"

namespace fla::harness {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 22;

// Appends the logical elements of the strided tensor at `base`.
void append(Device& device, const Strided& elements, int64_t size, const unsigned char* base,
            std::vector<unsigned char>& into) {
  std::vector<unsigned char> memory;
  for (const Chunk& c : elements.chunks(kChunkElements)) {
    memory.resize(static_cast<size_t>(c.memory_count * size));
    device.download(memory.data(), base + c.memory_first * size, memory.size());
    const size_t end = into.size();
    into.resize(end + static_cast<size_t>(c.count * size));
    elements.gather(c, size, memory.data(), into.data() + end);
  }
}

}  // namespace

std::string index_text(const std::vector<int64_t>& size, int64_t element) {
  std::string text;
  for (size_t i = size.size(); i-- > 0;) {
    text = std::to_string(element % size[i]) + (text.empty() ? "" : ",") + text;
    element /= size[i];
  }
  return "[" + text + "]";
}

int sample_axis(const Problem& p, int field) {
  const Field& f = p.signature.fields[static_cast<size_t>(field)];
  const Tensor& t = p.args.tensor(f);
  const bool omits = t.rank < static_cast<int>(f.dims.size());
  int axis = 0;
  for (const Dim& d : f.dims) {
    if (omits && d.omittable) continue;
    const bool named = d.plain() && p.signature.dims[static_cast<size_t>(d.symbol)].name == p.origin.direction->sample_dim;
    if (named) return axis;
    ++axis;
  }
  return -1;
}

// Along the outermost axis each index is one piece of memory; along an inner one it is many small ones, and reading
// the whole tensor is faster than asking for them.
std::vector<unsigned char> Buffers::read_sample(int field, int axis) const {
  const Tensor& t = args_.tensor(problem_.signature.fields[static_cast<size_t>(field)]);
  const int64_t size = size_of(t.dtype);
  std::vector<unsigned char> bytes;
  if (axis == 0) {
    Tensor one = t;  // what one index of the sample covers
    one.size[0] = 1;
    const Strided elements(one);
    for (const int64_t index : problem_.sample)
      append(device_, elements, size, static_cast<const unsigned char*>(t.data) + index * t.stride[0] * size, bytes);
    return bytes;
  }
  int64_t inner = 1;
  for (int d = axis + 1; d < t.rank; ++d) inner *= t.size[d];
  std::vector<bool> wanted(static_cast<size_t>(t.size[axis]));
  for (const int64_t index : problem_.sample) wanted[static_cast<size_t>(index)] = true;
  const Strided& elements = *entries_[static_cast<size_t>(field)].elements;
  std::vector<unsigned char> memory, dense;
  for (const Chunk& c : elements.chunks(kChunkElements)) {
    memory.resize(static_cast<size_t>(c.memory_count * size));
    dense.resize(static_cast<size_t>(c.count * size));
    device_.download(memory.data(), static_cast<const unsigned char*>(t.data) + c.memory_first * size, memory.size());
    elements.gather(c, size, memory.data(), dense.data());
    for (int64_t i = 0; i < c.count;) {
      const int64_t run = std::min(inner - (c.first + i) % inner, c.count - i);
      if (wanted[static_cast<size_t>((c.first + i) / inner % t.size[axis])])
        bytes.insert(bytes.end(), dense.begin() + i * size, dense.begin() + (i + run) * size);
      i += run;
    }
  }
  return bytes;
}

std::vector<unsigned char> Buffers::read(int field) const {
  const int axis = problem_.sample.empty() ? -1 : sample_axis(problem_, field);
  if (axis >= 0) return read_sample(field, axis);
  const Tensor& t = args_.tensor(problem_.signature.fields[static_cast<size_t>(field)]);
  std::vector<unsigned char> bytes;
  append(device_, *entries_[static_cast<size_t>(field)].elements, size_of(t.dtype),
         static_cast<const unsigned char*>(t.data), bytes);
  return bytes;
}

uint64_t Buffers::digest(int field) const {
  const Strided& elements = *entries_[static_cast<size_t>(field)].elements;
  const Tensor& t = args_.tensor(problem_.signature.fields[static_cast<size_t>(field)]);
  const int64_t size = size_of(t.dtype);
  std::vector<unsigned char> memory, dense;
  uint64_t hash = 0;
  for (const Chunk& c : elements.chunks(kChunkElements)) {
    memory.resize(static_cast<size_t>(c.memory_count * size));
    dense.resize(static_cast<size_t>(c.count * size));
    device_.download(memory.data(), static_cast<const unsigned char*>(t.data) + c.memory_first * size,
                     memory.size());
    elements.gather(c, size, memory.data(), dense.data());
    hash = hash_bytes(hash, dense.data(), dense.size());
  }
  return hash;
}

Snapshot Buffers::read() const {
  Snapshot s;
  s.bytes.resize(entries_.size());
  s.digest.resize(entries_.size());
  for (size_t f = 0; f < entries_.size(); ++f) {
    const int field = static_cast<int>(f);
    if (!written(field)) continue;
    s.bytes[f] = read(field);
    if (!problem_.sample.empty()) s.digest[f] = digest(field);
  }
  return s;
}

std::string difference(const Problem& problem, const Snapshot& expected, const Snapshot& got) {
  for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
    const Field& field = problem.signature.fields[f];
    const auto [a, b] = std::mismatch(expected.bytes[f].begin(), expected.bytes[f].end(),
                                      got.bytes[f].begin(), got.bytes[f].end());
    if (a == expected.bytes[f].end() && b == got.bytes[f].end()) {
      if (expected.digest[f] != got.digest[f]) return field.name + " differs outside the sample";
      continue;
    }
    const Tensor& t = problem.args.tensor(field);
    const int64_t element = (a - expected.bytes[f].begin()) / size_of(t.dtype);
    if (!problem.sample.empty()) return field.name + " differs in the sample";
    return field.name + " differs at " + index_text({t.size, t.size + t.rank}, element);
  }
  return {};
}

}  // namespace fla::harness

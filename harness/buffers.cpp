#include "harness/buffers.h"

#include <algorithm>
#include <cstring>

namespace fla::harness {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 22;  // of staging memory on the host

size_t offset_bytes(const Problem& p, int field, DType type) {
  return static_cast<size_t>(p.layouts[static_cast<size_t>(field)].shift * size_of(type));
}

const Field& field_of(const Problem& p, int field) { return p.signature.fields[static_cast<size_t>(field)]; }
int field_count(const Problem& p) { return static_cast<int>(p.signature.fields.size()); }

bool shares_memory(const Problem& p, int field) {
  return !p.layouts[static_cast<size_t>(field)].alias_of.empty();
}

}  // namespace

Buffers::Buffers(const Problem& problem, Device& device)
    : problem_(problem), device_(device), args_(problem.args), entries_(problem.signature.fields.size()) {
  for (int f = 0; f < field_count(problem); ++f) {
    if (!problem.present(f)) continue;
    Entry& e = entries_[static_cast<size_t>(f)];
    Tensor& t = args_.tensor(field_of(problem, f));
    e.elements = std::make_unique<Strided>(t);
    e.overwritten = field_of(problem, f).role == Role::inout;
    if (shares_memory(problem, f)) continue;
    const size_t payload = static_cast<size_t>(e.elements->span() * size_of(t.dtype));
    const uint64_t seed = problem.origin.seed() + static_cast<uint64_t>(f);
    e.memory = std::make_unique<GuardedMemory>(device, payload, offset_bytes(problem, f, t.dtype), seed);
    t.data = e.memory->data();
  }
  for (int f = 0; f < field_count(problem); ++f) {
    if (!problem.present(f) || !shares_memory(problem, f)) continue;
    const int target = problem.index_of(problem.layouts[static_cast<size_t>(f)].alias_of);
    entries_[static_cast<size_t>(target)].overwritten = true;
    args_.tensor(field_of(problem, f)).data = args_.tensor(field_of(problem, target)).data;
  }
}

int64_t Buffers::bytes_needed(const Problem& problem, const Device& device) {
  size_t total = 0;
  for (int f = 0; f < field_count(problem); ++f) {
    if (!problem.present(f) || shares_memory(problem, f)) continue;
    const Tensor& t = problem.args.tensor(field_of(problem, f));
    const size_t payload = static_cast<size_t>(Strided(t).span() * size_of(t.dtype));
    total += GuardedMemory::bytes_needed(device, payload, offset_bytes(problem, f, t.dtype));
  }
  return static_cast<int64_t>(total);
}

bool Buffers::written(int field) const {
  return problem_.present(field) && field_of(problem_, field).role != Role::input;
}
bool Buffers::aliased(int field) const { return shares_memory(problem_, field); }
DType Buffers::dtype(int field) const { return args_.tensor(field_of(problem_, field)).dtype; }

void Buffers::prepare(Poison poison_kind, const Problem& contents) {
  for (int f = 0; f < field_count(problem_); ++f) {
    Entry& e = entries_[static_cast<size_t>(f)];
    if (!e.memory) continue;
    e.memory->arm(poison_kind);
    const Role role = field_of(problem_, f).role;
    if (role != Role::input && role != Role::inout) {
      poison(f, poison_kind);
      continue;
    }
    const bool stored = e.contents == &contents && !e.overwritten && !problem_.sample.empty();
    if (!stored) store(f, poison_kind, contents);
  }
}

void Buffers::store(int field, Poison poison_kind, const Problem& contents) {
  Entry& e = entries_[static_cast<size_t>(field)];
  const DType type = dtype(field);
  const int64_t size = size_of(type);
  std::vector<unsigned char> dense, image;
  e.hash = 0;
  for (const Chunk& c : e.elements->chunks(kChunkElements)) {
    dense.resize(static_cast<size_t>(c.count * size));
    fill_storage(contents, field, c.first, c.count, dense.data());
    if (e.elements->has_gaps()) {
      image.resize(static_cast<size_t>(c.memory_count * size));
      fill_poison(poison_kind, type, c.memory_first, c.memory_count, image.data());
      e.elements->scatter(c, size, dense.data(), image.data());
    } else {
      image.swap(dense);
    }
    device_.upload(e.memory->data() + c.memory_first * size, image.data(), image.size());
    e.hash = hash_bytes(e.hash, image.data(), image.size());
  }
  e.contents = &contents;
  e.poison = poison_kind;
}

void Buffers::poison(int field, Poison poison_kind) {
  Entry& e = entries_[static_cast<size_t>(field)];
  const DType type = dtype(field);
  const int64_t size = size_of(type), span = e.elements->span();
  std::vector<unsigned char> image(static_cast<size_t>(std::min(span, kChunkElements) * size));
  fill_poison(poison_kind, type, 0, std::min(span, kChunkElements),
              image.data());  // even chunks: one image fits all
  for (int64_t first = 0; first < span; first += kChunkElements) {
    const int64_t count = std::min(kChunkElements, span - first);
    device_.upload(e.memory->data() + first * size, image.data(), static_cast<size_t>(count * size));
  }
  e.poison = poison_kind;
}

uint64_t Buffers::hash_memory(int field) const {
  const Entry& e = entries_[static_cast<size_t>(field)];
  const int64_t size = size_of(dtype(field));
  std::vector<unsigned char> image;
  uint64_t hash = 0;
  for (const Chunk& c : e.elements->chunks(kChunkElements)) {
    image.resize(static_cast<size_t>(c.memory_count * size));
    device_.download(image.data(), e.memory->data() + c.memory_first * size, image.size());
    hash = hash_bytes(hash, image.data(), image.size());
  }
  return hash;
}

std::string Buffers::changed_input() const {
  for (int f = 0; f < field_count(problem_); ++f) {
    const Entry& e = entries_[static_cast<size_t>(f)];
    if (!e.memory || e.overwritten || written(f)) continue;
    if (hash_memory(f) != e.hash) return field_of(problem_, f).name;
  }
  return {};
}

// Puts the elements found back into fresh poison: what then differs from the memory lies in a gap.
std::string Buffers::damaged_gap(int field) const {
  const Entry& e = entries_[static_cast<size_t>(field)];
  if (!e.elements->has_gaps()) return {};
  const DType type = dtype(field);
  const int64_t size = size_of(type);
  std::vector<unsigned char> memory, dense, image;
  for (const Chunk& c : e.elements->chunks(kChunkElements)) {
    memory.resize(static_cast<size_t>(c.memory_count * size));
    image.resize(memory.size());
    dense.resize(static_cast<size_t>(c.count * size));
    device_.download(memory.data(), e.memory->data() + c.memory_first * size, memory.size());
    fill_poison(e.poison, type, c.memory_first, c.memory_count, image.data());
    e.elements->gather(c, size, memory.data(), dense.data());
    e.elements->scatter(c, size, dense.data(), image.data());
    const auto [found, expected] = std::mismatch(memory.begin(), memory.end(), image.begin());
    if (found == memory.end()) continue;
    const int64_t at = c.memory_first + (found - memory.begin()) / size;
    return "gap between rows written, " + std::to_string(at) + " elements from the base";
  }
  return {};
}

std::string Buffers::damage() const {
  for (int f = 0; f < field_count(problem_); ++f) {
    const Entry& e = entries_[static_cast<size_t>(f)];
    if (!e.memory) continue;
    std::string where = e.memory->damage();
    if (where.empty() && (written(f) || e.overwritten)) where = damaged_gap(f);
    if (!where.empty()) return field_of(problem_, f).name + ": " + where;
  }
  return {};
}

std::string Buffers::stray_element(int field) const {
  const Entry& e = entries_[static_cast<size_t>(field)];
  const DType type = dtype(field);
  const int64_t size = size_of(type), span = e.elements->span();
  std::vector<unsigned char> image;
  for (int64_t first = 0; first < span; first += kChunkElements) {
    const int64_t count = std::min(kChunkElements, span - first);
    image.resize(static_cast<size_t>(count * size));
    device_.download(image.data(), e.memory->data() + first * size, image.size());
    const int64_t at = find_unpoisoned(e.poison, type, first, count, image.data());
    if (at >= 0) return field_of(problem_, field).name + " written at element " + std::to_string(first + at);
  }
  return {};
}

std::string Buffers::written_output() const {
  for (int f = 0; f < field_count(problem_); ++f) {
    const Role role = field_of(problem_, f).role;
    if (!entries_[static_cast<size_t>(f)].memory || (role != Role::output && role != Role::saved)) continue;
    if (std::string where = stray_element(f); !where.empty()) return where;
  }
  return {};
}

}  // namespace fla::harness

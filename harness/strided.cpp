#include "harness/strided.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace fla::harness {

Strided::Strided(const Tensor& t) {
  std::vector<Outer> dims;
  for (int i = 0; i < t.rank; ++i) {
    if (t.size[i] == 0) {
      run_ = 0;
      return;
    }
    if (t.size[i] > 1) dims.push_back({t.size[i], t.stride[i]});
  }
  const bool broadcast = std::all_of(dims.begin(), dims.end(), [](const Outer& d) { return d.stride == 0; });
  if (broadcast) dims.clear();
  for (size_t i = 1; i < dims.size(); ++i)
    if (dims[i - 1].stride < dims[i].stride * dims[i].size)
      throw std::logic_error("a layout whose memory order is not its logical order");
  if (!dims.empty()) {
    run_ = dims.back().size;
    step_ = dims.back().stride;
    dims.pop_back();
  }
  while (!dims.empty() && dims.back().stride == run_ * step_) {
    run_ *= dims.back().size;
    dims.pop_back();
  }
  span_ = (run_ - 1) * step_ + 1;
  for (const Outer& d : dims) {
    runs_ *= d.size;
    span_ += (d.size - 1) * d.stride;
  }
  outer_ = std::move(dims);
}

int64_t Strided::offset(int64_t element) const {
  int64_t at = element % run_ * step_;
  int64_t index = element / run_;
  for (auto d = outer_.rbegin(); d != outer_.rend(); ++d) {
    at += index % d->size * d->stride;
    index /= d->size;
  }
  return at;
}

std::vector<Chunk> Strided::chunks(int64_t limit) const {
  std::vector<Chunk> pieces;
  const int64_t total = count();
  const int64_t unit = has_gaps() ? std::max<int64_t>(1, limit / std::max<int64_t>(1, run_)) * run_ : limit;
  for (int64_t first = 0; first < total; first += unit) {
    Chunk c;
    c.first = first;
    c.count = std::min(unit, total - first);
    c.memory_first = offset(first);
    c.memory_count = (first + c.count < total ? offset(first + c.count) : span_) - c.memory_first;
    pieces.push_back(c);
  }
  return pieces;
}

namespace {

// Copies runs between a dense array and memory; `copy(dense_index, memory_index, n)` moves n elements.
template <class Copy>
void for_each_run(const Strided& s, const Chunk& c, int64_t run, Copy copy) {
  for (int64_t at = 0; at < c.count;) {
    const int64_t n = std::min(run - (c.first + at) % run, c.count - at);
    copy(at, s.offset(c.first + at) - c.memory_first, n);
    at += n;
  }
}

void copy_elements(unsigned char* to, int64_t to_step, const unsigned char* from, int64_t from_step,
                   int64_t n, int64_t bytes) {
  if (to_step == 1 && from_step == 1) {
    std::memcpy(to, from, static_cast<size_t>(n * bytes));
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(to + i * to_step * bytes, from + i * from_step * bytes, static_cast<size_t>(bytes));
}

}  // namespace

void Strided::scatter(const Chunk& c, int64_t bytes, const void* dense, void* memory) const {
  for_each_run(*this, c, run_, [&](int64_t from, int64_t to, int64_t n) {
    copy_elements(static_cast<unsigned char*>(memory) + to * bytes, step_,
                  static_cast<const unsigned char*>(dense) + from * bytes, 1, n, bytes);
  });
}

void Strided::gather(const Chunk& c, int64_t bytes, const void* memory, void* dense) const {
  for_each_run(*this, c, run_, [&](int64_t to, int64_t from, int64_t n) {
    copy_elements(static_cast<unsigned char*>(dense) + to * bytes, 1,
                  static_cast<const unsigned char*>(memory) + from * bytes, step_, n, bytes);
  });
}

}  // namespace fla::harness

// The values of inputs: kept on the host for what is judged, made on demand for the rest.
#include <algorithm>
#include <cstring>
#include <thread>

#include "harness/generate.h"
#include "harness/sample.h"

namespace fla::harness {
namespace {

constexpr int64_t kWorthThreads = 100000;

template <class Work>
void in_parallel(int64_t count, const Work& work) {
  const int64_t cores = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, 16);
  const int64_t threads = count < kWorthThreads ? 1 : cores;
  std::vector<std::thread> workers;
  for (int64_t w = 1; w < threads; ++w) workers.emplace_back(work, count * w / threads, count * (w + 1) / threads);
  work(0, count / threads);
  for (std::thread& w : workers) w.join();
}

// What an input holds outside the sample.
class Bulk {
 public:
  Bulk(const Problem& p, const Field& f, DType type, const Generator& make)
      : make_(make), type_(type), ignored_labels_(f.content.kind == Content::labels && p.quiet), label_(f.content.special) {
    whole_generator_ = f.content.kind != Content::real && f.content.kind != Content::labels;
    // An element is one of 256 stored values, so that 10^9 of them take about a second.
    const bool neutral = (is_upstream(p, f) && p.quiet) || is_saved(p, f);
    const double constant = is_saved(p, f) ? 1.0 : 0.0;
    for (int k = 0; k < 256 && is_float(type); ++k)
      encode_real(type, neutral ? constant : (k - 127.5) / 75, table_, k);
    if (neutral) whole_generator_ = false;
  }

  void fill(int64_t first, int64_t count, void* bytes, int64_t at) const {
    if (!is_float(type_)) {
      for (int64_t i = 0; i < count; ++i)
        encode_integer(type_, ignored_labels_ ? label_ : make_.integer(first + i), bytes, at + i);
    } else if (whole_generator_) {
      for (int64_t i = 0; i < count; ++i) encode_real(type_, make_.real(first + i), bytes, at + i);
    } else if (size_of(type_) == 1) {
      look_up(table_, first, count, static_cast<unsigned char*>(bytes) + at);
    } else if (size_of(type_) == 2) {
      look_up(reinterpret_cast<const uint16_t*>(table_), first, count, static_cast<uint16_t*>(bytes) + at);
    } else if (size_of(type_) == 4) {
      look_up(reinterpret_cast<const uint32_t*>(table_), first, count, static_cast<uint32_t*>(bytes) + at);
    } else {
      look_up(reinterpret_cast<const uint64_t*>(table_), first, count, static_cast<uint64_t*>(bytes) + at);
    }
  }

 private:
  template <class T>
  void look_up(const T* table, int64_t first, int64_t count, T* out) const {
    uint64_t eight = make_.bits(first / 8);
    for (int64_t i = 0; i < count; ++i) {
      if ((first + i) % 8 == 0) eight = make_.bits((first + i) / 8);
      out[i] = table[(eight >> ((first + i) % 8 * 8)) & 255];
    }
  }

  const Generator& make_;
  DType type_;
  bool ignored_labels_;
  int64_t label_;
  bool whole_generator_ = false;
  alignas(8) unsigned char table_[256 * 8] = {};
};

// Stores elements [first, last) of a sampled tensor, run by run along the sample's axis.
void store_runs(const SampleMap& map, const std::vector<int64_t>& position, DType type, const HostTensor& host,
                const Bulk& bulk, int64_t first, int64_t last, int64_t origin, void* bytes) {
  for (int64_t i = first; i < last;) {
    const int64_t within = i % map.inner, row = i / map.inner;
    const int64_t run = std::min(map.inner - within, last - i);
    const int64_t kept = position[static_cast<size_t>(row % map.whole)];
    if (kept < 0) {
      bulk.fill(i, run, bytes, i - origin);
    } else {
      const int64_t from = (row / map.whole * map.kept + kept) * map.inner + within;
      for (int64_t k = 0; k < run; ++k) {
        const auto at = static_cast<size_t>(from + k);
        if (is_float(type)) encode_real(type, host.real[at], bytes, i - origin + k);
        else encode_integer(type, host.integer[at], bytes, i - origin + k);
      }
    }
    i += run;
  }
}

}  // namespace

void generate_values(Problem& p, size_t field) {
  const Field& f = p.signature.fields[field];
  const Tensor& t = p.args.tensor(f);
  HostTensor& host = p.values[field];
  host.size.assign(t.size, t.size + t.rank);
  if (f.content.kind == Content::offsets) {
    host.integer = sequence_offsets(p, t.size[0] - 1, extent_of(p, f.content.bound), p.origin.seed());
    return;
  }
  const int axis = p.sample.empty() ? -1 : sample_axis_of(p, f);
  const auto kept = static_cast<int64_t>(p.sample.size());
  if (axis >= 0) host.size[static_cast<size_t>(axis)] = kept;
  int64_t n = 1;
  for (const int64_t extent : host.size) n *= extent;
  const Generator make(p, static_cast<int>(field));
  const bool one_element = is_broadcast(p, f);
  const auto index_in_whole = [&](int64_t i) {
    if (one_element) return int64_t{0};
    return axis < 0 ? i : SampleMap(t, axis, kept).to_whole(i, p.sample);
  };
  if (is_float(t.dtype)) host.real.resize(static_cast<size_t>(n));
  else host.integer.resize(static_cast<size_t>(n));
  in_parallel(n, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const auto at = static_cast<size_t>(i);
      if (is_float(t.dtype)) host.real[at] = round_to(t.dtype, make.real(index_in_whole(i)));
      else host.integer[at] = make.integer(index_in_whole(i));
    }
  });
}

void fill_storage(const Problem& p, int field, int64_t first, int64_t count, void* bytes) {
  const auto index = static_cast<size_t>(field);
  const Field& f = p.signature.fields[index];
  const Tensor& t = p.args.tensor(f);
  const HostTensor& host = p.values[index];
  const int axis = p.sample.empty() ? -1 : sample_axis_of(p, f);
  const bool kept = !host.size.empty() || t.rank == 0;
  if (kept && axis < 0) {
    in_parallel(count, [&](int64_t from, int64_t to) {
      encode(t.dtype, host, first + from, to - from, static_cast<char*>(bytes) + from * size_of(t.dtype));
    });
    return;
  }
  const Generator make(p, field);
  const Bulk bulk(p, f, t.dtype, make);
  if (!kept) {
    in_parallel(count, [&](int64_t from, int64_t to) { bulk.fill(first + from, to - from, bytes, from); });
    return;
  }
  const SampleMap map(t, axis, static_cast<int64_t>(p.sample.size()));
  std::vector<int64_t> position(static_cast<size_t>(map.whole), -1);
  for (size_t s = 0; s < p.sample.size(); ++s) position[static_cast<size_t>(p.sample[s])] = static_cast<int64_t>(s);
  in_parallel(count, [&](int64_t from, int64_t to) {
    store_runs(map, position, t.dtype, host, bulk, first + from, first + to, first, bytes);
  });
}

}  // namespace fla::harness

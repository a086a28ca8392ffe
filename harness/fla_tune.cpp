// fla-tune: times the algorithms that cuBLASLt offers for the matrix products of some cases, and writes the table that the
// library is then built with (kernels/common/gemm_table.inc). Run it on the GPU that the table is for.
//
//   fla-tune --tier bench --out kernels/common/gemm_table.inc && cmake --build build
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <random>

#include "harness/check_backends.h"
#include "harness/command_line.h"
#include "harness/device.h"
#include "harness/device_lock.h"
#include "harness/problem.h"
#include "harness/selection.h"
#include "harness/timer.h"
#include "kernels/common/gemm_tuning.h"
#include "reports/atomic_file.h"

namespace fla::harness {
namespace {

using namespace fla::detail;

constexpr int kMostCandidates = 32;
constexpr double kWorthwhile = 0.99;  // of the library's first guess: nearer is noise, and the guess needs no row

// Memory of one case on the device, filled with random numbers: operands of zeros run 11-13 % faster than real ones.
class Operands {
 public:
  Operands(Device& device, const Case& c) : device_(device), problem_(make_problem(c, false)) {
    for (const Field& f : problem_.signature.fields) {
      Tensor& t = problem_.args.tensor(f);
      if (!t) continue;
      const int64_t span = problem_.layouts[static_cast<size_t>(problem_.index_of(f.name))].span;
      t.data = filled(t.dtype, static_cast<size_t>(span * size_of(t.dtype)));
    }
    const size_t bytes = c.direction->workspace_bytes(problem_.args.get());
    if (bytes > 0) workspace_ = {filled(DType::bf16, bytes), bytes};
  }
  ~Operands() {
    for (void* p : held_) device_.release(p);
  }
  Operands(const Operands&) = delete;

  // The products that one call makes.
  std::vector<GemmRecorder::Call> products() {
    GemmRecorder recorder;
    const Status s = problem_.origin.direction->run(problem_.args.get(), workspace_, device_.stream(0));
    if (!s.ok()) throw std::runtime_error(s.text);
    device_.synchronize();
    return std::move(recorder.calls);
  }

 private:
  void* filled(DType type, size_t bytes) {
    void* memory = device_.allocate(std::max<size_t>(bytes, 256));
    held_.push_back(memory);
    const std::vector<char>& block = block_of(type);
    for (size_t at = 0; at < bytes; at += block.size())
      device_.upload(static_cast<char*>(memory) + at, block.data(), std::min(block.size(), bytes - at));
    return memory;
  }

  // Integers are zeros: labels and offsets that are always legal.
  const std::vector<char>& block_of(DType type) {
    constexpr int64_t kElements = int64_t{1} << 22;
    std::vector<char>& block = blocks_[type];
    if (!block.empty()) return block;
    block.resize(static_cast<size_t>(kElements * size_of(type)));
    if (!is_float(type)) return block;
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    for (int64_t i = 0; i < kElements; ++i) encode_real(type, normal(random), block.data(), i);
    return block;
  }

  Device& device_;
  Problem problem_;
  Workspace workspace_;
  std::vector<void*> held_;
  static inline std::map<DType, std::vector<char>> blocks_;
};

std::string text_of(const Gemm& g) {
  char text[160];
  std::snprintf(text, sizeof text, "%lld x %lld x %lld %s%s %s %s%s%s", static_cast<long long>(g.m()),
                static_cast<long long>(g.n()), static_cast<long long>(g.k()), g.transpose_a ? "t" : "n",
                g.transpose_b ? "t" : "n", name_of(g.a.dtype), name_of(g.c.dtype), g.accumulate ? " +=" : "",
                g.bias ? " bias" : "");
  return text;
}

std::string row_text(const GemmTableRow& row, const std::string& comment) {
  const GemmBucket& b = row.bucket;
  const GemmAlgorithm& a = row.algorithm;
  const auto truth = [](bool value) { return value ? "true" : "false"; };
  char text[400];
  std::snprintf(text, sizeof text,
                "{{%d, DType::%s, DType::%s, %s, %s, %s, %s, %d, %d, %d}, {%d, %u, %u, %d, %u, %u, %u, %u, %u}},%s%s\n",
                b.sm, name_of(b.operands), name_of(b.result), truth(b.transpose_a), truth(b.transpose_b),
                truth(b.accumulate), truth(b.bias), b.m, b.n, b.k, a.id, a.tile, a.stages, a.split_k, a.reduction,
                a.swizzle, a.custom, unsigned{a.inner_shape}, unsigned{a.cluster_shape}, comment.empty() ? "" : "  // ",
                comment.c_str());
  return text;
}

class Tuning {
 public:
  Tuning(Device& device, Timer& timer) : device_(device), timer_(timer) {}

  void add_case(const Case& c) {
    Operands operands(device_, c);
    for (const auto& call : operands.products()) {
      const GemmBucket bucket = bucket_of(call.gemm, current_sm());
      if (std::find(seen_.begin(), seen_.end(), bucket) != seen_.end()) continue;
      seen_.push_back(bucket);
      tune(call.gemm, call.workspace, bucket);
    }
  }

  // With the rows of the table at hand whose buckets were not measured now.
  std::string table() const {
    std::string text = "// Written by fla-tune; rows of GemmTableRow, with the product that was measured and its gain.\n";
    int known = 0;
    const GemmTableRow* rows = gemm_table(known);
    for (int i = 0; i < known; ++i)
      if (std::find(seen_.begin(), seen_.end(), rows[i].bucket) == seen_.end()) text += row_text(rows[i], "");
    return text + fresh_;
  }

 private:
  void tune(const Gemm& g, Workspace available, const GemmBucket& bucket) {
    const Workspace workspace{available.data, gemm_workspace_bytes(g.m(), g.n())};
    GemmAlgorithm candidates[kMostCandidates];
    Status status;
    const int found = gemm_candidates(g, candidates, kMostCandidates, status);
    if (found == 0) {
      std::printf("%-60s no candidates: %s\n", text_of(g).c_str(), status.text);
      return;
    }
    std::vector<std::unique_ptr<Replay>> replays;
    std::vector<Replay*> subjects;
    std::vector<int> index;
    for (int i = 0; i < found; ++i) {
      bool works = true;
      replays.push_back(timer_.capture(1, [&](Stream stream, int) {
        works = works && multiply_with(g, candidates[i], workspace, stream).ok();
      }));
      if (!works) continue;
      subjects.push_back(replays.back().get());
      index.push_back(i);
    }
    SamplingOptions sampling;
    sampling.noise = 0.003;
    sampling.time_limit_s = 0.05;
    sampling.least_samples = 3;
    sampling.most_samples = 40;
    const std::vector<Timing> timings = sample_in_turns(timer_, subjects, sampling);
    size_t best = 0;
    for (size_t i = 1; i < timings.size(); ++i)
      if (timings[i].median_us < timings[best].median_us) best = i;
    if (timings.empty()) return;
    const double flops = 2.0 * static_cast<double>(g.m()) * static_cast<double>(g.n()) * static_cast<double>(g.k());
    const double first_us = timings[0].median_us, best_us = timings[best].median_us;
    std::printf("%-60s first %9.1f us  best %9.1f us (candidate %d of %d)  %6.1f TFLOP/s  %+.1f %%\n", text_of(g).c_str(),
                first_us, best_us, index[best], found, flops / best_us / 1e6, 100 * (first_us / best_us - 1));
    std::fflush(stdout);
    if (best_us > kWorthwhile * first_us) return;
    char gain[32];
    std::snprintf(gain, sizeof gain, ", %.1f %%", 100 * (first_us / best_us - 1));
    fresh_ += row_text({bucket, candidates[index[best]]}, text_of(g) + gain);
  }

  Device& device_;
  Timer& timer_;
  std::vector<GemmBucket> seen_;
  std::string fresh_;
};

int tune(const Selection& selection, int index, const std::string& out) {
  std::string why;
  const std::unique_ptr<Timer> timer = open_timer();
  std::optional<DeviceLock> lock;
  if (timer) lock.emplace(lock_device("fla-tune", index, DeviceUse::alone));
  const std::unique_ptr<Device> device = timer ? open_device(index, why) : nullptr;
  if (!device) throw NoDevice("no GPU " + why);
  Tuning tuning(*device, *timer);
  for (const Case& c : select_cases(selection).cases) {
    try {
      tuning.add_case(c);
    } catch (const OutOfMemory&) {
      std::fprintf(stderr, "fla-tune: %s does not fit the device\n", c.text().c_str());
    }
  }
  if (!out.empty()) reports::write_file(out, tuning.table());
  return kPassed;
}

int tune_main(int argc, char** argv) {
  CLI::App app("Times cuBLASLt's algorithms for the products of some cases and writes the library's table.", "fla-tune");
  Selection selection;
  selection.tier = "bench";
  std::string out;
  int index = 0;
  add_selection_options(app, selection);
  app.add_option("--out", out, "The table; without it only the measurements are printed");
  app.add_option("--device", index, "Index of the GPU")->check(CLI::NonNegativeNumber);
  return run_command_line(app, argc, argv, [&] { return tune(selection, index, out); });
}

}  // namespace
}  // namespace fla::harness

int main(int argc, char** argv) { return fla::harness::tune_main(argc, argv); }

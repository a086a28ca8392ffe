#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <set>
#include <thread>

#include "emulator/access_watch.h"
#include "emulator/tests/emulated.h"
#include "emulator/tests/planted_kernels.cuh"

namespace fla::detail::emulator_tests {
namespace {

using namespace planted;
using emulator::AccessWatch;
using emulator::fault_at;
using emulator::forget_launches;
using emulator::inject_faults;
using emulator::launch_count;
using emulator::recorded_launches;

// Blocks note the order they run in.
FLA_KERNEL void note_order(int64_t* next, int64_t* order) {
  if (threadIdx.x != 0) return;
  order[*next] = static_cast<int64_t>(blockIdx.x) + static_cast<int64_t>(gridDim.x) * blockIdx.y;
  atomic_add(next, 1);
}

std::vector<int64_t> order_of(BlockOrder block_order, int64_t grid, int grid_y) {
  Settings settings;
  settings.block_order = block_order;
  const UseSettings use(settings);
  std::vector<int64_t> order(static_cast<size_t>(grid * grid_y));
  int64_t next = 0;
  EXPECT_TRUE(launch<&note_order>({.grid = grid, .grid_y = grid_y, .block = 2}, &next, order.data()).ok());
  EXPECT_EQ(next, grid * grid_y);
  return order;
}

TEST(Launch, EveryOrderRunsEveryBlockOnce) {
  EXPECT_EQ(order_of(BlockOrder::forward, 3, 2), (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(order_of(BlockOrder::reverse, 3, 2), (std::vector<int64_t>{5, 4, 3, 2, 1, 0}));
  for (int64_t grid = 1; grid <= 12; ++grid) {
    const std::vector<int64_t> order = order_of(BlockOrder::random, grid, 1);
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), static_cast<size_t>(grid));
  }
  EXPECT_NE(order_of(BlockOrder::random, 100, 1), order_of(BlockOrder::forward, 100, 1));
}

FLA_KERNEL void least(int64_t* values) {
  atomic_add(values, 2);
  atomic_min(values + 1, 100 - static_cast<int64_t>(threadIdx.x));
}

TEST(Launch, LargestBlockAndIntegerAtomics) {
  int64_t values[2] = {0, 1 << 20};
  EXPECT_TRUE(launch<&least>({.grid = 3, .block = 512, .block_y = 2}, static_cast<int64_t*>(values)).ok());
  EXPECT_EQ(values[0], 2 * 3 * 1024);
  EXPECT_EQ(values[1], 100 - 511);
}

FLA_KERNEL void gather(float* y) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double wide = 0.5 + lane;
  wide = shuffle(wide, 31 - lane);
  const int narrow = shuffle(static_cast<int16_t>(-lane), lane ^ 1);
  y[threadIdx.x] = static_cast<float>(wide) * 1000.0f + static_cast<float>(narrow);
}

TEST(Launch, ShufflesOfAnyWidth) {
  for (Schedule schedule : kAllSchedules) {
    const UseSettings use(with_schedule(schedule));
    std::vector<float> y(96);
    ASSERT_TRUE(launch<&gather>({.block = 96}, y.data()).ok());
    for (size_t i = 0; i < y.size(); ++i) {
      const int lane = static_cast<int>(i) % 32;
      EXPECT_EQ(y[i], (0.5f + static_cast<float>(31 - lane)) * 1000.0f - static_cast<float>(lane ^ 1));
    }
  }
}

std::string limit_fault(const emulator::Shape& shape) {
  return fault_of([&] { return emulator::launch<&least>(shape, [] {}); }).what();
}

TEST(Launch, LimitsOfTheDevice) {
  EXPECT_TRUE(contains(limit_fault({.grid = int64_t{1} << 31}), "grid 2147483648 is outside"));
  EXPECT_TRUE(contains(limit_fault({.grid = 0}), "grid 0"));
  EXPECT_TRUE(contains(limit_fault({.grid_y = 65536}), "grid.y 65536"));
  EXPECT_TRUE(contains(limit_fault({.block = 1025}), "block 1025"));
  EXPECT_TRUE(contains(limit_fault({.block = 0}), "block 0"));
  EXPECT_TRUE(contains(limit_fault({.block = 512, .block_y = 3}), "threads per block 1536"));
  EXPECT_TRUE(contains(limit_fault({.shared_bytes = 232449}), "shared memory 232449"));
  EXPECT_TRUE(contains(limit_fault({.block = 1025}), "kernel least"));
  EXPECT_TRUE(emulator::launch<&least>({.block = 1024, .shared_bytes = 232448}, [] {}).ok());
  // What depends on data is refused by a status, here as on the GPU.
  int64_t values[2] = {};
  EXPECT_EQ(launch<&least>({.grid = int64_t{1} << 31}, &values[0]).code, StatusCode::unsupported_shape);
  EXPECT_EQ(launch<&least>({.shared_bytes = 232449}, &values[0]).code, StatusCode::unsupported_shape);
}

TEST(Launch, CountedAndRecorded) {
  forget_launches();
  const int64_t before = launch_count();
  Settings settings;
  settings.record_launches = true;
  float y[64];
  {
    const UseSettings use(settings);
    EXPECT_TRUE(launch<&meet_in_branches<false>>({.block = 64}, &y[0]).ok());
  }
  EXPECT_TRUE(launch<&meet_half<false>>({.block = 64}, &y[0]).ok());
  EXPECT_EQ(launch_count(), before + 2);
  ASSERT_EQ(recorded_launches().size(), 1u);
  EXPECT_EQ(recorded_launches()[0].kernel.rfind("meet_in_branches", 0), 0u) << recorded_launches()[0].kernel;
  EXPECT_EQ(recorded_launches()[0].block, 64);
  forget_launches();
  EXPECT_TRUE(recorded_launches().empty());
}

struct Refusal {};
FLA_KERNEL void refuse() {
  block_barrier();
  if (threadIdx.x == 3) throw Refusal();
  block_barrier();
}
FLA_KERNEL void nest() { (void)launch<&refuse>({.block = 1}); }

TEST(Launch, ExceptionsOfAKernelArriveAtTheLauncher) {
  EXPECT_THROW((void)launch<&refuse>({.block = 64}), Refusal);
  EXPECT_TRUE(contains(fault_of([] { return launch<&nest>({.block = 1}); }).problem(), "launches a kernel"));
  EXPECT_THROW(block_barrier(), KernelFault);
  EXPECT_THROW((void)launch<&refuse>({.block = 64}), Refusal);
}

TEST(Launch, HostThreadsRunKernelsAtOnce) {
  auto work = [](float first, float* y) {
    const std::vector<float> x(256, first);
    for (int i = 0; i < 20; ++i)
      (void)launch<&sum_rows<false>>({.block = 128, .shared_bytes = 16}, x.data(), y, 256);
  };
  float y[3];
  std::thread threads[] = {std::thread(work, 1.0f, &y[0]), std::thread(work, 2.0f, &y[1]),
                           std::thread(work, 3.0f, &y[2])};
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(y[0], 256.0f);
  EXPECT_EQ(y[1], 512.0f);
  EXPECT_EQ(y[2], 768.0f);
}

// Addresses of the full size, of which only the pages that are touched exist.
class SparseMemory {
 public:
  explicit SparseMemory(size_t bytes) : bytes_(bytes) {
    void* p =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    data_ = p == MAP_FAILED ? nullptr : static_cast<float*>(p);
  }
  ~SparseMemory() {
    if (data_) munmap(data_, bytes_);
  }
  float* data() const { return data_; }

 private:
  size_t bytes_;
  float* data_;
};

template <bool kPlanted>
bool marks_the_right_rows(float* y, const std::vector<int64_t>& blocks, int64_t rows, int columns) {
  Settings settings;
  settings.select_blocks = [&](const LaunchRecord& launch) {
    EXPECT_EQ(launch.grid, rows);
    return blocks;
  };
  const UseSettings use(settings);
  EXPECT_TRUE(launch<&mark_rows<kPlanted>>({.grid = rows, .block = 1}, y, columns).ok());
  for (int64_t block : blocks)
    if (y[block * columns] != 1.0f) return false;
  return true;
}

TEST(Launch, NarrowOffsetOnSparseMemory) {
  constexpr int64_t kRows = 1400001;
  constexpr int kColumns = 4096;
  const SparseMemory right(kRows * kColumns * sizeof(float)), wrong(kRows * kColumns * sizeof(float));
  if (!right.data() || !wrong.data()) GTEST_SKIP() << "this machine does not map 23 GB without reservation";
  const std::vector<int64_t> blocks = {0, 1, (int64_t{1} << 31) / kColumns, (int64_t{1} << 32) / kColumns,
                                       kRows - 1};
  EXPECT_TRUE(marks_the_right_rows<false>(right.data(), blocks, kRows, kColumns));
  EXPECT_FALSE(marks_the_right_rows<true>(wrong.data(), blocks, kRows, kColumns));
}

TEST(Launch, SelectedBlocksMustExist) {
  Settings settings;
  settings.select_blocks = [](const LaunchRecord&) { return std::vector<int64_t>{3}; };
  const UseSettings use(settings);
  float y[96];
  EXPECT_THROW((void)launch<&meet_half<false>>({.grid = 3, .block = 32}, &y[0]), std::out_of_range);
}

class InjectedFaults : public testing::Test {
 protected:
  void TearDown() override { inject_faults(""); }
};

TEST_F(InjectedFaults, HappenWhenPlanned) {
  float y[64];
  auto run = [&] { return launch<&meet_half<false>>({.block = 64}, &y[0]); };
  inject_faults("launch:2=illegal,alloc:3=oom,sync=lost");
  EXPECT_TRUE(run().ok());
  EXPECT_TRUE(contains(fault_of(run).problem(), "illegal"));
  EXPECT_TRUE(contains(fault_of(run).problem(), "illegal")) << "an illegal access loses the device for good";
  EXPECT_EQ(fault_at("alloc"), "");
  EXPECT_EQ(fault_at("alloc"), "");
  EXPECT_EQ(fault_at("alloc"), "oom");
  EXPECT_EQ(fault_at("alloc"), "");
  EXPECT_EQ(fault_at("sync"), "lost");
  EXPECT_EQ(fault_at("sync"), "lost");
  inject_faults("");
  EXPECT_TRUE(run().ok());
  for (const char* bad : {"launch", "launch=", "=x", "launch:0=x", "launch:2x=y", ":2=x"})
    EXPECT_THROW(inject_faults(bad), std::invalid_argument) << bad;
}

TEST(AccessWatch, CountsEveryByte) {
  std::vector<float> x(64), y(64);
  const AccessWatch read(x.data(), 256), written(y.data(), 256);
  EXPECT_TRUE(launch<&scale<false>>({.grid = 2, .block = 32}, x.data(), y.data(), int64_t{60}).ok());
  EXPECT_EQ(read.loads(0), 1);
  EXPECT_EQ(read.loads(239), 1);
  EXPECT_EQ(read.loads(240), 0);
  EXPECT_EQ(read.first_not_stored(0), -1);
  EXPECT_EQ(written.first_not_stored(1), 240);
  EXPECT_EQ(written.first_loaded(), -1);
  EXPECT_TRUE(launch<&scale<false>>({.grid = 2, .block = 32}, x.data(), y.data() + 32, int64_t{32}).ok());
  EXPECT_EQ(written.first_not_stored(1), 128) << "two writers";
}

}  // namespace
}  // namespace fla::detail::emulator_tests

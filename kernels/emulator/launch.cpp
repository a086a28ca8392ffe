#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <string_view>

#include "emulator/launches.h"
#include "emulator/machine.h"

namespace fla::detail::emulator {
namespace {

// The kernel's name from the compiler's text for the instance of launch<kKernel, Body> that runs it:
// "... [with auto kKernel = fla::detail::{anonymous}::name<float, 4>; Body = ...]" (GCC) or
// "... [kKernel = &fla::detail::name, Body = ...]" (clang).
std::string kernel_name(std::string_view launcher) {
  constexpr std::string_view kMark = "kKernel = ";
  const size_t mark = launcher.find(kMark);
  if (mark == std::string_view::npos) return "unknown";
  launcher.remove_prefix(mark + kMark.size());
  if (launcher.starts_with('&')) launcher.remove_prefix(1);
  size_t end = 0, name = 0;
  int depth = 0;
  for (; end < launcher.size(); ++end) {
    const char c = launcher[end];
    if (depth == 0 && (c == ',' || c == ';' || c == ']')) break;
    if (depth == 0 && c == ':') name = end + 1;
    if (c == '<' || c == '(') ++depth;
    if (c == '>' || c == ')') --depth;
  }
  return std::string(launcher.substr(name, end - name));
}

void check_limit(const LaunchRecord& launch, const char* what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  KernelFault::Place place;
  place.kernel = launch.kernel;
  throw KernelFault(std::string("launch: ") + what + " " + std::to_string(value) + " is outside " +
                        std::to_string(low) + " to " + std::to_string(high),
                    place);
}

void check_limits(const LaunchRecord& launch) {
  check_limit(launch, "grid", launch.grid, 1, 0x7fffffff);
  check_limit(launch, "grid.y", launch.grid_y, 1, 65535);
  check_limit(launch, "block", launch.block, 1, kMostThreads);
  check_limit(launch, "block.y", launch.block_y, 1, kMostThreads);
  check_limit(launch, "cluster", launch.cluster, 1, 8);
  check_limit(launch, "blocks beyond whole clusters", launch.grid % launch.cluster, 0, 0);
  check_limit(launch, "threads per block", int64_t{launch.block} * launch.block_y, 1, kMostThreads);
  constexpr size_t kMost = std::numeric_limits<int64_t>::max();
  check_limit(launch, "shared memory", static_cast<int64_t>(std::min(launch.shared_bytes, kMost)), 0,
              static_cast<int64_t>(kSharedMemoryLimit));
}

// i -> (i * step + first) mod count visits every block once, without a list of them.
struct Order {
  int64_t count, step = 1, first = 0;

  Order(int64_t count, const Settings& settings) : count(count) {
    if (count == 0) return;
    if (settings.block_order == BlockOrder::reverse) step = first = count - 1;
    if (settings.block_order != BlockOrder::random) return;
    std::mt19937_64 random(settings.seed);
    first = static_cast<int64_t>(random() % static_cast<uint64_t>(count));
    do step = static_cast<int64_t>(random() % static_cast<uint64_t>(count)) | 1;
    while (std::gcd(step, count) != 1);
  }
  int64_t operator()(int64_t i) const {
    return static_cast<int64_t>((static_cast<__int128>(i) * step + first) % count);
  }
};

// Blocks, or clusters of them, in the order that the settings ask for; those chosen, where some are.
template <class Run>
void run_units(const LaunchRecord& launch, const Settings& settings, Run run) {
  const int64_t all = launch.grid * launch.grid_y;
  if (!settings.select_blocks) {
    const Order order(all / launch.cluster, settings);
    for (int64_t i = 0; i < all / launch.cluster; ++i) run(order(i));
    return;
  }
  std::vector<int64_t> chosen = settings.select_blocks(launch);
  for (int64_t& block : chosen) {
    if (block < 0 || block >= all) throw std::out_of_range("select_blocks: no block " + std::to_string(block));
    block /= launch.cluster;
  }
  if (launch.cluster > 1) {
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  }
  const Order order(static_cast<int64_t>(chosen.size()), settings);
  for (size_t i = 0; i < chosen.size(); ++i) run(chosen[static_cast<size_t>(order(static_cast<int64_t>(i)))]);
}


}  // namespace

void run_launch(const Shape& shape, const char* launcher, ThreadBody body) {
  if (running_machine) running_machine->fail("a kernel launches a kernel", {});
  const LaunchRecord launch{kernel_name(launcher), shape.grid,    shape.grid_y,
                            shape.block,           shape.block_y, shape.shared_bytes, shape.cluster};
  const Settings settings = note_launch(launch);
  if (const std::string action = fault_at("launch"); !action.empty()) {
    KernelFault::Place place;
    place.kernel = launch.kernel;
    throw KernelFault("injected: " + action, place);
  }
  check_limits(launch);
  // One for every block that runs at the same time.
  thread_local std::vector<std::unique_ptr<Machine>> machines;
  const auto count = static_cast<size_t>(launch.cluster);
  while (machines.size() < count) machines.push_back(std::make_unique<Machine>());
  for (size_t i = 0; i < count; ++i) machines[i]->begin_launch(launch, body, settings);
  if (count == 1) {
    run_units(launch, settings, [&](int64_t block) { machines[0]->run_block(block); });
    return;
  }
  std::vector<std::unique_ptr<Machine>> cluster;
  for (size_t i = 0; i < count; ++i) cluster.push_back(std::move(machines[i]));
  machines.clear();
  run_units(launch, settings, [&](int64_t unit) { Machine::run_cluster(cluster, unit * launch.cluster); });
  machines = std::move(cluster);
}

}  // namespace fla::detail::emulator

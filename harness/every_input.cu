#include <cuda_runtime.h>

#include "harness/every_input_elements.h"

namespace fla::harness {
namespace {

constexpr int kThreads = 256;

template <class A>
__global__ void fill(A a, uint64_t first, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) elements::fill(a, i, first + static_cast<uint64_t>(i));
}

template <class A>
__global__ void judge(A a, int64_t from, int64_t to, EveryInputTally* tally) {
  const int64_t i = from + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= to) return;
  elements::judge(a, i, [&](double got, const reference::Bound& expected) {
    atomicAdd(&tally->outside, 1ull);
    if (atomicMin(&tally->first, static_cast<unsigned long long>(i)) <= static_cast<unsigned long long>(i)) return;
    tally->got = got;
    tally->expected = expected.v;
    tally->bound = expected.e;
  });
}

unsigned blocks_for(int64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

template <class A>
constexpr EveryInput on_gpu() {
  return {[](const void* args, uint64_t first, Stream stream) {
            const A& a = *static_cast<const A*>(args);
            const int64_t n = count(a.x);
            fill<<<blocks_for(n), kThreads, 0, stream>>>(a, first, n);
          },
          [](const void* args, int64_t from, int64_t to, EveryInputTally* tally, Stream stream) {
            judge<<<blocks_for(to - from), kThreads, 0, stream>>>(*static_cast<const A*>(args), from, to, tally);
          }};
}

}  // namespace

const EveryInput kEveryActivationForward = on_gpu<ActivationForward>();
const EveryInput kEveryActivationBackward = on_gpu<ActivationBackward>();
const EveryInput kEveryGluForward = on_gpu<GluForward>();
const EveryInput kEveryGluBackward = on_gpu<GluBackward>();

}  // namespace fla::harness

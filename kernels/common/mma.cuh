// Tensor-core products of one warp on 16-bit operands (sm_80), each with a portable body of the same contract.
//
// Fragments of a 16 x 8 x 16 product, lane = 4 g + t, pairs of neighbouring elements in one word, the lower in its low half:
//   a[0] A(g, 2t) a[1] A(g + 8, 2t) a[2] A(g, 2t + 8) a[3] A(g + 8, 2t + 8)
//   b[0] B(2t, g) and B(2t + 1, g), b[1] those of 2t + 8
//   c[0..1] C(g, 2t), C(g, 2t + 1), c[2..3] those of g + 8
#pragma once

#include "common/vector.cuh"
#include "common/warp.cuh"

namespace fla::detail {

#if !defined(FLA_GPU)
namespace emulator {
// What the lanes of a warp show each other: two rendezvous for all of it, not one for every word.
struct WarpBoard {
  uint64_t words[kWarp][3];
};
inline thread_local WarpBoard warp_boards[32];
inline WarpBoard& show(uint64_t first, uint64_t second = 0, uint64_t third = 0) {
  WarpBoard& board = warp_boards[threadIdx.x / kWarp];
  uint64_t(&own)[3] = board.words[current_lane()];
  own[0] = first;
  own[1] = second;
  own[2] = third;
  warp_barrier();
  return board;
}
}  // namespace emulator
#endif

// c += A B, fp32 sums. By all lanes of a warp.
template <class T>
FLA_DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(FLA_GPU)
  if constexpr (kDTypeOf<T> == DType::bf16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const int lane = emulator::current_lane(), g = lane / 4, t = lane % 4;
  const auto both = [](uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; };
  const emulator::WarpBoard& board = emulator::show(both(a[0], a[2]), both(a[1], a[3]), both(b0, b1));
  for (int u = 0; u < 4; ++u) {
    float x[2][4], y[2][4];
    const auto read = [](uint64_t words, float (&v)[4]) {
      unpack_pair<T>(static_cast<uint32_t>(words), v[0], v[1]);
      unpack_pair<T>(static_cast<uint32_t>(words >> 32), v[2], v[3]);
    };
    for (int i = 0; i < 2; ++i) {
      read(board.words[4 * g + u][i], x[i]);
      read(board.words[8 * t + 4 * i + u][2], y[i]);
    }
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 4; ++k) c[i] += x[i / 2][k] * y[i % 2][k];
  }
  warp_barrier();
#endif
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 i + r brings the address of row r of matrix i (16 bytes,
// aligned), and lane 4 g + t gets elements (g, 2t) and (g, 2t + 1) of matrix i in words[i]; transposed (2t, g) and (2t + 1, g).
template <bool kTransposed>
FLA_DEVICE void load_matrices(const void* row, uint32_t (&words)[4]) {
#if defined(FLA_GPU)
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(from)
                 : "memory");
#else
  emulator::check_aligned(row, 16);
  const int lane = emulator::current_lane(), g = lane / 4, t = lane % 4;
  const emulator::WarpBoard& board = emulator::show(reinterpret_cast<uintptr_t>(row));
  for (int i = 0; i < 4; ++i) {
    words[i] = 0;
    for (int k = 0; k < 2; ++k) {
      const int from = kTransposed ? 2 * t + k : g, column = kTransposed ? g : 2 * t + k;
      words[i] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(board.words[8 * i + from][0])[column]) << 16 * k;
    }
  }
  warp_barrier();
#endif
}

// The way back: lane 4 g + t leaves words[i] at elements (g, 2t) and (g, 2t + 1) of matrix i.
FLA_DEVICE void store_matrices(void* row, const uint32_t (&words)[4]) {
#if defined(FLA_GPU) && __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(row))),
               "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
#elif defined(FLA_GPU)
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  FLA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const auto there = __shfl_sync(kFullMask, reinterpret_cast<unsigned long long>(row), 8 * i + lane / 4);
    reinterpret_cast<uint32_t*>(there)[lane % 4] = words[i];
  }
#else
  emulator::check_aligned(row, 16);
  const int lane = emulator::current_lane();
  const emulator::WarpBoard& board = emulator::show(reinterpret_cast<uintptr_t>(row));
  for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(board.words[8 * i + lane / 4][0])[lane % 4] = words[i];
  warp_barrier();
#endif
}

}  // namespace fla::detail

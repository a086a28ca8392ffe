// Tensor-core products of a warpgroup, four warps, on 16-bit operands in shared memory: wgmma on sm_90a; elsewhere, and in the
// emulator, each warp's part of the same by mma.
//
// Operands lie in panels: rows of 64 elements, 128 bytes, with chunk c (16 bytes) of row r in place c ^ (r % 8), so that neither
// eight rows of a chunk nor eight chunks of a row meet in a bank. A panel begins at a multiple of 1024 bytes.
//
//   warpgroup_begin(c);                        once sums have been written, and a barrier followed publish_to_async()
//   warpgroup_mma<..>(c, a, b); ..             c += A B, any number of them; a and b are Panels
//   warpgroup_commit();
//   warpgroup_wait<n>();                       all groups but the latest n are done,
//   warpgroup_end(c);                          and these sums may be read
#pragma once

#include "common/mma.cuh"
#include "common/ptx.cuh"

#if defined(FLA_GPU) && defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define FLA_WGMMA
#endif

namespace fla::detail {

inline constexpr int kPanel = 64;  // elements of a row

FLA_DEVICE int place_in_panel(int row, int chunk) { return row * kPanel + 8 * (chunk ^ (row & 7)); }

// Sums of 64 rows x 64 columns: c[4 j + i] of lane 4 g + t in warp w of the four is element (16 w + g + 8 (i / 2),
// 8 j + 2 t + i % 2).
using PanelSums = float[32];

// An operand: where it would begin if chunks were in order, at a row that is a multiple of eight.
template <class T>
struct Panels {
#if defined(FLA_WGMMA)
  uint32_t low;  // of a descriptor, whose high word is the same for all: what eight rows take, and how chunks are placed
  FLA_DEVICE explicit Panels(const T* at) : low((shared_address(at) & 0x3ffffu) / 16) {}
  FLA_DEVICE Panels operator+(int eights_of_elements) const { return Panels(low + static_cast<uint32_t>(eights_of_elements)); }
  FLA_DEVICE uint64_t descriptor() const { return low | uint64_t{0x40000000 + 1024 / 16} << 32; }

 private:
  FLA_DEVICE explicit Panels(uint32_t of_low) : low(of_low) {}
#else
  const T* at;
  FLA_DEVICE explicit Panels(const T* first) : at(first) {}
  FLA_DEVICE Panels operator+(int eights_of_elements) const { return Panels(at + 8 * eights_of_elements); }
#endif
};

// Keeps the compiler from moving what makes or reads the sums to where products are under way.
FLA_DEVICE void hold_sums(PanelSums& c) {
#if defined(FLA_WGMMA)
  FLA_UNROLL
  for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(c[i])::"memory");
#else
  (void)c;
#endif
}
FLA_DEVICE void warpgroup_begin(PanelSums& c) {
  hold_sums(c);
#if defined(FLA_WGMMA)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
FLA_DEVICE void warpgroup_end(PanelSums& c) { hold_sums(c); }
FLA_DEVICE void warpgroup_commit() {
#if defined(FLA_WGMMA)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int kPending>
FLA_DEVICE void warpgroup_wait() {
#if defined(FLA_WGMMA)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// c += A B: 64 x 16 by 16 x 64. A's rows and B's columns are rows of their panels from a and b on, the sixteen summed over 16
// columns; transposed, these are 16 rows, and A's rows and B's columns all 64 columns. Without `add` c = A B, whatever c was.
template <bool kTransposedA, bool kTransposedB, class T>
FLA_DEVICE void warpgroup_mma(PanelSums& c, Panels<T> a, Panels<T> b, bool add = true) {
#if defined(FLA_WGMMA)
#define FLA_WGMMA_OF(type)                                                                                                  \
  asm volatile(                                                                                                             \
      "{ .reg .pred p; setp.ne.u32 p, %36, 0;\n"                                                                            \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "    \
      "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, " \
      "1, %34, %35; }"                                                                                                      \
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]),         \
        "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]),              \
        "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]),             \
        "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])                           \
      : "l"(a.descriptor()), "l"(b.descriptor()), "n"(kTransposedA), "n"(kTransposedB), "r"(add ? 1 : 0)          \
      : "memory")
  if constexpr (kDTypeOf<T> == DType::bf16) FLA_WGMMA_OF("bf16");
  else FLA_WGMMA_OF("f16");
#undef FLA_WGMMA_OF
#else
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp % 4);
  const auto place = [](const T* from, int row, int chunk) {
    const int first = static_cast<int>(reinterpret_cast<uintptr_t>(from) / 16 % 8);
    return from - 8 * first + place_in_panel(row, first + chunk);
  };
  if (!add)
    FLA_UNROLL
    for (int i = 0; i < 32; ++i) c[i] = 0;
  uint32_t of_a[4];
  if constexpr (kTransposedA) load_matrices<true>(place(a.at, lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2), of_a);
  else load_matrices<false>(place(a.at, 16 * warp + lane % 16, lane / 16), of_a);
  FLA_UNROLL
  for (int n = 0; n < 4; ++n) {
    uint32_t of_b[4];
    if constexpr (kTransposedB) load_matrices<true>(place(b.at, lane % 16, 2 * n + lane / 16), of_b);
    else load_matrices<false>(place(b.at, 16 * n + lane / 16 * 8 + lane % 8, lane / 8 % 2), of_b);
    FLA_UNROLL
    for (int i = 0; i < 2; ++i) {
      float part[4];
      FLA_UNROLL
      for (int e = 0; e < 4; ++e) part[e] = c[8 * n + 4 * i + e];
      mma<T>(part, of_a, of_b[2 * i], of_b[2 * i + 1]);
      FLA_UNROLL
      for (int e = 0; e < 4; ++e) c[8 * n + 4 * i + e] = part[e];
    }
  }
#endif
}

}  // namespace fla::detail

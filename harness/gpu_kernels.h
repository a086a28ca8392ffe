// The few kernels of the harness itself: a gate that holds a stream closed, a load for the memory system, and plain
// copies as the measure of what memory can do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fla/tensor.h"

namespace fla::harness::gpu {

// Occupies the stream until *open becomes non-zero, at most two seconds (a gate must never hang a device).
// `open` is host memory mapped into the device. Returns the CUDA error code, 0 for none.
int launch_gate(const volatile int* open, Stream stream);

// Reads and writes `bytes` of memory over and over, about `passes` times.
int launch_hog(void* memory, size_t bytes, int passes, Stream stream);

// Streams of equal size: reads `reads` and writes `writes` of them, one 16-byte vector of each per thread, the mapping
// that measured fastest. The read streams lie one after another at `from`, the written ones at `to`.
// reads + writes > 0, each at most 4; stream_bytes a multiple of 16.
int launch_copy(int reads, int writes, const void* from, void* to, size_t stream_bytes, Stream stream);

int launch_nothing(Stream stream);

}  // namespace fla::harness::gpu

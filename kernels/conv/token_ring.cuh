// What the two windowed kernels of the causal convolution share: how a thread's loads run ahead of its walk, and how
// a walk is cut into sequences.
#pragma once

#include "common/gpu.h"
#include "common/ptx.cuh"
#include "common/vector.cuh"
#include "conv/causal_window.cuh"

namespace fla::detail {

// A ring in shared memory that each thread keeps to itself, [batch][token of the batch][stream][thread]: no barrier, and
// neighbouring lanes lie side by side. Registers hold a few tokens at most; the ring keeps enough on the way for the
// memory (40 to 55 KB on a multiprocessor of an H200). A batch is one group of asynchronous copies; batches arrive in
// the order in which they are committed, one per step of the walk, empty ones at its end.
template <class T, int kVector, int kStreams, int kThreads, int kTokens, int kBatches>
class TokenRing {
 public:
  static constexpr int kBatch = kTokens, kDepth = kBatch * kBatches;  // in tokens
  static constexpr int kBytes = kVector * static_cast<int>(sizeof(T));
  static constexpr int kBatchBytes = kBatch * kStreams * kThreads * kBytes, kTotalBytes = kBatches * kBatchBytes;

  FLA_DEVICE void rewind() { batch_ = shared_memory<unsigned char>() + static_cast<int>(threadIdx.x) * kBytes; }
  FLA_DEVICE void fetch(int u, int stream, const T* from) { async_copy<kBytes>(slot(u, stream), from); }
  FLA_DEVICE Vector<T, kVector> read(int u, int stream) const { return load<T, kVector>(slot(u, stream)); }
  // The oldest batch has arrived.
  FLA_DEVICE void wait() const { async_wait<kBatches - 1>(); }
  // On to the next batch; what was fetched since the last call is one.
  FLA_DEVICE void advance() {
    async_commit();
    unsigned char* first = shared_memory<unsigned char>() + static_cast<int>(threadIdx.x) * kBytes;
    batch_ += kBatchBytes;
    if (batch_ == first + kTotalBytes) batch_ = first;
  }

 private:
  FLA_DEVICE T* slot(int u, int stream) const {
    return reinterpret_cast<T*>(batch_ + (u * kStreams + stream) * kThreads * kBytes);
  }
  unsigned char* batch_;  // this thread's first slot of the present one
};

// The next tokens of a walk that belong to one sequence, or to none. Tokens are counted from the walk's first, in 32
// bits.
struct Piece {
  Sequence sequence;  // of the tokens; where they have none, the next
  int stop = 0;       // past the last token
  bool inside = false;
};

// From `token` of a walk that begins at token `origin` of row b and has `count` tokens.
FLA_DEVICE Piece piece_from(const SequenceMap& sequences, uint32_t b, int64_t origin, int token, int count,
                            int64_t first_candidate) {
  const Sequence sequence = sequences.covering(b, origin + token, first_candidate);
  const bool inside = origin + token >= sequence.begin;
  const int64_t stop = (inside ? sequence.end : sequence.begin) - origin;
  return {sequence, stop < count ? static_cast<int>(stop) : count, inside};
}

// The sequence after this piece, or the one that it precedes.
FLA_DEVICE int64_t next_candidate(const Piece& p) { return p.sequence.index + (p.inside ? 1 : 0); }

}  // namespace fla::detail

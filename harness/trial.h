// One problem on one device: its buffers, its workspace and its kernel, ready to be run again and again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "harness/buffers.h"

namespace fla::harness {

class Trial {
 public:
  // Keeps references to both. Throws OutOfMemory with the numbers before it allocates anything.
  Trial(const Problem&, Device&);

  const Problem& problem;
  Device& device;
  Buffers buffers;

  // Everything as before a first call; the workspace is poisoned like the outputs.
  void prepare(Poison, const Problem& contents);
  void prepare(Poison poison) { prepare(poison, problem); }
  // Enqueues the kernel with exactly the workspace it asks for. Nothing is synchronised.
  Status launch(Stream);
  Status launch(const Args&, size_t workspace_bytes, Stream);
  // prepare, launch, synchronise, read. Throws std::runtime_error when the kernel refuses.
  Snapshot run(Poison, const Problem& contents);
  Snapshot run(Poison poison) { return run(poison, problem); }

  // What the kernel did beside its contract since prepare(): damaged guards and gaps of tensors and
  // workspace.
  std::string damage() const;
  size_t workspace_bytes() const { return workspace_->bytes(); }
  // One past the highest workspace byte that any run() so far has changed.
  int64_t workspace_touched() const { return touched_; }

 private:
  void scan_workspace();

  std::unique_ptr<GuardedMemory> workspace_;
  Poison poison_ = Poison::nan;
  int64_t touched_ = 0;
};

// What the tensors and the workspace of a case take, by role.
void account(const Trial&, Memory&);

}  // namespace fla::harness

// The asynchronous copies of one thread, in the groups that it waits for.
#pragma once

#include <deque>
#include <vector>

#include "emulator/pending_copy.h"
#include "emulator/shared_arena.h"

namespace fla::detail::emulator {

// Every function returns null or what the kernel did wrong.
class AsyncCopies {
 public:
  void clear();
  const char* record(const PendingCopy& copy, const SharedArena& arena);
  const char* record_store(const PendingCopy& copy, const SharedArena& arena);  // to global memory, a group of its own
  void commit();
  const char* wait(int pending);  // moves the bytes of all groups but the latest `pending`
  bool empty() const;

 private:
  using Group = std::vector<PendingCopy>;
  std::deque<Group> groups_;  // committed, the oldest first
  Group open_;
};

}  // namespace fla::detail::emulator

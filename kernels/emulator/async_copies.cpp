#include "emulator/async_copies.h"

#include "emulator/access_watch.h"
#include "emulator/machine.h"
#include "emulator/sanitizers.h"

namespace fla::detail::emulator {

void AsyncCopies::clear() {
  groups_.clear();
  open_.clear();
}

bool AsyncCopies::empty() const {
  for (const Group& group : groups_)
    if (!group.empty()) return false;
  return open_.empty();
}

const char* AsyncCopies::record(const PendingCopy& copy, const SharedArena& arena) {
  if (copy.bytes != 8 && copy.bytes != 16) return "an asynchronous copy is of 8 or 16 bytes";
  if (!is_aligned(copy.to, copy.bytes) || !is_aligned(copy.from, copy.bytes))
    return "an address of an asynchronous copy is not aligned to its size";
  if (!arena.contains(copy.to, copy.bytes)) return "an asynchronous copy goes outside shared memory";
  if (is_forbidden(copy.from, copy.bytes)) return "an asynchronous copy reads outside its buffer";
  const Bookkeeping unseen;
  auto collides = [&](const Group& group) {
    for (const PendingCopy& earlier : group)
      if (overlap(earlier, copy)) return true;
    return false;
  };
  bool collision = collides(open_);
  for (const Group& group : groups_) collision |= collides(group);
  if (collision) return "an asynchronous copy overwrites the destination of one still under way";
  on_load(copy.from, static_cast<int>(copy.bytes));
  note_read(copy.from, copy.bytes);
  note_write(copy.to, copy.bytes);
  poison_destination(copy);
  open_.push_back(copy);
  return nullptr;
}

const char* AsyncCopies::record_store(const PendingCopy& copy, const SharedArena& arena) {
  if (copy.bytes % 16 != 0 || !is_aligned(copy.to, 16) || !is_aligned(copy.from, 16))
    return "an address or the size of a bulk store is not a multiple of 16";
  if (!arena.contains(copy.from, copy.bytes)) return "a bulk store comes from outside shared memory";
  if (is_forbidden(copy.to, copy.bytes)) return "a bulk store writes outside its buffer";
  const Bookkeeping unseen;
  on_store(copy.to, copy.bytes);
  note_read(copy.from, copy.bytes);
  note_write(copy.to, copy.bytes);
  groups_.push_back({copy});
  return nullptr;
}

void AsyncCopies::commit() {
  const Bookkeeping unseen;
  groups_.push_back(std::move(open_));
  open_.clear();
}

const char* AsyncCopies::wait(int pending) {
  if (pending < 0) return "a number of groups is not negative";
  const Bookkeeping unseen;
  while (static_cast<int>(groups_.size()) > pending) {
    for (const PendingCopy& copy : groups_.front()) move_bytes(copy);
    groups_.pop_front();
  }
  return nullptr;
}

void async_copy(void* shared, const void* global, uint32_t bytes, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (const char* problem = machine.lane().copies.record({shared, global, bytes}, machine.arena()))
    machine.fail(problem, site);
}

void async_commit(CallSite site) { machine_of_kernel(site).lane().copies.commit(); }

void async_wait(int pending, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (const char* problem = machine.lane().copies.wait(pending)) machine.fail(problem, site);
}

void bulk_store(void* global, const void* shared, uint32_t bytes, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (const char* problem = machine.lane().stores.record_store({global, shared, bytes}, machine.arena()))
    machine.fail(problem, site);
}

void bulk_stores_wait(int pending, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (const char* problem = machine.lane().stores.wait(pending)) machine.fail(problem, site);
}

}  // namespace fla::detail::emulator

#include "emulator/transactions.h"

#include "emulator/machine.h"
#include "emulator/sanitizers.h"

namespace fla::detail::emulator {
namespace {

constexpr uint64_t kCookie = 0x00f1a0ba44e10000;  // plus its index: the word of an initialised barrier
constexpr uint32_t kMostBytes = (1u << 20) - 1;   // of one phase, on sm_90

}  // namespace

const char* Transactions::init(TransactionBarrier* barrier) {
  if (!arena_.contains(barrier, sizeof *barrier)) return "a transaction barrier lies outside shared memory";
  if (!is_aligned(barrier, 8)) return "a transaction barrier is not 8-byte aligned";
  Transaction* known = nullptr;
  if (!find(barrier, known)) return "a transaction barrier is initialised twice";
  note_write(barrier, sizeof *barrier);
  const Bookkeeping unseen;
  barrier->word = kCookie + all_.size();
  all_.emplace_back().address = barrier;
  order_release(&all_.back());
  return nullptr;
}

const char* Transactions::find(TransactionBarrier* barrier, Transaction*& found) {
  if (!arena_.contains(barrier, sizeof *barrier)) return "a transaction barrier lies outside shared memory";
  const uint64_t index = barrier->word - kCookie;
  if (index >= all_.size() || all_[index].address != barrier)
    return "a transaction barrier is not initialised, or was overwritten";
  note_read(barrier, sizeof *barrier);
  found = &all_[index];
  return nullptr;
}

const char* Transactions::expect(Transaction& t, uint32_t bytes, CallSite site) {
  if (t.armed) return "a transaction barrier is armed again before its phase has ended";
  if (bytes % 16 != 0) return "the bytes of a phase are not a multiple of 16";
  if (bytes > kMostBytes) return "a phase expects more bytes than a barrier can count (2^20 - 1)";
  t.armed = true;
  t.committed = false;
  t.expected = bytes;
  t.recorded = 0;
  t.armed_at = site;
  order_release(&t);
  return nullptr;
}

const char* Transactions::record(Transaction& t, const PendingCopy& copy) {
  if (!t.armed || t.committed) return "a bulk copy is issued outside barrier_expect and bulk_commit";
  if (copy.bytes % 16 != 0) return "the size of a bulk copy is not a multiple of 16";
  if (!is_aligned(copy.to, 16) || !is_aligned(copy.from, 16))
    return "an address of a bulk copy is not 16-byte aligned";
  if (!arena_.contains(copy.to, copy.bytes)) return "a bulk copy goes outside shared memory";
  if (is_forbidden(copy.from, copy.bytes)) return "a bulk copy reads outside its buffer";
  for (const Transaction& other : all_)
    for (const PendingCopy& earlier : other.copies)
      if (overlap(earlier, copy)) return "a bulk copy overwrites the destination of one still under way";
  on_load(copy.from, copy.bytes);
  note_read(copy.from, copy.bytes);
  note_write(copy.to, copy.bytes);
  poison_destination(copy);
  const Bookkeeping unseen;
  t.recorded += copy.bytes;
  t.copies.push_back(copy);
  return nullptr;
}

const char* Transactions::commit(Transaction& t) {
  if (!t.armed || t.committed) return "bulk_commit without barrier_expect";
  if (t.recorded != t.expected)
    return "a phase was told to expect another number of bytes than its copies bring";
  t.committed = true;
  order_release(&t);
  return nullptr;
}

void Transactions::end_phase(Transaction& t) {
  const Bookkeeping unseen;
  for (const PendingCopy& copy : t.copies) move_bytes(copy);
  t.copies.clear();
  t.armed = t.committed = false;
  ++t.phase;
}

const Transaction* Transactions::unfinished() const {
  for (const Transaction& t : all_)
    if (t.armed) return &t;
  return nullptr;
}

namespace {

Transaction& transaction_of(Machine& machine, TransactionBarrier* barrier, CallSite site) {
  Transaction* t = nullptr;
  if (const char* problem = machine.transactions().find(barrier, t)) machine.fail(problem, site);
  return *t;
}

}  // namespace

void barrier_init(TransactionBarrier* barrier, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (const char* problem = machine.transactions().init(barrier)) machine.fail(problem, site);
}

void barrier_expect(TransactionBarrier* barrier, uint32_t bytes, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  Transaction& t = transaction_of(machine, barrier, site);
  if (const char* problem = machine.transactions().expect(t, bytes, site)) machine.fail(problem, site);
}

void bulk_load(void* shared, const void* global, uint32_t bytes, TransactionBarrier* barrier, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  Transaction& t = transaction_of(machine, barrier, site);
  if (const char* problem = machine.transactions().record(t, {shared, global, bytes}))
    machine.fail(problem, site);
}

void bulk_commit(TransactionBarrier* barrier, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  Transaction& t = transaction_of(machine, barrier, site);
  if (const char* problem = machine.transactions().commit(t)) machine.fail(problem, site);
  machine.wake(t);
}

void barrier_wait(TransactionBarrier* barrier, uint32_t parity, CallSite site) {
  Machine& machine = machine_of_kernel(site);
  if (parity > 1) machine.fail("the parity of a phase is 0 or 1", site);
  Transaction& t = transaction_of(machine, barrier, site);
  while ((t.phase & 1) == parity) {
    if (t.armed && t.committed)
      machine.transactions().end_phase(t);
    else
      machine.wait_for_transaction(t, site);
  }
  order_acquire(&t);
}

}  // namespace fla::detail::emulator

// The transaction barriers of one block and the copies that wait on them.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "emulator/pending_copy.h"
#include "emulator/shared_arena.h"
#include "emulator/simt.h"

namespace fla::detail::emulator {

struct Transaction {
  TransactionBarrier* address = nullptr;
  uint32_t phase = 0;  // phases that have ended
  bool armed = false, committed = false;
  uint32_t expected = 0, recorded = 0;
  CallSite armed_at;
  std::vector<PendingCopy> copies;
  std::vector<int> waiting;  // threads to wake when the phase can end
};

// Every function returns null or what the kernel did wrong.
class Transactions {
 public:
  explicit Transactions(const SharedArena& arena) : arena_(arena) {}

  void clear() { all_.clear(); }
  const char* init(TransactionBarrier* barrier);
  const char* find(TransactionBarrier* barrier, Transaction*& found);
  const char* expect(Transaction& t, uint32_t bytes, CallSite site);
  const char* record(Transaction& t, const PendingCopy& copy);
  const char* commit(Transaction& t);
  void end_phase(Transaction& t);  // moves the bytes
  const Transaction* unfinished() const;

 private:
  const SharedArena& arena_;
  std::deque<Transaction> all_;  // addresses stay: sanitizers know transactions by them
};

}  // namespace fla::detail::emulator

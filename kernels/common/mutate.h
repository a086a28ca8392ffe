// Mistakes planted in kernels on purpose, to see that the suites notice (scripts/mutants). They exist in the emulator's
// build for that purpose alone; everywhere else a site is its right text.
//
//   if (FLA_MUTATE("varlen_plan: tail guard", t >= tokens, t > tokens)) return;
//
// The name begins with the case filter whose suite must notice. FLA_MUTANT in the environment picks the one that errs.
#pragma once

#if defined(FLA_MUTANTS)

#include <cstdlib>
#include <cstring>

namespace fla::detail {

inline bool is_mutant(const char* name) {
  static const char* const chosen = std::getenv("FLA_MUTANT");
  return chosen && std::strcmp(chosen, name) == 0;
}

}  // namespace fla::detail

#define FLA_MUTATE(name, right, wrong) (::fla::detail::is_mutant(name) ? (wrong) : (right))

#else

#define FLA_MUTATE(name, right, wrong) (right)

#endif

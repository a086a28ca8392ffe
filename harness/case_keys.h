// Which keys a case of one direction may have, in the order in which they are printed.
#pragma once

#include <string>
#include <vector>

#include "harness/operator.h"

namespace fla::harness {

enum class KeyKind { dim, attribute, tensor, layout, harness };

struct CaseKey {
  std::string name;
  KeyKind kind = KeyKind::harness;
  std::string fallback;        // a value equal to it is not printed; empty: none
  const Attribute* attribute = nullptr;
  DTypes types = 0;            // tensor keys
  bool may_be_absent = false;  // tensor keys: "none" is legal
};

// Keys of the direction and, for a backward, of the forward that supplies its saved tensors. Cached per direction.
const std::vector<CaseKey>& case_keys(const Direction&);

// The direction whose saved tensors this one takes; null where there is none.
const Direction* forward_of(const Direction&);

// The signature of an argument struct with every tensor present, or with none.
Signature full_signature(const Direction&, bool present);

// The candidate nearest to `text` in edits, or empty when none is near.
std::string nearest(const std::string& text, const std::vector<std::string>& candidates);

}  // namespace fla::harness

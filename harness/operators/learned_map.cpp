// The reference stands before the table, which looks its functions up by name.
#include "reference/learned_map.h"

#include "fla/learned_map.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Rows are independent, but their bits are those of the library's products.
void add_learned_map(std::vector<Direction>& table) {
  const Traits forward{.sample_dim = "M"}, backward{.sample_dim = "M", .backward_of = "fwd"};
  for (int k = 0; k < static_cast<int>(std::size(kLearnedMapNames)); ++k) {
    LearnedMapForward f;
    LearnedMapBackward b;
    f.kind = b.kind = static_cast<LearnedMap>(k);
    table.push_back(direction(std::string("fmap_") + kLearnedMapNames[k], "fwd", forward, f));
    table.push_back(direction(std::string("fmap_") + kLearnedMapNames[k], "bwd", backward, b));
  }
  table.push_back(direction<PolysketchMapForward>("fmap_polysketch", "fwd", forward));
  table.push_back(direction<PolysketchMapBackward>("fmap_polysketch", "bwd", backward));
}

}  // namespace fla::harness

// Gated units, forward: 2 streams read, 1 written. Two MUFU operations per element, powglu five; at full bandwidth and
// in 16 bits there is time for 5.8.
#include "activation/glu.cuh"
#include "common/elementwise.cuh"
#include "fla/validate.h"

namespace fla {

using namespace detail;

Status check(const GluForward& a) { return check_unit(a.kind); }

size_t workspace_bytes(const GluForward&) { return 0; }

Status run(const GluForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return with_unit(a.kind, a.parameters,
                   [&](auto unit) { return elementwise(unit, {&a.x, &a.y}, {&a.z}, stream); });
}

}  // namespace fla

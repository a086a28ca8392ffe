// Gated units, backward: 3 streams read, 2 written, one more when z is emitted again: 2 bytes an element here, 6 in a
// second kernel.
#include "activation/glu.cuh"
#include "common/elementwise.cuh"
#include "fla/validate.h"

namespace fla {

using namespace detail;

Status check(const GluBackward& a) {
  if (Status s = check_unit(a.kind); !s.ok()) return s;
  if (a.dx || a.dy || a.z) return {};
  return error(StatusCode::invalid_argument, "dx: no output is asked for");
}

size_t workspace_bytes(const GluBackward&) { return 0; }

Status run(const GluBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return with_unit(a.kind, a.parameters, [&](auto unit) {
    return elementwise(unit, {&a.x, &a.y, &a.dz}, {&a.dx, &a.dy, &a.z}, stream);
  });
}

}  // namespace fla

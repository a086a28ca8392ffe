// SwiGLU. Forward moves 3 streams (2 read, 1 written), backward 5 (3 : 2), 6 when z is emitted again; two MUFU
// operations per element either way, 35 % of what the special-function units can do at full bandwidth.
#include "fla/activation.h"

#include "common/elementwise.cuh"
#include "common/math.cuh"
#include "common/workspace.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

struct SwigluForwardFormula {
  FLA_DEVICE void operator()(const float (&in)[2], float (&out)[1]) const {
    out[0] = in[0] * math::sigmoid(in[0]).plus * in[1];
  }
};

struct SwigluBackwardFormula {
  FLA_DEVICE void operator()(const float (&in)[3], float (&out)[3]) const {
    const float x = in[0], y = in[1], dz = in[2];
    const math::Sigmoid s = math::sigmoid(x);
    const float swish = x * s.plus;
    out[0] = dz * y * s.plus * (1.0f + x * s.minus);
    out[1] = dz * swish;
    out[2] = swish * y;
  }
};

}  // namespace

size_t workspace_bytes(const SwigluForward&) { return 0; }

Status run(const SwigluForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return elementwise(SwigluForwardFormula{}, {&a.x, &a.y}, {&a.z}, stream);
}

Status check(const SwigluBackward& a) {
  if (a.dx || a.dy || a.z) return {};
  return error(StatusCode::invalid_argument, "dx: no output is asked for");
}

size_t workspace_bytes(const SwigluBackward&) { return 0; }

Status run(const SwigluBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return elementwise(SwigluBackwardFormula{}, {&a.x, &a.y, &a.dz}, {&a.dx, &a.dy, &a.z}, stream);
}

}  // namespace fla

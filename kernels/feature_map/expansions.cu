// The public expansions, lowered to one kernel in each direction (expansion.h).
#include <cmath>

#include "common/workspace.h"
#include "feature_map/expansion.h"
#include "fla/feature_map.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

Status nothing_asked(const char* name) { return error(StatusCode::invalid_argument, "%s: no output is asked for", name); }

template <class A>
ExpansionColumns triangle_columns(const A& a) {
  return {.width = static_cast<int32_t>(a.x.size[1]), .with_diagonal = !a.separate_diagonal, .partner = true};
}

ExpansionColumns taylor_columns(const Tensor& x) {
  return {.width = static_cast<int32_t>(x.size[1]), .ones = true, .linear = true, .squares = true};
}
ExpansionRow taylor_row(const Tensor& x) {
  return {.scale = static_cast<float>(std::pow(static_cast<double>(x.size[1]), -0.25))};
}

template <class A>
ExpansionColumns rebased_columns(const A& a) {
  return {.width = static_cast<int32_t>(a.x.size[1]), .linear = !a.flatten, .squares = a.flatten, .triangle = a.flatten};
}
template <class A>
ExpansionRow rebased_row(const A& a) {
  const double scale = std::pow(2.0 / static_cast<double>(a.x.size[1]), 0.25);
  return {.gamma = a.gamma,
          .beta = a.beta,
          .normalize = a.normalize,
          .eps = a.eps,
          .scale = a.flatten ? static_cast<float>(scale) : 1.0f};
}
template <class A>
Status check_rebased(const A& a) {
  if (!a.normalize && !a.gamma)
    return error(StatusCode::unsupported_combination, "gamma: required where rows are not normalized");
  return check_expansion("x", a.x.size[1]);
}

ExpansionBackward lowered(const RebasedMapBackward& a) {
  return {.columns = rebased_columns(a),
          .row = rebased_row(a),
          .x = a.x,
          .dout = a.dy,
          .dx = a.dx,
          .dgamma = a.dgamma,
          .dbeta = a.dbeta};
}

}  // namespace

Status check(const OuterTriuForward& a) { return check_expansion("x", a.x.size[1]); }
size_t workspace_bytes(const OuterTriuForward&) { return 0; }
Status run(const OuterTriuForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(Expansion{.columns = triangle_columns(a), .x = a.x, .partner = a.y, .out = a.out, .diagonal = a.diagonal}, stream);
}

Status check(const OuterTriuBackward& a) {
  if (!a.dx && !a.dy) return nothing_asked("dx");
  return check_expansion("x", a.x.size[1]);
}
size_t workspace_bytes(const OuterTriuBackward&) { return 0; }
Status run(const OuterTriuBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(ExpansionBackward{.columns = triangle_columns(a),
                               .x = a.x,
                               .partner = a.y,
                               .dout = a.dout,
                               .ddiagonal = a.ddiagonal,
                               .dx = a.dx,
                               .dpartner = a.dy},
             {}, stream);
}

Status check(const TaylorMapForward& a) { return check_expansion("x", a.x.size[1]); }
size_t workspace_bytes(const TaylorMapForward&) { return 0; }
Status run(const TaylorMapForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(Expansion{.columns = taylor_columns(a.x), .row = taylor_row(a.x), .x = a.x, .out = a.y}, stream);
}

Status check(const TaylorMapBackward& a) { return check_expansion("x", a.x.size[1]); }
size_t workspace_bytes(const TaylorMapBackward&) { return 0; }
Status run(const TaylorMapBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(ExpansionBackward{.columns = taylor_columns(a.x), .row = taylor_row(a.x), .x = a.x, .dout = a.dy, .dx = a.dx},
             {}, stream);
}

Status check(const RebasedMapForward& a) { return check_rebased(a); }
size_t workspace_bytes(const RebasedMapForward&) { return 0; }
Status run(const RebasedMapForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run(Expansion{.columns = rebased_columns(a), .row = rebased_row(a), .x = a.x, .out = a.y}, stream);
}

Status check(const RebasedMapBackward& a) {
  if (!a.dx && !a.dgamma && !a.dbeta) return nothing_asked("dx");
  return check_rebased(a);
}
size_t workspace_bytes(const RebasedMapBackward& a) { return workspace_bytes(lowered(a)); }
Status run(const RebasedMapBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  return run(lowered(a), workspace, stream);
}

}  // namespace fla

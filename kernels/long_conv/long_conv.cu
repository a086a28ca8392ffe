// The public calls, made of staging, tap spectra, convolutions and correlations.
#include "long_conv/long_conv.h"

#include <algorithm>
#include <bit>

#include "common/alignment.h"
#include "fla/validate.h"
#include "long_conv/correlate.h"

namespace fla {
namespace detail {

LongConvSizes sizes_of(LongConvLayout layout, const Tensor& u) {
  switch (layout) {
    case LongConvLayout::bld: return {.B = u.size[0], .L = u.size[1], .D = u.size[2]};
    case LongConvLayout::bdl: return {.B = u.size[0], .L = u.size[2], .D = u.size[1]};
    default: return {.B = u.size[0], .L = u.size[3], .D = u.size[1], .V = u.size[2]};
  }
}

LongConvSignal signal_of(LongConvLayout layout, const Tensor& t) {
  const AnyFloat data = any_float(t);
  switch (layout) {
    case LongConvLayout::bld: return {data, t.stride[0], t.stride[2], 0, t.stride[1]};
    case LongConvLayout::bdl: return {data, t.stride[0], t.stride[1], 0, t.stride[2]};
    default: return {data, t.stride[0], t.stride[1], t.stride[2], t.stride[3]};
  }
}

LongConvPlan plan_of(const LongConvSizes& sizes, const LongConvTaps& taps) {
  LongConvPlan p;
  p.points = std::clamp(static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(sizes.L, kLargestFft)))),
                        kSmallestFft, kLargestFft);
  p.blocks = static_cast<int>(divide_up(sizes.L, p.points));
  // The farthest lags that meet a tap: of the one filter, and of the other one's wrapped part.
  const auto reach = [&](int64_t own, int64_t other) {
    const int64_t wrapped = taps.circular && other > sizes.L + 1 ? sizes.L - 1 : 0;
    return std::max({std::min(own, sizes.L) - 1, wrapped, int64_t{0}});
  };
  const auto lag_blocks = [&](int64_t lags) {
    return static_cast<int>(std::min<int64_t>(p.blocks - 1, divide_up(lags, p.points)));
  };
  p.first_lag = -lag_blocks(reach(taps.k_rev_taps, taps.k_taps));
  p.last_lag = lag_blocks(reach(taps.k_taps, taps.k_rev_taps));
  return p;
}

}  // namespace detail

namespace {

using namespace detail;

template <class A>
Status check_call(const A& a) {
  const bool tokens = sizes_of(a.layout, a.u).L > 0;
  if (tokens && a.k.size[1] < 1) return error(StatusCode::shape_mismatch, "k: no taps");
  if (tokens && a.k_rev && a.k_rev.size[1] < 1) return error(StatusCode::shape_mismatch, "k_rev: no taps");
  if (a.dropout_mask && a.layout == LongConvLayout::bhvl)
    return error(StatusCode::unsupported_combination, "dropout_mask: not with layout bhvl");
  return {};
}

// The tensor where the kernels find it.
LongConvSignal staged(LongConvLayout layout, const Tensor& t, const Tensor& stage) {
  return stage ? signal_of(LongConvLayout::bdl, stage) : signal_of(layout, t);
}

template <class A>
struct Call {
  LongConvSizes sizes;
  LongConvTaps taps;
  LongConvPlan plan;
  LongConvolution convolution;  // all but its signals

  explicit Call(const A& a) : sizes(sizes_of(a.layout, a.u)), taps(taps_of(a, sizes.L)) {
    if (sizes.empty()) return;
    plan = plan_of(sizes, taps);
    convolution.skip = any_float(a.skip);
    convolution.mask = any_float(a.dropout_mask);
    convolution.mask_stride = a.dropout_mask ? a.dropout_mask.stride[0] : 0;
    convolution.sizes = sizes;
    convolution.plan = plan;
  }
};

struct ForwardParts {
  Complex* spectra;
  Tensor u, y;  // stages
  size_t bytes;

  ForwardParts(const LongConvForward& a, const Call<LongConvForward>& call, void* base = nullptr) {
    WorkspaceParts parts(base);
    spectra = static_cast<Complex*>(parts.take(spectra_bytes(call.sizes, call.plan)));
    u = stage_of(parts, a.layout, a.u);
    y = stage_of(parts, a.layout, a.y);
    bytes = parts.bytes();
  }
};

bool wants_taps(const LongConvBackward& a) { return a.dk || a.dk_rev || a.dskip; }

struct BackwardParts {
  Complex *spectra, *correlations;
  Tensor u, dy, du;  // stages
  LongConvSignal q;  // f32, where GELU makes it differ from dy
  size_t bytes;

  BackwardParts(const LongConvBackward& a, const Call<LongConvBackward>& call, void* base = nullptr) {
    const LongConvSizes& n = call.sizes;
    WorkspaceParts parts(base);
    const size_t of_spectra = spectra_bytes(n, call.plan);
    spectra = static_cast<Complex*>(parts.take(a.du || a.gelu ? of_spectra : 0));
    correlations = static_cast<Complex*>(parts.take(wants_taps(a) ? of_spectra : 0));
    if (a.gelu || wants_taps(a)) u = stage_of(parts, a.layout, a.u);
    dy = stage_of(parts, a.layout, a.dy);
    du = stage_of(parts, a.layout, a.du);
    if (a.gelu) {
      const size_t q_bytes = static_cast<size_t>(n.B * n.D * n.V * n.L) * sizeof(float);
      q = {{parts.take(q_bytes), DType::f32}, n.D * n.V * n.L, n.V * n.L, n.L, 1};
    }
    bytes = parts.bytes();
  }
};

}  // namespace

Status check(const LongConvForward& a) {
  return check_call(a);
}

size_t workspace_bytes(const LongConvForward& a) {
  const Call<LongConvForward> call(a);
  return call.sizes.empty() ? 0 : ForwardParts(a, call).bytes;
}

Status run(const LongConvForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const Call<LongConvForward> call(a);
  if (call.sizes.empty()) return {};
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ForwardParts parts(a, call, workspace.data);
  if (Status s = transform_taps(call.taps, call.sizes, call.plan, parts.spectra, stream); !s.ok()) return s;
  if (Status s = stage_in(a.u, parts.u, stream); !s.ok()) return s;
  LongConvolution c = call.convolution;
  c.spectra = parts.spectra;
  c.in = staged(a.layout, a.u, parts.u);
  c.out = staged(a.layout, a.y, parts.y);
  c.gelu = a.gelu;
  if (Status s = convolve(c, stream); !s.ok()) return s;
  return stage_out(parts.y, a.y, stream);
}

Status check(const LongConvBackward& a) {
  if (!a.du && !wants_taps(a)) return error(StatusCode::invalid_argument, "du: no output is asked for");
  return check_call(a);
}

size_t workspace_bytes(const LongConvBackward& a) {
  const Call<LongConvBackward> call(a);
  return call.sizes.empty() ? 0 : BackwardParts(a, call).bytes;
}

Status run(const LongConvBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const Call<LongConvBackward> call(a);
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const BackwardParts parts(a, call, workspace.data);
  const LongConvSignal u = staged(a.layout, a.u, parts.u), dy = staged(a.layout, a.dy, parts.dy);
  LongConvolution c = call.convolution;
  LongConvSignal q = dy;
  if (!call.sizes.empty()) {
    if (a.gelu || a.du)
      if (Status s = transform_taps(call.taps, call.sizes, call.plan, parts.spectra, stream); !s.ok()) return s;
    if (Status s = stage_in(a.u, parts.u, stream); !s.ok()) return s;
    if (Status s = stage_in(a.dy, parts.dy, stream); !s.ok()) return s;
    c.spectra = parts.spectra;
    if (a.gelu) {
      q = parts.q;
      c.in = u;
      c.upstream = dy;
      c.out = q;
      if (Status s = convolve(c, stream); !s.ok()) return s;
      c.upstream = {};
      c.mask = {};  // q holds it
    }
    if (a.du) {
      c.in = q;
      c.out = staged(a.layout, a.du, parts.du);
      c.adjoint = true;
      if (Status s = convolve(c, stream); !s.ok()) return s;
      if (Status s = stage_out(parts.du, a.du, stream); !s.ok()) return s;
    }
  }
  if (!wants_taps(a) || call.sizes.D == 0) return {};
  const bool none = call.sizes.empty();  // of channels without tokens the gradients are 0
  const LongConvCorrelation correlation{.q = q, .u = u, .mask = c.mask, .mask_stride = c.mask_stride, .sizes = call.sizes,
                                        .plan = call.plan, .out = parts.correlations};
  if (!none)
    if (Status s = correlate(correlation, stream); !s.ok()) return s;
  LongConvTapGradients gradients{.correlations = parts.correlations, .plan = call.plan, .taps = call.taps,
                                 .dskip = any_float(a.dskip)};
  if (none) gradients.plan = {.points = kSmallestFft, .first_lag = 1, .last_lag = 0};
  gradients.taps.k = any_float(a.dk);
  gradients.taps.k_stride = a.dk ? a.dk.stride[0] : 0;
  gradients.taps.k_rev = any_float(a.dk_rev);
  gradients.taps.k_rev_stride = a.dk_rev ? a.dk_rev.stride[0] : 0;
  return store_tap_gradients(gradients, call.sizes.D, stream);
}

}  // namespace fla

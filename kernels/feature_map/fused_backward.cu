// Fused learned maps, backward. A team of warpgroups, one for each 64 columns, takes as many times 64 rows at once: its own tiles of x
// and dy come to shared memory, those of the next turn while it works on these. From them it makes h again, dh, which it rounds
// and leaves in the place of dy, and from that dx and its part of every dweight, sums that a thread keeps in registers for the
// whole launch. All products are of operands in shared memory (common/warpgroup.cuh). dbias is a product with ones. Teams of a
// block share the weights and add up their sums, so that a block leaves one set; common/column_sum adds up those.
//
// On an H200, bf16, D = 64: 78 to 84 % of a copy with one layer, 52 % with two, where shared memory is busy half of the time (a
// product reads 4 KB in its 32 cycles) and 16 warps, all that fit, wait out the rest from phase to phase. D = 128: 55 to 69 and
// 29 %; there two layers, and the softmax, spill some words. All sums of a group of products must be waited for on every path
// before they are read, or ptxas waits after each product.
#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/workspace.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

template <RowMap kMap, int kWidth>
struct BackwardPlan {
  static constexpr int kLayers = kMapLayers<kMap>, kPanels = kWidth / kPanel;
  // Of a team: each has 64 of its rows, and of the dweights one layer's or, of the only layer's, 64 outputs.
  static constexpr int kGroups = kLayers > kPanels ? kLayers : kPanels;
  static constexpr int kTeam = kGroups * kWarpgroup;                  // threads
  static constexpr int kTeams = kPanels > 1 ? 1 : kLayers > 1 ? 2 : 3;  // of a block, the only one of its multiprocessor
  static constexpr int kThreads = kTeams * kTeam;
  static constexpr int kRows = 64 * kGroups;                          // of a team at a time
  static constexpr int kBlocks = kLayers > 1 ? kPanels : 1;           // of 64 outputs, a warpgroup's part of a dweight
  static constexpr int kTile = kRows * kWidth;
  static constexpr int kStage = (1 + kMapParts<kMap>) * kTile;        // x and dy
  static constexpr int kOwn = 2 * kStage + (kLayers - 1) * kTile;     // of a team: and dh of a second layer
  static constexpr int kWeights = kLayers * kWidth * kWidth;
  static constexpr int kElements = kWeights + kTeams * kOwn;
  static constexpr size_t kBytes = 2 * kElements + kLayers * kWidth * sizeof(float);
};

// A thread's place in its team.
template <class Plan>
struct Member {
  // From the first lane: ptxas then knows that descriptors of panels are of a warp.
  int all_warps = shuffle(static_cast<int>(threadIdx.x) / kWarp, 0);
  int team = all_warps * kWarp / Plan::kTeam, warp = all_warps % (Plan::kTeam / kWarp), group = warp / 4;
  int row = 16 * warp, group_row = 64 * group;  // where the rows of the warp and of its warpgroup begin
  int layer = Plan::kLayers > 1 ? group : 0, block = Plan::kLayers > 1 ? 0 : group;  // its part of the dweights

  FLA_DEVICE void barrier() const {
    if constexpr (Plan::kTeams > 1) warpgroup_barrier<Plan::kGroups>();
    else block_barrier();
  }
};

template <class T, RowMap kMap, int kWidth>
using Rows = RowFragment<T, kWidth, 1, BackwardPlan<kMap, kWidth>::kRows>;
template <int kWidth>
using Sums = RowSums<kWidth, 1>;

// Begins columns 64 p .. of a layer of the warpgroup's rows, the first of which is at x: bias + x weight^T.
template <class Plan, class T, int kWidth>
FLA_DEVICE void begin_layer(Sums<kWidth>& h, int p, Panels<T> x, Panels<T> weight, const float* bias) {
  h.start(4 * p, 4, bias);
  warpgroup_begin(h.panel(p));
  FLA_UNROLL
  for (int k = 0; k < kWidth / 16; ++k)
    warpgroup_mma<false, false>(h.panel(p), x + columns_in_tile<Plan::kRows>(k),
                                weight + (columns_in_tile<kWidth>(k) + 64 * p * kRowOfPanel));
}

// h = e^2h and down = e^-2h become dh of the softmax. dy: the warp's rows of it, its parts a tile apart.
template <class T, class Plan, int kWidth>
FLA_DEVICE void softmax_gradient(Sums<kWidth>& h, const T* dy) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  FLA_UNROLL
  for (int n = 0; n < 2; ++n) {
    float down[kWidth / 8][2];
    const float factor = signed_softmax(n, h, down);
    // dh / 2 = y dy - y' dy' - mean (y - y'), mean = sum(y dy + y' dy'): what the sum needs of dy it leaves behind.
    float mean = 0;
    FLA_UNROLL
    for (int q = 0; q < kWidth / 32; ++q) {
      uint32_t words[2][4];
      FLA_UNROLL
      for (int p = 0; p < 2; ++p)
        load_matrices<false>(
            dy + p * Plan::kTile + place_in_tile<Plan::kRows>(lane % 8, 4 * q + lane / 8) + 8 * n * kPanel, words[p]);
      FLA_UNROLL
      for (int i = 0; i < 8; ++i) {
        float g[2][2];
        FLA_UNROLL
        for (int p = 0; p < 2; ++p) unpack_pair<T>(words[p][i / 2], g[p][0], g[p][1]);
        float &up = h.of_row(n, 4 * q + i / 2, i % 2), &below = down[4 * q + i / 2][i % 2];
        const float difference = fmaf(up, g[0][i % 2], -(below * g[1][i % 2]));
        mean = fmaf(below, g[1][i % 2], fmaf(up, g[0][i % 2], mean));
        below = up - below;
        up = difference;
      }
    }
    mean = factor * quad_sum(mean);
    const float twice = 2.0f * factor;
    FLA_UNROLL
    for (int i = 0; i < kWidth / 4; ++i) {
      float& v = h.of_row(n, i / 2, i % 2);
      v = twice * fmaf(-mean, down[i / 2][i % 2], v);
    }
  }
}

// Columns 64 p .. of dh of a relu, or of the factor that h is the other of, to the warp's rows of a tile; zeros beyond the first
// `live`, whatever h was there. dy: the warp's rows of it, which dh may replace.
template <class T, RowMap kMap, class Plan, int kWidth>
FLA_DEVICE void panel_gradient(const Sums<kWidth>& h, int p, const T* dy, int live, T* dh) {
  Rows<T, kMap, kWidth> rows;
  FLA_UNROLL
  for (int k = 4 * p; k < 4 * p + 4; ++k) load_matrices<false>(matrices_of_tile<Plan::kRows>(dy, 0, k), rows.of[0][k]);
  warp_barrier();
  FLA_UNROLL
  for (int k = 4 * p; k < 4 * p + 4; ++k) {
    FLA_UNROLL
    for (int word = 0; word < 4; ++word) {
      float g[2];
      unpack_pair<T>(rows.of[0][k][word], g[0], g[1]);
      FLA_UNROLL
      for (int e = 0; e < 2; ++e) {
        const float v = h.at(0, k, word, e);
        if constexpr (kMap == RowMap::product) g[e] *= v;
        else g[e] = v > 0.0f ? g[e] : 0.0f;
      }
      rows.of[0][k][word] = pack_pair<T>(g[0], g[1]);
    }
    rows.keep_first(k, live);
    rows.store_tile(k, dh);
  }
}

// From x and dy of a team's rows, dh of all layers to their tiles. `live`: rows of the warp that there are.
template <class T, RowMap kMap, int kWidth, class Plan>
FLA_DEVICE void hidden_gradients(const Member<Plan>& own, const T* x, T* const (&dh)[Plan::kLayers], Panels<T> weights,
                                 const float* bias, int live) {
  const Panels<T> rows(x + own.group_row * kPanel);
  const T* dy = x + Plan::kTile + own.row * kPanel;
  Sums<kWidth> h;
  const auto finish = [&](int first_panel, int panels) {
    warpgroup_commit();
    warpgroup_wait<0>();
    FLA_UNROLL
    for (int p = first_panel; p < first_panel + panels; ++p) warpgroup_end(h.panel(p));
  };
  if constexpr (kMap == RowMap::softmax) {
    FLA_UNROLL
    for (int p = 0; p < Plan::kPanels; ++p) begin_layer<Plan>(h, p, rows, weights, bias);
    finish(0, Plan::kPanels);
    softmax_gradient<T, Plan>(h, dy);
    warp_barrier();  // all lanes have read the dy that dh replaces
    Rows<T, kMap, kWidth> packed;
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; ++k) {
      h.pack_into(k, packed);
      packed.keep_first(k, live);
      packed.store_tile(k, dh[0] + own.row * kPanel);
    }
  } else {
    FLA_UNROLL
    for (int p = 0; p < Plan::kPanels; ++p) {
      // One factor after the other, as registers allow: the first makes dh of the second, and last dh takes the place of dy.
      FLA_UNROLL
      for (int l = 0; l < Plan::kLayers; ++l) {
        begin_layer<Plan>(h, p, rows, weights + l * kWidth * kWidth / 8, bias + l * kWidth);
        finish(p, 1);
        panel_gradient<T, kMap, Plan>(h, p, dy, live, dh[Plan::kLayers - 1 - l] + own.row * kPanel);
      }
    }
  }
}

// Begins columns 64 p .. of dx of the warpgroup's rows: dh weight, over all layers.
template <class T, class Plan, int kWidth>
FLA_DEVICE void begin_inputs(Sums<kWidth>& dx, int p, const Member<Plan>& own, T* const (&dh)[Plan::kLayers],
                             Panels<T> weights) {
  warpgroup_begin(dx.panel(p));
  FLA_UNROLL
  for (int l = 0; l < Plan::kLayers; ++l) {
    const Panels<T> rows(dh[l] + own.group_row * kPanel);
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; ++k)
      warpgroup_mma<false, true>(dx.panel(p), rows + columns_in_tile<Plan::kRows>(k),
                                 weights + (l * kWidth * kWidth / 8 + (p * kWidth + 16 * k) * kRowOfPanel), l + k > 0);
  }
}

// Columns 64 p .. of dx of the warp's rows to memory.
template <class T, RowMap kMap, int kWidth>
FLA_DEVICE void store_inputs(const Sums<kWidth>& dx, int p, const FusedMapArgs& a, int64_t first) {
  if (a.vectors) {
    Rows<T, kMap, kWidth> packed;
    FLA_UNROLL
    for (int k = 4 * p; k < 4 * p + 4; ++k) dx.pack_into(k, packed);
    packed.store_rows(p, static_cast<T*>(a.out.data), first, a.rows, a.out_stride);
    return;
  }
  // Of another dtype, or unaligned: the parameters' sums must not depend on how it lies.
  const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
  FLA_UNROLL
  for (int i = 32 * p; i < 32 * p + 32; ++i) {
    const int k = i / 8, word = i / 2 % 4;
    const int64_t row = first + word % 2 * 8 + g;
    if (row < a.rows) store_float(a.out, row * a.out_stride + 16 * k + word / 2 * 8 + 2 * t + i % 2, dx.at(0, k, word, i % 2));
  }
}

// What a thread adds to for the whole launch: its warpgroup's part of the dweights and, in column 0, as many outputs of dbias.
template <class Plan, int kWidth>
struct WeightSums {
  static constexpr int kBlocks = Plan::kBlocks;
  Sums<kWidth> dweight[kBlocks];
  float dbias[kBlocks][4] = {};

  FLA_DEVICE WeightSums() {
    each([](float& sum, int) { sum = 0; });
  }

  // Begins += dh^T x over a team's rows, dh of the layer of the warpgroup.
  template <class T>
  FLA_DEVICE void begin(const Member<Plan>& own, const T* x, const T* dh) {
    const Panels<T> outputs(dh + own.block * Plan::kRows * kPanel), inputs(x);
    FLA_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      FLA_UNROLL
      for (int p = 0; p < Plan::kPanels; ++p) {
        warpgroup_begin(dweight[i].panel(p));
        FLA_UNROLL
        for (int k = 0; k < Plan::kRows / 16; ++k)
          warpgroup_mma<true, true>(dweight[i].panel(p), outputs + (i * Plan::kRows + 16 * k) * kRowOfPanel,
                                    inputs + (p * Plan::kRows + 16 * k) * kRowOfPanel);
      }
    }
  }
  FLA_DEVICE void end() {
    FLA_UNROLL
    for (int i = 0; i < kBlocks * Plan::kPanels; ++i) warpgroup_end(dweight[i / Plan::kPanels].panel(i % Plan::kPanels));
  }
  template <class T>
  FLA_DEVICE void add_biases(const Member<Plan>& own, const T* dh) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const uint32_t ones = pack_pair<T>(1.0f, 1.0f);
    const T* from = dh + own.block * Plan::kRows * kPanel + place_in_panel(lane / 16 * 8 + lane % 8, own.warp % 4 * 2 + lane / 8 % 2);
    FLA_UNROLL
    for (int k = 0; k < Plan::kRows / 16; ++k) {
      FLA_UNROLL
      for (int i = 0; i < kBlocks; ++i) {
        uint32_t outputs[4];
        load_matrices<true>(from + (i * Plan::kRows + 16 * k) * kPanel, outputs);
        mma<T>(dbias[i], outputs, ones, ones);
      }
    }
  }

  // Adds the sums of all teams of a block to those of the first, in turn. By all threads, once no team needs its tiles: `board`.
  FLA_DEVICE void add_teams(const Member<Plan>& own, float* board) {
    constexpr int kCount = kBlocks * (kWidth / 2 + 4);
    const int thread = static_cast<int>(threadIdx.x) % Plan::kTeam;
    if (own.team > 0) {
      float* to = board + (own.team - 1) * kCount * Plan::kTeam + thread;
      each([&](float& sum, int i) { to[i * Plan::kTeam] = sum; });
    }
    block_barrier();
    if (own.team > 0) return;
    for (int other = 1; other < Plan::kTeams; ++other) {
      const float* from = board + (other - 1) * kCount * Plan::kTeam + thread;
      each([&](float& sum, int i) { sum += from[i * Plan::kTeam]; });
    }
  }
  template <class Body>
  FLA_DEVICE void each(Body body) {
    constexpr int kOfBlock = kWidth / 2 + 4;
    FLA_UNROLL
    for (int i = 0; i < kBlocks; ++i) {
      FLA_UNROLL
      for (int j = 0; j < kWidth / 2; ++j) body(dweight[i].panel(j / 32)[j % 32], i * kOfBlock + j);
      FLA_UNROLL
      for (int j = 0; j < 4; ++j) body(dbias[i][j], i * kOfBlock + kWidth / 2 + j);
    }
  }

  FLA_DEVICE void store_sums(const Member<Plan>& own, float* to, float* bias_to) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int n = 0; n < 2 * kBlocks; ++n) {
      const int row = 64 * (own.block + n / 2) + own.warp % 4 * 16 + g + n % 2 * 8;
      FLA_UNROLL
      for (int j = 0; j < kWidth / 8; ++j) {
        const float* sums = dweight[n / 2].sums[j][0] + n % 2 * 2;
        const float pair[2] = {sums[0], sums[1]};
        if (to) store_floats(to + row * kWidth + 8 * j + 2 * t, pair);
      }
      if (bias_to && t == 0) store_float(bias_to + row, dbias[n / 2][n % 2 * 2]);
    }
  }
};

template <class T, RowMap kMap, int kWidth>
FLA_KERNEL void FLA_BOUNDS((BackwardPlan<kMap, kWidth>::kThreads), 1) fused_map_backward_kernel(FLA_PARAMETERS FusedMapArgs a) {
  using Plan = BackwardPlan<kMap, kWidth>;
  constexpr int kLayers = Plan::kLayers;
  const Member<Plan> own;
  T* weights = shared_memory<T>();
  T* tiles = weights + Plan::kWeights;
  T* stages = tiles + own.team * Plan::kOwn;
  float* bias = reinterpret_cast<float*>(weights + Plan::kElements);
  release_dependents();
  wait_for_predecessor();
  // Tiles go to the first teams of all blocks, then to the second ones: every multiprocessor has as many as any other.
  const int64_t step = static_cast<int64_t>(gridDim.x) * Plan::kTeams * Plan::kRows;
  int64_t base = (static_cast<int64_t>(own.team) * gridDim.x + blockIdx.x) * Plan::kRows;
  using Tile = Rows<T, kMap, kWidth>;
  const T* next_x = Tile::source(static_cast<const T*>(a.x), base + own.row, a.x_stride);
  const T* next_dy = Tile::source(static_cast<const T*>(a.dy), base + own.row, a.dy_stride);
  const auto fetch = [&](int turn, int64_t from) {  // the row where those pointers are
    if (from < a.rows) {
      const int live = rows_left(a.rows - from - own.row, 16);
      T* tile = stages + turn * Plan::kStage + own.row * kPanel;
      Tile::fetch(tile, next_x, live, a.x_stride);
      FLA_UNROLL
      for (int p = 0; p < kMapParts<kMap>; ++p) Tile::fetch(tile + (1 + p) * Plan::kTile, next_dy + p * kWidth, live, a.dy_stride);
    }
    async_commit();
    next_x += step * a.x_stride;
    next_dy += step * a.dy_stride;
  };
  stage_weights<T, kMap, kWidth>(a, weights);
  fetch(0, base);
  stage_biases<kMap, kWidth>(a, bias);
  async_wait<0>();
  publish_to_async();
  block_barrier();
  const bool sums = a.dweight[0] || a.dweight[1] || a.dbias[0] || a.dbias[1];
  WeightSums<Plan, kWidth> total;
  FLA_NO_UNROLL
  for (int turn = 0; base < a.rows; base += step, turn ^= 1) {
    const T* x = stages + turn * Plan::kStage;
    T* dh[kLayers];
    FLA_UNROLL
    for (int l = 0; l < kLayers; ++l) dh[l] = stages + (l == 0 ? turn * Plan::kStage + Plan::kTile : 2 * Plan::kStage);
    async_wait<0>();
    publish_to_async();
    own.barrier();  // this turn's rows are there, and the team has done with those before
    fetch(turn ^ 1, base + step);
    const int64_t first = base + own.row;
    hidden_gradients<T, kMap, kWidth>(own, x, dh, Panels<T>(weights), bias, rows_left(a.rows - first, 16));
    publish_to_async();
    own.barrier();  // so is dh
    const T* own_dh = own.layer == 0 ? dh[0] : dh[kLayers - 1];
    Sums<kWidth> dx;
    FLA_UNROLL
    for (int p = 0; p < Plan::kPanels; ++p) {
      const bool last = p == Plan::kPanels - 1;
      if (a.out) begin_inputs<T>(dx, p, own, dh, Panels<T>(weights));
      warpgroup_commit();
      if (last && sums) total.begin(own, x, own_dh);
      warpgroup_commit();
      if (last && (a.dbias[0] || a.dbias[1])) total.add_biases(own, own_dh);
      warpgroup_wait<1>();
      warpgroup_end(dx.panel(p));
      if (a.out) store_inputs<T, kMap>(dx, p, a, first);
    }
    warpgroup_wait<0>();
    total.end();
  }
  if (!sums) return;
  if constexpr (Plan::kTeams > 1) {
    block_barrier();
    total.add_teams(own, reinterpret_cast<float*>(tiles));
    if (own.team > 0) return;
  }
  float* const dweight = own.layer == 0 ? a.dweight[0] : a.dweight[1];
  float* const dbias = own.layer == 0 ? a.dbias[0] : a.dbias[1];
  const int64_t block = blockIdx.x;
  total.store_sums(own, dweight ? dweight + block * kWidth * kWidth : nullptr, dbias ? dbias + block * kWidth : nullptr);
}

// Calls body with the plan of a call as a template argument.
template <class Body>
auto with_plan(const LearnedMapBackward& m, Body body) {
  return with_map(m.kind, [&](auto map) {
    constexpr RowMap kMap = decltype(map)::value;
    return m.x.size[1] == 64 ? body(BackwardPlan<kMap, 64>{}) : body(BackwardPlan<kMap, 128>{});
  });
}

int64_t blocks_of(const LearnedMapBackward& m) {
  return with_plan(m, [&](auto plan) {
    const int64_t tiles = divide_up(m.x.size[0], plan.kRows * plan.kTeams);
    return tiles < kMapMultiprocessors ? tiles : kMapMultiprocessors;
  });
}

struct Partials {
  float *dweight[2] = {}, *dbias[2] = {};
  size_t bytes = 0;

  explicit Partials(const LearnedMapBackward& m, void* base = nullptr) {
    WorkspaceParts parts(base);
    const int64_t blocks = blocks_of(m), width = m.x.size[1];
    const auto take = [&](const Tensor& wanted, int64_t columns) {
      return static_cast<float*>(parts.take(wanted ? static_cast<size_t>(blocks * columns) * sizeof(float) : 0));
    };
    dweight[0] = take(m.dweight, width * width);
    dweight[1] = take(m.dweight2, width * width);
    dbias[0] = take(m.dbias, width);
    dbias[1] = take(m.dbias2, width);
    bytes = parts.bytes();
  }
};

template <RowMap kMap, int kWidth>
Status launch_map(BackwardPlan<kMap, kWidth> plan, const LearnedMapBackward& m, const FusedMapArgs& a, Stream stream) {
  const Launch shape{.grid = blocks_of(m),
                     .block = plan.kThreads,
                     .shared_bytes = plan.kBytes,
                     .stream = stream,
                     .dependent = true};
  return m.x.dtype == DType::bf16 ? launch<&fused_map_backward_kernel<bf16, kMap, kWidth>>(shape, a)
                                  : launch<&fused_map_backward_kernel<f16, kMap, kWidth>>(shape, a);
}

}  // namespace

bool fuses(const LearnedMapBackward& m) {
  const int64_t width = m.x.size[1];
  return m.kind != LearnedMap::outer_product && size_of(m.x.dtype) == 2 && m.dy.dtype == m.x.dtype &&
         (width == 64 || width == 128) && m.weight.size[0] == width && all_rows_allow(8, m.x, m.weight, m.weight2, m.dy);
}

size_t fused_workspace_bytes(const LearnedMapBackward& m) { return Partials(m).bytes; }

Status run_fused(const LearnedMapBackward& m, Workspace workspace, Stream stream) {
  const Partials partials(m, workspace.data);
  FusedMapArgs a;
  a.rows = m.x.size[0];
  const int64_t parts = blocks_of(m);
  if (a.rows > 0) {
    a.x = m.x.data;
    a.dy = m.dy.data;
    a.out = any_float(m.dx);
    a.vectors = m.dx.dtype == m.x.dtype && rows_allow(m.dx, 8);
    a.x_stride = m.x.stride[0];
    a.dy_stride = m.dy.stride[0];
    a.out_stride = m.dx ? m.dx.stride[0] : 0;
    const Tensor* weights[2] = {&m.weight, &m.weight2};
    const Tensor* biases[2] = {&m.bias, &m.bias2};
    for (int l = 0; l < 2; ++l) {
      a.weight[l] = weights[l]->data;
      a.weight_stride[l] = *weights[l] ? weights[l]->stride[0] : 0;
      a.bias[l] = any_float(*biases[l]);
      a.dweight[l] = partials.dweight[l];
      a.dbias[l] = partials.dbias[l];
    }
    const Status s = with_plan(m, [&](auto plan) { return launch_map(plan, m, a, stream); });
    if (!s.ok()) return s;
  }
  return finish_columns({{column_target(partials.dweight[0], m.dweight), column_target(partials.dweight[1], m.dweight2),
                         column_target(partials.dbias[0], m.dbias), column_target(partials.dbias[1], m.dbias2)}},
                        parts, stream);
}

}  // namespace fla::detail

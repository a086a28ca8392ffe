// Measured times of other libraries, set beside ours. The file (shared/baselines/h200-peers.json is one):
//   { "meta": { "device", "date", "method", ... },
//     "rows": [ { "op", "peer", "dir", "shape", "ms", "GBps"?, "method"? } ] }
// Rows whose method contains "hot" are graph replay with the data in L2 and compare with our hot time; the
// others compare with our cold time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/result.h"

namespace fla::reports {

struct PeerRow {
  std::string op, peer, direction, shape;
  double us = 0, gbps = 0;
  bool hot = false;
};

struct Peers {
  std::string device, date, method;
  std::vector<PeerRow> rows;
};

// Throws FormatError.
Peers read_peers(std::string_view text, const std::string& where);
Peers load_peers(const std::string& path);

// What a case is called in a peers file: op "rms_norm_residual", direction "fwd", shape "16384x4096".
struct PeerKey {
  std::string op, direction, shape;
};
// Nothing where no peer was asked for the same work: another dtype than bf16, options or layouts that cost
// time.
std::optional<PeerKey> peer_key(const harness::Result&);

// Every row measured on this case's problem, fastest first.
std::vector<PeerRow> peers_of(const harness::Result&, const Peers&);

// Our time under the conditions of a peer's row: hot or cold, 0 where it was not measured.
double comparable_us(const harness::Result&, const PeerRow&);

// The fastest peer against us; graph replay of both where that was measured, because the cold figures of
// small shapes contain the peer's host time.
struct Versus {
  PeerRow peer;
  double ours_us = 0;
  double speedup = 0;  // above 1: we are faster
};
std::optional<Versus> fastest_peer(const harness::Result&, const Peers&);

}  // namespace fla::reports

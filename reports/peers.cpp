#include "reports/peers.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "reports/json.h"

namespace fla::reports {

using harness::Result;
using Names = std::vector<std::string_view>;

static std::string text_or_empty(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

static double number_or_zero(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number() ? it->get<double>() : 0;
}

static PeerRow read_row(const Json& json, const std::string& where) {
  if (!json.is_object()) throw FormatError(where + ": expected an object");
  PeerRow row;
  const std::string op = text_or_empty(json, "op");
  row.op = op.substr(0, op.find(' '));  // some rows repeat the peer: "rms_norm torch"
  row.peer = text_or_empty(json, "peer");
  row.direction = text_or_empty(json, "dir");
  row.shape = text_or_empty(json, "shape");
  row.us = number_or_zero(json, "ms") * 1000;
  row.gbps = number_or_zero(json, "GBps");
  row.hot = text_or_empty(json, "method").find("hot") != std::string::npos;
  if (row.op.empty() || row.peer.empty()) throw FormatError(where + ": op or peer is missing");
  if (!(row.us > 0)) throw FormatError(where + "/ms: expected a positive number");
  return row;
}

Peers read_peers(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  if (!document.is_object()) throw FormatError(where + ": expected an object");
  Peers peers;
  if (const auto meta = document.find("meta"); meta != document.end() && meta->is_object()) {
    peers.device = text_or_empty(*meta, "device");
    peers.date = text_or_empty(*meta, "date");
    peers.method = text_or_empty(*meta, "method");
  }
  const auto rows = document.find("rows");
  if (rows == document.end() || !rows->is_array()) throw FormatError(where + "/rows: expected a list");
  for (const Json& row : *rows) {
    peers.rows.push_back(read_row(row, where + ": /rows/" + std::to_string(peers.rows.size())));
  }
  return peers;
}

Peers load_peers(const std::string& path) { return read_peers(load_text(path), path); }

namespace {

// The parameters of a case, of which every one must be asked for before it counts as a peer's problem.
class Params {
 public:
  explicit Params(const Result& r) : params_(r.params) {}

  std::string_view get(std::string_view name) const {
    for (const auto& [key, value] : params_) {
      if (key == name) return value;
    }
    return "";
  }
  bool has(std::string_view name) const { return !get(name).empty() && get(name) != "none"; }

  int64_t dim(std::string_view name, int64_t fallback = 0) const {
    const std::string_view text = get(name);
    int64_t value = fallback;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  }

  // `main` is bf16, the other tensors are bf16 or as the description has them, and nothing is set but these,
  // the free keys and what never changes the time.
  bool are_only(std::string_view main, const Names& tensors, const Names& free) const {
    if (get(main) != "bf16") return false;
    return std::all_of(params_.begin(), params_.end(), [&](const auto& param) {
      const auto& [key, value] = param;
      if (key == main || contains(free, key) || contains({"seed", "fill", "eps"}, key)) return true;
      return contains(tensors, key) && value == "bf16";
    });
  }

 private:
  static bool contains(const Names& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  const std::vector<std::pair<std::string, std::string>>& params_;
};

std::string by(std::initializer_list<int64_t> extents) {
  std::string shape;
  for (const int64_t extent : extents) shape += (shape.empty() ? "" : "x") + std::to_string(extent);
  return shape;
}

// Rows are M tokens of G heads: the peers know rows only. With a residual the peers keep the sum (prenorm),
// and their backward takes its gradient.
std::optional<PeerKey> rms_norm_key(const Result& r) {
  const Params p(r);
  const Names tensors{"weight", "y", "residual", "residual_out", "dy", "dx", "dweight", "dresidual_out"};
  if (!p.are_only("x", tensors, {"M", "G", "N"})) return std::nullopt;
  if (p.get("residual_out") == "none" || p.get("dresidual_out") == "none") return std::nullopt;
  const std::string shape = by({p.dim("M") * p.dim("G", 1), p.dim("N")});
  return PeerKey{p.has("residual") ? "rms_norm_residual" : "rms_norm", r.direction, shape};
}

// The norms that the peers measured without a residual, and over rows alone.
std::optional<PeerKey> norm_key(const Result& r) {
  const Params p(r);
  const Names tensors{"weight", "bias", "gate", "y", "dy", "dx", "dgate", "dweight", "dbias"};
  if (!p.are_only("x", tensors, {"M", "N"})) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("M"), p.dim("N")})};
}

std::optional<PeerKey> activation_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"y", "dy", "dx"}, {"M", "C"})) return std::nullopt;
  return PeerKey{r.op == "gelu_tanh" ? "gelu" : r.op, r.direction, by({p.dim("M"), p.dim("C")})};
}

std::optional<PeerKey> gated_unit_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"y", "z", "dz", "dx", "dy"}, {"M", "F"})) return std::nullopt;
  if (r.direction == "bwd" && p.has("z")) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("M"), p.dim("F")})};
}

// Liger's row is the loss with its gradient written over the logits.
std::optional<PeerKey> cross_entropy_key(const Result& r) {
  const Params p(r);
  const Names free{"T", "V", "labels", "reduction", "dlogits.alias"};
  if (!p.are_only("logits", {"dlogits"}, free)) return std::nullopt;
  const std::string direction = r.direction == "fwd_bwd" ? "fwd+grad" : r.direction;
  return PeerKey{"cross_entropy", direction, by({p.dim("T"), p.dim("V")})};
}

// The one length of all packed sequences ("1024+1024", or "equal" parts of the tokens), 0 where they differ.
int64_t equal_length(std::string_view lens, int64_t tokens, int64_t sequences) {
  if (lens == "equal") return sequences > 0 && tokens % sequences == 0 ? tokens / sequences : 0;
  const std::string_view first = lens.substr(0, lens.find('+'));
  while (!lens.empty()) {
    const size_t end = std::min(lens.find('+'), lens.size());
    if (lens.substr(0, end) != first) return 0;
    lens.remove_prefix(std::min(end + 1, lens.size()));
  }
  int64_t length = 0;
  std::from_chars(first.data(), first.data() + first.size(), length);
  return length;
}

// Packed rows of the peers were measured as 4 x 8192 tokens in one row.
constexpr int64_t kPeerTokens = 8192;

// Rows of tokens, or packed sequences of one length.
std::optional<PeerKey> packed_key(const Params& p, const std::string& op, const std::string& direction, std::string words) {
  int64_t rows = p.dim("B", 1), tokens = p.dim("T");
  if (p.has("cu_seqlens")) {
    const int64_t length = equal_length(p.get("lens"), tokens, p.dim("N"));
    if (length == 0 || tokens % kPeerTokens != 0) return std::nullopt;
    rows = tokens / kPeerTokens;
    tokens = kPeerTokens;
    words += " varlen" + std::to_string(length);
  }
  return PeerKey{op, direction, by({rows, tokens, p.dim("D")}) + words};
}

std::optional<PeerKey> causal_conv1d_key(const Result& r) {
  const Params p(r);
  const Names tensors{"weight", "bias", "y", "dy", "dx", "dweight", "dbias"};
  const Names free{"B", "T", "D", "W", "N", "activation", "cu_seqlens", "lens"};
  if (!p.are_only("x", tensors, free) || p.get("activation") != "silu") return std::nullopt;
  return packed_key(p, r.op, r.direction, " W" + std::to_string(p.dim("W", 4)) + " silu");
}

// Rows of G groups side by side.
std::optional<PeerKey> group_norm_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"weight", "bias", "y", "dy", "dx", "dweight", "dbias"}, {"M", "G", "N"})) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("M"), p.dim("G", 1) * p.dim("N")}) + " G=" + std::to_string(p.dim("G", 1))};
}

std::optional<PeerKey> rotary_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"cos", "sin", "y", "dy", "dx"}, {"B", "T", "H", "D", "interleaved"})) return std::nullopt;
  const bool interleaved = p.dim("interleaved") != 0;
  return PeerKey{r.op, r.direction, by({p.dim("B"), p.dim("T"), p.dim("H"), p.dim("D")}) + (interleaved ? " interleaved" : "")};
}

std::optional<PeerKey> token_shift_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"y", "dy", "dx"}, {"B", "T", "D", "N", "cu_seqlens", "lens"})) return std::nullopt;
  return packed_key(p, r.op, r.direction, "");
}

// The peer's l2_warp has a dense backward, which is no direction of ours.
std::optional<PeerKey> l2_warp_key(const Result& r) {
  const Params p(r);
  if (r.direction != "fwd" || !p.are_only("logits", {}, {"T", "V"})) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("T"), p.dim("V")})};
}

std::string named(const Params& p, std::initializer_list<const char*> dims) {
  std::string shape;
  for (const char* dim : dims) shape += (shape.empty() ? "" : " ") + std::string(dim) + std::to_string(p.dim(dim));
  return shape;
}

std::optional<PeerKey> grpo_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("logits", {"dlogits"}, {"B", "L", "V", "S"})) return std::nullopt;
  return PeerKey{"grpo", r.direction, named(p, {"B", "L", "V"})};
}

// Loss and gradients in one, whatever they may use of memory: the peers' is in their rows.
std::optional<PeerKey> linear_loss_key(const Result& r) {
  const Params p(r);
  if (r.direction != "fwd_bwd" || !p.are_only("x", {"dx"}, {"T", "H", "G", "V", "dweight", "workspace_limit"})) return std::nullopt;
  if (p.has("G") && p.dim("G") != p.dim("H")) return std::nullopt;
  return PeerKey{r.op, "fwd+bwd", named(p, {"T", "H", "V"})};
}

// The peer's backward alone is that without weight gradients.
std::optional<PeerKey> gated_mlp_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("x", {"out", "dout", "dx"}, {"M", "H", "F", "dgate_up_weight", "ddown_weight"})) return std::nullopt;
  if (r.direction == "bwd" && (p.get("dgate_up_weight") != "none" || p.get("ddown_weight") != "none")) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("M"), p.dim("H"), p.dim("F")})};
}

// Measured as 4 x 4096 tokens of 16 heads.
std::optional<PeerKey> feature_map_key(const Result& r) {
  constexpr int64_t kPeerRows = 4 * 4096 * 16;
  const Params p(r);
  if (!p.are_only("x", {}, {"M", "D"}) || p.dim("M") != kPeerRows) return std::nullopt;
  return PeerKey{r.op.substr(std::string_view("fmap_").size()), r.direction, by({4, 4096, 16, p.dim("D")})};
}

std::optional<PeerKey> long_conv_key(const Result& r) {
  const Params p(r);
  if (!p.are_only("u", {"y", "dy", "du"}, {"B", "L", "D"})) return std::nullopt;
  return PeerKey{r.op, r.direction, by({p.dim("B"), p.dim("L"), p.dim("D")})};
}

}  // namespace

std::optional<PeerKey> peer_key(const Result& r) {
  if (r.op == "rms_norm") return rms_norm_key(r);
  if (r.op == "cross_entropy") return cross_entropy_key(r);
  if (r.op == "causal_conv1d") return causal_conv1d_key(r);
  const auto is_one_of = [&](const Names& names) { return std::find(names.begin(), names.end(), r.op) != names.end(); };
  if (is_one_of({"layer_norm", "l2_norm", "rms_norm_gated", "layer_norm_gated"})) return norm_key(r);
  if (is_one_of({"sigmoid", "logsigmoid", "swish", "gelu_tanh", "sqrelu"})) return activation_key(r);
  if (is_one_of({"swiglu", "powglu"})) return gated_unit_key(r);
  if (r.op == "group_norm") return group_norm_key(r);
  if (r.op == "rotary") return rotary_key(r);
  if (r.op == "token_shift") return token_shift_key(r);
  if (r.op == "l2_warp") return l2_warp_key(r);
  if (r.op == "grpo_loss") return grpo_key(r);
  if (is_one_of({"linear_cross_entropy", "linear_kl_div"})) return linear_loss_key(r);
  if (r.op == "gated_mlp") return gated_mlp_key(r);
  if (r.op == "long_conv") return long_conv_key(r);
  if (is_one_of({"fmap_hedgehog", "fmap_t2r", "fmap_hadamard", "fmap_dpfp", "fmap_taylor", "fmap_rebased"})) return feature_map_key(r);
  return std::nullopt;
}

std::vector<PeerRow> peers_of(const Result& r, const Peers& peers) {
  std::vector<PeerRow> found;
  const std::optional<PeerKey> key = peer_key(r);
  if (!key) return found;
  std::copy_if(peers.rows.begin(), peers.rows.end(), std::back_inserter(found), [&](const PeerRow& row) {
    return row.op == key->op && row.direction == key->direction && row.shape == key->shape;
  });
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.us < b.us; });
  return found;
}

double comparable_us(const Result& r, const PeerRow& row) {
  if (!r.timed || r.backend != "gpu") return 0;
  return row.hot ? r.hot.median_us : r.cold.median_us;
}

std::optional<Versus> fastest_peer(const Result& r, const Peers& peers) {
  std::optional<Versus> best;
  for (const PeerRow& row : peers_of(r, peers)) {
    const double ours = comparable_us(r, row);
    if (!(ours > 0)) continue;
    const bool better_kind = best && row.hot && !best->peer.hot;
    if (!best || better_kind) best = Versus{row, ours, row.us / ours};
  }
  return best;
}

}  // namespace fla::reports

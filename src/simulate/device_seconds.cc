#include "simulate/device_seconds.h"

#include <algorithm>

#include "costs/wire_cost.h"

namespace foe {

AttendedKeys attended_keys(const Batch& batch, std::span<const Piece> pieces, int window, const SpeedByRows& speed) {
  AttendedKeys keys{.window = window};
  for (const Piece& piece : pieces) {
    const double n = piece.end - piece.begin, first = batch.positions[piece.begin];
    double pairs = n * (2 * first + n + 1) / 2, positions = first + n;  // a query at p attends to p + 1 keys
    if (window > 0 && positions > window) {
      const double whole = std::clamp(window - first, 0.0, n);  // queries that the window hides nothing from
      pairs = whole * (2 * first + whole + 1) / 2 + (n - whole) * window;
      positions = std::min(positions, window + n);
    }
    keys.seconds_per_op += pairs / speed.at(n);
    keys.positions += positions;
  }
  return keys;
}

DeviceSeconds::DeviceSeconds(const ModelConfig& config, const Share& share, const WeightFormats& formats,
                             KvType kv_type, const DeviceSpeed& speed)
    : config_(config),
      share_(share),
      speed_(speed),
      attention_bits_(bits(formats.attention, formats.kept_attention)),
      experts_bits_(bits(formats.experts, formats.kept_experts)),
      head_bits_(bits(formats.head, formats.kept_head)),
      elements_(matrix_elements_by_layer(config, share)),
      kv_(kv_shape(config, share, kv_type)) {}

double DeviceSeconds::product(const SpeedByRows& speed, double rows, double elements, double bits,
                              double read_elements) const {
  if (rows <= 0 || elements <= 0) return 0;
  return std::max(2 * elements / speed.at(rows), read_elements * bits / 8 / speed_.bytes_per_s);
}

double DeviceSeconds::floats(double rows, double vectors) const {
  return rows * vectors * config_.hidden_size / speed_.floats_per_s;
}

double DeviceSeconds::projections(int layer, int rows) const {
  const auto elements = static_cast<double>(elements_[layer].attention);
  return product(speed_.projections, rows, rows * elements, attention_bits_, elements) +
         floats(rows, 1 + 2 * share_.streams());
}

double DeviceSeconds::attending(const AttendedKeys& keys) const {
  const double heads = static_cast<double>(share_.kv_heads.size()) * config_.heads().per_kv_head();
  const double operations = 2 * heads * (kv_.key_width + kv_.value_width);
  return std::max(operations * keys.seconds_per_op,
                  keys.positions * static_cast<double>(kv_.block_bytes()) / kKvBlock / speed_.bytes_per_s);
}

double DeviceSeconds::routing(int layer, int rows) const {
  const auto elements = static_cast<double>(elements_[layer].router);
  return product(speed_.router, rows, rows * elements, 32, elements) + floats(rows, 2 + share_.streams());
}

double DeviceSeconds::experts(int layer, int rows, const LayerCounts& counts) const {
  const auto elements = static_cast<double>(elements_[layer].experts);
  if (config_.experts(layer).dense()) return product(speed_.experts, rows, rows * elements, experts_bits_, elements);
  const Range own = share_.experts(layer);
  double all = 0, touched = 0;
  for (int e = own.begin; e < own.end; ++e) {
    all += counts.expert_rows[e];
    touched += counts.expert_rows[e] > 0;
  }
  if (all == 0) return 0;
  const double of_one = elements / own.size();
  return product(speed_.experts, all / touched, all * of_one, experts_bits_, touched * of_one) + floats(all, 1);
}

double DeviceSeconds::last_sum(int rows) const {
  return floats(rows, 1 + share_.streams());
}

double DeviceSeconds::scoring(int rows) const {
  const auto elements = static_cast<double>(elements_.back().head);
  return product(speed_.head, rows, rows * elements, head_bits_, elements) + floats(rows, 1);
}

}  // namespace foe

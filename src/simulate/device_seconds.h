// How long a simulated device computes for a stage of a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/batch.h"
#include "core/model_config.h"
#include "costs/roofline.h"
#include "kernels/formats/kv_format.h"
#include "placement/placement.h"
#include "simulate/cluster.h"
#include "simulate/route_counts.h"
#include "weights/weight_formats.h"

namespace foe {

// What the rows that a member runs attend to, in layers with one window.
struct AttendedKeys {
  int window = 0;             // AttentionConfig::window
  double seconds_per_op = 0;  // the sum over pieces of pairs of a query and a key, each over the piece's speed
  double positions = 0;       // whose keys and values are read: of each piece once
};
AttendedKeys attended_keys(const Batch& batch, std::span<const Piece> pieces, int window, const SpeedByRows& speed);

// Returns seconds of one rank's arithmetic, with reading and computing at the same time: the longer of the two.
class DeviceSeconds {
 public:
  DeviceSeconds(const ModelConfig& config, const Share& share, const WeightFormats& formats, KvType kv_type,
                const DeviceSpeed& speed);

  // Of so many rows: norm, projections of queries, keys, values and output, and copies.
  double projections(int layer, int rows) const;
  double attending(const AttendedKeys& keys) const;
  // Norm, router, and what packing and adding of rows take.
  double routing(int layer, int rows) const;
  // Of the rank's experts; a dense layer's run `rows` rows.
  double experts(int layer, int rows, const LayerCounts& counts) const;
  double last_sum(int rows) const;
  double scoring(int rows) const;

 private:
  double product(const SpeedByRows& speed, double rows, double elements, double bits, double read_elements) const;
  double floats(double rows, double vectors) const;

  const ModelConfig& config_;
  const Share& share_;
  const DeviceSpeed& speed_;
  double attention_bits_, experts_bits_, head_bits_;
  std::vector<MatrixElements> elements_;  // matrix_elements_by_layer()
  KvShape kv_;
};

}  // namespace foe

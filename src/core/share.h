// What one rank holds of a model, as plain ranges. placement/ computes them; weights/ and model/ read them.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace foe {

// The half-open range [begin, end).
struct Range {
  int begin = 0;
  int end = 0;

  int size() const { return end - begin; }
  bool contains(int i) const { return begin <= i && i < end; }
};

// From the first layer to the last one, however many a model has.
inline constexpr Range kAllLayers{0, std::numeric_limits<std::int32_t>::max()};

// A rank's part of the experts of one layer.
struct ExpertsShare {
  Range experts;  // experts of which this rank holds all or a part
  Range width;    // which of each expert's F hidden units are here
};

struct Share {
  Range groups;    // federated: the groups whose heads, experts and updates M_h are here; otherwise [0, 1)
  int member = 0;  // which of the ranks with these groups this is; it owns the sequences with this owner (batch.h)
  Range kv_heads;  // KV heads, each with its N/M query heads
  Range vocab;     // rows of the token head
  std::vector<ExpertsShare> layers;  // of all layers; empty ranges where the rank does not run the layer
  // Which of the stages that follow each other this rank belongs to, and their layers: those that it runs. The first
  // stage embeds the tokens, and the last one has the token head.
  int stage = 0;
  Range stage_layers = kAllLayers;

  // Empty where the rank has nothing to do.
  Range experts(int layer) const { return layers.empty() ? Range{} : layers[layer].experts; }
  Range expert_width(int layer) const { return layers.empty() ? Range{} : layers[layer].width; }

  // A stream is a hidden state that attention reads. A federated model has one for each group, any other model one.
  int streams() const { return groups.size(); }
  bool runs(int layer) const { return stage_layers.contains(layer); }
  // Whether this rank has nothing to do, because the ranks are not a multiple of the groups. It only takes part in
  // broadcasts and gathers.
  bool idle() const { return groups.size() == 0; }
};

}  // namespace foe

// Which experts simulated tokens select: drawn at random, or as a record of routes has it (docs/routes.md).
//
// The experts of many tokens are drawn once, as rows of a table, and layers that select alike share a table. A token
// takes the row of its position, counted from a place that its sequence and the layer decide. So any run of positions
// is a range of rows, for which counts can be prepared (route_counts.h), however many tokens are simulated.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "trace/route_file.h"

namespace foe {

// Shape letters: R rows, J entries.
struct RouteTable {
  std::vector<std::int32_t> begin_R = {0};  // [R + 1] where a row's entries begin
  std::vector<std::int32_t> experts_J;      // experts with rows (core/expert_table.h), ascending in each row

  int rows() const { return static_cast<int>(begin_R.size()) - 1; }
  std::span<const std::int32_t> experts(int row) const {
    return std::span(experts_J).subspan(begin_R[row], begin_R[row + 1] - begin_R[row]);
  }
};

class RouteSource {
 public:
  // Draws selections, in each expert group of K/H experts, or K of all across groups. With `skew` 0 all experts are
  // equally likely; otherwise the i-th of a group's experts, in an order that the seed decides, is weighted with
  // i^-skew. Limits of groups and top_p (core/router_config.h) are not drawn.
  static RouteSource drawn(const ModelConfig& config, std::uint64_t seed, double skew = 0);
  // Takes them from a record: the i-th sequence that is simulated has those of the i-th of the record, from the first
  // on again when there are no more, and a position behind a sequence's end those from its beginning on. Where the last
  // layer has not run a token, it gets the experts of the layer before. Throws Error if the record is not of a model
  // with these layers and experts.
  static RouteSource recorded(const ModelConfig& config, const RouteFile& record, const std::string& source);

  const RouteTable& table(int layer) const { return tables_[table_of_layer_[layer]]; }
  // Layers with equal numbers have the same table.
  int table_number(int layer) const { return table_of_layer_[layer]; }

  // Calls f(begin, end) for the ranges of rows that these positions of a sequence take. Sequences are numbered from 0.
  template <typename F>
  void for_each_range(int layer, std::int64_t sequence, int first, int count, const F& f) const {
    const Place place = place_of(layer, sequence);
    for (int at = (place.offset + first) % place.rows; count > 0; at = 0) {
      const int n = std::min(count, place.rows - at);
      f(place.begin + at, place.begin + at + n);
      count -= n;
    }
  }

 private:
  // The rows that a sequence's tokens take in turn.
  struct Place {
    int begin, rows, offset;
  };
  Place place_of(int layer, std::int64_t sequence) const;

  std::vector<RouteTable> tables_;
  std::vector<int> table_of_layer_;
  std::uint64_t seed_ = 0;
  std::vector<int> begin_of_sequence_;  // of a record; empty: drawn
};

}  // namespace foe

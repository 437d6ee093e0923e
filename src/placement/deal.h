// Shares the rows of a step among the members of a group, where these split sequences (Placement::split_sequences).
//
// A query attends to all positions before it, so the later rows of a prompt take longer. A long run of rows is cut into
// two pieces for each member, and the longest pieces are dealt first, each to the member that has least to do. So a
// prompt alone is dealt like cards that go round and back: of four pieces the first and the last to one member, the
// others to the other one.
#pragma once

#include <cstdint>
#include <vector>

#include "core/batch.h"
#include "core/model_config.h"
#include "placement/placement.h"

namespace foe {

// Returns what a row takes apart from attending to keys (its projections), as the number of keys that take as long.
std::int64_t row_cost_in_keys(const ModelConfig& config);

// Returns pieces that cover the rows [rows.begin, rows.end) of the batch, ordered by their owners and then by their
// rows. Within a sequence they begin at multiples of kKvBlock positions, so that no two pieces write to one KV block: a
// block may have positions that come in pairs (kernels/formats/kv_format.h), and owners write in any order. `row_cost`
// is row_cost_in_keys().
std::vector<Piece> deal_rows(const Batch& batch, Range rows, int members, std::int64_t row_cost);

}  // namespace foe

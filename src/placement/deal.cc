#include "placement/deal.h"

#include <algorithm>
#include <functional>
#include <tuple>

namespace foe {
namespace {

// The first row from `row` on that begins a KV block, at most `end`.
int block_begin(const Batch& batch, int row, int end) {
  const int within = batch.positions[row] % kKvBlock;
  return within == 0 ? row : std::min(end, row + kKvBlock - within);
}

// Cuts the rows [begin, end) of one sequence.
void cut(int begin, int end, const Batch& batch, int members, std::vector<Piece>& pieces) {
  const std::int64_t rows = end - begin, parts = std::clamp<std::int64_t>(rows / kKvBlock, 1, 2 * members);
  for (std::int64_t i = 1, at = begin; i <= parts; ++i) {
    const int next = i == parts ? end : block_begin(batch, begin + static_cast<int>(rows * i / parts), end);
    if (next <= at) continue;
    pieces.push_back({static_cast<int>(at), next, 0});
    at = next;
  }
}

}  // namespace

std::int64_t row_cost_in_keys(const ModelConfig& config) {
  const AttentionConfig& a = config.heads();
  const std::int64_t C = a.key_width, W = a.head_value_width(), n = a.query_heads, m = a.kv_heads;
  return config.hidden_size * (n + m) * (C + W) / (n * (C + W));
}

std::vector<Piece> deal_rows(const Batch& batch, Range rows, int members, std::int64_t row_cost) {
  std::vector<Piece> pieces;
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int begin = std::max(rows.begin, batch.sequence_begin[s]);
    const int end = std::min(rows.end, batch.sequence_begin[s + 1]);
    if (begin < end) cut(begin, end, batch, members, pieces);
  }
  const auto cost = [&](const Piece& piece) {
    const std::int64_t n = piece.end - piece.begin, first = batch.positions[piece.begin];
    return n * row_cost + n * (2 * first + n + 1) / 2;  // a query at position p attends to p + 1 keys
  };
  std::ranges::stable_sort(pieces, std::greater(), cost);
  std::vector<std::int64_t> load(members);
  for (Piece& piece : pieces) {
    const auto least = std::ranges::min_element(load);
    piece.owner = static_cast<int>(least - load.begin());
    *least += cost(piece);
  }
  std::ranges::sort(pieces, {}, [](const Piece& piece) { return std::tuple(piece.owner, piece.begin); });
  return pieces;
}

}  // namespace foe

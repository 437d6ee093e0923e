#include "placement/step_parts.h"

#include <algorithm>

#include "placement/deal.h"

namespace foe {

StepParts step_parts(const ModelConfig& config, const Placement& placement, const Batch& batch, bool overlap) {
  // What a range of layers leaves for the next one is kept of one micro-batch only.
  const bool all_layers = batch.layers.begin == 0 && batch.layers.end >= config.num_layers();
  const int T = batch.num_tokens();
  return {all_layers ? micro_batches(placement, T) : 1, overlap && T >= kOverlapTokens ? 2 : 1};
}

std::vector<Piece> pieces_of_part(const ModelConfig& config, const Placement& placement, const Batch& batch,
                                  const StepParts& parts, std::int64_t i) {
  const auto cut = [&](int rows) {
    return Range{cut_of_rows(rows, parts.count(), i), cut_of_rows(rows, parts.count(), i + 1)};
  };
  if (placement.split_sequences)
    return deal_rows(batch, cut(batch.num_tokens()), placement.members, row_cost_in_keys(config));
  std::vector<Piece> pieces;
  const int S = batch.num_sequences();
  for (int first = 0, end = 0; first < S; first = end) {
    const int owner = batch.sequence_owner[first];
    while (end < S && batch.sequence_owner[end] == owner) ++end;
    const int at = batch.sequence_begin[first];
    const Range own = cut(batch.sequence_begin[end] - at);
    for (int s = first; s < end; ++s) {
      const int begin = std::max(at + own.begin, batch.sequence_begin[s]);
      const int stop = std::min(at + own.end, batch.sequence_begin[s + 1]);
      if (begin < stop) pieces.push_back({begin, stop, owner});
    }
  }
  return pieces;
}

std::vector<StepStage> step_stages(const ModelConfig& config, const Placement& placement, Range layers) {
  std::vector<StepStage> stages;
  for (int layer = layers.begin; layer < layers.end; ++layer) {
    const auto add_attention = [&] {
      if (placement.split_sequences) stages.push_back({StageKind::kKeys, layer});
      stages.push_back({StageKind::kAttention, layer});
    };
    // The sum at the end of attention takes the updates of a federation's parallel experts with it.
    const bool behind_experts = config.federated() && config.experts_block(layer).parallel;
    if (!behind_experts) add_attention();
    if (placement.members > 1 && !config.experts(layer).dense()) {
      stages.push_back({StageKind::kDispatch, layer});
      stages.push_back({StageKind::kReturn, layer});
    } else {
      stages.push_back({StageKind::kExperts, layer});
    }
    if (behind_experts) add_attention();
  }
  if (layers.end < config.num_layers()) return stages;
  if (config.has_pending_updates(layers.end)) stages.push_back({StageKind::kLastSum, layers.end - 1});
  stages.push_back({StageKind::kScoring, layers.end - 1});
  return stages;
}

StageExchange exchange_of(const ModelConfig& config, const Placement& placement, const StepStage& stage) {
  const bool sums = placement.group_ranks() > 1;
  switch (stage.kind) {
    case StageKind::kKeys:
      return StageExchange::kKeys;
    case StageKind::kAttention:
      return sums && config.syncs(stage.layer) ? StageExchange::kAttentionSum : StageExchange::kNone;
    case StageKind::kExperts:
      return sums && !config.federated() ? StageExchange::kExpertSum : StageExchange::kNone;
    case StageKind::kDispatch:
      return StageExchange::kDispatch;
    case StageKind::kReturn:
      return StageExchange::kReturn;
    case StageKind::kLastSum:
      return sums ? StageExchange::kExpertSum : StageExchange::kNone;
    case StageKind::kScoring:
      break;
  }
  return StageExchange::kNone;
}

bool sums_squares(const ModelConfig& config, const Placement& placement) {
  return config.heads().qk_norm == QkNorm::kFull && !config.federated() && placement.group_ranks() > 1;
}

std::vector<int> ranks_of_sums(const Placement& placement, int rank) {
  const Share& own = placement.ranks[rank];
  std::vector<int> ranks;
  for (int r = 0; r < static_cast<int>(placement.ranks.size()); ++r)
    if (const Share& share = placement.ranks[r];
        !share.idle() && share.member == own.member && share.stage == own.stage)
      ranks.push_back(r);
  std::ranges::stable_sort(ranks, {}, [&](int r) { return placement.ranks[r].groups.begin; });
  return ranks;
}

}  // namespace foe

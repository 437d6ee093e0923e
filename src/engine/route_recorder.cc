#include "engine/route_recorder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "core/expert_table.h"
#include "model/routes.h"
#include "model/step.h"

namespace foe {

RouteOrigin route_origin(const Model& model) {
  RouteOrigin origin{
      model.identity, to_string(model.placement.plan), static_cast<int>(model.placement.ranks.size()), {}};
  for (int layer = 0; layer < model.config.num_layers(); ++layer)
    origin.experts.push_back(expert_table(model.config, layer).size());
  return origin;
}

void RouteRecorder::take(const Model& model, const Batch& batch, std::span<const std::int64_t> sequences,
                         const Activations& a, Communicator& comm) {
  const CommCounters before = comm.counters();
  const std::int64_t step = step_++;
  const Placement& placement = model.placement;
  const std::size_t W = a.record.words();
  const RowsByMember by = rows_by_member(model, batch, a);
  std::vector<std::size_t> counts(comm.size());
  for (int stage = 0; stage < placement.stages; ++stage)
    for (int member = 0; const int reporter : route_reporters(placement, stage)) {
      counts[reporter] = W * (by.begin[member + 1] - by.begin[member]);
      ++member;
    }
  own_.clear();
  if (counts[comm.rank()] > 0)
    for (int half = 0; half < step_parts(model.config, placement, batch, a.overlap()).halves; ++half)
      own_.insert(own_.end(), a.states[half].record_TW.begin(), a.states[half].record_TW.end());
  all_.resize(comm.rank() == 0 ? std::accumulate(counts.begin(), counts.end(), std::size_t{0}) : 0);
  comm.gather(own_, counts, all_.data());
  comm.restore_counters(before);
  if (comm.rank() != 0 || !writer_) return;
  join(placement, a.record, counts);
  std::vector<RoutedToken> tokens;
  for (int s = 0; s < batch.num_sequences(); ++s)
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t)
      tokens.push_back({sequences.empty() ? s : sequences[s], step, batch.tokens[t], batch.positions[t], 0});
  // The tokens of a record are in the order of the batch.
  std::vector<std::int32_t> ordered(all_.size());
  for (std::int32_t member = 0; member < placement.members; ++member)
    for (std::int32_t i = by.begin[member]; i < by.begin[member + 1]; ++i) {
      tokens[by.rows[i]].owner = member;
      std::copy_n(all_.begin() + static_cast<std::ptrdiff_t>(i * W), W,
                  ordered.begin() + static_cast<std::ptrdiff_t>(by.rows[i] * W));
    }
  writer_->add_step(tokens, ordered);
}

// The gather has the records by rank. Puts them in the order of the members, each token with the layers of all stages.
void RouteRecorder::join(const Placement& placement, const RouteForm& form, std::span<const std::size_t> counts) {
  std::vector<std::int32_t> joined;
  for (int stage = 0; stage < placement.stages; ++stage) {
    std::size_t to = 0;
    for (const int reporter : route_reporters(placement, stage)) {
      const std::int32_t* from =
          all_.data() + std::accumulate(counts.begin(), counts.begin() + reporter, std::size_t{0});
      if (stage == 0)
        joined.insert(joined.end(), from, from + counts[reporter]);
      else
        for (std::size_t t = 0; t < counts[reporter]; t += form.words())
          form.copy_layers(placement.ranks[reporter].stage_layers, from + t, joined.data() + to + t);
      to += counts[reporter];
    }
  }
  all_ = std::move(joined);
}

}  // namespace foe

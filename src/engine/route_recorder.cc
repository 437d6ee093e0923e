#include "engine/route_recorder.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"
#include "core/expert_table.h"
#include "model/routes.h"

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
  const std::size_t W = a.record.words();
  // The tokens of a batch are ordered by owner, and so are those who report them.
  const std::vector<int> reporters = route_reporters(model.placement);
  std::vector<std::size_t> counts(comm.size());
  std::vector<RoutedToken> tokens;
  for (int s = 0; s < batch.num_sequences(); ++s)
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t) {
      counts[reporters[batch.sequence_owner[s]]] += W;
      tokens.push_back(
          {sequences.empty() ? s : sequences[s], step_, batch.tokens[t], batch.positions[t], batch.sequence_owner[s]});
    }
  own_.clear();
  if (counts[comm.rank()] > 0)
    for (int half = 0; half < (a.overlaps(batch.num_tokens()) ? 2 : 1); ++half)
      own_.insert(own_.end(), a.states[half].record_TW.begin(), a.states[half].record_TW.end());
  all_.resize(comm.rank() == 0 ? tokens.size() * W : 0);
  comm.gather(own_, counts, all_.data());
  comm.restore_counters(before);
  ++step_;
  if (comm.rank() != 0 || !writer_) return;
  if (!std::is_sorted(reporters.begin(), reporters.end())) {
    // The gather has them by rank; puts them in the order of the owners.
    std::vector<std::int32_t> by_owner;
    for (const int reporter : reporters) {
      std::size_t at = 0;
      for (int rank = 0; rank < reporter; ++rank) at += counts[rank];
      by_owner.insert(by_owner.end(), all_.begin() + static_cast<std::ptrdiff_t>(at),
                      all_.begin() + static_cast<std::ptrdiff_t>(at + counts[reporter]));
    }
    all_ = std::move(by_owner);
  }
  writer_->add_step(tokens, all_);
}

}  // namespace foe

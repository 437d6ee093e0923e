#include "bench/decode_steps.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace foe {
namespace {

template <typename Measure>
auto measure(const Engine& engine, Measure&& with_pool) {
  decltype(with_pool(std::declval<ThreadPool&>())) result;
  with_unbound_pool(engine.threads() * engine.comm().size(), [&](ThreadPool& pool) { result = with_pool(pool); });
  return result;
}

std::vector<std::vector<std::int64_t>> rows_so_far(Engine& engine) {
  return rows_by_expert(engine.model().config, engine.model().placement, engine.collect_load());
}

bool only_decodes(const Batch& batch) {
  return batch.num_tokens() == batch.num_sequences() && batch.num_sampled() == batch.num_sequences();
}

}  // namespace

DecodeWatch::DecodeWatch(Engine& engine)
    : engine_(engine),
      limits_(measure(engine, measure_limits)),
      weights_(engine.model().weights.formats),
      rows_LE_(rows_so_far(engine)) {}

void DecodeWatch::count(double step_seconds) {
  const auto before = std::exchange(rows_LE_, rows_so_far(engine_));
  const Batch& batch = engine_.batch();
  if (batch.empty() || !only_decodes(batch)) return;
  const int sequences = batch.num_sequences();
  // A token at position p attends to p + 1.
  const auto positions = std::accumulate(batch.positions.begin(), batch.positions.end(), std::int64_t{sequences});
  const Model& model = engine_.model();
  const DecodeStep step{.sequences = sequences,
                        .context = static_cast<double>(positions) / sequences,
                        .weights = weights_,
                        .kv = engine_.kv_type()};
  constexpr int kStepsPerMeasurement = 32;
  if (steps_.steps % kStepsPerMeasurement == kStepsPerMeasurement - 1)
    limits_.read_bytes_per_s = measure(engine_, [](ThreadPool& pool) { return measure_read_bandwidth(pool); });
  ++steps_.steps;
  steps_.read_bytes_per_s += limits_.read_bytes_per_s;
  steps_.tokens += sequences;
  steps_.positions += positions;
  steps_.seconds += step_seconds;
  steps_.least_seconds += least_seconds(decode_work(model.config, model.placement, step).total(), limits_);
  steps_.expected_touched += model.config.num_layers() * mean_experts_touched(model.config, sequences);
  for (std::size_t l = 0; l < before.size(); ++l)
    for (std::size_t e = 0; e < before[l].size(); ++e) steps_.touched += rows_LE_[l][e] > before[l][e] ? 1 : 0;
}

MachineLimits DecodeWatch::limits() const {
  MachineLimits limits = limits_;
  if (steps_.steps > 0) limits.read_bytes_per_s = steps_.read_bytes_per_s / static_cast<double>(steps_.steps);
  return limits;
}

void print_decode(const DecodeWatch& watch) {
  const DecodeSteps& s = watch.steps();
  if (s.steps == 0) return;
  const auto tokens = static_cast<double>(s.tokens), steps = static_cast<double>(s.steps);
  fmt::print(
      "{} steps that only decoded, {:.1f} sequences each with {:.1f} positions: {:.1f} tokens/s, {:.0f} % of the "
      "{:.1f} that {:.1f} GB/s, {:.1f} GFLOP/s and {:.1f} Gop/s of integers allow (foe inspect --roofline)\n",
      s.steps, tokens / steps, static_cast<double>(s.positions) / tokens, tokens / s.seconds,
      100 * s.share_of_roofline(), tokens / s.least_seconds, watch.limits().read_bytes_per_s / 1e9,
      watch.limits().flops_per_s / 1e9, watch.limits().dots_per_s / 1e9);
  fmt::print("in these steps {:.1f} % as many experts had rows as if selections were equally likely\n",
             100 * static_cast<double>(s.touched) / s.expected_touched);
}

nlohmann::json to_json(const DecodeWatch& watch) {
  const DecodeSteps& s = watch.steps();
  return {{"read_bytes_per_second", watch.limits().read_bytes_per_s},
          {"flops_per_second", watch.limits().flops_per_s},
          {"dots_per_second", watch.limits().dots_per_s},
          {"steps", s.steps},
          {"tokens", s.tokens},
          {"positions", s.positions},
          {"seconds", s.seconds},
          {"least_seconds", s.least_seconds},
          {"share_of_roofline", s.steps > 0 ? s.share_of_roofline() : 0},
          {"experts_touched", s.touched},
          {"expected_experts_touched", s.expected_touched}};
}

}  // namespace foe

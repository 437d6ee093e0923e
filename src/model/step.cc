#include "model/step.h"

#include <algorithm>
#include <utility>

#include "kernels/rows/rows.h"
#include "placement/step_parts.h"

namespace foe {

std::vector<std::vector<Step>> make_steps(const Model& model, const Batch& batch, KvCache& kv, Activations& a,
                                          RankGrid& grid, ThreadPool& pool) {
  const bool split = model.placement.split_sequences;
  const StepParts parts = step_parts(model.config, model.placement, batch, a.overlap());
  Batch own;
  if (!split) own = a.states.front().exchange ? part_of(batch, model.share().member) : batch;
  std::vector<std::vector<Step>> steps(parts.micro_batches);
  int first_scored = 0, first_state = 0, first_token = 0, at = 0;
  for (std::int64_t i = 0; i < parts.count(); ++i) {
    const auto half = static_cast<int>(i % parts.halves);
    Batch all, part;
    if (split) {
      all = pieces_of(batch, pieces_of_part(model.config, model.placement, batch, parts, i));
      part = part_of(all, model.share().member);
    } else {
      const int end = cut_of_rows(own.num_tokens(), parts.count(), i + 1);
      part = parts.count() == 1 ? std::move(own) : rows_of(own, at, end);
      at = end;
    }
    const int T = part.num_tokens(), states = part.num_states(), scored = part.num_sampled() - states;
    steps[i / parts.halves].push_back({model, std::move(all), std::move(part), kv, a, a.states[half], grid, pool, T,
                                       first_scored, first_state, parts.halves == 1 ? first_token : 0});
    first_scored += scored;
    first_state += states;
    first_token += T;
  }
  a.head.states.resize(static_cast<std::size_t>(first_state) * model.config.hidden_size);
  return steps;
}

RowsByMember rows_by_member(const Model& model, const Batch& batch, const Activations& a) {
  RowsByMember by{.rows = {}, .begin = {0}};
  std::vector<std::vector<Piece>> pieces;
  const StepParts parts = step_parts(model.config, model.placement, batch, a.overlap());
  for (std::int64_t i = 0; i < parts.count(); ++i)
    pieces.push_back(pieces_of_part(model.config, model.placement, batch, parts, i));
  for (int member = 0; member < model.placement.members; ++member) {
    for (const std::vector<Piece>& part : pieces)
      for (const Piece& piece : part)
        for (int row = piece.begin; row < piece.end && piece.owner == member; ++row) by.rows.push_back(row);
    by.begin.push_back(static_cast<std::int32_t>(by.rows.size()));
  }
  return by;
}

void norm_rows(Step& s, std::span<const float> weight_D, Range rows, int own_updates) {
  const std::size_t D = s.model.config.hidden_size, first = rows.begin * D;
  if (weight_D.empty()) {
    const std::size_t count = rows.size();
    s.pool.parallel_for(count * std::max(1, own_updates), [&](std::size_t row) {
      float* to = s.a.products.input_TD.data() + row * D;
      std::copy_n(s.state.r_TD.data() + first + row % count * D, D, to);
      if (own_updates > 0) add_to(to, s.update_TD(static_cast<int>(row / count)) + first + row % count * D, D);
    });
    return;
  }
  rms_norm(s.pool, {.x = s.state.r_TD.data() + first,
                    .add = own_updates > 0 ? s.update_TD(0) + first : nullptr,
                    .x_stride = D,
                    .weight = weight_D.data(),
                    .y = s.a.products.input_TD.data(),
                    .y_stride = D,
                    .rows = rows.size(),
                    .n = static_cast<int>(D),
                    .eps = static_cast<float>(s.model.config.rms_norm_eps),
                    .times = std::max(1, own_updates),
                    .add_stride = s.T * D});
}

void finish_output(Step& s, std::span<const float> weight_D, double factor, int rows, float* x) {
  const int D = s.model.config.hidden_size;
  const auto stride = static_cast<std::size_t>(D);
  if (!weight_D.empty())
    rms_norm(s.pool, {.x = x,
                      .x_stride = stride,
                      .weight = weight_D.data(),
                      .y = x,
                      .y_stride = stride,
                      .rows = rows,
                      .n = D,
                      .eps = static_cast<float>(s.model.config.rms_norm_eps)});
  if (factor == 1) return;
  s.pool.parallel_for(rows, [&](std::size_t row) { scale_and_cap(x + row * stride, D, static_cast<float>(factor)); });
}

void add_to_residual(Step& s, const float* sum_TD, float scale) {
  const std::size_t D = s.model.config.hidden_size;
  s.pool.parallel_for(s.T, [&](std::size_t t) { add_scaled(s.state.r_TD.data() + t * D, sum_TD + t * D, scale, D); });
}

void begin_sum(Step& s, const SumPlan& sums, float* partials_PTD) {
  s.pending =
      s.grid.start([&s, &sums, partials_PTD, count = static_cast<std::size_t>(s.T) * s.model.config.hidden_size] {
        s.grid.across_groups().sum_partials(sums, partials_PTD, count, s.a.wire);
      });
}

void begin_messages(Step& s) {
  s.pending = s.grid.start([&s] { exchange_messages(*s.state.exchange, s.grid.within_group()); });
}

void finish_exchange(Step& s) {
  if (s.pending) s.exchanged = s.exchanged + s.grid.finish(*std::exchange(s.pending, {}));
}

}  // namespace foe

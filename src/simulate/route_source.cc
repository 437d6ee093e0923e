#include "simulate/route_source.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/rows/select.h"
#include "model/routes.h"

namespace foe {
namespace {

constexpr int kDrawnRows = 4096;

// The experts with rows of a token that has selected these scores, ascending.
std::vector<std::int32_t> experts_of(const ExpertTable& table, std::span<const int> columns) {
  std::vector<std::int32_t> experts;
  for (const int column : columns)
    if (const int id = table.id_of_score(column); id < table.with_rows()) experts.push_back(id);
  for (int group = 0; group < table.groups; ++group)
    for (int j = 0; j < table.shared / table.groups; ++j) experts.push_back(table.id_of_shared(group, j));
  std::ranges::sort(experts);
  return experts;
}

void add_row(RouteTable& table, std::span<const std::int32_t> experts) {
  table.experts_J.insert(table.experts_J.end(), experts.begin(), experts.end());
  table.begin_R.push_back(static_cast<std::int32_t>(table.experts_J.size()));
}

// Draws rows of one kind of layer. The k that are largest of log w + a Gumbel number are k of the scores, drawn by
// their weights w one after the other without putting them back.
RouteTable draw(const ModelConfig& config, int layer, std::uint64_t seed, double skew) {
  const ExpertTable table = expert_table(config, layer);
  const Selection how = selection(config, layer);
  const int parts = std::max(1, how.expert_groups), scored = how.experts / parts, k = how.per_token / parts;
  std::vector<double> log_weights(scored);
  std::vector<int> order(scored);
  std::iota(order.begin(), order.end(), 0);
  for (int i = scored; i > 1; --i) std::swap(order[i - 1], order[random_bits(seed, i) % i]);
  for (int i = 0; i < scored; ++i) log_weights[order[i]] = -skew * std::log(i + 1.0);
  RouteTable drawn;
  std::vector<std::pair<double, int>> keys(scored);
  std::vector<int> columns;
  std::uint64_t number = 0;
  for (int row = 0; row < kDrawnRows; ++row) {
    columns.clear();
    for (int part = 0; part < parts; ++part) {
      for (int i = 0; i < scored; ++i)
        keys[i] = {-log_weights[i] + std::log(-std::log1p(-random_unit(seed + 1, number++))), part * scored + i};
      std::ranges::nth_element(keys, keys.begin() + std::max(0, k - 1));
      for (int i = 0; i < k; ++i) columns.push_back(keys[i].second);
    }
    add_row(drawn, experts_of(table, columns));
  }
  return drawn;
}

bool select_alike(const ModelConfig& config, int a, int b) {
  const Selection x = selection(config, a), y = selection(config, b);
  return expert_table(config, a) == expert_table(config, b) && x.per_token == y.per_token &&
         x.expert_groups == y.expert_groups && x.experts == y.experts;
}

void check_record(const ModelConfig& config, const RouteFile& record, const std::string& source) {
  const RouteForm form = record_form(config, {.routes = true});
  if (record.form().layers != form.layers || record.form().entries != form.entries)
    fail("{}: expected a record of {} layers with at most {} experts of a token, as the model has, got {} with {}",
         source, form.layers, form.entries, record.form().layers, record.form().entries);
  for (int layer = 0; layer < form.layers; ++layer)
    if (const int experts = expert_table(config, layer).size(); record.origin().experts[layer] != experts)
      fail("{}: layer {}: expected a record of {} experts, as the model has, got {}", source, layer, experts,
           record.origin().experts[layer]);
}

}  // namespace

RouteSource RouteSource::drawn(const ModelConfig& config, std::uint64_t seed, double skew) {
  RouteSource routes;
  routes.seed_ = mix64(seed);
  std::vector<int> first_layer;  // of each table
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    const auto alike = std::ranges::find_if(first_layer, [&](int other) { return select_alike(config, layer, other); });
    routes.table_of_layer_.push_back(static_cast<int>(alike - first_layer.begin()));
    if (alike != first_layer.end()) continue;
    first_layer.push_back(layer);
    routes.tables_.push_back(draw(config, layer, random_bits(routes.seed_, layer), skew));
  }
  return routes;
}

RouteSource RouteSource::recorded(const ModelConfig& config, const RouteFile& record, const std::string& source) {
  check_record(config, record, source);
  RouteSource routes;
  const int L = config.num_layers();
  routes.tables_.resize(L);
  routes.table_of_layer_.resize(L);
  std::iota(routes.table_of_layer_.begin(), routes.table_of_layer_.end(), 0);
  routes.begin_of_sequence_ = {0};
  std::vector<std::int32_t> experts;
  for (const std::int64_t sequence : record.sequences()) {
    const Route route = record.route(sequence).route;
    for (int token = 0; token < route.tokens(); ++token)
      for (int layer = 0; layer < L; ++layer) {
        const auto entries = [&](int l) {
          return std::span(route.experts_TLK)
              .subspan((static_cast<std::size_t>(token) * L + l) * route.entries, route.entries);
        };
        const bool run = entries(layer).front() != kNotRun;
        const int with_rows = expert_table(config, layer).with_rows();
        experts.clear();
        for (const std::int32_t id : entries(run || layer == 0 ? layer : layer - 1))
          if (id >= 0 && id < with_rows) experts.push_back(id);
        add_row(routes.tables_[layer], experts);
      }
    routes.begin_of_sequence_.push_back(routes.tables_[0].rows());
  }
  if (routes.begin_of_sequence_.size() == 1) fail("{}: expected a record with tokens, got one without", source);
  return routes;
}

RouteSource::Place RouteSource::place_of(int layer, std::int64_t sequence) const {
  if (!begin_of_sequence_.empty()) {
    const auto i = static_cast<std::size_t>(sequence) % (begin_of_sequence_.size() - 1);
    return {begin_of_sequence_[i], begin_of_sequence_[i + 1] - begin_of_sequence_[i], 0};
  }
  const std::uint64_t place = random_bits(random_bits(seed_, layer), sequence);
  return {0, kDrawnRows, static_cast<int>(place % kDrawnRows)};
}

}  // namespace foe

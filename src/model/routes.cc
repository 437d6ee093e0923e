// Shape letters: T tokens, L layers, K the most entries of a token, J entries, E scores, D model width, W words.
#include "model/routes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/step.h"
#include "placement/expert_nodes.h"

namespace foe {
namespace {

// Which token of the step's batch a row is: after the last attention only the sampled ones are left.
int token_of(const Step& s, int row) {
  return s.T == s.batch.num_tokens() ? row : s.batch.sampled_rows[row];
}

std::int32_t* record_of(Step& s, int token) {
  return s.state.record_TW.data() + static_cast<std::size_t>(s.first_token + token) * s.a.record.words();
}

// One token's entries of one layer.
struct Entries {
  std::span<const std::int32_t> experts;
  std::span<const float> weights;

  Entries(const Route& route, int token, int layer) {
    const std::size_t K = route.entries, at = (static_cast<std::size_t>(token) * route.layers + layer) * K;
    experts = std::span(route.experts_TLK).subspan(at, K);
    weights = std::span(route.weights_TLK).subspan(at, K);
  }
  bool run() const { return experts.front() != kNotRun; }
  bool all(std::int32_t expert, std::size_t from) const {
    return std::all_of(experts.begin() + static_cast<std::ptrdiff_t>(from), experts.end(),
                       [&](std::int32_t e) { return e == expert; });
  }
  int count() const { return static_cast<int>(std::find(experts.begin(), experts.end(), kNoExpert) - experts.begin()); }
};

// Throws Error unless the model can run a token with these entries.
void check_entries(const Entries& entries, const ModelConfig& config, int layer) {
  const ExpertTable table = expert_table(config, layer);
  const int count = entries.count(), parts = config.federated() ? config.expert_groups : 1;
  if (!entries.all(kNoExpert, count)) fail("expected no expert behind the last one");
  if (config.experts(layer).dense() && (count != 1 || entries.experts[0] != 0 || entries.weights[0] != 1))
    fail("expected expert 0 with weight 1, or {}, in a layer without a router", kNotRun);
  if (const int most = most_entries(config, layer); count > most)
    fail("expected at most {} experts, got {}", most, count);
  for (int i = 0; i < count; ++i) {
    const std::int32_t id = entries.experts[i];
    if (id < 0 || id >= table.size()) fail("expected experts in [0, {}), got {}", table.size(), id);
    if (i > 0 && id <= entries.experts[i - 1])
      fail("expected ascending experts, each once, got {} after {}", id, entries.experts[i - 1]);
    if (!std::isfinite(entries.weights[i]) || entries.weights[i] < 0)
      fail("expected a weight that is finite and not negative, got {}", entries.weights[i]);
  }
  // What adds to one sum, in a federated model what a group has, is no more than the router selects.
  const auto check_part = [&](int part, bool affine, int most) {
    const auto found = std::count_if(entries.experts.begin(), entries.experts.begin() + count, [&](std::int32_t id) {
      return (id >= table.with_rows()) == affine && (parts == 1 || table.group_of(id) == part);
    });
    if (found > most)
      fail("expected at most {} {} experts{}, got {}", most, affine ? "affine" : "routed and shared",
           parts > 1 ? fmt::format(" of group {}", part) : "", found);
  };
  for (int part = 0; part < parts; ++part) {
    check_part(part, false, dispatched_entries(config, layer, Dispatch::kPerRank));
    check_part(part, true, std::min(config.experts(layer).per_token, table.affine()) / parts);
  }
}

// Replaces the router's entries by those of the batch's route.
void replay(Step& s, int layer) {
  Routing& routing = s.state.routing;
  std::vector<std::int32_t> begin_T = {0}, experts_J;
  std::vector<float> weights_J;
  for (int row = 0; row < s.T; ++row) {
    const int by = s.batch.route_rows[token_of(s, row)];
    const Range own = routing.entries(row);
    std::span<const std::int32_t> experts = std::span(routing.experts_J).subspan(own.begin, own.size());
    std::span<const float> weights = std::span(routing.weights_J).subspan(own.begin, own.size());
    if (by >= 0)
      if (const Entries entries(s.batch.route, by, layer); entries.run()) {
        experts = entries.experts.first(entries.count());
        weights = entries.weights.first(entries.count());
      }
    experts_J.insert(experts_J.end(), experts.begin(), experts.end());
    weights_J.insert(weights_J.end(), weights.begin(), weights.end());
    begin_T.push_back(static_cast<std::int32_t>(experts_J.size()));
  }
  std::copy(begin_T.begin(), begin_T.end(), routing.begin_T.begin());
  std::copy(experts_J.begin(), experts_J.end(), routing.experts_J.begin());
  std::copy(weights_J.begin(), weights_J.end(), routing.weights_J.begin());
}

// Records the routing and, if they are asked for, the router's inputs.
void record(Step& s, int layer) {
  const RouteForm& form = s.a.record;
  const Routing& routing = s.state.routing;
  for (int row = 0; row < s.T; ++row) {
    std::int32_t* words = record_of(s, token_of(s, row));
    const Range own = routing.entries(row);
    std::int32_t* experts = words + form.experts_at(layer);
    std::fill_n(std::copy_n(routing.experts_J.data() + own.begin, own.size(), experts), form.entries - own.size(),
                kNoExpert);
    std::memcpy(words + form.weights_at(layer), routing.weights_J.data() + own.begin, own.size() * sizeof(float));
    if (form.inputs > 0)
      std::memcpy(words + form.inputs_at(layer),
                  s.a.products.input_TD.data() + static_cast<std::size_t>(row) * form.inputs,
                  form.inputs * sizeof(float));
  }
}

}  // namespace

RouteForm record_form(const ModelConfig& config, const RecordOptions& options) {
  if (!options.routes) return {};
  if (config.dense()) fail("a record of routes: expected a model with a router, got a dense one");
  if (config.federated() && config.group_sync_every > 1)
    fail(
        "a record of routes: expected group_sync_every = 1, got {}: where groups do not sync, no rank has all experts "
        "of a token",
        config.group_sync_every);
  RouteForm form{.layers = config.num_layers()};
  for (int layer = 0; layer < form.layers; ++layer) {
    form.entries = std::max(form.entries, most_entries(config, layer));
    if (options.scores) form.scores = std::max(form.scores, expert_table(config, layer).scored());
  }
  if (options.inputs) form.inputs = config.hidden_size;
  return form;
}

std::vector<int> route_reporters(const Placement& placement, int stage) {
  std::vector<int> reporters(placement.members, -1);
  for (int rank = 0; rank < static_cast<int>(placement.ranks.size()); ++rank) {
    const Share& share = placement.ranks[rank];
    if (share.stage == stage && !share.idle() && share.groups.begin == 0 && reporters[share.member] < 0)
      reporters[share.member] = rank;
  }
  return reporters;
}

void check_route(const Route& route, const ModelConfig& config) {
  if (config.dense()) fail("route: expected a model with a router, got a dense one");
  const RouteForm form = record_form(config, {.routes = true});
  if (route.layers != form.layers || route.entries != form.entries)
    fail("route: expected the model's {} layers of {} experts, got {} layers of {}", form.layers, form.entries,
         route.layers, route.entries);
  for (int token = 0; token < route.tokens(); ++token)
    for (int layer = 0; layer < route.layers; ++layer) try {
        const Entries entries(route, token, layer);
        if (entries.run())
          check_entries(entries, config, layer);
        else if (!entries.all(kNotRun, 0))
          fail("expected {} in place of all experts, or of none", kNotRun);
      } catch (const Error& error) {
        fail("route: position {}, layer {}: {}", token, layer, error.what());
      }
}

void check_tokens(const SequenceRoute& route, std::span<const std::int32_t> prompt) {
  for (std::size_t i = 0; i < std::min(prompt.size(), route.tokens.size()); ++i)
    if (route.tokens[i] != prompt[i])
      fail("route: position {}: expected a record of the prompt's token {}, got one of token {}", i, prompt[i],
           route.tokens[i]);
}

void check_route(const SequenceRoute& route, const ModelConfig& config, const std::string& identity,
                 std::span<const std::int32_t> prompt) {
  if (route.model != identity)
    fail("route: expected a record of this model, whose digest is {}, got one of {}", identity, route.model);
  check_tokens(route, prompt);
  check_route(route.route, config);
}

void begin_record(Step& s) {
  const RouteForm& form = s.a.record;
  if (form.layers == 0) return;
  s.state.record_TW.resize(s.first_token * form.words());
  s.state.record_TW.resize((s.first_token + s.T) * form.words(), 0);
  for (int t = 0; t < s.T; ++t) std::fill_n(record_of(s, t), form.weights_at(0), kNotRun);
}

void record_scores(Step& s, int layer) {
  if (s.a.record.scores == 0) return;
  const ExpertTable table = expert_table(s.model.config, layer);
  const int scored = table.scored(), columns = table.columns();  // of the scores that a token has room for
  for (int row = 0; row < s.T; ++row)
    std::memcpy(record_of(s, token_of(s, row)) + s.a.record.scores_at(layer),
                s.a.experts.scores_TE.data() + static_cast<std::size_t>(row) * columns, scored * sizeof(float));
}

void replay_and_record(Step& s, int layer) {
  if (!s.batch.route_rows.empty()) replay(s, layer);
  if (s.a.record.layers > 0) record(s, layer);
}

}  // namespace foe

#include "bench/latency.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <utility>

#include <fmt/core.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "bench/random_weights.h"
#include "bench/shapes.h"
#include "sched/sequence.h"

namespace foe {
namespace {

constexpr int kPromptTokens = 128;   // tokens of each of many prompts
constexpr int kDecodeContext = 256;  // positions that a decoding sequence has before its token
constexpr int kRounds = 2;           // rounds, in each of which every rung has a turn
constexpr double kLongSeconds = 3;   // longer turns are announced

// Fills the KV cache of decoding sequences, because zeros would give every position the same weight.
void fill_with_noise(ThreadPool& pool, KvCache& kv, Range layers, const Batch& batch) {
  const KvShape& shape = kv.shape();
  const int width = std::max(shape.key_width, shape.value_width);
  std::vector<float> noise(static_cast<std::size_t>(kDecodeContext) * shape.kv_heads * width);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(random_normal(5, i));
  const std::vector<std::int32_t> tokens(kDecodeContext);
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int begin = batch.table_begin[s], end = batch.table_begin[s + 1];
    Batch context;
    context.add_sequence(tokens, 0, std::span(batch.block_table).subspan(begin, end - begin), Batch::Sample::kNone);
    for (int layer = layers.begin; layer < layers.end; ++layer)
      write_kv(pool, context, shape, noise.data(), noise.data(), kv.layer(layer));
  }
}

struct Pass {
  double seconds;  // of its layers
  LayerStats layer;
  CommCounters sent;
  ExpertLoad load;
};

// Returns a typical layer: the attention of the last layer and the experts of the one before. The first layer's
// attention has no updates to read, and the last layer's experts run for sampled rows only.
LayerStats typical_layer(const std::vector<LayerStats>& layers) {
  const LayerStats& before = layers[layers.size() - 2];
  return {layers.back().attention, before.experts, before.rows};
}

// Returns the same where a rank runs some of the layers: what it has of the mean over all layers. The rows that stages
// pass count as attention's.
LayerStats mean_layer(const ForwardStats& stats) {
  const auto L = static_cast<double>(stats.layers.size());
  LayerStats mean;
  const auto add = [L](PartStats& sum, const PartStats& part) {
    sum.arithmetic_s += part.arithmetic_s / L;
    sum.moving_s += part.moving_s / L;
    sum.bytes += part.bytes;
  };
  for (const LayerStats& layer : stats.layers) {
    add(mean.attention, layer.attention);
    add(mean.experts, layer.experts);
    mean.rows += layer.rows;
  }
  add(mean.attention, stats.passing);
  mean.attention.bytes /= stats.layers.size();
  mean.rows /= static_cast<std::int64_t>(stats.layers.size());
  return mean;
}

// The passes of a rung so far at one point.
struct Turns {
  std::vector<Pass> passes;
  double last_pass_s = 0;
};

bool agree(Communicator& comm, bool decision) {
  std::vector<std::int32_t> message{decision};
  comm.broadcast(message);
  return message[0] != 0;
}

Placement placement_of(const Rung& rung, const ModelConfig& config, const Communicator& comm) {
  return make_placement(config, {rung.plan, {}, rung.stages, rung.split_sequences}, comm.size(), comm.nodes());
}

// A model for all rungs whose ranks hold the same. They differ in how experts are selected, in what travels, and in who
// runs which rows.
struct Contestant {
  Model model;
  RankGrid grid;

  Contestant(const Rung& rung, const LatencyOptions& options, Communicator& comm)
      : model(random_model(rung, options, comm)), grid(model.placement, comm, options.exchange.overlap) {}

  void become(const Rung& rung, const LatencyOptions& options) {
    model.config = config_of(rung, options.shape, options.groups);
    model.placement = placement_of(rung, model.config, grid.world());
  }

  static Model random_model(const Rung& rung, const LatencyOptions& options, Communicator& comm) {
    ModelConfig config = config_of(rung, options.shape, options.groups);
    Placement placement = placement_of(rung, config, comm);
    Weights weights = random_weights(config, placement.ranks[comm.rank()], options.dtype, 1);
    if (!options.router_bias_E.empty())
      for (LayerWeights& layer : weights.layers) layer.router_bias_E = options.router_bias_E;
    return make_model(std::move(config), std::move(placement), comm.rank(), std::move(weights));
  }
};

// Returns the values of all ranks, by rank, on rank 0.
template <typename T>
std::vector<T> gather_structs(Communicator& comm, const T& mine) {
  std::vector<T> all(comm.rank() == 0 ? comm.size() : 0);
  std::vector<std::size_t> sent(comm.size()), received(comm.size());
  sent[0] = sizeof mine;
  comm.all_to_all(std::as_bytes(std::span(&mine, 1)), sent, std::as_writable_bytes(std::span(all)), received);
  return all;
}

// Returns the time of the token head in the last pass: on rank 0, of the ranks of the last stage, which it waits for.
double scoring_s(const Placement& placement, const PartStats& own, Communicator& comm) {
  const double mine = own.arithmetic_s + own.moving_s + own.waiting_s;
  if (placement.stages == 1) return mine;
  const std::vector<double> all = gather_structs(comm, mine);
  double last = 0;
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (placement.ranks[rank].vocab.size() > 0) last = std::max(last, all[rank]);
  return last;
}

// Takes one turn: at most `most` passes. Rank 0 decides for all ranks when it is enough.
void take_turn(Contestant& contestant, const Rung& rung, const LatencyOptions& options, Load load, int tokens, int most,
               ThreadPool& pool, Turns& turns) {
  const Model& model = contestant.model;
  Communicator& comm = contestant.grid.world();
  if (agree(comm, turns.last_pass_s > options.most_seconds)) return;
  const Batch batch = latency_batch(load, tokens, model.placement.owners(), options.shape.vocab_size);
  KvCache kv(model.own_layers(), 1 + *std::max_element(batch.block_table.begin(), batch.block_table.end()),
             model.kv_shape(options.kv_type, options.attention));
  if (load == Load::kDecode) fill_with_noise(pool, kv, model.own_layers(), batch);
  ExchangeOptions exchange = options.exchange;
  exchange.dispatch = rung.dispatch;
  Activations a(model, contestant.grid.across_groups(), batch.num_tokens(), batch.num_sampled(), exchange);
  const ExpertLoad no_load = a.stats.load;
  const double budget = options.most_seconds / kRounds;
  double spent = 0;
  int kept = 0;
  for (bool more = true, warm = false; more; warm = true) {
    const CommCounters before = comm.counters();
    a.stats.load = no_load;
    meet(comm);
    comm.restore_counters(before);
    const auto start = Clock::now();
    forward(model, batch, kv, a, contestant.grid, pool);
    const double seconds = turns.last_pass_s = seconds_since(start);
    const CommCounters sent = comm.counters() - before;
    spent += seconds;
    // The first pass is for warming up, if there is time for two.
    const bool keep = agree(comm, warm || spent + seconds > budget);
    if (keep) {
      const double scoring = scoring_s(model.placement, a.stats.scoring, comm);
      turns.passes.push_back({seconds - scoring,
                              model.placement.stages > 1 ? mean_layer(a.stats) : typical_layer(a.stats.layers), sent,
                              a.stats.load});
      ++kept;
    }
    more = agree(comm, kept < most && (kept == 0 || spent + seconds < budget));
  }
}

LayerPoint layer_point(const std::vector<LayerStats>& ranks, bool federated) {
  const auto n = static_cast<double>(ranks.size());
  LayerPoint point;
  std::vector<double> rows, attention, experts, both;
  for (const LayerStats& r : ranks) {
    attention.push_back(r.attention.arithmetic_s);
    experts.push_back(r.experts.arithmetic_s);
    both.push_back(attention.back() + experts.back());
    point.moving += (r.attention.moving_s + r.experts.moving_s) / n;
    point.waiting += (r.attention.waiting_s + r.experts.waiting_s) / n;
    point.bytes += static_cast<double>(r.attention.bytes + r.experts.bytes);
    rows.push_back(static_cast<double>(r.rows));
  }
  const auto mean = [n](const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / n; };
  const auto excess = [&](const std::vector<double>& x) { return std::ranges::max(x) - mean(x); };
  point.attention = mean(attention);
  point.experts = mean(experts);
  // A federated layer has one exchange, so a rank that is slow in one half may make up for it in the other.
  point.uneven = federated ? excess(both) : excess(attention) + excess(experts);
  point.row_balance = fullest_over_median(std::move(rows));
  return point;
}

// Returns the median of each value.
LayerPoint median_of(std::vector<LayerPoint> passes) {
  LayerPoint median;
  const auto middle = passes.begin() + static_cast<std::ptrdiff_t>(passes.size() / 2);
  for (const auto value : {&LayerPoint::attention, &LayerPoint::experts, &LayerPoint::moving, &LayerPoint::waiting,
                           &LayerPoint::uneven, &LayerPoint::bytes, &LayerPoint::row_balance}) {
    std::ranges::nth_element(passes, middle, {}, value);
    median.*value = (*middle).*value;
  }
  return median;
}

LatencyPoint summarise(const Contestant& contestant, const Rung& rung, Load load, int tokens,
                       const std::vector<Pass>& passes, Communicator& comm) {
  const Model& model = contestant.model;
  std::vector<LayerPoint> layers;
  for (const Pass& pass : passes) {
    const std::vector<LayerStats> ranks = gather_structs(comm, pass.layer);
    std::vector<LayerStats> busy;
    for (std::size_t r = 0; r < ranks.size(); ++r)
      if (!model.placement.ranks[r].idle()) busy.push_back(ranks[r]);
    if (comm.rank() != 0) continue;
    LayerPoint& point = layers.emplace_back(layer_point(busy, rung.federated));
    if (model.placement.stages == 1) continue;
    // What is left of the pass. A stage may wait in any exchange, for the others before it and behind it.
    point.uneven = 0;
    point.waiting = std::max(0.0, pass.seconds / model.config.num_layers() - point.seconds());
  }
  // The median pass, as rank 0 sees it.
  std::vector<std::int32_t> order(passes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](int i) { return passes[i].seconds; });
  comm.broadcast(order);
  const Pass& median = passes[order[order.size() / 2]];
  const std::vector<ExpertLoad> loads = gather_load(comm, model.config, model.placement, median.load);
  LatencyPoint point{.rung = rung.name,
                     .load = load,
                     .tokens = tokens,
                     .repetitions = static_cast<int>(passes.size()),
                     .seconds = median.seconds,
                     .fastest = passes[order.front()].seconds,
                     .slowest = passes[order.back()].seconds,
                     .layer = {},
                     .ranks = gather_structs(comm, median.sent),
                     .load_report = {}};
  if (comm.rank() != 0) return point;
  point.layer = median_of(std::move(layers));
  point.load_report = report_load(model.config, model.placement, loads);
  return point;
}

// Announces long turns. Times that are not known yet are estimated in proportion to the tokens.
class Announcer {
 public:
  Announcer(const LatencyOptions& options, bool speaks)
      : options_(options), speaks_(speaks), per_token_s_(options.rungs.size()) {}

  void before(std::size_t load, std::size_t tokens, int round, std::size_t rung) const {
    const double now = turn_s(rung, options_.tokens[tokens], round);
    if (!speaks_ || now < kLongSeconds) return;
    double left = 0;
    for (std::size_t l = load; l < options_.loads.size(); ++l)
      for (std::size_t t = l == load ? tokens : 0; t < options_.tokens.size(); ++t)
        for (int r = l == load && t == tokens ? round : 0; r < kRounds; ++r)
          for (std::size_t i = l == load && t == tokens && r == round ? rung : 0; i < options_.rungs.size(); ++i)
            left += turn_s(i, options_.tokens[t], r);
    fmt::print(stderr, "{}, {} tokens, {}: about {:.0f} s, and all that is left {:.1f} min\n",
               to_string(options_.loads[load]), options_.tokens[tokens], options_.rungs[rung].name, now, left / 60);
  }
  void after(std::size_t rung, int tokens, double pass_s) { per_token_s_[rung] = pass_s / tokens; }

 private:
  double turn_s(std::size_t rung, int tokens, int round) const {
    const double pass = per_token_s_[rung] * tokens, passes = 1 + options_.repetitions / kRounds;
    if (round > 0 && pass > options_.most_seconds) return 0;
    return std::max(pass, std::min(pass * passes, options_.most_seconds / kRounds));
  }

  const LatencyOptions& options_;
  bool speaks_;
  std::vector<double> per_token_s_;
};

}  // namespace

const std::vector<Rung>& all_rungs() {
  static const std::vector<Rung> rungs{{"A ep", Plan::kEp, Dispatch::kPerRank, false, false},
                                       {"A ep per expert", Plan::kEp, Dispatch::kPerExpert, false, false},
                                       {"A ep split", Plan::kEp, Dispatch::kPerRank, false, false, 0, true},
                                       {"B tp", Plan::kTp, Dispatch::kPerRank, false, false},
                                       {"C tp grouped", Plan::kTp, Dispatch::kPerRank, true, false},
                                       {"D foe", Plan::kFoe, Dispatch::kPerRank, true, true},
                                       {"E pp", Plan::kPp, Dispatch::kPerRank, false, false},
                                       {"F pp x ep", Plan::kEp, Dispatch::kPerRank, false, false, 2},
                                       {"G pp x foe", Plan::kFoe, Dispatch::kPerRank, true, true, 2}};
  return rungs;
}

std::vector<Rung> rungs_of(const std::vector<std::string>& names) {
  std::vector<Rung> rungs;
  if (names.empty()) std::ranges::copy_if(all_rungs(), std::back_inserter(rungs), &Rung::in_ladder);
  for (const std::string& name : names) {
    const auto found =
        std::find_if(all_rungs().begin(), all_rungs().end(), [&](const Rung& r) { return r.name == name; });
    if (found == all_rungs().end()) {
      std::string known;
      for (const Rung& r : all_rungs()) known += (known.empty() ? "'" : ", '") + r.name + "'";
      fail("expected some of {}, got '{}'", known, name);
    }
    rungs.push_back(*found);
  }
  return rungs;
}

Batch latency_batch(Load load, int tokens, int owners, int vocab_size) {
  const int per_sequence = load == Load::kOnePrompt ? tokens : load == Load::kManyPrompts ? kPromptTokens : 1;
  const int first = load == Load::kDecode ? kDecodeContext : 0;
  const int sequences = (tokens + per_sequence - 1) / per_sequence;
  Batch batch;
  for (int s = 0, block = 0, done = 0; s < sequences; ++s) {
    const int count = std::min(per_sequence, tokens - done);
    std::vector<std::int32_t> ids(count), blocks(blocks_for(first + count));
    for (int i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(random_bits(s, i) % vocab_size);
    std::iota(blocks.begin(), blocks.end(), block);
    batch.add_sequence(ids, first, blocks, Batch::Sample::kLast, s * owners / sequences);
    block += static_cast<int>(blocks.size());
    done += count;
  }
  return batch;
}

ModelConfig config_of(const Rung& rung, ModelConfig shape, int groups) {
  shape = in_groups(std::move(shape), rung.grouped ? groups : 1, rung.federated);
  validate(shape);
  return shape;
}

const char* to_string(Load load) {
  return load == Load::kOnePrompt ? "one-prompt" : load == Load::kManyPrompts ? "many-prompts" : "decode";
}

Load parse_load(const std::string& name) {
  for (const Load load : {Load::kOnePrompt, Load::kManyPrompts, Load::kDecode})
    if (name == to_string(load)) return load;
  fail("expected one-prompt, many-prompts or decode, got {}", name);
}

std::vector<LatencyPoint> bench_latency(const LatencyOptions& options, Communicator& comm,
                                        const std::function<void(const LatencyPoint&)>& progress) {
  if (options.shape.num_layers() < 2)
    fail("layers: expected at least 2 (the first and the last are special), got {}", options.shape.num_layers());
  ThreadPool pool(options.threads);
  std::map<std::pair<Plan, int>, Contestant> contestants;  // by plan and stages
  for (const Rung& rung : options.rungs) contestants.try_emplace({rung.plan, rung.stages}, rung, options, comm);
  Announcer announcer(options, comm.rank() == 0);
  std::vector<LatencyPoint> points;
  for (std::size_t l = 0; l < options.loads.size(); ++l)
    for (std::size_t t = 0; t < options.tokens.size(); ++t) {
      const Load load = options.loads[l];
      const int tokens = options.tokens[t];
      // The rungs take turns, so that a slower machine slows all of them.
      std::vector<Turns> turns(options.rungs.size());
      const int per_round = (options.repetitions + kRounds - 1) / kRounds;
      for (int round = 0; round < kRounds; ++round)
        for (std::size_t i = 0; i < options.rungs.size(); ++i) {
          const Rung& rung = options.rungs[i];
          Contestant& contestant = contestants.at({rung.plan, rung.stages});
          contestant.become(rung, options);
          announcer.before(l, t, round, i);
          take_turn(contestant, rung, options, load, tokens, per_round, pool, turns[i]);
          announcer.after(i, tokens, turns[i].last_pass_s);
        }
      for (std::size_t i = 0; i < options.rungs.size(); ++i) {
        const Rung& rung = options.rungs[i];
        points.push_back(
            summarise(contestants.at({rung.plan, rung.stages}), rung, load, tokens, turns[i].passes, comm));
        if (comm.rank() == 0) progress(points.back());
      }
    }
  return points;
}

}  // namespace foe

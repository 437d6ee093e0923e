#include "bench_latency.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "common.h"
#include "weights/random_weights.h"

namespace foe {
namespace {

constexpr int kPromptTokens = 128;   // of each of many prompts
constexpr int kDecodeContext = 256;  // positions that a decoding sequence has behind it
constexpr int kRounds = 2;           // in which all rungs take their turn
constexpr int kTypicalLayer = 1;     // the first has no updates of its own, the last runs experts for sampled rows only

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int blocks_for(int positions) {
  return (positions + kKvBlock - 1) / kKvBlock;
}

// `owners` ranks share the sequences evenly, in plan ep.
Batch make_batch(Load load, int tokens, int owners, int vocab) {
  const int per_sequence = load == Load::kOnePrompt ? tokens : load == Load::kManyPrompts ? kPromptTokens : 1;
  const int first = load == Load::kDecode ? kDecodeContext : 0;
  const int sequences = (tokens + per_sequence - 1) / per_sequence;
  Batch batch;
  for (int s = 0, block = 0, done = 0; s < sequences; ++s) {
    const int count = std::min(per_sequence, tokens - done);
    std::vector<std::int32_t> ids(count), blocks(blocks_for(first + count));
    for (int i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(random_bits(s, i) % vocab);
    std::iota(blocks.begin(), blocks.end(), block);
    batch.add_sequence(ids, first, blocks, Batch::Sample::kLast, s * owners / sequences);
    block += static_cast<int>(blocks.size());
    done += count;
  }
  return batch;
}

// What a rank tells rank 0 about a pass.
struct PassStats {
  float attention, experts, moving, waiting, bytes, rows;
};

struct Pass {
  double seconds;
  LayerStats layer;
};

void add_layer(const std::vector<PassStats>& ranks, LatencyPoint& point) {
  const auto n = static_cast<double>(ranks.size());
  std::vector<float> rows;
  for (const PassStats& r : ranks) {
    point.attention += r.attention / n;
    point.experts += r.experts / n;
    point.moving += r.moving / n;
    point.waiting += r.waiting / n;
    point.bytes += r.bytes;
    rows.push_back(r.rows);
  }
  std::sort(rows.begin(), rows.end());
  const float median = (rows[(rows.size() - 1) / 2] + rows[rows.size() / 2]) / 2;
  point.row_balance = median > 0 ? rows.back() / median : 0;
}

// Some passes of one rung, appended to `passes`, at most `most` of them. Rank 0 decides for all when it is enough.
void measure(const Model& model, const ExchangeOptions& exchange, const Batch& batch, int most, double most_seconds,
             RankGrid& grid, ThreadPool& pool, std::vector<Pass>& passes) {
  Communicator& comm = grid.world();
  KvCache kv(model.config.num_hidden_layers, 1 + *std::max_element(batch.block_table.begin(), batch.block_table.end()),
             model.kv_shape());
  Activations a(model, batch.num_tokens(), batch.num_sampled(), exchange);
  double spent = 0;
  int kept = 0;
  for (bool more = true, warm = false; more; warm = true) {
    meet(comm);
    const auto start = std::chrono::steady_clock::now();
    forward(model, batch, kv, a, grid, pool);
    const double seconds = seconds_since(start);
    spent += seconds;
    // One pass is for warming up, if there is time for two.
    const bool keep = warm || spent + seconds > most_seconds;
    more = kept + keep < most && (kept + keep == 0 || spent + seconds < most_seconds);
    std::vector<std::int32_t> decision{keep, more};
    comm.broadcast(decision);
    if (decision[0] != 0) passes.push_back({seconds, a.layers[kTypicalLayer]}), ++kept;
    more = decision[1] != 0;
  }
}

LatencyPoint summarise(const Rung& rung, Load load, int tokens, const std::vector<Pass>& passes, Communicator& comm) {
  // The median pass, as rank 0 sees it.
  std::vector<std::int32_t> order(passes.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int i, int j) { return passes[i].seconds < passes[j].seconds; });
  comm.broadcast(order);
  const Pass& median = passes[order[order.size() / 2]];
  const LayerStats& l = median.layer;
  const PassStats mine{static_cast<float>(l.attention_s), static_cast<float>(l.experts_s),
                       static_cast<float>(l.moving_s),    static_cast<float>(l.waiting_s),
                       static_cast<float>(l.bytes),       static_cast<float>(l.rows)};
  constexpr std::size_t kFloats = sizeof(PassStats) / sizeof(float);
  std::vector<PassStats> all(comm.size());
  comm.gather({&mine.attention, kFloats}, std::vector<std::size_t>(comm.size(), kFloats), &all[0].attention);
  LatencyPoint point{.rung = rung.name,
                     .load = load,
                     .tokens = tokens,
                     .repetitions = static_cast<int>(passes.size()),
                     .seconds = median.seconds,
                     .fastest = passes[order.front()].seconds,
                     .slowest = passes[order.back()].seconds};
  if (comm.rank() == 0) add_layer(all, point);
  return point;
}

Model random_model(const ModelConfig& config, const Rung& rung, const LatencyOptions& options, Communicator& comm) {
  Placement placement = make_placement(config, rung.plan, comm.size(), comm.nodes());
  SumPlan sums(placement.sum_begin);
  Weights weights = random_weights(config, placement.ranks[comm.rank()], options.dtype, 1);
  return {config, std::move(placement), comm.rank(), std::move(sums), std::move(weights)};
}

}  // namespace

const std::vector<Rung>& ladder() {
  static const std::vector<Rung> rungs{{"A ep", Plan::kEp, Dispatch::kPerRank, false, false},
                                       {"A ep per expert", Plan::kEp, Dispatch::kPerExpert, false, false},
                                       {"B tp", Plan::kTp, Dispatch::kPerRank, false, false},
                                       {"C tp grouped", Plan::kTp, Dispatch::kPerRank, true, false},
                                       {"D foe", Plan::kFoe, Dispatch::kPerRank, true, true}};
  return rungs;
}

ModelConfig config_of(const Rung& rung, ModelConfig shape, int groups) {
  shape.expert_groups = rung.grouped ? groups : 1;
  shape.residual = rung.federated ? Residual::kFederated : Residual::kShared;
  if (rung.federated) shape.group_sync = GroupSync::kSum;
  validate(shape);
  return shape;
}

const char* to_string(Load load) {
  return load == Load::kOnePrompt ? "one-prompt" : load == Load::kManyPrompts ? "many-prompts" : "decode";
}

Load parse_load(const std::string& name) {
  for (const Load load : {Load::kOnePrompt, Load::kManyPrompts, Load::kDecode})
    if (name == to_string(load)) return load;
  fail("load: expected one-prompt, many-prompts or decode, got {}", name);
}

std::vector<LatencyPoint> bench_latency(const LatencyOptions& options, Communicator& comm,
                                        const std::function<void(const LatencyPoint&)>& progress) {
  if (options.shape.num_hidden_layers <= kTypicalLayer + 1)
    fail("layers: expected at least {} (the first and the last are special), got {}", kTypicalLayer + 2,
         options.shape.num_hidden_layers);
  ThreadPool pool(options.threads);
  std::vector<Model> models;
  std::vector<std::unique_ptr<RankGrid>> grids;
  for (const Rung& rung : options.rungs) {
    models.push_back(random_model(config_of(rung, options.shape, options.groups), rung, options, comm));
    grids.push_back(std::make_unique<RankGrid>(models.back().placement, comm, options.exchange.overlap));
  }
  std::vector<LatencyPoint> points;
  for (const Load load : options.loads)
    for (const int tokens : options.tokens) {
      // The rungs take turns, so that a machine that slows down slows all of them.
      std::vector<std::vector<Pass>> passes(options.rungs.size());
      const int per_round = (options.repetitions + kRounds - 1) / kRounds;
      for (int round = 0; round < kRounds; ++round)
        for (std::size_t i = 0; i < models.size(); ++i) {
          const Rung& rung = options.rungs[i];
          const Batch batch = make_batch(load, tokens, models[i].placement.members, options.shape.vocab_size);
          ExchangeOptions exchange = options.exchange;
          exchange.dispatch = rung.dispatch;
          measure(models[i], exchange, batch, per_round, options.most_seconds / kRounds, *grids[i], pool, passes[i]);
        }
      for (std::size_t i = 0; i < models.size(); ++i) {
        points.push_back(summarise(options.rungs[i], load, tokens, passes[i], comm));
        if (comm.rank() == 0) progress(points.back());
      }
    }
  return points;
}

}  // namespace foe

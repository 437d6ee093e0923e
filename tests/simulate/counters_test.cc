// What simulated ranks send is what ranks send: calls, messages and bytes of every collective, on every rank.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "engine/with_engine.h"
#include "model/random_model.h"
#include "simulate/clusters.h"
#include "simulate/serving.h"
#include "trace/route_file.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

constexpr int kLengths[] = {150, 17, 1, 60, 40, 9};

struct Case {
  PlanChoice plan;
  std::vector<int> nodes;
  ExchangeOptions exchange = {};
  SamplingParams sampling = {};
};

EngineOptions options_of(const Case& c) {
  return {.max_batch_tokens = 140, .max_sequences = 4, .kv_tokens = 300, .exchange = c.exchange};
}

std::vector<WorkloadPrompt> prompts_of(const ModelConfig& config) {
  std::vector<WorkloadPrompt> prompts;
  for (const int length : kLengths) {
    const auto seed = static_cast<std::uint64_t>(length);
    prompts.push_back({random_tokens(length, config.vocab_size, seed), "", length, 3 + length % 3});
  }
  return prompts;
}

std::vector<CommCounters> run_engine(const RandomModel& folder, const Case& c, const std::string& record = "") {
  std::vector<CommCounters> sent;
  EngineOptions options = options_of(c);
  options.record.routes = !record.empty();
  std::optional<RouteRecord> file;
  if (!record.empty()) file.emplace(record);
  with_engine(folder.path(), c.plan, c.nodes, options, [&](Engine& engine) {
    std::optional<RouteWriter> writer;
    if (file) engine.record_to(&writer.emplace(record, engine.route_form(), route_origin(engine.model()), 0));
    const std::vector<WorkloadPrompt> prompts = prompts_of(folder.config());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      Request request;
      request.id = static_cast<std::int64_t>(i);
      request.prompt = prompts[i].ids;
      request.max_tokens = prompts[i].output_tokens;
      request.sampling = c.sampling;
      engine.submit(request);
    }
    while (!engine.idle()) engine.step();
    sent = engine.collect_counters();
    engine.record_to(nullptr);
  });
  if (file) file->finish();
  return sent;
}

std::vector<CommCounters> simulate(const ModelConfig& config, const Case& c, const RouteSource& routes) {
  const int ranks = static_cast<int>(c.nodes.size());
  const Cluster cluster = parse_cluster(round_cluster(ranks, ranks), "cluster");
  Placement placement = make_placement(config, c.plan, ranks, c.nodes);
  const SchedulerLimits limits = scheduler_limits(config, placement, options_of(c));
  StepSimulator steps(
      {.config = config, .placement = std::move(placement), .nodes = c.nodes, .exchange = c.exchange, .threads = true},
      cluster, routes);
  const std::vector<WorkloadPrompt> prompts = prompts_of(config);
  simulate_serving(steps, prompts, std::vector<double>(prompts.size()), {.limits = limits, .sampling = c.sampling});
  return steps.sent();
}

void expect_equal(const CommCounter& simulated, const CommCounter& sent, const char* what) {
  EXPECT_EQ(simulated.calls, sent.calls) << what;
  EXPECT_EQ(simulated.messages, sent.messages) << what;
  EXPECT_EQ(simulated.bytes, sent.bytes) << what;
  EXPECT_EQ(simulated.node_bytes, sent.node_bytes) << what;
}

// A model of 8 layers, and what its router selects for the requests, which no plan changes.
class ServedModel {
 public:
  explicit ServedModel(ModelConfig config) : folder_((set_layers(config, 8), config)) {
    const TempFolder routes;
    const std::string path = routes / "routes";
    run_engine(folder_, {default_plan(folder_.config()), {0}}, path);
    const TensorFile file(path);
    routes_ = RouteSource::recorded(folder_.config(), RouteFile(file.bytes(), path), path);
  }

  void check(const Case& c) const {
    SCOPED_TRACE(testing::Message() << to_string(c.plan.plan) << " in " << c.plan.stages << " stages on "
                                    << testing::PrintToString(c.nodes) << (c.plan.split_sequences ? ", split" : ""));
    const std::vector<CommCounters> sent = run_engine(folder_, c), simulated = simulate(folder_.config(), c, *routes_);
    ASSERT_EQ(simulated.size(), sent.size());
    EXPECT_EQ(simulated[0].total().calls > 0, c.nodes.size() > 1);
    for (std::size_t r = 0; r < sent.size(); ++r) {
      SCOPED_TRACE(testing::Message() << "rank " << r);
      expect_equal(simulated[r].broadcast, sent[r].broadcast, "broadcast");
      expect_equal(simulated[r].sum, sent[r].sum, "sum");
      expect_equal(simulated[r].gather, sent[r].gather, "gather");
      expect_equal(simulated[r].all_to_all, sent[r].all_to_all, "all-to-all");
      expect_equal(simulated[r].send, sent[r].send, "send");
    }
  }

 private:
  RandomModel folder_;
  std::optional<RouteSource> routes_;
};

std::vector<int> on_one_node(int ranks) {
  return std::vector<int>(ranks);
}

class Counters : public testing::TestWithParam<int> {};

TEST_P(Counters, OfTheOrdinaryModel) {
  static const ServedModel model(small_config());
  const int ranks = GetParam();
  const std::vector<int> nodes = on_one_node(ranks);
  model.check({Plan::kTp, nodes});
  model.check({Plan::kEp, nodes});
  model.check({{Plan::kEp, {}, 0, true}, nodes});
  model.check({Plan::kPp, nodes});
  if (ranks % 2 == 0) model.check({{Plan::kEp, {}, 2}, nodes});
  if (ranks % 4 == 0) model.check({{Plan::kEp, {}, 2, true}, nodes});
}

TEST_P(Counters, OfTheFederatedModel) {
  static const ServedModel model(small_federated(4));
  const int ranks = GetParam();
  const std::vector<int> nodes = on_one_node(ranks);
  model.check({Plan::kFoe, nodes});
  model.check({Plan::kPp, nodes});
  if (ranks == 8) model.check({{Plan::kFoe, {}, 0, true}, nodes});
  if (ranks % 2 == 0) model.check({{Plan::kFoe, {}, 2}, nodes});
}

INSTANTIATE_TEST_SUITE_P(Ranks, Counters, testing::Range(1, 9));

// Over nodes, with other wires and dispatches, in halves, and of rows that want more than the likeliest token.
TEST(CountersOfOptions, OfTheOrdinaryModel) {
  ModelConfig config = small_config();
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  const ServedModel model(config);
  const std::vector<int> two_nodes{0, 0, 1, 1};
  model.check({Plan::kTp, two_nodes, {.wire = Wire::kInt8}, {.temperature = 1, .top_k = 7}});
  model.check({Plan::kTp, {0, 0, 1}, {.overlap = true}, {.temperature = 1}});
  model.check({Plan::kEp, two_nodes, {.dispatch = Dispatch::kPerExpert}});
  model.check({Plan::kEp, {0, 1}, {.overlap = true}});
  model.check({{Plan::kEp, {}, 0, true}, two_nodes, {.overlap = true}});
  model.check({Plan::kPp, {0, 1, 2}, {.wire = Wire::kBF16}, {.logprobs = 2}});
}

TEST(CountersOfOptions, OfTheFederatedModel) {
  const ServedModel model(small_federated(2));
  model.check({Plan::kFoe, {0, 0, 1, 1}});
  model.check({Plan::kFoe, {0, 0, 0, 1, 1}});
  model.check({Plan::kFoe, {0, 1}, {.wire = Wire::kInt8, .overlap = true}});
  model.check({{Plan::kFoe, {}, 2}, {0, 0, 1, 1}, {.wire = Wire::kBF16}});
}

}  // namespace
}  // namespace foe

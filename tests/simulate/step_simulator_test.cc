// Times of simulated steps, against what can be computed by hand or must be so.
#include "simulate/step_simulator.h"

#include <numeric>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "costs/roofline.h"
#include "simulate/clusters.h"
#include "simulate/serving.h"

namespace foe {
namespace {

Batch decode_batch(int sequences, int context) {
  Batch batch;
  const std::vector<std::int32_t> token{1}, blocks(context / kKvBlock + 1);
  for (int s = 0; s < sequences; ++s) batch.add_sequence(token, context, blocks, Batch::Sample::kLast);
  return batch;
}

Batch prompt_batch(int tokens) {
  Batch batch;
  const std::vector<std::int32_t> ids(tokens), blocks(tokens / kKvBlock + 1);
  batch.add_sequence(ids, 0, blocks, Batch::Sample::kLast);
  batch.candidates = {1};
  return batch;
}

struct Simulated {
  double seconds;
  std::vector<RankSeconds> ranks;
};

Simulated pass(const ModelConfig& config, const PlanChoice& plan, int ranks, const Cluster& cluster, const Batch& batch,
               const ExchangeOptions& exchange = {}) {
  const std::vector<int> nodes = nodes_of_ranks(cluster, ranks, 0);
  const RouteSource routes = RouteSource::drawn(config, 3);
  StepSimulator steps(
      {.config = config, .placement = make_placement(config, plan, ranks, nodes), .nodes = nodes, .exchange = exchange},
      cluster, routes);
  std::vector<std::int64_t> sequences(batch.num_sequences());
  std::iota(sequences.begin(), sequences.end(), 0);
  const double seconds = steps.pass(batch, sequences);
  return {seconds, steps.seconds()};
}

// On one rank that computes much slower than it reads, attention takes what its operations take; decode_work() counts
// them.
TEST(StepSimulator, OneRankTakesItsOperations) {
  ModelConfig config = small_config();
  set(config, &ExpertsConfig::per_token, 16);  // all experts, so that nothing is drawn
  Cluster cluster = parse_cluster(round_cluster(1, 1), "cluster");
  cluster.device.bytes_per_s = 1e15;
  cluster.device.floats_per_s = 1e18;
  const Simulated one = pass(config, Plan::kTp, 1, cluster, decode_batch(3, 40));
  const StepWork work = decode_work(config, make_placement(config, Plan::kTp, 1), {.sequences = 3, .context = 41});
  EXPECT_NEAR(one.ranks[0].attention, (work.projections.flops + work.attention.flops) / 1e9, 1e-9);
  EXPECT_NEAR(one.ranks[0].experts, (work.router.flops + work.experts.flops) / 1e9, 1e-9);
  EXPECT_NEAR(one.ranks[0].head, work.head.flops / 1e9, 1e-9);
  EXPECT_NEAR(one.seconds, one.ranks[0].attention + one.ranks[0].experts, 1e-9);
}

// And where it reads much slower, what its bytes take.
TEST(StepSimulator, OneRankTakesItsBytes) {
  ModelConfig config = small_config();
  set(config, &ExpertsConfig::per_token, 16);
  Cluster cluster = parse_cluster(round_cluster(1, 1), "cluster");
  cluster.device.bytes_per_s = 1e6;
  cluster.device.floats_per_s = 1e18;
  const Simulated one = pass(config, Plan::kTp, 1, cluster, decode_batch(3, 40));
  const Work work = decode_work(config, make_placement(config, Plan::kTp, 1), {.sequences = 3, .context = 41}).total();
  EXPECT_NEAR(one.ranks[0].total(), work.bytes / 1e6, 1e-9);
}

TEST(StepSimulator, AWindowHidesKeys) {
  const SpeedByRows speed{{1}, {1}};
  const std::vector<Piece> all{{0, 50, 0}};
  const Batch batch = prompt_batch(50);
  EXPECT_EQ(attended_keys(batch, all, 0, speed).seconds_per_op, 50 * 51 / 2);
  double pairs = 0;
  for (int p = 0; p < 50; ++p) pairs += std::min(p + 1, 16);
  EXPECT_EQ(attended_keys(batch, all, 16, speed).seconds_per_op, pairs);
  const std::vector<Piece> later{{30, 50, 0}};
  EXPECT_EQ(attended_keys(batch, later, 16, speed).seconds_per_op, 20 * 16);
  EXPECT_EQ(attended_keys(batch, later, 16, speed).positions, 36);
}

// One prompt keeps one rank of ep busy: the other one waits. If ranks split it, neither does.
TEST(StepSimulator, RanksWaitForTheOneThatWorks) {
  const ModelConfig config = small_config();
  const Cluster cluster = parse_cluster(round_cluster(2, 2), "cluster");
  const Batch prompt = prompt_batch(400);
  const Simulated whole = pass(config, Plan::kEp, 2, cluster, prompt);
  const Simulated split = pass(config, {Plan::kEp, {}, 0, true}, 2, cluster, prompt);
  EXPECT_EQ(whole.ranks[1].attention, 0);
  EXPECT_GT(whole.ranks[1].waiting, 0.9 * whole.ranks[0].attention);
  EXPECT_LT(split.ranks[0].waiting + split.ranks[1].waiting, 0.1 * split.seconds);
  EXPECT_LT(split.seconds, 0.7 * whole.seconds);
}

TEST(StepSimulator, ANetworkTakesItsBytesAndLatencies) {
  const ModelConfig config = small_federated(4);
  Cluster cluster = parse_cluster(round_cluster(2, 1), "cluster");
  const Batch batch = prompt_batch(100);
  const Simulated slow = pass(config, Plan::kFoe, 2, cluster, batch);
  // 3 sums of 100 rows of 48 floats, and the last one of one row.
  const double bytes = 4.0 * 48 * (3 * 100 + 1);
  EXPECT_NEAR(slow.ranks[0].moving, (bytes + 8) / 1e8, 1e-9);  // and a candidate
  cluster.network.latency_s = 0.01;
  const Simulated late = pass(config, Plan::kFoe, 2, cluster, batch);
  EXPECT_NEAR(late.seconds, slow.seconds + 4 * 0.01, 1e-9);
  cluster.sum_algorithm = SumAlgorithm::kRing;
  EXPECT_NEAR(pass(config, Plan::kFoe, 2, cluster, batch).seconds, late.seconds + 4 * 0.01, 1e-9);
}

TEST(StepSimulator, HalvesHideExchanges) {
  const ModelConfig config = small_federated(4);
  Cluster cluster = parse_cluster(round_cluster(2, 1), "cluster");
  cluster.network.sum_bytes_per_s = 3e6;  // so that exchanges take about as long as arithmetic
  const Batch batch = prompt_batch(400);
  const double in_turn = pass(config, Plan::kFoe, 2, cluster, batch).seconds;
  const double beside = pass(config, Plan::kFoe, 2, cluster, batch, {.overlap = true}).seconds;
  EXPECT_LT(beside, 0.9 * in_turn);
}

// With as many micro-batches as 2 stages have, both work most of the time.
TEST(StepSimulator, StagesWorkAtTheSameTime) {
  ModelConfig config = small_config();
  set_layers(config, 8);
  const Cluster cluster = parse_cluster(round_cluster(2, 2), "cluster");
  const Batch batch = prompt_batch(400);
  const double one = pass(config, Plan::kTp, 1, cluster, batch).seconds;
  const double two = pass(config, Plan::kPp, 2, cluster, batch).seconds;
  EXPECT_LT(two, 0.75 * one);
  EXPECT_GT(two, 0.5 * one);
}

struct Served {
  SimulatedServing served;
  double now;
};

Served serve(const PlanChoice& plan, int ranks, int requests, double gap, int concurrency = 0) {
  ModelConfig config = small_config();
  set_layers(config, 4);
  const Cluster cluster = parse_cluster(round_cluster(4, 2), "cluster");
  const std::vector<int> nodes = nodes_of_ranks(cluster, ranks, 0);
  const RouteSource routes = RouteSource::drawn(config, 3);
  StepSimulator steps({.config = config, .placement = make_placement(config, plan, ranks, nodes), .nodes = nodes},
                      cluster, routes);
  std::vector<WorkloadPrompt> prompts;
  std::vector<double> times;
  for (int i = 0; i < requests; ++i) {
    const std::vector<std::int32_t> ids(20 + i % 7 * 30, i);
    prompts.push_back({ids, "", static_cast<int>(ids.size()), 5});
    times.push_back(i * gap);
  }
  SchedulerLimits limits = scheduler_limits(config, steps.model().placement, {.kv_tokens = 1000});
  ServingOptions options{.limits = limits, .max_concurrency = concurrency};
  return {simulate_serving(steps, prompts, times, options), steps.now()};
}

TEST(Serving, AnswersAllRequestsInTime) {
  for (const PlanChoice& plan : {PlanChoice(Plan::kEp), PlanChoice(Plan::kPp), PlanChoice(Plan::kTp)}) {
    const Served four = serve(plan, 4, 30, 1e-4);
    ASSERT_EQ(four.served.run.requests.size(), 30u);
    for (const SentRequest& request : four.served.run.requests) {
      EXPECT_TRUE(request.completion.ok());
      EXPECT_EQ(request.completion.output_tokens(), 5);
      EXPECT_GT(request.completion.ttft, 0);
      double sum = request.completion.ttft;
      for (const double itl : request.completion.itls) sum += itl;
      EXPECT_NEAR(sum, request.completion.latency, 1e-9);
    }
    EXPECT_EQ(four.served.run.duration, four.now);
    EXPECT_EQ(serve(plan, 4, 30, 1e-4).now, four.now);
  }
}

TEST(Serving, ALightLoadDoesNotQueue) {
  const Served light = serve(Plan::kTp, 1, 10, 100), heavy = serve(Plan::kTp, 1, 10, 0);
  EXPECT_EQ(light.served.run.peak_in_flight, 1u);
  EXPECT_EQ(heavy.served.run.peak_in_flight, 10u);
  EXPECT_LT(light.served.run.requests.back().completion.ttft, heavy.served.run.requests.back().completion.ttft);
  EXPECT_EQ(serve(Plan::kTp, 1, 10, 0, 2).served.run.peak_in_flight, 2u);
}

TEST(Serving, WhatCanNeverRunFailsAlone) {
  ModelConfig config = small_config();
  const Cluster cluster = parse_cluster(round_cluster(1, 1), "cluster");
  const RouteSource routes = RouteSource::drawn(config, 3);
  StepSimulator steps({.config = config, .placement = make_placement(config, Plan::kTp, 1), .nodes = {0}}, cluster,
                      routes);
  const std::vector<WorkloadPrompt> prompts{{std::vector<std::int32_t>(600, 1), "", 600, 5}, {{1, 2}, "", 2, 5}};
  const SchedulerLimits limits = scheduler_limits(config, steps.model().placement, {});
  const SimulatedServing served = simulate_serving(steps, prompts, {0, 0}, {.limits = limits});
  EXPECT_FALSE(served.run.requests[0].completion.ok());
  EXPECT_TRUE(served.run.requests[1].completion.ok());
}

}  // namespace
}  // namespace foe

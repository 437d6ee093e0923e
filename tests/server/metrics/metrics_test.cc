#include "server/metrics/metrics.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/metrics/live_view.h"

namespace foe {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

EngineStats stats_of(std::int64_t tokens, std::uint64_t bytes) {
  EngineStats stats;
  stats.scheduler.generation_tokens = tokens;
  stats.scheduler.drafted_tokens = 10 * tokens;
  stats.scheduler.accepted_tokens = tokens / 2;
  stats.scheduler.running = 3;
  stats.scheduler.blocks = 8;
  stats.scheduler.blocks_in_use = 2;
  stats.comm.resize(2);
  stats.comm[1].sum.bytes = bytes;
  stats.rank_rows = {{10, 30}};
  stats.expert_rows = {{10, 0, 30, 0}};
  return stats;
}

TEST(Metrics, HaveVllmsNamesAndBuckets) {
  Metrics metrics("m");
  metrics.first_token(0.003, 0.4, 0.6);
  metrics.next_token(0.03);
  metrics.finished({.first_token = 1, .last_token = 3, .tokens = 5}, FinishReason::kLength);
  metrics.failed(503);
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr(R"(foe:time_to_first_token_seconds_bucket{model_name="m",le="0.005"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:time_to_first_token_seconds_bucket{model_name="m",le="0.001"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:request_queue_time_seconds_sum{model_name="m"} 0.4)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:request_prefill_time_seconds_sum{model_name="m"} 0.6)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:inter_token_latency_seconds_count{model_name="m"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:request_time_per_output_token_seconds_sum{model_name="m"} 0.5)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:e2e_request_latency_seconds_sum{model_name="m"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:request_success_total{finished_reason="length",model_name="m"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:request_failure_total{model_name="m",status="503"} 1)"));
}

// A rate over a counter that begins to exist at 1 would miss the first event.
TEST(Metrics, ExistWithEveryLabelFromTheStart) {
  Metrics metrics("m", 300);
  metrics.ranks_up(2, 1, 640, "bf16");
  const std::string text = metrics.text();
  for (const char* line :
       {R"(foe:request_success_total{finished_reason="stop",model_name="m"} 0)",
        R"(foe:request_success_total{finished_reason="abort",model_name="m"} 0)",
        R"(foe:request_failure_total{model_name="m",status="503"} 0)",
        R"(foe:comm_bytes_total{collective="all_to_all",model_name="m",rank="1"} 0)",
        R"(foe:comm_seconds_total{collective="sum",model_name="m"} 0)",
        R"(foe:expert_tokens_total{layer="0",model_name="m",rank="1"} 0)",
        R"(foe:prompt_tokens_by_source_total{model_name="m",source="local_cache_hit"} 0)",
        R"(foe:request_prompt_tokens_bucket{model_name="m",le="200"} 0)", R"(block_size="16",cache_dtype="bf16")"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, Not(HasSubstr(R"(le="500")")));
}

TEST(Metrics, CountTokensOfRequestsAndSteps) {
  Metrics metrics("m", 300);
  metrics.accepted(2);
  metrics.first_token(0.1, 0.01, 0.05, 12, 8);
  metrics.finished(
      {.first_token = 0.1, .last_token = 0.3, .queue_s = 0.1, .tokens = 5, .prompt_tokens = 12, .max_tokens = 16},
      FinishReason::kStop);
  metrics.failed(499, 2);
  metrics.failed(500);
  metrics.update(SchedulerStats{.tokens_run = 20, .drafts = 3, .running = 4});
  metrics.update(SchedulerStats{.tokens_run = 20, .drafts = 3, .running = 4});
  metrics.update(SchedulerStats{.tokens_run = 21, .drafts = 3, .running = 1});
  const std::string text = metrics.text();
  for (const char* line :
       {R"(foe:request_params_n_sum{model_name="m"} 2)", R"(foe:request_prompt_tokens_sum{model_name="m"} 12)",
        R"(foe:request_generation_tokens_sum{model_name="m"} 5)",
        R"(foe:request_max_num_generation_tokens_count{model_name="m"} 1)",
        R"(foe:request_params_max_tokens_sum{model_name="m"} 16)",
        R"(foe:request_prefill_kv_computed_tokens_sum{model_name="m"} 4)",
        R"(foe:prompt_tokens_cached_total{model_name="m"} 8)",
        R"(foe:request_inference_time_seconds_count{model_name="m"} 1)",
        R"(foe:request_success_total{finished_reason="abort",model_name="m"} 2)",
        R"(foe:request_success_total{finished_reason="error",model_name="m"} 1)",
        R"(foe:spec_decode_num_drafts_total{model_name="m"} 3)",
        R"(foe:iteration_tokens_total_count{model_name="m"} 2)", R"(foe:iteration_tokens_total_sum{model_name="m"} 21)",
        R"(foe:num_requests_running{model_name="m"} 1)"})
    EXPECT_THAT(text, HasSubstr(line));
}

TEST(Metrics, GoOnWhereTheRanksBeginAnew) {
  Metrics metrics("m");
  metrics.update(stats_of(5, 100));
  metrics.update(stats_of(7, 150));
  EXPECT_THAT(metrics.text(), HasSubstr(R"(foe:generation_tokens_total{model_name="m"} 7)"));
  metrics.restarted();
  metrics.update(stats_of(2, 30));
  const std::string text = metrics.text();
  EXPECT_THAT(text, HasSubstr(R"(foe:generation_tokens_total{model_name="m"} 9)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:spec_decode_num_draft_tokens_total{model_name="m"} 90)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:spec_decode_num_accepted_tokens_total{model_name="m"} 4)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:comm_bytes_total{collective="sum",model_name="m",rank="1"} 180)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:engine_restarts_total{model_name="m"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:kv_cache_usage_perc{model_name="m"} 0.25)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:expert_tokens_total{layer="0",model_name="m",rank="1"} 60)"));
  EXPECT_THAT(text, HasSubstr(R"(foe:expert_load_max_over_median{model_name="m"} 1.5)"));
}

TEST(Metrics, EscapeTheModelsName) {
  Metrics metrics("a\"b\\c\nd");
  EXPECT_THAT(metrics.text(), HasSubstr(R"(model_name="a\"b\\c\nd")"));
  EXPECT_THAT(metrics.text(), Not(HasSubstr("c\nd")));
}

TEST(RecentTimes, ForgetTheOldest) {
  RecentTimes times;
  EXPECT_THAT(times.percentiles(), ElementsAre(0, 0, 0));
  for (int i = 0; i < 10000; ++i) times.add(5);
  for (int i = 1; i <= 512; ++i) times.add(i);
  EXPECT_THAT(times.percentiles(), ElementsAre(257, 461, 507));
}

TEST(TokensBySecond, ForgetsTheOldest) {
  TokensBySecond tokens;
  tokens.add(3, 1000);
  tokens.add(4, 1000);
  tokens.add(5, 1119);
  tokens.add(9, 1120);
  const TokensBySecond::Counts counts = tokens.last(1120);
  EXPECT_EQ(counts.front(), 7);
  EXPECT_EQ(counts.back(), 5);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0), 12);
  EXPECT_EQ(tokens.last(1121).front(), 0);
  EXPECT_EQ(tokens.last(1121).back(), 9);
  EXPECT_THAT(tokens.last(2000), Each(0));
}

TEST(LiveView, SumsOverRanks) {
  LiveState state;
  state.model = "m";
  state.stats = stats_of(5, 100);
  state.stats.comm[0].sum.bytes = 11;
  const nlohmann::json live = nlohmann::json::parse(live_body(state));
  EXPECT_EQ(live["collectives"]["sum"]["bytes"], 111);
  EXPECT_EQ(live["kv_usage"], 0.25);
  EXPECT_EQ(live["expert_rows"][0][2], 30);
}

// Whoever serves it may be cut off from every network.
TEST(Page, FetchesNothingFromElsewhere) {
  const std::string page = kPage;
  EXPECT_THAT(page, HasSubstr("</html>"));
  for (const char* address : {"http://", "https://", "src=", "@import", "url("})
    EXPECT_THAT(page, Not(HasSubstr(address)));
}

}  // namespace
}  // namespace foe

#include "load/serve_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {
namespace {

using testing::ElementsAre;

TEST(Percentile, IsLinearBetweenNeighbours) {
  const std::vector<double> values{1, 2, 4, 8, 16};
  EXPECT_EQ(percentile(values, 0), 1);
  EXPECT_EQ(percentile(values, 50), 4);
  EXPECT_EQ(percentile(values, 75), 8);
  EXPECT_EQ(percentile(values, 62.5), 6);
  EXPECT_EQ(percentile(values, 100), 16);
  EXPECT_EQ(percentile({3}, 99), 3);
  EXPECT_EQ(percentile({}, 99), 0);
}

TEST(Distribution, OfValuesInAnyOrder) {
  const Distribution d = distribution_of({9, 1, 5, 5}, {25, 100});
  EXPECT_EQ(d.mean, 5);
  EXPECT_EQ(d.median, 5);
  EXPECT_EQ(d.std, std::sqrt(8.0));
  EXPECT_THAT(d.percentiles, ElementsAre(4, 9));
}

TEST(Goodput, Limits) {
  const Goodput g = parse_goodput({"ttft:200", "e2el:1e3"});
  EXPECT_EQ(g.ttft, 200);
  EXPECT_EQ(g.tpot, std::nullopt);
  EXPECT_EQ(g.e2el, 1000);
  EXPECT_FALSE(parse_goodput({}).asked());
  for (const char* bad : {"", "ttft", "ttft:", "ttft:x", "ttft:1x", "ttft:-1", "ttft:nan", "ttft:inf", "itl:3", ":3"})
    EXPECT_THROW(parse_goodput({bad}), Error) << bad;
}

Completion answer(double ttft, std::vector<double> itls, std::optional<int> tokens = {}) {
  Completion c{.status = 200, .error = "", .retry_after = ""};
  c.ttft = c.latency = ttft;
  for (const double itl : itls) c.latency += itl;
  c.chunks = static_cast<int>(itls.size()) + 1;
  c.itls = std::move(itls);
  c.completion_tokens = tokens;
  return c;
}

Completion refusal() {
  return {.status = 503, .error = "status 503: full", .retry_after = "1"};
}

LoadRun run_of(std::vector<Completion> completions) {
  LoadRun run;
  run.duration = 8;
  run.cpu_seconds = 2;
  run.peak_in_flight = 3;
  for (std::size_t i = 0; i < completions.size(); ++i) {
    const auto due = static_cast<double>(i);
    run.requests.push_back(
        {.prompt = i, .due = due, .sent = due + 0.25, .ended = due + 1, .completion = completions[i]});
  }
  return run;
}

TEST(Report, Sums) {
  const std::vector<WorkloadPrompt> prompts(
      4, WorkloadPrompt{.ids = {1, 2, 3}, .text = "", .tokens = 3, .output_tokens = 3});
  // 2 s to the first token, then 3 s and 1 s; one token; and a refusal. 5 tokens by usage: (6 - 2) / 4 s each.
  LoadRun run = run_of({answer(2, {3, 1}, 5), answer(1, {}, 1), refusal(), refusal()});
  run.requests[0].completion.prompt_tokens = 10;
  const ReportOptions options{.percentiles = {50, 99.9}, .goodput = parse_goodput({"tpot:999", "ttft:1500"})};
  const ServeReport report = report_serve(run, prompts, options);
  const nlohmann::json json = to_json(report, options);
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 2);
  EXPECT_EQ(json["total_input_tokens"], 13);
  EXPECT_EQ(json["total_output_tokens"], 6);
  EXPECT_EQ(json["request_throughput"], 0.25);
  EXPECT_EQ(json["output_throughput"], 0.75);
  EXPECT_EQ(json["total_token_throughput"], 2.375);
  EXPECT_EQ(json["request_goodput"], 0.125);  // the one token
  EXPECT_EQ(json["output_tokens_from"], "usage");
  EXPECT_EQ(json["max_concurrent_requests"], 3);
  EXPECT_EQ(json["mean_ttft_ms"], 1500);
  EXPECT_EQ(json["median_e2el_ms"], 3500);
  EXPECT_EQ(json["mean_tpot_ms"], 1000);
  EXPECT_EQ(json["std_tpot_ms"], 0);
  EXPECT_EQ(json["p50_itl_ms"], 2000);
  EXPECT_NEAR(json["p99.9_itl_ms"].get<double>(), 2998, 1e-9);
  EXPECT_EQ(json["send_delay_ms"]["max"], 250);
  EXPECT_EQ(json["generator_cpu_share"], 0.25);
  EXPECT_EQ(json["failures_by_status"], nlohmann::json({{"503", 2}}));
  EXPECT_EQ(json["retry_after"], nlohmann::json({{"1", 2}}));
  EXPECT_EQ(json["refusal_ms"]["median"], 750);
  EXPECT_EQ(json["max_output_tokens_per_s"], 2);
  EXPECT_EQ(json["rtfx"], 0);
  const nlohmann::json details = requests_json(run, prompts, true);
  EXPECT_EQ(details["input_lens"], nlohmann::json({10, 3, 3, 3}));
  EXPECT_EQ(details["output_lens"], nlohmann::json({5, 1, 0, 0}));
  EXPECT_EQ(details["errors"], nlohmann::json({"", "", "status 503: full", "status 503: full"}));
}

TEST(Report, RequestsHaveListsInSeconds) {
  LoadRun run = run_of({answer(2, {3, 1}, 5), refusal()});
  run.requests[0].completion.text = "abc";
  run.requests[1].completion.chunks = 1;  // part of an answer is none
  const std::vector<WorkloadPrompt> prompts(2);
  const nlohmann::json few = requests_json(run, prompts, false), all = requests_json(run, prompts, true);
  EXPECT_EQ(few, nlohmann::json({{"latencies", {6, 0}}, {"queue_times", {0.25, 0.25}}}));
  EXPECT_EQ(all["latencies"], few["latencies"]);
  EXPECT_EQ(all["ttfts"], nlohmann::json({2, 0}));
  EXPECT_EQ(all["itls"], nlohmann::json({{3, 1}, nlohmann::json::array()}));
  EXPECT_EQ(all["output_lens"], nlohmann::json({5, 0}));
  EXPECT_EQ(all["start_times"], nlohmann::json({0.25, 1.25}));
  EXPECT_EQ(all["generated_texts"], nlohmann::json({"abc", ""}));
}

TEST(Report, WaitingBeforeItIsSent) {
  const ReportOptions options{.metrics = {"client_queue_time", "e2el_including_client_queue"}};
  const ServeReport report = report_serve(run_of({answer(2, {1}), refusal()}), std::vector<WorkloadPrompt>(2), options);
  const nlohmann::json json = to_json(report, options);
  EXPECT_EQ(json["mean_client_queue_time_ms"], 250);
  EXPECT_EQ(json["p99_e2el_including_client_queue_ms"], 3250);
  EXPECT_FALSE(json.contains("mean_ttft_ms"));
}

TEST(Report, PeakOfTokensInASecond) {
  // Sent at 0.25 and 1.25: tokens 0.5, 0.75, 1.0 and 2.5 s after the first was sent, and 1.5, 1.5 and 2.75 s.
  const LoadRun run = run_of({answer(0.5, {0.25, 0.25, 1.5}), answer(0.5, {0, 1.25}), refusal()});
  const ServeReport report = report_serve(run, std::vector<WorkloadPrompt>(3), {});
  EXPECT_EQ(report.peak_tokens_per_s, 3);
}

TEST(Report, WhenTheRateGrew) {
  LoadRun run = run_of({answer(1, {}), answer(1, {}), answer(1, {})});
  run.start += std::chrono::milliseconds(1500);
  run.requests.erase(run.requests.begin() + 1);  // the run was interrupted
  const nlohmann::json events = rate_changes_json(run, {1, 2, 3});
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["rps"], 1);
  EXPECT_EQ(events[1]["rps"], 3);
  EXPECT_THAT(events[0]["timestamp"].get<std::string>(), testing::MatchesRegex("19.*T.*:..:01.500000"));
  EXPECT_THAT(events[1]["timestamp"].get<std::string>(), testing::MatchesRegex("19.*T.*:..:03.500000"));
}

TEST(Report, SaysWhereCountsAreFrom) {
  const std::vector<WorkloadPrompt> prompts(2);
  EXPECT_EQ(report_serve(run_of({answer(1, {1}), answer(1, {})}), prompts, {}).tokens_from, "chunks");
  EXPECT_EQ(report_serve(run_of({answer(1, {1}), answer(1, {}, 1)}), prompts, {}).tokens_from, "both");
}

TEST(Report, OfNothing) {
  const ReportOptions options;
  const nlohmann::json json = to_json(report_serve({}, {}, options), options);
  EXPECT_EQ(json["completed"], 0);
  EXPECT_EQ(json["output_throughput"], 0);
  EXPECT_EQ(json["p99_ttft_ms"], 0);
  EXPECT_TRUE(json["request_goodput"].is_null());
}

TEST(Report, KeepsFewErrors) {
  std::vector<Completion> completions;
  for (int i = 0; i < 100; ++i)
    completions.push_back({.status = 0, .error = "e" + std::to_string(i), .retry_after = ""});
  const ServeReport report = report_serve(run_of(completions), std::vector<WorkloadPrompt>(100), {});
  EXPECT_EQ(report.errors.size(), 10u);
  EXPECT_EQ(report.failed, 100u);
}

}  // namespace
}  // namespace foe

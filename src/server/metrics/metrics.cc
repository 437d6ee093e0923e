#include "server/metrics/metrics.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "core/batch.h"
#include "model/expert_load.h"

namespace foe {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::Registry;

// The buckets of vLLM, so that its dashboards can be used.
const Histogram::BucketBoundaries kFirstTokenBuckets{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                                     1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Histogram::BucketBoundaries kTokenBuckets{.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                                .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const Histogram::BucketBoundaries kRequestBuckets{.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                                  30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

const Histogram::BucketBoundaries kStepBuckets{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Histogram::BucketBoundaries kChoiceBuckets{1, 2, 5, 10, 20};

constexpr const char* kCommNames[] = {"broadcast", "sum", "gather", "all_to_all", "send"};

constexpr std::size_t kRecent = 512;

// 1, 2, 5, 10, 20, 50 and so on, up to the longest text: as many buckets as vLLM has for numbers of tokens.
Histogram::BucketBoundaries token_buckets(int context) {
  Histogram::BucketBoundaries buckets;
  for (double decade = 1; decade <= context; decade *= 10)
    for (const double digit : {1, 2, 5})
      if (digit * decade <= context) buckets.push_back(digit * decade);
  return buckets;
}

}  // namespace

void RecentTimes::add(double seconds) {
  if (times_.size() < kRecent) return times_.push_back(seconds);
  times_[next_] = seconds;
  next_ = (next_ + 1) % kRecent;
}

std::array<double, 3> RecentTimes::percentiles() const {
  if (times_.empty()) return {};
  std::vector<double> sorted = times_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double share) { return sorted[static_cast<std::size_t>(share * (sorted.size() - 1) + 0.5)]; };
  return {at(0.5), at(0.9), at(0.99)};
}

struct Metrics::Families {
  Families(const std::string& model_name, int context)
      : labels{{"model_name", model_name}}, token_counts(token_buckets(context)) {
    for (const char* reason : {"stop", "length", "abort", "error"}) with(success, {{"finished_reason", reason}});
    for (const char* status : {"400", "499", "500", "503", "504"}) with(failures, {{"status", status}});
    for (const char* source : {"local_compute", "local_cache_hit"}) with(by_source, {{"source", source}});
  }

  Histogram& histogram(const char* name, const char* help, const Histogram::BucketBoundaries& buckets) {
    return prometheus::BuildHistogram()
        .Name(std::string("foe:") + name)
        .Help(help)
        .Register(registry)
        .Add(labels, buckets);
  }
  Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(std::string("foe:") + name).Help(help).Register(registry).Add(labels);
  }
  Family<Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(std::string("foe:") + name).Help(help).Register(registry);
  }
  Counter& counter(const char* name, const char* help) { return counters(name, help).Add(labels); }
  Counter& with(Family<Counter>& family, Labels more) {
    more.insert(labels.begin(), labels.end());
    return family.Add(more);  // returns the existing one, if there is one
  }
  // A prompt of so many tokens, of which some were cached.
  void prompt_ran(double queue_s, double prefill_s, int tokens, int cached) {
    queue.Observe(queue_s);
    prefill.Observe(prefill_s);
    computed.Observe(tokens - cached);
    cached_tokens.Increment(cached);
    with(by_source, {{"source", "local_compute"}}).Increment(tokens - cached);
    with(by_source, {{"source", "local_cache_hit"}}).Increment(cached);
  }

  Registry registry;
  Labels labels;
  Histogram::BucketBoundaries token_counts;

  Histogram& first_token =
      histogram("time_to_first_token_seconds", "From a request's arrival to its first token", kFirstTokenBuckets);
  Histogram& inter_token =
      histogram("inter_token_latency_seconds", "From one token of a choice to the next", kTokenBuckets);
  Histogram& per_token = histogram("request_time_per_output_token_seconds",
                                   "Mean time of a choice's output tokens but the first", kTokenBuckets);
  Histogram& whole =
      histogram("e2e_request_latency_seconds", "From a request's arrival to its last token", kRequestBuckets);
  Histogram& queue = histogram("request_queue_time_seconds", "From a request's arrival at the ranks to its first step",
                               kRequestBuckets);
  Histogram& prefill =
      histogram("request_prefill_time_seconds", "From a request's first step to its first token", kRequestBuckets);
  Histogram& decode =
      histogram("request_decode_time_seconds", "From the first token of a choice to the last", kRequestBuckets);
  Histogram& inference =
      histogram("request_inference_time_seconds", "From a choice's first step to its last token", kRequestBuckets);
  Histogram& prompt_length = histogram("request_prompt_tokens", "Tokens of a choice's prompt", token_counts);
  Histogram& output_length = histogram("request_generation_tokens", "Output tokens of a choice", token_counts);
  Histogram& most_output =
      histogram("request_max_num_generation_tokens", "The most output tokens of a request's choices", token_counts);
  Histogram& params_max_tokens =
      histogram("request_params_max_tokens", "The field max_tokens of a choice", token_counts);
  Histogram& params_n = histogram("request_params_n", "The field n of a request", kChoiceBuckets);
  Histogram& computed = histogram("request_prefill_kv_computed_tokens",
                                  "Prompt tokens of a choice that were not in the prefix cache", token_counts);
  Histogram& step_tokens = histogram("iteration_tokens_total", "Tokens that run in one step", kStepBuckets);
  Gauge& running = gauge("num_requests_running", "Requests in the engine's batches");
  Gauge& waiting = gauge("num_requests_waiting", "Requests that wait for a place in them");
  Gauge& kv_usage = gauge("kv_cache_usage_perc", "KV blocks in use; 1 is all");
  Gauge& balance = gauge("expert_load_max_over_median", "Rows on the fullest rank over the median, mean over layers");
  Gauge& local = gauge("local_activation_rate", "Share of expert selections resolved on the token's own rank");
  Counter& preemptions = counter("num_preemptions_total", "Sequences that lost their KV blocks for a while");
  Counter& cache_queries = counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache");
  Counter& cache_hits = counter("prefix_cache_hits_total", "Prompt tokens found there");
  Counter& prompt_tokens = counter("prompt_tokens_total", "Prompt tokens of admitted requests");
  Counter& generation_tokens = counter("generation_tokens_total", "Output tokens");
  Counter& cached_tokens = counter("prompt_tokens_cached_total", "Prompt tokens that the prefix cache had");
  Family<Counter>& by_source = counters("prompt_tokens_by_source_total", "Prompt tokens by where they came from");
  Counter& drafts = counter("spec_decode_num_drafts_total", "Times that output tokens were guessed");
  Counter& drafted = counter("spec_decode_num_draft_tokens_total", "Output tokens that were guessed");
  Counter& accepted = counter("spec_decode_num_accepted_tokens_total", "Guessed tokens that the model chose, too");
  Counter& restarts = counter("engine_restarts_total", "Times that the ranks were started again");
  Family<Gauge>& cache_config = prometheus::BuildGauge()
                                    .Name("foe:cache_config_info")
                                    .Help("How the KV cache is made, in labels")
                                    .Register(registry);
  Family<Counter>& success = counters("request_success_total", "Choices with their last token");
  Family<Counter>& failures = counters("request_failure_total", "Answers that ended with an error");
  Family<Counter>& comm_bytes = counters("comm_bytes_total", "Payload that ranks have sent to others");
  Family<Counter>& comm_seconds = counters("comm_seconds_total", "Seconds in collectives, all ranks together");
  Family<Counter>& expert_tokens = counters("expert_tokens_total", "Rows that a rank's experts have run in a layer");
};

Metrics::Metrics(const std::string& model_name, int context)
    : families_(std::make_unique<Families>(model_name, context)) {}
Metrics::~Metrics() = default;

void Metrics::ranks_up(int ranks, int layers, int kv_tokens, const std::string& kv_dtype) {
  Families& f = *families_;
  for (int rank = 0; rank < ranks; ++rank) {
    const std::string name = std::to_string(rank);
    for (const char* collective : kCommNames) f.with(f.comm_bytes, {{"collective", collective}, {"rank", name}});
    for (int layer = 0; layer < layers; ++layer)
      f.with(f.expert_tokens, {{"layer", std::to_string(layer)}, {"rank", name}});
  }
  for (const char* collective : kCommNames) f.with(f.comm_seconds, {{"collective", collective}});
  Labels cache{{"block_size", std::to_string(kKvBlock)},
               {"cache_dtype", kv_dtype},
               {"enable_prefix_caching", "True"},
               {"num_gpu_blocks", std::to_string(kv_tokens / kKvBlock)}};
  cache.insert(f.labels.begin(), f.labels.end());
  f.cache_config.Add(cache).Set(1);
}

void Metrics::accepted(int n) {
  families_->params_n.Observe(n);
}

void Metrics::first_token(double seconds, double queue_s, double prefill_s, int prompt_tokens, int cached) {
  families_->first_token.Observe(seconds);
  families_->prompt_ran(queue_s, prefill_s, prompt_tokens, cached);
  recent_.first_token.add(seconds);
}

void Metrics::embedded(double seconds, double queue_s, double prefill_s, int prompt_tokens, int cached) {
  Families& f = *families_;
  f.prompt_ran(queue_s, prefill_s, prompt_tokens, cached);
  f.whole.Observe(seconds);
  recent_.whole.add(seconds);
  f.inference.Observe(seconds - queue_s);
  f.prompt_length.Observe(prompt_tokens);
  f.with(f.success, {{"finished_reason", to_string(FinishReason::kStop)}}).Increment();
}

void Metrics::next_token(double seconds) {
  families_->inter_token.Observe(seconds);
  recent_.next_token.add(seconds);
}

void Metrics::finished(const ChoiceTimes& times, FinishReason reason) {
  Families& f = *families_;
  f.whole.Observe(times.last_token);
  recent_.whole.add(times.last_token);
  f.decode.Observe(times.last_token - times.first_token);
  f.inference.Observe(times.last_token - times.queue_s);
  f.prompt_length.Observe(times.prompt_tokens);
  f.output_length.Observe(times.tokens);
  f.most_output.Observe(times.tokens);
  f.params_max_tokens.Observe(times.max_tokens);
  if (times.tokens > 1) f.per_token.Observe((times.last_token - times.first_token) / (times.tokens - 1));
  f.with(f.success, {{"finished_reason", to_string(reason)}}).Increment();
}

void Metrics::failed(int status, std::size_t choices) {
  Families& f = *families_;
  f.with(f.success, {{"finished_reason", status == 499 ? "abort" : "error"}}).Increment(static_cast<double>(choices));
  f.with(f.failures, {{"status", std::to_string(status)}}).Increment();
}

void Metrics::restarted() {
  families_->restarts.Increment();
  families_->running.Set(0);
  last_ = {};
}

std::int64_t Metrics::update(const SchedulerStats& now) {
  Families& f = *families_;
  const SchedulerStats then = std::exchange(last_.scheduler, now);
  f.running.Set(now.running);
  f.waiting.Set(now.waiting);
  f.kv_usage.Set(now.blocks > 0 ? static_cast<double>(now.blocks_in_use) / now.blocks : 0);
  f.preemptions.Increment(static_cast<double>(now.preemptions - then.preemptions));
  f.cache_queries.Increment(static_cast<double>(now.prefix_queries - then.prefix_queries));
  f.cache_hits.Increment(static_cast<double>(now.prefix_hits - then.prefix_hits));
  f.prompt_tokens.Increment(static_cast<double>(now.prompt_tokens - then.prompt_tokens));
  f.generation_tokens.Increment(static_cast<double>(now.generation_tokens - then.generation_tokens));
  f.drafted.Increment(static_cast<double>(now.drafted_tokens - then.drafted_tokens));
  f.accepted.Increment(static_cast<double>(now.accepted_tokens - then.accepted_tokens));
  f.drafts.Increment(static_cast<double>(now.drafts - then.drafts));
  if (now.tokens_run > then.tokens_run) f.step_tokens.Observe(static_cast<double>(now.tokens_run - then.tokens_run));
  return now.generation_tokens - then.generation_tokens;
}

std::int64_t Metrics::update(const EngineStats& stats) {
  Families& f = *families_;
  const std::int64_t tokens = update(stats.scheduler);
  f.local.Set(stats.local_activation_rate);
  for (std::size_t rank = 0; rank < stats.comm.size(); ++rank) {
    const CommCounters sent = stats.comm[rank] - (rank < last_.comm.size() ? last_.comm[rank] : CommCounters{});
    const CommCounter* const counters[] = {&sent.broadcast, &sent.sum, &sent.gather, &sent.all_to_all, &sent.send};
    for (std::size_t i = 0; i < std::size(kCommNames); ++i) {
      f.with(f.comm_bytes, {{"collective", kCommNames[i]}, {"rank", std::to_string(rank)}})
          .Increment(static_cast<double>(counters[i]->bytes));
      f.with(f.comm_seconds, {{"collective", kCommNames[i]}}).Increment(counters[i]->seconds);
    }
  }
  double balance = 0;
  for (std::size_t layer = 0; layer < stats.rank_rows.size(); ++layer) {
    const std::vector<std::int64_t>& rows = stats.rank_rows[layer];
    for (std::size_t rank = 0; rank < rows.size(); ++rank) {
      const std::int64_t seen = layer < last_.rank_rows.size() ? last_.rank_rows[layer][rank] : 0;
      f.with(f.expert_tokens, {{"layer", std::to_string(layer)}, {"rank", std::to_string(rank)}})
          .Increment(static_cast<double>(rows[rank] - seen));
    }
    std::vector<double> run(rows.begin(), rows.end());
    std::erase(run, 0);  // a rank that has run none of them so far has not the layer's experts
    balance += fullest_over_median(std::move(run)) / static_cast<double>(stats.rank_rows.size());
  }
  f.balance.Set(balance);
  last_ = stats;
  return tokens;
}

std::string Metrics::text() const {
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

}  // namespace foe

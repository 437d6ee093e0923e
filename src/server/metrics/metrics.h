// The server's Prometheus metrics. Those that vLLM has as well have its names (with the prefix "foe:") and its buckets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/request.h"
#include "engine/engine_stats.h"

namespace foe {

// When the tokens of one choice came, in seconds since the HTTP request arrived, and what was asked for.
struct ChoiceTimes {
  double first_token = 0;
  double last_token = 0;
  double queue_s = 0;  // of it, before the first step
  int tokens = 0;      // of the output
  int prompt_tokens = 0;
  int max_tokens = 0;  // the most output tokens
};

// Keeps the last few hundred of some durations, in seconds.
class RecentTimes {
 public:
  void add(double seconds);
  // Returns the median, the 90th and the 99th percentile; 0 while there are no durations.
  std::array<double, 3> percentiles() const;

 private:
  std::vector<double> times_;
  std::size_t next_ = 0;
};

struct RecentLatencies {
  RecentTimes first_token, next_token, whole;
};

// All calls come from one thread.
class Metrics {
 public:
  // `context` is the longest text of the model, which some buckets go up to.
  explicit Metrics(const std::string& model_name, int context = 4096);
  ~Metrics();

  // The ranks are up: counters of each of them and of each layer exist from now on, at 0. The KV cache has room for so
  // many tokens, in blocks.
  void ranks_up(int ranks, int layers, int kv_tokens, const std::string& kv_dtype);
  // A request for so many choices of each prompt was accepted.
  void accepted(int n);
  // A choice has got its first token. The ranks have measured `queue_s` and `prefill_s`, and have found `cached` tokens
  // of the prompt in the prefix cache.
  void first_token(double seconds_since_accepted, double queue_s, double prefill_s, int prompt_tokens = 0,
                   int cached = 0);
  void next_token(double seconds_since_the_last);
  // A choice has ended.
  void finished(const ChoiceTimes& times, FinishReason reason);
  // The embedding of an input has come, so many seconds after the request arrived; the rest is as for first_token().
  void embedded(double seconds_since_accepted, double queue_s, double prefill_s, int prompt_tokens, int cached);
  // An answer has ended with an error of this HTTP status (499: the client left), and so many of its choices with it.
  void failed(int status, std::size_t choices = 1);
  void restarted();
  // Takes a report of the ranks. Their counts start from 0 after each restart; the metrics go on counting. Returns how
  // many output tokens it adds.
  std::int64_t update(const EngineStats& stats);
  // Takes what the scheduler says of itself after each step.
  std::int64_t update(const SchedulerStats& stats);

  // Returns all metrics in Prometheus' text format.
  std::string text() const;
  const RecentLatencies& recent() const { return recent_; }
  const EngineStats& last() const { return last_; }

 private:
  struct Families;
  std::unique_ptr<Families> families_;
  RecentLatencies recent_;
  EngineStats last_;
};

}  // namespace foe

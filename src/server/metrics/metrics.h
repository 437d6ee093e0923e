// The server's Prometheus metrics: vLLM's names and buckets under "foe:", and what only foe has.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/request.h"
#include "engine/engine_stats.h"

namespace foe {

// When tokens came for one choice of an answer, in seconds from the answer's arrival.
struct ChoiceTimes {
  double first_token = 0;
  double last_token = 0;
  int tokens = 0;
};

// The last few hundred of some durations, in seconds.
class RecentTimes {
 public:
  void add(double seconds);
  // Median, 90th and 99th percentile; 0 while there are none.
  std::array<double, 3> percentiles() const;

 private:
  std::vector<double> times_;
  std::size_t next_ = 0;
};

struct RecentLatencies {
  RecentTimes first_token, next_token, whole;
};

// One thread.
class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  // `queue_s` and `prefill_s` as the ranks measured them.
  void first_token(double seconds_since_accepted, double queue_s, double prefill_s);
  void next_token(double seconds_since_the_last);
  // A choice has got its last token.
  void finished(const ChoiceTimes& times, FinishReason reason);
  // An answer ended with an error of this HTTP status (499: its client left).
  void failed(int status);
  void restarted();
  // What the ranks report. Their counts begin anew after a restart; the metrics go on.
  void update(const EngineStats& stats);

  // In Prometheus' text format.
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

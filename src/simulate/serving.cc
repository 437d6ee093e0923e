#include "simulate/serving.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "engine/batch_sampler.h"

namespace foe {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Serving {
 public:
  Serving(StepSimulator& steps, const std::vector<WorkloadPrompt>& prompts, const std::vector<double>& times,
          const ServingOptions& options, const std::function<void(std::size_t)>& progress)
      : steps_(steps),
        prompts_(prompts),
        times_(times),
        options_(options),
        progress_(progress),
        scheduler_(options.limits),
        vocab_size_(steps.model().config.vocab_size),
        last_token_s_(prompts.size()) {
    FOE_CHECK(times.size() == prompts.size(), "{} times for {} prompts", times.size(), prompts.size());
    served_.run.requests.resize(prompts.size());
  }

  SimulatedServing run() {
    for (;;) {
      take_arrivals();
      if (!scheduler_.idle()) {
        step();
        continue;
      }
      const double next = next_arrival();
      if (next == kNever) break;
      steps_.wait_until(next);
    }
    served_.scheduler = scheduler_.stats();
    for (const SentRequest& request : served_.run.requests)
      served_.run.duration = std::max(served_.run.duration, request.ended);
    return std::move(served_);
  }

 private:
  bool may_send() const {
    return next_ < prompts_.size() && (options_.max_concurrency == 0 || in_flight_ < options_.max_concurrency);
  }
  double next_arrival() const {
    return may_send() ? std::max(times_[next_], may_send_s_) + cluster().request_s : kNever;
  }
  const Cluster& cluster() const { return steps_.cluster(); }

  void take_arrivals() {
    while (next_arrival() <= steps_.now()) {
      const std::size_t i = next_++;
      SentRequest& sent = served_.run.requests[i];
      sent.prompt = i;
      sent.due = times_[i];
      sent.sent = std::max(times_[i], may_send_s_);
      Request request{.id = static_cast<std::int64_t>(i),
                      .prompt = prompts_[i].ids,
                      .output = {},
                      .max_tokens = prompts_[i].output_tokens,
                      .stop_ids = {},
                      .sampling = options_.sampling};
      sent.completion.status = 200;
      served_.run.peak_in_flight = std::max<std::size_t>(served_.run.peak_in_flight, ++in_flight_);
      try {
        scheduler_.add(std::move(request));
      } catch (const Error& error) {
        sent.completion.status = 400;
        sent.completion.error = error.what();
        end_request(sent, sent.sent + cluster().request_s + cluster().token_s);
      }
    }
  }

  void end_request(SentRequest& sent, double at) {
    sent.ended = at;
    --in_flight_;
    if (options_.max_concurrency > 0) may_send_s_ = std::max(may_send_s_, at);
    if (progress_ && ++ended_ % 64 == 0) progress_(ended_);
  }

  // As Engine::step(): every lane has one step under way, or no sequences; the oldest ends.
  void step() {
    for (int tries = 0; tries < scheduler_.lanes() && static_cast<int>(flights_.size()) < scheduler_.lanes(); ++tries) {
      const int lane = std::exchange(next_lane_, (next_lane_ + 1) % scheduler_.lanes());
      if (std::ranges::find(flights_, lane, &Flight::lane) != flights_.end()) continue;
      ScheduledStep step = scheduler_.next(lane);
      if (step.batch.empty()) continue;
      step.batch.candidates = candidates_wanted(step.rows);
      steps_.begin(step.batch, step.sequences);
      ++served_.steps;
      served_.tokens += step.batch.num_tokens();
      flights_.push_back({lane, std::move(step)});
    }
    FOE_CHECK(!flights_.empty(), "{} requests wait, and none runs", scheduler_.num_waiting());
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    steps_.end();
    std::vector<SampledToken> tokens;
    for (const SampledRow& row : flight.step.rows) tokens.push_back({choose(row)});
    for (const TokenEvent& event : scheduler_.commit(tokens, flight.lane)) take(event);
  }

  std::int32_t choose(const SampledRow& row) const {
    if (row.of_prompt()) return row.request->prompt[row.text.size()];
    return static_cast<std::int32_t>(random_bits(row.request->id, row.text.size()) % vocab_size_);
  }

  void take(const TokenEvent& event) {
    SentRequest& sent = served_.run.requests[event.id];
    Completion& completion = sent.completion;
    const double at = steps_.now() + cluster().token_s;
    if (completion.chunks++ == 0)
      completion.ttft = at - sent.sent;
    else
      completion.itls.push_back(at - last_token_s_[event.id]);
    last_token_s_[event.id] = at;
    if (!event.finish) return;
    completion.latency = at - sent.sent;
    completion.prompt_tokens = prompts_[event.id].tokens;
    completion.completion_tokens = completion.chunks;
    end_request(sent, at);
  }

  StepSimulator& steps_;
  const std::vector<WorkloadPrompt>& prompts_;
  const std::vector<double>& times_;
  const ServingOptions& options_;
  const std::function<void(std::size_t)>& progress_;
  Scheduler scheduler_;
  const int vocab_size_;
  struct Flight {
    int lane;
    ScheduledStep step;
  };
  std::deque<Flight> flights_;
  int next_lane_ = 0, in_flight_ = 0;
  std::size_t next_ = 0, ended_ = 0;
  double may_send_s_ = 0;             // with a limit of concurrency: since when there is room for one more
  std::vector<double> last_token_s_;  // by request
  SimulatedServing served_;
};

}  // namespace

SimulatedServing simulate_serving(StepSimulator& steps, const std::vector<WorkloadPrompt>& prompts,
                                  const std::vector<double>& times, const ServingOptions& options,
                                  const std::function<void(std::size_t)>& progress) {
  return Serving(steps, prompts, times, options, progress).run();
}

}  // namespace foe

#include "load/load_generator.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/inherited.h"

namespace foe {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

// Raises the limit on open files: each request in flight has a connection, and the default of most systems is about a
// thousand.
void allow_many_files() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

class Generator {
 public:
  Generator(const HttpTarget& target, const std::vector<WorkloadPrompt>& prompts, const std::vector<double>& times,
            const LoadOptions& options, const std::function<void(const LoadProgress&)>& progress)
      : prompts_(prompts),
        times_(times),
        options_(options),
        progress_(progress),
        client_(io_, target, options.timeout_s),
        next_timer_(io_),
        progress_timer_(io_),
        signals_(io_, SIGINT, SIGTERM) {
    if (hangs_up()) signals_.add(SIGHUP);
    FOE_CHECK(times.size() == prompts.size(), "{} times for {} prompts", times.size(), prompts.size());
  }

  LoadRun run() {
    signals_.async_wait([this](error_code error, int) {
      if (!error) interrupt();
    });
    const double cpu = thread_cpu_seconds();
    run_.start = std::chrono::system_clock::now();
    start_ = Clock::now();
    send_what_is_due();
    show_progress();
    io_.run();
    run_.cpu_seconds = thread_cpu_seconds() - cpu;
    std::ranges::sort(run_.requests, {}, &SentRequest::prompt);
    for (const SentRequest& request : run_.requests) run_.duration = std::max(run_.duration, request.ended);
    return std::move(run_);
  }

 private:
  bool may_send() const {
    return !run_.interrupted && next_ < prompts_.size() &&
           (options_.max_concurrency == 0 || in_flight_ < static_cast<std::size_t>(options_.max_concurrency));
  }

  void send_what_is_due() {
    while (may_send() && times_[next_] <= seconds_since(start_)) send(next_++);
    if (may_send()) {
      next_timer_.expires_at(start_ +
                             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(times_[next_])));
      next_timer_.async_wait([this](error_code error) {
        if (!error) send_what_is_due();
      });
    }
    if (in_flight_ == 0 && (run_.interrupted || next_ == prompts_.size())) {
      progress_timer_.cancel();
      signals_.cancel();
    }
  }

  void send(std::size_t i) {
    struct Call {
      CompletionStream stream;
      SentRequest request = {};
    };
    auto call = std::make_shared<Call>(Call{CompletionStream(options_.keep_texts)});
    call->request.prompt = i;
    call->request.due = times_[i];
    std::string body = request_body(prompts_[i], options_);
    run_.peak_in_flight = std::max(run_.peak_in_flight, ++in_flight_);
    call->request.sent = seconds_since(start_);
    client_.send(
        {"POST", options_.endpoint, request_headers(i, options_), std::move(body)},
        [this, call](int status, std::string_view piece) {
          return call->stream.feed(status, piece, seconds_since(start_) - call->request.sent);
        },
        [this, call](const HttpResult& result) {
          call->request.ended = seconds_since(start_);
          call->request.completion = call->stream.finish(result.status, result.error, result.retry_after);
          ended(std::move(call->request));
        });
  }

  void ended(SentRequest request) {
    --in_flight_;
    if (!run_.interrupted) {
      failed_ += !request.completion.ok();
      run_.requests.push_back(std::move(request));
    }
    send_what_is_due();
  }

  void interrupt() {
    run_.interrupted = true;
    next_timer_.cancel();
    client_.cancel();
    send_what_is_due();
  }

  void show_progress() {
    if (options_.progress_every_s <= 0 || (in_flight_ == 0 && !may_send())) return;
    progress_timer_.expires_after(
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.progress_every_s)));
    progress_timer_.async_wait([this](error_code error) {
      if (error) return;
      progress_({next_, in_flight_, run_.requests.size(), failed_, seconds_since(start_)});
      show_progress();
    });
  }

  const std::vector<WorkloadPrompt>& prompts_;
  const std::vector<double>& times_;
  const LoadOptions& options_;
  const std::function<void(const LoadProgress&)>& progress_;
  asio::io_context io_;
  HttpClient client_;
  asio::steady_timer next_timer_, progress_timer_;
  asio::signal_set signals_;
  Clock::time_point start_;
  std::size_t next_ = 0, in_flight_ = 0, failed_ = 0;
  LoadRun run_;
};

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string request_body(const WorkloadPrompt& prompt, const LoadOptions& options) {
  std::string body = options.fields.substr(0, options.fields.rfind('}'));
  if (body.find(':') != body.npos) body += ',';
  if (options.chat)
    body += fmt::format("\"messages\":[{{\"role\":\"user\",\"content\":{}}}]", quoted(prompt.text));
  else
    body += prompt.ids.empty() ? "\"prompt\":" + quoted(prompt.text)
                               : fmt::format("\"prompt\":[{}]", fmt::join(prompt.ids, ","));
  return body + (options.length_in_fields ? "}" : fmt::format(",\"max_tokens\":{}}}", prompt.output_tokens));
}

std::string request_headers(std::size_t i, const LoadOptions& options) {
  if (options.id_prefix.empty()) return options.headers;
  return options.headers + fmt::format("X-Request-Id: {}{}\r\n", options.id_prefix, i);
}

LoadRun run_load(const HttpTarget& target, const std::vector<WorkloadPrompt>& prompts, const std::vector<double>& times,
                 const LoadOptions& options, const std::function<void(const LoadProgress&)>& progress) {
  allow_many_files();
  return Generator(target, prompts, times, options, progress).run();
}

}  // namespace foe

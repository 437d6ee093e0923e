#include "server/front_end.h"

#include <chrono>
#include <csignal>
#include <ctime>
#include <random>
#include <set>
#include <unordered_map>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "server/api_error.h"
#include "server/completion.h"
#include "server/journal.h"
#include "weights/config_json.h"

namespace foe {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr int kFlushSeconds = 2;  // for the last replies to leave

class FrontEnd {
 public:
  explicit FrontEnd(const ServeOptions& options)
      : options_(options),
        config_(load_model_config(options.model)),
        tokenizer_(Tokenizer::load(options.model + "/tokenizer.json")),
        journal_(options.max_queue),
        signals_(io_, SIGTERM, SIGINT),
        timer_(io_),
        http_(io_, options.host, options.port, options.http,
              [this](HttpRequest request, std::shared_ptr<HttpReply> reply) { handle(request, std::move(reply)); }),
        supervisor_(io_, options.supervisor,
                    {.ready = [this](const Ready& ready) { ranks_ready(ready); },
                     .tokens = [this](const Tokens& tokens) { take(tokens); },
                     .refused = [this](const Refused& refused) { fail(refused.id, 400, refused.reason); },
                     .lost = [this](const std::string& reason) { ranks_lost(reason); },
                     .failed = [this](const std::string& reason) { ranks_failed(reason); },
                     .ended = [this] { ranks_ended(); }}) {
    model_.name = options.model_name;
    model_.vocab_size = config_.vocab_size;
    model_.max_positions = config_.max_position_embeddings;
    model_.max_prompts = options.max_queue;
  }

  void run() {
    wait_for_signal();
    supervisor_.start();
    io_.run();
    if (!failure_.empty()) throw Error(failure_);
  }

 private:
  // A choice of a reply, by the id of its request in the journal.
  struct Place {
    std::shared_ptr<Completion> completion;
    int index;
  };

  // --- requests ---

  void handle(const HttpRequest& request, std::shared_ptr<HttpReply> reply) {
    try {
      route(request, reply);
    } catch (const ApiError& error) {
      send_error(*reply, error.status(), error.what(), error.param());
    } catch (const std::exception& error) {
      spdlog::error("{} {}: {}", request.method, request.path, error.what());
      send_error(*reply, 500, error.what());
    }
  }

  void route(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    struct Route {
      const char* path;
      const char* method;
      void (FrontEnd::*answer)(const HttpRequest&, const std::shared_ptr<HttpReply>&);
    };
    static constexpr Route kRoutes[] = {{"/v1/completions", "POST", &FrontEnd::complete},
                                        {"/v1/models", "GET", &FrontEnd::list_models},
                                        {"/health", "GET", &FrontEnd::report_health}};
    for (const Route& candidate : kRoutes) {
      if (request.path != candidate.path) continue;
      if (request.method != candidate.method)
        return reply->send({.status = 405,
                            .body = error_body(405, fmt::format("expected {} {}, got {}", candidate.method,
                                                                candidate.path, request.method)),
                            .headers = fmt::format("Allow: {}\r\n", candidate.method)});
      return (this->*candidate.answer)(request, reply);
    }
    throw ApiError(404, "", "there is nothing at " + request.path);
  }

  void send_error(HttpReply& reply, int status, const std::string& message, const std::string& param = "") {
    reply.send({.status = status,
                .body = error_body(status, message, param),
                .headers = status == 503 ? "Retry-After: 1\r\n" : ""});
  }

  void list_models(const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->send({.body = models_body(model_.name, started_, model_.max_positions)});
  }

  void report_health(const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    if (!supervisor_.up() || draining_)
      throw ApiError(503, "", draining_ ? "the server is shutting down" : "the ranks are starting");
    reply->send({.body = "{}"});
  }

  void complete(const HttpRequest& http_request, const std::shared_ptr<HttpReply>& reply) {
    if (draining_) throw ApiError(503, "", "the server is shutting down");
    CompletionRequest request = parse_completion_request(http_request.body, model_, tokenizer_);
    if (request.prompts.size() > journal_.room())
      throw ApiError(503, "",
                     fmt::format("the queue is full: {} prompts in flight of at most {}, and {} more were requested",
                                 journal_.size(), options_.max_queue, request.prompts.size()));
    std::vector<Request> requests;
    for (const auto& prompt : request.prompts)
      requests.push_back({.prompt = prompt,
                          .output = {},
                          .max_tokens = request.max_tokens,
                          .stop_ids = request.ignore_eos ? std::vector<std::int32_t>{} : config_.eos_token_ids,
                          .sampling = request.sampling});
    const std::uint64_t seed = request.seed ? *request.seed : random_64();
    const CompletionHeader header{fmt::format("cmpl-{:016x}{:016x}", random_64(), random_64()), model_.name,
                                  std::time(nullptr)};
    const auto completion = std::make_shared<Completion>(header, std::move(request), tokenizer_, reply);
    reply->when_gone([this, weak = std::weak_ptr(completion)] {
      if (const auto left = weak.lock()) client_left(left);
    });
    for (std::size_t i = 0; i < requests.size(); ++i) {
      requests[i].sampling.seed = seed;
      const Request& accepted = journal_.add(std::move(requests[i]));
      places_[accepted.id] = {completion, static_cast<int>(i)};
      supervisor_.submit(accepted);
    }
  }

  std::uint64_t random_64() { return std::uint64_t{random_()} << 32 | random_(); }

  // --- answers ---

  void take(const Tokens& tokens) {
    for (const TokenEvent& event : tokens.events) {
      if (!journal_.record(event)) continue;
      const Place place = places_.at(event.id);
      if (!place.completion->take(place.index, event)) continue;
      places_.erase(event.id);
      if (!event.finish) forget(event.id);  // a stop string, which the ranks know nothing of
      if (place.completion->ended()) spdlog::info(place.completion->summary());
    }
    stop_if_drained();
  }

  void forget(std::int64_t id) {
    supervisor_.abort(id);
    journal_.erase(id);
    places_.erase(id);
  }

  // All choices of one completion.
  void forget(const std::shared_ptr<Completion>& completion) {
    std::vector<std::int64_t> ids;
    for (const auto& [id, place] : places_)
      if (place.completion == completion) ids.push_back(id);
    for (const std::int64_t id : ids) forget(id);
    spdlog::info(completion->summary());
    stop_if_drained();
  }

  void fail(std::int64_t id, int status, const std::string& message) {
    const auto place = places_.find(id);
    if (place == places_.end()) return;
    const std::shared_ptr<Completion> completion = place->second.completion;
    completion->fail(status, message);
    forget(completion);
  }

  void fail_all(int status, const std::string& message) {
    while (!places_.empty()) fail(places_.begin()->first, status, message);
  }

  void client_left(const std::shared_ptr<Completion>& completion) {
    if (completion->ended()) return;
    completion->client_left();
    forget(completion);
  }

  // --- the ranks ---

  void ranks_ready(const Ready& ready) {
    const std::vector<Request> in_flight = journal_.in_flight();
    for (const Request& request : in_flight) supervisor_.submit(request);
    if (supervisor_.restarts() > 0) return spdlog::info("the ranks are up again; {} requests go on", in_flight.size());
    spdlog::info("{}: {} ranks, plan {}, {} threads each, context {}, KV cache {} tokens", model_.name, ready.ranks,
                 ready.plan, ready.threads, model_.max_positions, ready.kv_tokens);
    const bool v6 = options_.host.find(':') != std::string::npos;
    spdlog::info("listening on http://{}{}{}:{}", v6 ? "[" : "", options_.host, v6 ? "]" : "", http_.port());
  }

  void ranks_lost(const std::string& reason) {
    spdlog::warn("the ranks are lost: {}; starting them again, {} requests wait", reason, journal_.size());
  }

  void ranks_failed(const std::string& reason) {
    failure_ = reason;
    draining_ = stopping_ = true;
    http_.close();
    fail_all(500, reason);
  }

  // --- the end ---

  void wait_for_signal() {
    signals_.async_wait([this](error_code error, int signal) {
      if (error) return;
      wait_for_signal();
      if (draining_) return end_at_once();
      drain(signal);
    });
  }

  void drain(int signal) {
    spdlog::info("signal {}: no new requests; {} in flight have {} s to end", signal, journal_.size(),
                 options_.drain_s);
    draining_ = true;
    http_.close();
    timer_.expires_after(std::chrono::milliseconds(static_cast<std::int64_t>(1000 * options_.drain_s)));
    timer_.async_wait([this](error_code error) {
      if (!error) fail_all(503, "the server is shutting down");
    });
    stop_if_drained();
  }

  void stop_if_drained() {
    if (!draining_ || stopping_ || journal_.size() > 0) return;
    stopping_ = true;
    timer_.cancel();
    supervisor_.stop();
  }

  void end_at_once() {
    failure_ = "a second signal ended what was in flight";
    stopping_ = true;
    fail_all(503, "the server is shutting down");
    supervisor_.kill();
  }

  void ranks_ended() {
    flush_deadline_ = std::chrono::steady_clock::now() + std::chrono::seconds(kFlushSeconds);
    stop_when_flushed();
  }

  void stop_when_flushed() {
    if (http_.replying() == 0 || std::chrono::steady_clock::now() > flush_deadline_) {
      spdlog::info("stopped");
      return io_.stop();
    }
    timer_.expires_after(std::chrono::milliseconds(10));
    timer_.async_wait([this](error_code error) {
      if (!error) stop_when_flushed();
    });
  }

  ServeOptions options_;
  ModelConfig config_;
  Tokenizer tokenizer_;
  ServedModel model_;
  Journal journal_;
  std::unordered_map<std::int64_t, Place> places_;
  std::random_device random_;
  std::int64_t started_ = std::time(nullptr);
  bool draining_ = false;  // no new requests
  bool stopping_ = false;  // the ranks were told to end, or have
  std::string failure_;    // why this did not end well
  std::chrono::steady_clock::time_point flush_deadline_;
  asio::io_context io_{1};
  asio::signal_set signals_;
  asio::steady_timer timer_;
  HttpServer http_;
  Supervisor supervisor_;
};

}  // namespace

void serve(const ServeOptions& options) {
  spdlog::set_default_logger(spdlog::stderr_color_mt("foe"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  std::signal(SIGPIPE, SIG_IGN);
  FrontEnd(options).run();
}

}  // namespace foe

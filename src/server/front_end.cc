#include "server/front_end.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/inherited.h"
#include "sched/scheduler.h"
#include "server/api_error.h"
#include "server/generation.h"
#include "server/health_probe.h"
#include "server/in_flight.h"
#include "server/live_view.h"
#include "server/log.h"
#include "server/tokenize_api.h"
#include "weights/config_json.h"

namespace foe {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr int kFlushSeconds = 2;           // for the last replies to leave
constexpr int kProbeSeconds = 30;          // for a token of /health_generate
constexpr std::size_t kMaxProbes = 8;      // at a time; they have their own places beside the queue
constexpr std::size_t kMaxChoices = 1024;  // of one request

ServedModel served_model(const ServeOptions& options, const ModelConfig& config) {
  ServedModel model{.name = options.model_name,
                    .vocab_size = config.vocab_size,
                    .max_positions = config.max_position_embeddings,
                    .max_choices = std::min(options.max_queue, kMaxChoices),
                    .tokenizer = Tokenizer::load(options.model + "/tokenizer.json")};
  model.chat_template = ChatTemplate::load(options.model, options.chat_template);
  return model;
}

class FrontEnd {
 public:
  explicit FrontEnd(const ServeOptions& options)
      : options_(options),
        config_(load_model_config(options.model)),
        model_(served_model(options, config_)),
        metrics_(options.model_name),
        in_flight_(options.max_queue + kMaxProbes, options.answer_seconds,
                   {.submit = [this](const Request& request) { supervisor_.submit(request); },
                    .abort = [this](std::int64_t id) { supervisor_.abort(id); }}),
        signals_(io_, SIGTERM, SIGINT),
        timer_(io_),
        sweep_(io_),
        http_(io_, options.host, options.port, options.http,
              [this](HttpRequest request, std::shared_ptr<HttpReply> reply) { handle(request, std::move(reply)); }),
        supervisor_(
            io_, options.supervisor,
            {.ready = [this](const Ready& ready) { ranks_ready(ready); },
             .tokens = [this](const Tokens& tokens) { take(tokens); },
             .refused = [this](const Refused& refused) { in_flight_.fail(refused.id, refused.status, refused.reason); },
             .report = [this](const Report& report) { metrics_.update(report.stats); },
             .gone = [this] { return in_flight_.ranks_lost(); },
             .lost = [this](const std::string& reason) { ranks_lost(reason); },
             .failed = [this](const std::string& reason) { ranks_failed(reason); },
             .ended = [this] { ranks_ended(); }}) {}

  void run() {
    if (hangs_up()) signals_.add(SIGHUP);
    wait_for_signal();
    sweep();
    supervisor_.start();
    io_.run();
    if (!failure_.empty()) throw Error(failure_);
  }

 private:
  using Reply = std::shared_ptr<HttpReply>;

  // What is asked, by whom, and under which id.
  struct Call {
    const HttpRequest& http;
    std::string id;
  };

  // --- requests ---

  void handle(const HttpRequest& request, const Reply& reply) {
    const Call call{request, request_id(request)};
    const auto refuse = [&](int status, const std::string& message, const std::string& param) {
      // Both may have bytes of the client's, so they are escaped.
      spdlog::info("{} {} {:?} is refused with {}: {:?}", call.id, request.method, request.path, status, message);
      send_error(*reply, status, message, param);
    };
    try {
      reply->add_headers(access_headers(request, call.id, options_.access));
      if (is_preflight(request, options_.access)) return reply->send({.status = 204, .body = ""});
      check_key(request, options_.access);
      route(call, reply);
    } catch (const ApiError& error) {
      refuse(error.status(), error.what(), error.param());
    } catch (const std::exception& error) {
      refuse(500, error.what(), "");
    }
  }

  void route(const Call& call, const Reply& reply) {
    struct Route {
      const char* path;
      const char* method;
      void (FrontEnd::*answer)(const Call&, const Reply&);
    };
    static constexpr Route kRoutes[] = {{"/v1/completions", "POST", &FrontEnd::complete},
                                        {"/v1/chat/completions", "POST", &FrontEnd::chat},
                                        {"/v1/models", "GET", &FrontEnd::list_models},
                                        {"/tokenize", "POST", &FrontEnd::tokenize_text},
                                        {"/detokenize", "POST", &FrontEnd::detokenize_ids},
                                        {"/health", "GET", &FrontEnd::report_health},
                                        {"/health_generate", "GET", &FrontEnd::probe_health},
                                        {"/metrics", "GET", &FrontEnd::report_metrics},
                                        {"/", "GET", &FrontEnd::show_page},
                                        {"/live", "GET", &FrontEnd::report_live}};
    for (const Route& candidate : kRoutes) {
      if (call.http.path != candidate.path) continue;
      const std::string method = call.http.method == "HEAD" ? "GET" : call.http.method;
      if (method == candidate.method) return (this->*candidate.answer)(call, reply);
      reply->add_headers(fmt::format("Allow: {}\r\n", candidate.method));
      throw ApiError(405, "",
                     fmt::format("expected {} {}, got {}", candidate.method, candidate.path, call.http.method));
    }
    throw ApiError(404, "", "there is nothing at " + call.http.path);
  }

  void list_models(const Call&, const Reply& reply) {
    reply->send({.body = models_body(model_.name, started_, model_.max_positions)});
  }

  void tokenize_text(const Call& call, const Reply& reply) { reply->send({.body = tokenize(call.http.body, model_)}); }
  void detokenize_ids(const Call& call, const Reply& reply) {
    reply->send({.body = detokenize(call.http.body, model_)});
  }

  void report_metrics(const Call&, const Reply& reply) {
    reply->send({.body = metrics_.text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
  }
  void show_page(const Call&, const Reply& reply) {
    reply->send({.body = kPage, .content_type = "text/html; charset=utf-8"});
  }
  void report_live(const Call&, const Reply& reply) {
    reply->send({.body = live_body({.model = model_.name,
                                    .plan = ready_.plan,
                                    .ranks = ready_.ranks,
                                    .context = model_.max_positions,
                                    .up = supervisor_.up(),
                                    .chat = model_.chat_template.present(),
                                    .restarts = supervisor_.restarts(),
                                    .in_flight = in_flight_.size(),
                                    .latencies = metrics_.recent(),
                                    .stats = metrics_.last()})});
  }

  void check_up() {
    if (draining_) throw ApiError(503, "", "the server is shutting down");
    if (!supervisor_.up()) throw ApiError(503, "", "the ranks are starting");
  }

  void report_health(const Call&, const Reply& reply) {
    check_up();
    reply->send({.body = "{}"});
  }

  // One token, ahead of all others: that crosses every rank.
  void probe_health(const Call&, const Reply& reply) {
    check_up();
    if (probes_.use_count() > static_cast<long>(kMaxProbes)) throw ApiError(503, "", "too many of these at once");
    const auto probe = std::make_shared<HealthProbe>(reply, probes_);
    expect(probe, reply);
    Request request;
    request.prompt = {0};
    request.max_tokens = 1;
    request.priority = -kMaxPriority;  // no client's is as low
    in_flight_.accept(probe, {request}, kProbeSeconds);
  }

  void complete(const Call& call, const Reply& reply) {
    generate(parse_completion_request(call.http.body, model_), "cmpl-" + call.id, reply);
  }
  void chat(const Call& call, const Reply& reply) {
    generate(parse_chat_request(call.http.body, model_), "chatcmpl-" + call.id, reply);
  }

  void generate(GenerationRequest request, std::string id, const Reply& reply) {
    if (draining_) throw ApiError(503, "", "the server is shutting down");
    if (request.choices() + kMaxProbes > in_flight_.room())
      throw ApiError(503, "",
                     fmt::format("the queue is full: {} choices in flight of at most {}, and {} more were requested",
                                 in_flight_.size(), options_.max_queue, request.choices()));
    std::vector<Request> requests = engine_requests(request, config_.eos_token_ids);
    const AnswerHeader header{request.api, std::move(id), model_.name, std::time(nullptr)};
    const auto generation = std::make_shared<Generation>(header, std::move(request), model_.tokenizer, reply, metrics_);
    expect(generation, reply);
    in_flight_.accept(generation, std::move(requests));
  }

  void expect(const std::shared_ptr<Answer>& answer, const Reply& reply) {
    reply->when_gone([this, weak = std::weak_ptr(answer)] {
      if (const auto left = weak.lock()) in_flight_.client_left(left);
      stop_if_drained();
    });
  }

  void take(const Tokens& tokens) {
    in_flight_.take(tokens.events);
    stop_if_drained();
  }

  // Ends what has taken too long, now and then.
  void sweep() {
    sweep_.expires_after(std::chrono::seconds(1));
    sweep_.async_wait([this](error_code error) {
      if (error) return;
      in_flight_.expire();
      stop_if_drained();
      sweep();
    });
  }

  // --- the ranks ---

  void ranks_ready(const Ready& ready) {
    if (supervisor_.restarts() > 0 && ready.ranks != ready_.ranks)
      spdlog::warn("{} ranks instead of {}{}", ready.ranks, ready_.ranks,
                   ready.plan == "tp" ? ": under plan tp, answers may differ from here on" : "");
    ready_ = ready;
    in_flight_.ranks_up();
    if (supervisor_.restarts() > 0) return spdlog::info("the ranks are up again; {} requests go on", in_flight_.size());
    spdlog::info("{}: {} ranks, plan {}, {} threads each, context {}, KV cache {} tokens", model_.name, ready.ranks,
                 ready.plan, ready.threads, model_.max_positions, ready.kv_tokens);
    const bool v6 = options_.host.find(':') != std::string::npos;
    spdlog::info("listening on http://{}{}{}:{}", v6 ? "[" : "", options_.host, v6 ? "]" : "", http_.port());
  }

  void ranks_lost(const std::string& reason) {
    metrics_.restarted();
    spdlog::warn("the ranks are lost: {}; starting them again, {} requests wait", reason, in_flight_.size());
  }

  void ranks_failed(const std::string& reason) {
    failure_ = reason;
    draining_ = stopping_ = true;
    http_.close();
    in_flight_.fail_all(500, reason);
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
    spdlog::info("signal {}: no new requests; {} in flight have {} s to end", signal, in_flight_.size(),
                 options_.drain_s);
    draining_ = true;
    http_.close();
    timer_.expires_after(std::chrono::milliseconds(static_cast<std::int64_t>(1000 * options_.drain_s)));
    timer_.async_wait([this](error_code error) {
      if (!error) in_flight_.fail_all(503, "the server is shutting down");
    });
    stop_if_drained();
  }

  void stop_if_drained() {
    if (!draining_ || stopping_ || in_flight_.size() > 0) return;
    stopping_ = true;
    timer_.cancel();
    sweep_.cancel();
    supervisor_.stop();
  }

  void end_at_once() {
    failure_ = "a second signal ended what was in flight";
    stopping_ = true;
    in_flight_.fail_all(503, "the server is shutting down");
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
  ServedModel model_;
  Metrics metrics_;
  InFlight in_flight_;
  std::int64_t started_ = std::time(nullptr);
  Ready ready_;
  std::shared_ptr<int> probes_ = std::make_shared<int>();  // each /health_generate that waits has a copy
  bool draining_ = false;                                  // no new requests
  bool stopping_ = false;                                  // the ranks were told to end, or have
  std::string failure_;                                    // why this did not end well
  std::chrono::steady_clock::time_point flush_deadline_;
  asio::io_context io_{1};
  asio::signal_set signals_;
  asio::steady_timer timer_, sweep_;
  HttpServer http_;
  Supervisor supervisor_;
};

}  // namespace

void serve(const ServeOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  const LogToStderr log;
  FrontEnd(options).run();
}

}  // namespace foe

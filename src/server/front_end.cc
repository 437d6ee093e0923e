#include "server/front_end.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>
#include <functional>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/inherited.h"
#include "base/strict_json.h"
#include "server/answering.h"
#include "server/api/embedding.h"
#include "server/api/generation.h"
#include "server/api/info_api.h"
#include "server/api/messages_api.h"
#include "server/api/tokenize_api.h"
#include "server/api/work_pool.h"
#include "server/event_loop.h"
#include "server/health_probe.h"
#include "server/http/api_error.h"
#include "server/log/log.h"
#include "server/metrics/live_view.h"
#include "server/ranks/in_flight.h"
#include "server/receipt_facts.h"
#include "server/served_model.h"
#include "weights/config_json.h"

namespace foe {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr int kFlushSeconds = 2;       // for sending the last replies, besides what is left of drain_s
constexpr int kProbeSeconds = 30;      // how long /health_generate waits for its token
constexpr std::size_t kMaxProbes = 8;  // at a time; they do not count in max_queue

class FrontEnd {
 public:
  explicit FrontEnd(const ServeOptions& options)
      : options_(with_text_as_name(options)),
        config_(load_model_config(options.model)),
        model_(served_model(options_, config_)),
        tokenizer_info_(tokenizer_info_body(options.model, model_)),
        receipts_(io_, receipt_model(options_, model_, config_), options.model),
        metrics_(options_.model_name, config_.max_position_embeddings),
        in_flight_(options.max_queue + kMaxProbes, options.answer_seconds,
                   {.submit = [this](const Request& request) { supervisor_.submit(request); },
                    .abort = [this](std::int64_t id) { supervisor_.abort(id); }}),
        signals_(io_, SIGTERM, SIGINT),
        timer_(io_),
        sweep_(io_),
        http_(
            io_, options.host, options.port, options.http,
            [this](HttpRequest request, const Reply& reply) { handle(std::move(request), reply); },
            [this](HttpRequest& request, const Reply& reply) { look_at(request, reply); }),
        supervisor_(
            io_, options.supervisor,
            {.ready = [this](const Ready& ready) { ranks_ready(ready); },
             .tokens = [this](const NewTokens& tokens) { take(tokens); },
             .refused = [this](const Refused& refused) { in_flight_.fail(refused.id, refused.status, refused.reason); },
             .report = [this](const Report& report) { output_.add(metrics_.update(report.stats)); },
             .scheduler = [this](const SchedulerReport& report) { output_.add(metrics_.update(report.stats)); },
             .gone = [this] { return in_flight_.ranks_lost(); },
             .lost = [this](const std::string& reason) { ranks_lost(reason); },
             .failed = [this](const std::string& reason) { ranks_failed(reason); },
             .ended = [this] { ranks_ended(); }}) {}

  void run() {
    if (hangs_up()) signals_.add(SIGHUP);
    wait_for_signal();
    sweep();
    supervisor_.start();
    run_to_the_end(io_);
    if (!failure_.empty()) throw Error(failure_);
  }

 private:
  using Reply = std::shared_ptr<HttpReply>;
  using Call = std::shared_ptr<HttpRequest>;
  struct Route {
    std::string_view path, method;  // as is_for() has them
    void (FrontEnd::*answer)(const Call&, const Reply&);
  };

  // --- requests ---

  // Looks at the head of a request, before its body is read.
  void look_at(HttpRequest& request, const Reply& reply) {
    request.id = request_id(request);
    answering(request, *reply, [&] {
      reply->add_headers(access_headers(request, request.id, options_.access));
      if (is_preflight(request, options_.access)) return reply->send({.status = 204, .body = ""});
      check_key(request, options_.access);
      route_of(request, reply);
    });
  }

  void handle(HttpRequest request, const Reply& reply) {
    const auto shared = std::make_shared<HttpRequest>(std::move(request));
    answering(*shared, *reply, [&] { (this->*route_of(*shared, reply).answer)(shared, reply); });
  }

  // Throws ApiError 404 or 405.
  static const Route& route_of(const HttpRequest& request, const Reply& reply) {
    static constexpr Route kRoutes[] = {{"/v1/completions", "POST", &FrontEnd::complete},
                                        {"/v1/chat/completions", "POST", &FrontEnd::chat},
                                        {"/v1/messages", "POST", &FrontEnd::message},
                                        {"/v1/messages/count_tokens", "POST", &FrontEnd::count_tokens},
                                        {"/v1/responses", "POST", &FrontEnd::respond},
                                        {"/v1/embeddings", "POST", &FrontEnd::embed},
                                        {"/v1/models", "GET", &FrontEnd::list_models},
                                        {"/v1/models/", "GET", &FrontEnd::show_model},
                                        {"/version", "GET", &FrontEnd::show_version},
                                        {"/load", "GET", &FrontEnd::report_load},
                                        {"/tokenizer_info", "GET", &FrontEnd::show_tokenizer},
                                        {"/tokenize", "POST", &FrontEnd::tokenize_text},
                                        {"/detokenize", "POST", &FrontEnd::detokenize_ids},
                                        {"/health", "GET", &FrontEnd::report_health},
                                        {"/ping", "GET", &FrontEnd::report_health},
                                        {"/health_generate", "GET", &FrontEnd::probe_health},
                                        {"/metrics", "GET", &FrontEnd::report_metrics},
                                        {"/", "GET", &FrontEnd::show_page},
                                        {"/live", "GET", &FrontEnd::report_live}};
    for (const Route& candidate : kRoutes)
      if (is_for(request, candidate.path, candidate.method, *reply)) return candidate;
    throw ApiError(
        404, "", "expected a path of this server, such as /v1/completions; there is none at " + shorten(request.path));
  }

  // Calls `read` with the request's body in the work pool, and then `then` with the result on the event loop.
  template <typename Result>
  void in_background(const Call& call, const Reply& reply, Result (*read)(std::string_view, const ServedModel&),
                     std::function<void(Result)> then) {
    const auto result = std::make_shared<Result>();
    const auto work = [this, call, read, result] {
      *result = read(call->body, model_);
      std::string().swap(call->body);
    };
    const auto done = [this, call, reply, result, then = std::move(then)](const std::exception_ptr& error) {
      answering(*call, *reply, [&] {
        if (error) std::rethrow_exception(error);
        then(std::move(*result));
      });
      stop_if_drained();
    };
    const auto cancelled = work_pool_.run(call->body.size(), work, done);
    reply->when_gone([cancelled] { *cancelled = true; });
  }

  void list_models(const Call&, const Reply& reply) {
    reply->send({.body = models_body(model_.name, started_, model_.max_positions)});
  }

  void show_model(const Call& call, const Reply& reply) {
    reply->send({.body = model_body(call->path, model_.name, started_, model_.max_positions)});
  }
  void show_version(const Call&, const Reply& reply) { reply->send({.body = version_body(options_.version)}); }
  void show_tokenizer(const Call&, const Reply& reply) { reply->send({.body = tokenizer_info_}); }
  void report_load(const Call&, const Reply& reply) {
    reply->send({.body = fmt::format("{{\"server_load\":{}}}", in_flight_.answers())});
  }

  void tokenize_text(const Call& call, const Reply& reply) {
    check_unread(16 * call->body.size());
    send_what(tokenize, call, reply);
  }
  void detokenize_ids(const Call& call, const Reply& reply) { send_what(detokenize, call, reply); }
  void count_tokens(const Call& call, const Reply& reply) { send_what(count_message_tokens, call, reply); }

  // Replies with what `makes` returns for the request's body, in the work pool.
  void send_what(std::string (*makes)(std::string_view, const ServedModel&), const Call& call, const Reply& reply) {
    in_background<std::string>(call, reply, makes,
                               [reply](std::string body) { reply->send({.body = std::move(body)}); });
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
                                    .needs_key = !options_.access.api_keys.empty(),
                                    .restarts = supervisor_.restarts(),
                                    .in_flight = in_flight_.size(),
                                    .latencies = metrics_.recent(),
                                    .stats = with_all_layers(metrics_.last(), config_),
                                    .tokens_by_second = output_.last()})});
  }

  void check_accepting() const {
    if (draining_) throw ApiError(503, "", "the server is shutting down");
  }
  void check_up() const {
    check_accepting();
    if (!supervisor_.up()) throw ApiError(503, "", "the ranks are starting");
  }

  void report_health(const Call&, const Reply& reply) {
    check_up();
    reply->send({.body = "{}"});
  }

  // Generates one token ahead of all other requests, for which every rank has to work.
  void probe_health(const Call&, const Reply& reply) {
    check_up();
    if (probes_.use_count() > static_cast<long>(kMaxProbes))
      throw ApiError(503, "",
                     fmt::format("expected at most {} requests for /health_generate at a time, got more", kMaxProbes));
    const auto probe = std::make_shared<HealthProbe>(reply, probes_);
    expect(probe, reply);
    in_flight_.accept(probe, {HealthProbe::request()}, kProbeSeconds);
  }

  void complete(const Call& call, const Reply& reply) { generate("cmpl-", parse_completion_request, call, reply); }
  void chat(const Call& call, const Reply& reply) { generate("chatcmpl-", parse_chat_request, call, reply); }
  void respond(const Call& call, const Reply& reply) { generate("resp_", parse_responses_request, call, reply); }
  void message(const Call& call, const Reply& reply) { generate("msg_", parse_messages_request, call, reply); }

  void generate(const char* prefix, GenerationRequest (*read)(std::string_view, const ServedModel&), const Call& call,
                const Reply& reply) {
    check_accepting();
    in_background<GenerationRequest>(call, reply, read,
                                     [this, call, reply, id = prefix + call->id](GenerationRequest request) {
                                       if (!request.receipt) return generate(std::move(request), id, reply);
                                       const auto kept = std::make_shared<GenerationRequest>(std::move(request));
                                       receipts_.when_known(*reply, [this, call, reply, id, kept] {
                                         answering(*call, *reply, [&] { generate(std::move(*kept), id, reply); });
                                         stop_if_drained();
                                       });
                                     });
  }

  // Replies that clients read slowly take memory. While they take too much, no other long reply is begun.
  void check_unread(std::size_t bytes) const {
    const HttpLimits& limits = options_.http;
    if (bytes > limits.unread_bytes && http_.unread() > limits.total_unread_bytes)
      throw ApiError(503, "", "too many long replies wait for clients to read them; ask again later");
  }

  // Throws ApiError 503 if there is no room for a reply of so many bytes, or for so many more choices.
  void check_room(std::size_t bytes, std::size_t choices) const {
    if (late_) throw ApiError(503, "", "the server is shutting down");
    check_unread(bytes);
    if (choices + kMaxProbes <= in_flight_.room()) return;
    throw ApiError(503, "",
                   fmt::format("the queue is full: {} choices are in flight of at most {} (--max-queue), and {} more "
                               "were requested; ask again later",
                               in_flight_.size(), options_.max_queue, choices));
  }

  void embed(const Call& call, const Reply& reply) {
    check_accepting();
    in_background<EmbeddingRequest>(
        call, reply, parse_embedding_request, [this, reply, id = "embd-" + call->id](EmbeddingRequest request) {
          const std::size_t at_once = std::min({request.inputs.size(), kInputsAtOnce, options_.max_queue});
          check_room(reply_bytes(request, model_.hidden_size), at_once);
          std::vector<Request> requests = engine_requests(request);
          const AnswerHeader header{Api::kEmbeddings, id, model_.name, std::time(nullptr)};
          const auto embedding =
              std::make_shared<Embedding>(header, std::move(request), model_.hidden_size, reply, metrics_, &work_pool_);
          expect(embedding, reply);
          in_flight_.accept(embedding, std::move(requests), 0, at_once);
        });
  }

  void generate(GenerationRequest request, std::string id, const Reply& reply) {
    check_room(reply_bytes(request), request.choices());
    const std::optional<ReceiptModel> receipt = request.receipt ? std::optional(receipts_.model()) : std::nullopt;
    std::vector<Request> requests = engine_requests(request, model_.eos_ids);
    const AnswerHeader header{request.api, std::move(id), model_.name, std::time(nullptr)};
    const auto generation =
        std::make_shared<Generation>(header, std::move(request), model_.tokenizer, reply, metrics_, &work_pool_);
    if (receipt) generation->give_receipt(*receipt, requests);
    expect(generation, reply);
    in_flight_.accept(generation, std::move(requests));
  }

  void expect(const std::shared_ptr<Answer>& answer, const Reply& reply) {
    reply->when_gone([this, weak = std::weak_ptr(answer)] {
      if (const auto left = weak.lock()) in_flight_.client_left(left);
      stop_if_drained();
    });
  }

  void take(const NewTokens& tokens) {
    in_flight_.take(tokens.events);
    stop_if_drained();
  }

  // Once a second, ends answers that have taken too long, and lets silent streams send a comment.
  void sweep() {
    sweep_.expires_after(std::chrono::seconds(1));
    sweep_.async_wait([this](error_code error) {
      if (error) return;
      sweep();
      in_flight_.expire();
      in_flight_.reassure();
      stop_if_drained();
    });
  }

  // --- the ranks ---

  void ranks_ready(const Ready& ready) {
    if (supervisor_.restarts() > 0 && ready.ranks != ready_.ranks)
      spdlog::warn("the model is now on {} ranks instead of {}; with --wire bf16 or int8, this changes texts slightly",
                   ready.ranks, ready_.ranks);
    ready_ = ready;
    metrics_.ranks_up(ready.ranks, config_.num_layers(), ready.kv_tokens, options_.kv_dtype);
    in_flight_.ranks_up();
    receipts_.ranks_up(ready.formats);
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
    draining_ = late_ = stopping_ = true;
    http_.close();
    receipts_.give_up(reason);
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
    spdlog::info("signal {}: no new requests are accepted; those in flight ({}) have {} s to end", signal,
                 in_flight_.size(), options_.drain_s);
    draining_ = true;
    http_.close();
    const auto patience = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * options_.drain_s));
    flush_deadline_ = std::chrono::steady_clock::now() + patience;
    timer_.expires_after(patience);
    timer_.async_wait([this](error_code error) {
      if (error) return;
      late_ = true;
      receipts_.give_up("the server is shutting down");
      in_flight_.fail_all(503, "the server is shutting down");
      stop_if_drained();
    });
    stop_if_drained();
  }

  void stop_if_drained() {
    if (!draining_ || stopping_ || in_flight_.size() > 0) return;
    if (!late_ && work_pool_.pending() + receipts_.waiting() > 0) return;  // texts are still read, or replies written
    stopping_ = true;
    timer_.cancel();
    sweep_.cancel();
    supervisor_.stop();
  }

  void end_at_once() {
    failure_ = "a second signal ended what was in flight";
    late_ = stopping_ = true;
    flush_deadline_ = {};
    receipts_.give_up(failure_);
    in_flight_.fail_all(503, "the server is shutting down");
    supervisor_.kill();
  }

  void ranks_ended() {
    flush_deadline_ = std::max(flush_deadline_, std::chrono::steady_clock::now() + std::chrono::seconds(kFlushSeconds));
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

  asio::io_context io_{1};  // outlives everything with sockets, timers or replies
  ServeOptions options_;
  ModelConfig config_;
  ServedModel model_;
  std::string tokenizer_info_;
  ReceiptFacts receipts_;
  Metrics metrics_;
  TokensBySecond output_;
  InFlight in_flight_;
  std::int64_t started_ = std::time(nullptr);
  Ready ready_;
  std::shared_ptr<int> probes_ = std::make_shared<int>();  // each waiting /health_generate has a copy
  bool draining_ = false;                                  // no new requests are accepted
  bool late_ = false;                                     // drain_s is over: requests that are still read get no answer
  bool stopping_ = false;                                 // the ranks have been told to end, or have ended
  std::string failure_;                                   // what run() throws at the end, if not empty
  std::chrono::steady_clock::time_point flush_deadline_;  // for sending the last replies
  asio::signal_set signals_;
  asio::steady_timer timer_, sweep_;
  HttpServer http_;
  Supervisor supervisor_;
  WorkPool work_pool_{io_};  // uses the model
};

}  // namespace

void serve(const ServeOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  const LogToStderr log;
  FrontEnd(options).run();
}

}  // namespace foe

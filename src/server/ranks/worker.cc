#include "server/ranks/worker.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <poll.h>
#include <unistd.h>
#include <unordered_map>

#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/error.h"
#include "server/ranks/grammar_queue.h"
#include "server/ranks/link.h"

namespace foe {
namespace {

constexpr int kHeartbeatMs = 1000;
constexpr double kReportSeconds = 2;         // the time between reports while there is work
constexpr std::size_t kMostGrammars = 64;    // the most grammars in use at once: each takes some megabytes
constexpr std::size_t kTakeBytes = 4 << 20;  // received at a time: after a restart there may be hundreds of megabytes

// A connected Unix socket.
class LinkSocket {
 public:
  explicit LinkSocket(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
      fail("--socket: expected a path of less than {} bytes, got {}", sizeof address.sun_path, path);
    path.copy(address.sun_path, path.size());
    if (fd_ < 0 || connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      const int error = errno;
      if (fd_ >= 0) close(fd_);
      fail("{}: expected the front end to listen there (on the host of rank 0), got: {}", path, std::strerror(error));
    }
  }
  ~LinkSocket() { close(fd_); }
  LinkSocket(const LinkSocket&) = delete;
  LinkSocket& operator=(const LinkSocket&) = delete;

  // Waits at most that long until there is something to receive or `other` is readable. Returns false if neither
  // happens.
  bool wait(int other, int timeout_ms) const {
    pollfd poll_fds[] = {{fd_, POLLIN, 0}, {other, POLLIN, 0}};
    return poll(poll_fds, 2, timeout_ms) > 0;
  }

  // Appends what has come, at most kTakeBytes, without waiting. Returns false if the front end is gone.
  bool receive(MessageBuffer& buffer) const {
    char bytes[1 << 16];
    for (std::size_t received = 0; received < kTakeBytes;) {
      const ssize_t n = recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT);
      if (n > 0) {
        buffer.append({bytes, static_cast<std::size_t>(n)});
        received += static_cast<std::size_t>(n);
        continue;
      }
      if (n == 0) return false;
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    return true;
  }

  // Returns false if the front end is gone.
  bool send_all(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }

 private:
  int fd_;
};

// Estimates how long a step may take, for the promises to the front end. The time of a step grows with its tokens, so
// the estimate is the slowest time per token, times ten, because a longer context and other programs on the machine
// take time, too.
class StepLimit {
 public:
  explicit StepLimit(double hang_timeout_s) : hang_timeout_s_(hang_timeout_s) {}

  // Notes a step of exactly so many tokens. The influence of an outlier decays within a few dozen steps.
  void step_took(int tokens, double seconds) {
    slowest_token_s_ = std::max(seconds / std::max(tokens, 1), 0.9 * slowest_token_s_);
  }
  // Notes a step of so many tokens or fewer.
  void step_of_at_most_took(int tokens, double seconds) {
    slowest_token_s_ = std::max(seconds / tokens, slowest_token_s_);
  }
  int silence_ms(int tokens) const {
    const double seconds = hang_timeout_s_ + 10 * slowest_token_s_ * tokens;
    return static_cast<int>(1000 * std::min(seconds, 86400.0));
  }

 private:
  double hang_timeout_s_;
  double slowest_token_s_ = 0;
};

class Session {
 public:
  Session(Engine& engine, const WorkerOptions& options)
      : engine_(engine), options_(options), socket_(options.socket_path), limit_(options.hang_timeout_s) {
    engine_.when_slow([this] {
      if (seconds_since(promised_) * 1000 < kHeartbeatMs) return;
      promise(step_tokens_);
      send();               // run() notices if the front end is gone
      engine_.heartbeat();  // the other ranks are waiting for their next order
    });
  }
  ~Session() {
    engine_.when_slow([] {});
    engine_.record_to(nullptr);
  }

  // Returns when the front end has sent Stop or is gone.
  void run() {
    warm_up();
    engine_.record_to(options_.routes);
    say(Ready{kLinkVersion, engine_.comm().size(), engine_.threads(), options_.kv_tokens,
              to_string(engine_.model().placement.plan), options_.identity, formats_in_memory(engine_.model())});
    promise(0);
    while (send() && take()) {
      if (engine_.idle())
        idle();
      else
        step();
    }
  }

 private:
  // Runs and measures a first step, which reads the weights into memory, before anyone waits for an answer.
  void warm_up() {
    Request request;
    const int tokens = std::min(16, engine_.model().config.max_position_embeddings - 1);
    if (tokens == 0) return;
    request.prompt = std::vector<std::int32_t>(tokens, 0);
    request.max_tokens = 1;
    engine_.submit(std::move(request));
    const auto start = Clock::now();
    while (!engine_.idle()) engine_.step();
    limit_.step_took(tokens, seconds_since(start));
  }

  void idle() {
    if (stepped_) report();
    if (!send()) return;  // refusals must not wait
    if (!socket_.wait(grammars_.descriptor(), kHeartbeatMs)) engine_.heartbeat();
    promise(0);
  }

  void step() {
    const bool decoding = engine_.scheduler().decoding();
    const int tokens = decoding ? engine_.scheduler().num_running() : options_.max_batch_tokens;
    step_tokens_ = tokens;
    promise(tokens);
    if (!send()) return;  // run() notices that, too
    stepped_ = true;
    const auto start = Clock::now();
    std::vector<TokenEvent> events = engine_.step([this] { say_who_runs(); });
    const double seconds = seconds_since(start);
    decoding ? limit_.step_took(tokens, seconds) : limit_.step_of_at_most_took(tokens, seconds);
    note_times(start, events);
    say_load();
    say_tokens(std::move(events));
    for (const std::int64_t id : engine_.failed()) {
      say(Refused{id, 500, kNotFinite});
      waiting_.erase(id);
    }
    if (seconds_since(reported_) > kReportSeconds) report();
  }

  // Notes when requests began to run, and writes the times of queueing and prefill to their first tokens.
  void note_times(Clock::time_point step_start, std::vector<TokenEvent>& events) {
    for (const std::int64_t id : engine_.started())
      if (const auto waiting = waiting_.find(id); waiting != waiting_.end()) waiting->second.started = step_start;
    for (TokenEvent& event : events) {
      const auto waiting = waiting_.find(event.id);
      if (waiting == waiting_.end()) continue;
      const auto [submitted, started] = waiting->second;
      event.queue_s = std::chrono::duration<float>(started - submitted).count();
      event.prefill_s = static_cast<float>(seconds_since(started));
      waiting_.erase(waiting);
    }
  }

  void report() {
    say(Report{collect_stats(engine_)});
    reported_ = Clock::now();
    stepped_ = false;
  }

  // A step may take long, so what runs in it is said before it if this has changed.
  void say_who_runs() {
    const SchedulerStats now = engine_.scheduler().stats();
    if (now.running == said_.running && now.waiting == said_.waiting) return;
    say_load();
    send();  // run() notices if the front end is gone
  }
  void say_load() {
    said_ = engine_.scheduler().stats();
    say(SchedulerReport{said_});
  }

  void say_tokens(std::vector<TokenEvent> events) {
    const auto alone = std::stable_partition(
        events.begin(), events.end(), [](const auto& event) { return event.prompt.empty() && event.state.empty(); });
    for (auto event = alone; event != events.end(); ++event) say(NewTokens{{std::move(*event)}});
    events.erase(alone, events.end());
    if (!events.empty()) say(NewTokens{std::move(events)});
  }

  // Reads the messages that have come. Returns false if the front end has sent Stop or is gone.
  bool take() {
    const bool connected = socket_.receive(received_);
    while (const auto payload = received_.next()) {
      ToRanks message = parse_to_ranks(*payload);
      if (std::holds_alternative<Stop>(message)) return false;
      if (auto* submit = std::get_if<Submit>(&message)) accept(std::move(submit->request));
      if (const auto* abort = std::get_if<Abort>(&message)) {
        grammars_.abort(abort->id);
        engine_.abort(abort->id);
        waiting_.erase(abort->id);
      }
    }
    for (GrammarQueue::Compilation& ready : grammars_.take())
      ready.grammar ? submit(std::move(ready.request), ready.grammar) : refuse(ready.request.id, ready.refusal);
    return connected;
  }

  void accept(Request request) {
    const auto now = Clock::now();
    waiting_[request.id] = {now, now};
    if (request.constraint.kind == Constraint::Kind::kNone)
      submit(std::move(request), nullptr);
    else
      grammars_.add(std::move(request));
  }

  void submit(Request request, const std::shared_ptr<const Grammar>& grammar) {
    const std::int64_t id = request.id;
    try {
      engine_.submit(std::move(request), grammar);
    } catch (const Error& error) {
      refuse(id, error.what());
    }
  }

  void refuse(std::int64_t id, const std::string& reason) {
    waiting_.erase(id);
    say(Refused{id, 400, reason});
  }

  void promise(int tokens) {
    promised_ = Clock::now();
    say(Alive{limit_.silence_ms(tokens) + kHeartbeatMs});
  }
  void say(const FromRanks& message) { append_message(to_send_, message); }
  bool send() {
    const bool sent = socket_.send_all(to_send_);
    to_send_.clear();
    return sent;
  }

  Engine& engine_;
  const WorkerOptions& options_;
  const LinkSocket socket_;
  StepLimit limit_;
  GrammarQueue grammars_{kMostGrammars};
  MessageBuffer received_;
  std::string to_send_;
  // The times of a request that has no token yet.
  struct Waiting {
    Clock::time_point submitted, started;
  };
  std::unordered_map<std::int64_t, Waiting> waiting_;  // by id
  Clock::time_point reported_ = Clock::now(), promised_ = Clock::now();
  SchedulerStats said_;   // by the last SchedulerReport
  int step_tokens_ = 0;   // of the current step
  bool stepped_ = false;  // whether there has been a step since the last report
};

}  // namespace

void serve_front_end(Engine& engine, const WorkerOptions& options) {
  Session(engine, options).run();
}

int default_kv_tokens(const ModelConfig& config, KvType type, int sequences) {
  constexpr std::int64_t kBytes = std::int64_t{4} << 30;
  const KvShape shape{config.heads().kv_heads, config.heads().key_width, config.heads().head_value_width(), type};
  const auto token_bytes = static_cast<std::int64_t>(shape.block_bytes() * config.num_layers() / kKvBlock);
  const std::int64_t context = config.max_position_embeddings;
  return static_cast<int>(std::clamp<std::int64_t>(kBytes / token_bytes, context, context * sequences));
}

}  // namespace foe

#include "server/ranks/supervisor.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <deque>
#include <optional>
#include <unistd.h>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <spdlog/spdlog.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/error.h"
#include "server/ranks/children.h"
#include "server/ranks/hosts.h"
#include "server/ranks/private_folder.h"

namespace foe {

namespace asio = boost::asio;
using asio::local::stream_protocol;
using boost::system::error_code;

namespace {

std::string describe_exit(int status) {
  if (WIFSIGNALED(status)) return fmt::format("ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) == 127) return "could not be started (is Open MPI installed? Debian: openmpi-bin)";
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(1000 * seconds));
}

// The connection to rank 0 of one job. Asynchronous operations hold the link that they belong to, because those of an
// earlier job may complete late.
struct Link {
  explicit Link(asio::io_context& io) : acceptor(io), socket(io) {}

  std::optional<PrivateFolder> folder{std::in_place};  // has the socket's name until rank 0 has connected
  stream_protocol::acceptor acceptor;
  stream_protocol::socket socket;
  std::array<char, 1 << 16> bytes;
  MessageBuffer received;
  std::string sending, to_send;  // what the system is sending, and what follows
};

// How long a job may take to end by itself when it is lost or told to stop, and then after SIGTERM. When a rank
// crashes, mpirun needs about two seconds to end the others and clean up, and it crashes itself if it gets SIGTERM
// meanwhile (Open MPI 4.1.4).
constexpr double kLeaveSeconds = 10;
constexpr double kStopSeconds = 5;
constexpr double kTermSeconds = 5;

// The pause before a retry after a start that failed. It doubles with each failure in a row, because what was missing
// may come back.
constexpr double kFirstPauseSeconds = 0.25;
constexpr double kMostPauseSeconds = 15;

double pause_after(int failed_starts) {
  return failed_starts == 0 ? 0 : std::min(kFirstPauseSeconds * std::exp2(failed_starts - 1), kMostPauseSeconds);
}

// Any job but the first may take so long to start, plus ten times what the last one took that became ready.
constexpr double kRestartSeconds = 20;

}  // namespace

class Supervisor::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, SupervisorOptions options, SupervisorEvents events)
      : io_(io),
        options_(std::move(options)),
        events_(std::move(events)),
        children_(std::make_shared<Children>(io)),
        hosts_(std::make_shared<Hosts>(io, children_, host_options(options_))),
        silence_(io),
        force_(io),
        pause_(io) {}

  void start() { launch(options_.launch.hosts); }
  bool up() const { return phase_ == Phase::kUp; }
  int restarts() const { return restarts_; }

  void send(const ToRanks& message) {
    if (!up()) return;
    append_message(link_->to_send, message);
    if (link_->sending.empty()) flush(link_);
  }

  void stop() {
    if (job_ == 0) return end();
    stopping_ = true;
    if (up()) {
      send(Stop{});
      phase_ = Phase::kLeaving;
      leave_within(kStopSeconds);
    } else if (phase_ != Phase::kLeaving) {
      disconnect();
      terminate();
    }
  }

  void kill() {
    stopping_ = true;
    if (job_ == 0) return end();
    disconnect();
    terminate();
  }

  // Called at the very end. No event is called after this.
  void drop() {
    events_ = {};
    hosts_->cancel();
    pause_.cancel();
    children_->drop();  // the ranks follow: they die with their parent
    job_ = 0;
  }

 private:
  HostOptions host_options(const SupervisorOptions& options) const {
    return {.all = options.launch.hosts,
            .patience_s = options.host_patience_s,
            .most_wait_s = options.start_timeout_s,
            .enough = [this](const std::vector<Host>& hosts) { return options_.enough_ranks(ranks_on(hosts)); }};
  }

  enum class Phase {
    kDown,      // there is no job
    kStarting,  // launched, and not ready yet
    kUp,
    kLeaving,  // lost or stopped, and its process has not ended yet
  };

  // --- the job's life ---

  void launch(const std::vector<Host>& hosts) {
    LaunchOptions options = options_.launch;
    options.hosts = hosts;
    options.ranks = ranks_on(hosts);
    link_ = std::make_shared<Link>(io_);
    const std::string path = link_->folder->socket_path();
    try {
      link_->acceptor.open();
      link_->acceptor.bind(path);
      link_->acceptor.listen(1);
    } catch (const boost::system::system_error& error) {
      fail("{}: expected to listen there, got: {}", path, error.code().message());
    }
    accept(link_);
    job_ = children_->start(job_command(options, program_, path, geteuid() == 0),
                            [self = shared_from_this(), this](int status) { child_ended(status); });
    phase_ = Phase::kStarting;
    terminated_ = false;
    started_ = Clock::now();
    expect_within(start_limit_s_);
    hosts_->watch(hosts, [self = shared_from_this(), this](const std::string& reason) { force_out(reason); });
  }

  // A rank that hangs while it starts cannot be told from one that is loading, so the time of later starts is limited
  // by that of the one before. If a start takes longer because the page cache has been lost, a retry is enough.
  void limit_start(double seconds) { start_limit_s_ = std::min(options_.start_timeout_s, seconds); }

  // Returns how many ranks run on these hosts, of which some may have been left out.
  int ranks_on(const std::vector<Host>& hosts) const {
    const LaunchOptions& launch = options_.launch;
    return hosts.size() == launch.hosts.size() ? launch.ranks : std::min(launch.ranks, slots_of(hosts));
  }

  // The job is lost. What is left of it gets some time to end by itself. child_ended() does the rest.
  void lose(const std::string& reason) {
    if (phase_ == Phase::kLeaving || phase_ == Phase::kDown) return;
    reason_ = reason;
    disconnect();
    phase_ = Phase::kLeaving;
    leave_within(kLeaveSeconds);
  }

  // The same for a job that would not end by itself.
  void force_out(const std::string& reason) {
    lose(reason);
    if (phase_ == Phase::kLeaving && job_ != 0) terminate();
  }

  void disconnect() {
    phase_ = Phase::kLeaving;
    hosts_->cancel();
    silence_.cancel();
    if (!link_) return;
    error_code ignored;
    link_->acceptor.close(ignored);
    link_->socket.close(ignored);
    link_.reset();
  }

  void leave_within(double seconds) {
    force_.expires_after(milliseconds(seconds));
    force_.async_wait([self = shared_from_this(), this, job = job_](error_code error) {
      if (!error && job == job_) terminate();
    });
  }

  // mpirun passes SIGTERM on to its ranks, after it has woken stopped ones. If that takes too long, the next call kills
  // mpirun, and its ranks end with it.
  void terminate() {
    ::kill(-job_, std::exchange(terminated_, true) ? SIGKILL : SIGTERM);
    force_.expires_after(milliseconds(kTermSeconds));
    force_.async_wait([self = shared_from_this(), this, job = job_](error_code error) {
      if (!error && job == job_) ::kill(-job_, SIGKILL);
    });
  }

  void child_ended(int status) {
    job_ = 0;
    force_.cancel();
    if (stopping_) return end();
    const std::string reason = phase_ == Phase::kLeaving && !reason_.empty()
                                   ? fmt::format("{}; the job {}", std::exchange(reason_, ""), describe_exit(status))
                                   : fmt::format("the job {}", describe_exit(status));
    disconnect();
    phase_ = Phase::kDown;
    restart(reason);
  }

  void restart(const std::string& reason) {
    const auto now = Clock::now();
    while (!recent_.empty() && now - recent_.front() > milliseconds(options_.restart_window_s)) recent_.pop_front();
    if (!was_ready_) return give_up("the ranks died before they were ready: " + reason);
    recent_.push_back(now);
    for (int i = events_.gone(); i > 0 && !recent_.empty(); --i) recent_.pop_back();
    if (static_cast<int>(recent_.size()) > options_.restarts)
      return give_up(fmt::format("the ranks died {} times within {} s, at last: {}", recent_.size(),
                                 options_.restart_window_s, reason));
    ++restarts_;
    const double pause = pause_after(failed_starts_++);
    events_.lost(pause > 0 ? fmt::format("{} (the next try in {} s)", reason, pause) : reason);
    pause_.expires_after(milliseconds(pause));
    pause_.async_wait([self = shared_from_this(), this](error_code error) {
      if (!error && !stopping_) find_hosts();
    });
  }

  void find_hosts() {
    const auto found = [self = shared_from_this(), this](const std::vector<Host>& hosts) {
      try {
        launch(hosts);
      } catch (const std::exception& error) {
        // The system has no socket, process or handle at the moment.
        disconnect();
        phase_ = Phase::kDown;
        restart(error.what());
      }
    };
    hosts_->find(found, [self = shared_from_this(), this](const std::string& silent) { give_up(silent); });
  }

  void give_up(const std::string& reason) {
    stopping_ = true;
    events_.failed(reason);
    if (job_ == 0) end();
  }

  void end() {
    phase_ = Phase::kDown;
    hosts_->cancel();
    children_->drop();
    force_.cancel();
    silence_.cancel();
    pause_.cancel();
    if (const auto ended = std::exchange(events_.ended, nullptr)) ended();
  }

  // --- the link ---

  void accept(const std::shared_ptr<Link>& link) {
    link->acceptor.async_accept(link->socket, [self = shared_from_this(), this, link](error_code error) {
      if (link != link_) return;
      if (error) return lose("rank 0 could not be connected to: " + error.message());
      error_code ignored;
      link->acceptor.close(ignored);  // only rank 0 connects
      link->folder.reset();
      read(link);
    });
  }

  void read(const std::shared_ptr<Link>& link) {
    const auto done = [self = shared_from_this(), this, link](error_code error, std::size_t n) {
      if (link != link_) return;
      if (error) return lose("rank 0 closed its connection");
      take_all(*link, {link->bytes.data(), n});
      if (link == link_) read(link);
    };
    link->socket.async_read_some(asio::buffer(link->bytes), done);
  }

  // Messages of a job that is leaving are read and thrown away, so that the job can read what was sent to it.
  void take_all(Link& link, std::string_view bytes) {
    try {
      link.received.append(bytes);
      while (phase_ != Phase::kLeaving) {
        const auto payload = link.received.next();
        if (!payload) return;
        take(parse_from_ranks(*payload));
      }
      link.received = MessageBuffer();
    } catch (const Error& error) {
      lose(error.what());
    }
  }

  void take(const FromRanks& message) {
    if (const auto* ready = std::get_if<Ready>(&message)) {
      if (phase_ != Phase::kStarting) fail("link: expected Ready once, got it again");
      if (model_.empty()) model_ = ready->model;
      if (ready->model != model_) return refuse_other_model();
      phase_ = Phase::kUp;
      hosts_->cancel();
      was_ready_ = true;
      failed_starts_ = 0;
      limit_start(kRestartSeconds + 10 * seconds_since(started_));
      return events_.ready(*ready);
    }
    if (!up()) fail("link: expected Ready first, got message {}", message.index());
    if (const auto* alive = std::get_if<Alive>(&message)) expect_within(alive->silence_ms / 1000.0);
    if (const auto* tokens = std::get_if<NewTokens>(&message)) events_.tokens(*tokens);
    if (const auto* refused = std::get_if<Refused>(&message)) events_.refused(*refused);
    if (const auto* report = std::get_if<Report>(&message)) events_.report(*report);
    if (const auto* scheduler = std::get_if<SchedulerReport>(&message)) events_.scheduler(*scheduler);
  }

  // Gives up: answers that are half done must not be continued with other weights.
  void refuse_other_model() {
    give_up(
        "the model's folder has other contents than when the server was started: start the server again to serve"
        " them");
    disconnect();
    terminate();
  }

  void expect_within(double seconds) {
    deadline_ = Clock::now() + milliseconds(seconds);
    silence_.expires_at(deadline_);
    silence_.async_wait([self = shared_from_this(), this, seconds](error_code error) {
      // This process may have been stopped itself. Messages that have come meanwhile are read first and move the
      // deadline.
      if (error || Clock::now() < deadline_) return;
      if (phase_ == Phase::kStarting) limit_start(2 * start_limit_s_);
      force_out(fmt::format("heard nothing from rank 0 for {:.1f} s", seconds));
    });
  }

  void flush(const std::shared_ptr<Link>& link) {
    link->sending.swap(link->to_send);
    const auto done = [self = shared_from_this(), this, link](error_code error, std::size_t) {
      link->sending.clear();
      if (!error && !link->to_send.empty()) flush(link);  // read() deals with errors
    };
    asio::async_write(link->socket, asio::buffer(link->sending), done);
  }

  asio::io_context& io_;
  const std::string program_ = this_program();  // read now, as its file may be replaced while this process runs
  SupervisorOptions options_;
  SupervisorEvents events_;
  std::shared_ptr<Children> children_;
  std::shared_ptr<Hosts> hosts_;
  asio::steady_timer silence_, force_, pause_;
  std::shared_ptr<Link> link_;  // null while there is no job
  Phase phase_ = Phase::kDown;
  pid_t job_ = 0;  // 0: no process
  bool stopping_ = false, was_ready_ = false;
  bool terminated_ = false;               // this job has got SIGTERM
  std::string model_;                     // the digest of the model that the first job has loaded
  std::string reason_;                    // why the job that is leaving was lost
  int restarts_ = 0, failed_starts_ = 0;  // failed_starts_: in a row, including the current start
  std::deque<Clock::time_point> recent_;  // the times of recent losses
  Clock::time_point started_, deadline_;
  double start_limit_s_ = options_.start_timeout_s;
};

Supervisor::Supervisor(asio::io_context& io, SupervisorOptions options, SupervisorEvents events)
    : impl_(std::make_shared<Impl>(io, std::move(options), std::move(events))) {}
Supervisor::~Supervisor() {
  impl_->drop();
}
void Supervisor::start() {
  impl_->start();
}
bool Supervisor::up() const {
  return impl_->up();
}
int Supervisor::restarts() const {
  return impl_->restarts();
}
void Supervisor::submit(const Request& request) {
  impl_->send(Submit{request});
}
void Supervisor::abort(std::int64_t id) {
  impl_->send(Abort{id});
}
void Supervisor::stop() {
  impl_->stop();
}
void Supervisor::kill() {
  impl_->kill();
}

}  // namespace foe

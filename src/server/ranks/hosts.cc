#include "server/ranks/hosts.h"

#include <csignal>
#include <unistd.h>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "server/ranks/children.h"

namespace foe {

namespace {

constexpr double kAnswerSeconds = 5;  // the time that a host has to run a program
constexpr double kAgainSeconds = 1;   // the pause between rounds while a host is missing
constexpr double kWatchSeconds = 10;  // the pause between rounds that watch the hosts in use

// Returns the names of all hosts but the first, which is this machine.
std::vector<std::string> others(const std::vector<Host>& hosts) {
  std::vector<std::string> names;
  for (std::size_t i = 1; i < hosts.size(); ++i) names.push_back(hosts[i].name);
  return names;
}

}  // namespace

Hosts::Hosts(boost::asio::io_context& io, std::shared_ptr<Children> children, HostOptions options)
    : children_(std::move(children)), options_(std::move(options)), timer_(io) {}

void Hosts::find(std::function<void(const std::vector<Host>&)> found,
                 std::function<void(const std::string& reason)> failed) {
  cancel();
  if (options_.all.size() <= 1) return found(options_.all);
  since_ = Clock::now();
  look(std::move(found), std::move(failed));
}

void Hosts::look(std::function<void(const std::vector<Host>&)> found,
                 std::function<void(const std::string& reason)> failed) {
  ask(options_.all, [this, found = std::move(found),
                     failed = std::move(failed)](const std::set<std::string>& answered) {
    std::vector<Host> usable{options_.all.front()};
    std::vector<std::string> missing;  // hosts that have not answered and are not left out yet
    for (std::size_t i = 1; i < options_.all.size(); ++i) {
      const Host& host = options_.all[i];
      if (!answered.contains(host.name)) {
        if (!left_out_.contains(host.name)) missing.push_back(host.name);
        continue;
      }
      usable.push_back(host);
      if (left_out_.erase(host.name) > 0) spdlog::info("host {} answers again, and is used again", host.name);
    }
    const double waited = seconds_since(since_);
    if (options_.enough(usable) && (missing.empty() || waited >= options_.patience_s)) {
      left_out_.insert(missing.begin(), missing.end());
      if (!missing.empty())
        spdlog::warn("hosts are left out, as there was no answer for {:.0f} s: {}", waited, fmt::join(missing, ", "));
      return found(usable);
    }
    if (waited >= options_.most_wait_s)
      return failed(fmt::format("no answer for {:.0f} s from {}, and the other hosts cannot hold the model", waited,
                                fmt::join(missing.empty() ? others(options_.all) : missing, ", ")));
    after(kAgainSeconds, [this, found, failed] { look(found, failed); });
  });
}

void Hosts::watch(const std::vector<Host>& used, std::function<void(const std::string& reason)> silent) {
  cancel();
  if (used.size() <= 1) return;
  since_ = Clock::now();
  look_after(used, std::move(silent));
}

void Hosts::look_after(const std::vector<Host>& used, std::function<void(const std::string& reason)> silent) {
  after(kWatchSeconds, [this, used, silent = std::move(silent)] {
    ask(used, [this, used, silent](const std::set<std::string>& answered) {
      std::vector<std::string> missing = others(used);
      std::erase_if(missing, [&](const std::string& name) { return answered.contains(name); });
      if (missing.empty()) since_ = Clock::now();
      if (seconds_since(since_) >= options_.patience_s)
        return silent(fmt::format("no answer for {:.0f} s from {}", seconds_since(since_), fmt::join(missing, ", ")));
      look_after(used, silent);
    });
  });
}

void Hosts::cancel() {
  ++round_;
  timer_.cancel();
  done_ = nullptr;
  for (const pid_t probe : probes_) ::kill(-probe, SIGKILL);
  probes_.clear();
}

// Runs a program on all hosts but the first, and calls `done` with those on which it succeeded in time.
void Hosts::ask(const std::vector<Host>& hosts, Answered done) {
  const std::uint64_t round = ++round_;
  done_ = std::move(done);
  answered_.clear();
  for (const std::string& name : others(hosts)) {
    try {
      const auto pid = std::make_shared<pid_t>();
      *pid = children_->start(probe_command(name, geteuid() == 0),
                              [weak = weak_from_this(), this, round, name, pid](int status) {
                                const auto self = weak.lock();
                                if (!self || round != round_) return;
                                probes_.erase(*pid);
                                if (status == 0) answered_.insert(name);
                                if (probes_.empty()) end_round(round);
                              });
      probes_.insert(*pid);
    } catch (const Error& error) {
      spdlog::warn("host {} could not be asked whether it answers: {}", name, error.what());
    }
  }
  after(kAnswerSeconds, [this, round] { end_round(round); });
}

void Hosts::end_round(std::uint64_t round) {
  if (round != round_) return;
  const Answered done = std::exchange(done_, nullptr);
  cancel();
  done(std::exchange(answered_, {}));
}

void Hosts::after(double seconds, std::function<void()> action) {
  timer_.expires_after(std::chrono::milliseconds(static_cast<std::int64_t>(1000 * seconds)));
  timer_.async_wait([weak = weak_from_this(), this, round = round_, action = std::move(action)](const auto& error) {
    const auto self = weak.lock();
    if (self && !error && round == round_) action();
  });
}

}  // namespace foe

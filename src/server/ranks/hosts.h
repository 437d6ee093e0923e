// Finds out which machines can run ranks.
//
// A machine answers if mpirun can run a program on it. A machine that does not answer is waited for. If that takes too
// long and the others are enough, it is left out, until it answers at a later start. The first machine is this one,
// which is never asked and never left out.
//
// All calls come from the thread that runs the io_context, and callbacks run there.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <boost/asio/steady_timer.hpp>

#include "base/clock.h"
#include "server/ranks/launch.h"

namespace foe {

class Children;

struct HostOptions {
  std::vector<Host> all;
  double patience_s = 30;                                // how long to wait for a host that does not answer
  double most_wait_s = 600;                              // the same if the others are not enough
  std::function<bool(const std::vector<Host>&)> enough;  // whether these hosts can hold the model
};

// Must be owned by a shared_ptr.
class Hosts : public std::enable_shared_from_this<Hosts> {
 public:
  Hosts(boost::asio::io_context& io, std::shared_ptr<Children> children, HostOptions options);

  // Calls `found` with the hosts to use, or `failed` if for most_wait_s those that answer have not been enough. If
  // there is only one host, `found` is called at once.
  void find(std::function<void(const std::vector<Host>&)> found, std::function<void(const std::string& reason)> failed);
  // Keeps asking the hosts in use until cancel(). Calls `silent` if some have not answered for patience_s.
  void watch(const std::vector<Host>& used, std::function<void(const std::string& reason)> silent);
  // Stops find() or watch(): no callback is called any more.
  void cancel();

 private:
  using Answered = std::function<void(const std::set<std::string>& names)>;

  void ask(const std::vector<Host>& hosts, Answered done);
  void after(double seconds, std::function<void()> action);
  void end_round(std::uint64_t round);
  void look(std::function<void(const std::vector<Host>&)> found, std::function<void(const std::string& reason)> failed);
  void look_after(const std::vector<Host>& used, std::function<void(const std::string& reason)> silent);

  std::shared_ptr<Children> children_;
  HostOptions options_;
  boost::asio::steady_timer timer_;
  Clock::time_point since_;         // when find() or watch() began, or all watched hosts last answered
  std::uint64_t round_ = 0;         // answers to probes of earlier rounds are ignored
  std::set<pid_t> probes_;          // the probes of this round that are still running
  std::set<std::string> answered_;  // the hosts that have answered in this round
  Answered done_;
  std::set<std::string> left_out_;
};

}  // namespace foe

// Which machines can be given ranks.
//
// A machine answers if mpirun can run a program there. One that does not is waited for, and left out once that has
// taken too long and the others are enough; it is taken back when it answers at a later start. The first machine is
// this one: it is never asked, and never left out.
//
// Everything runs on the thread that runs the io_context.
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
  double patience_s = 30;                                // for a host that does not answer
  double most_wait_s = 600;                              // for hosts without which the others are not enough
  std::function<bool(const std::vector<Host>&)> enough;  // whether these can hold the model
};

// Owned by a shared_ptr.
class Hosts : public std::enable_shared_from_this<Hosts> {
 public:
  Hosts(boost::asio::io_context& io, std::shared_ptr<Children> children, HostOptions options);

  // Calls `found` with the hosts to use, or `failed` if those that answer have not been enough for too long. With one
  // host it calls at once.
  void find(std::function<void(const std::vector<Host>&)> found, std::function<void(const std::string& reason)> failed);
  // Asks these again and again, until cancel(). Calls `silent` if some have not answered for too long.
  void watch(const std::vector<Host>& used, std::function<void(const std::string& reason)> silent);
  // Nothing is called any more.
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
  Clock::time_point since_;         // when all hosts that count have answered, or the search began
  std::uint64_t round_ = 0;         // probes of another round no longer matter
  std::set<pid_t> probes_;          // of this round, and still running
  std::set<std::string> answered_;  // in this round
  Answered done_;
  std::set<std::string> left_out_;
};

}  // namespace foe

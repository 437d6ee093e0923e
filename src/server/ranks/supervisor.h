// The MPI job under the front end: started, listened to, and started again when it dies.
//
// The job is lost when its process ends, when the link to rank 0 breaks or says nonsense, and when rank 0 stays silent
// for longer than it has promised: then what is left of it is killed. With several hosts, those that answer get the
// ranks of the next job (see hosts.h), at most as many as they have slots. A job that was ready is followed by the next
// one at once; after one that was not, and where the system refuses a process, a handle or a folder, there is a pause,
// which grows. No request lives here: whoever keeps the
// journal submits what is in flight each time `ready` is called.
//
// Everything runs on the thread that runs the io_context.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/ranks/launch.h"
#include "server/ranks/link.h"

namespace boost::asio {
class io_context;
}

namespace foe {

struct SupervisorOptions {
  LaunchOptions launch;
  double start_timeout_s = 600;  // to load the model and report
  int restarts = 10;             // within the window; one more is a failure
  double restart_window_s = 300;
  double host_patience_s = 30;  // then a host that does not answer is left out, if the others are enough
  std::function<bool(int ranks)> enough_ranks = [](int) { return true; };  // whether so many can hold the model
};

struct SupervisorEvents {
  std::function<void(const Ready&)> ready;
  std::function<void(const Tokens&)> tokens;
  std::function<void(const Refused&)> refused;
  std::function<void(const Report&)> report;
  // At each loss. Returns how many of the last ones, this one included, had a cause that is no more: these do not
  // count.
  std::function<int()> gone;
  std::function<void(const std::string& reason)> lost;    // a restart follows
  std::function<void(const std::string& reason)> failed;  // no restart follows; ended() does
  std::function<void()> ended;                            // no process is left, and none will be started
};

class Supervisor {
 public:
  Supervisor(boost::asio::io_context& io, SupervisorOptions options, SupervisorEvents events);
  // Kills what is left of the job.
  ~Supervisor();

  // Starts the job. Throws Error where that is impossible. A job that dies before it was ever ready is not started
  // again: it would die again.
  void start();
  bool up() const;       // whether the ranks can be given work
  int restarts() const;  // since start()

  // Both do nothing while the ranks are not up.
  void submit(const Request& request);
  void abort(std::int64_t id);

  // Ends the ranks after their current step, by force if they do not; then `ended`.
  void stop();
  // By force at once.
  void kill();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace foe

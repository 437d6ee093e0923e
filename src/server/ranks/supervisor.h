// Starts the MPI job that runs under the front end, reads what it sends, and starts it again when it crashes.
//
// A job is lost when its process ends, when the link to rank 0 breaks or carries an invalid message, and when rank 0 is
// silent for longer than it has promised. Then what is left of the job is killed, and the next job is started. With
// several hosts, those that answer (hosts.h) run the ranks of the next job, each at most as many as it has slots. After
// a job that was ready the retry follows at once. After a job that never was, or if the system refuses a process, a
// handle or a folder, there is a pause, which grows with each failure. Requests are not kept here: whoever keeps the
// journal submits what is in flight each time `ready` is called.
//
// All calls come from the thread that runs the io_context, and events are called there.
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
  double start_timeout_s = 600;  // until the ranks have loaded the model and are ready
  int restarts = 10;             // the most restarts within restart_window_s; with one more the supervisor gives up
  double restart_window_s = 300;
  double host_patience_s = 30;                                             // HostOptions::patience_s
  std::function<bool(int ranks)> enough_ranks = [](int) { return true; };  // whether so many ranks can hold the model
};

struct SupervisorEvents {
  std::function<void(const Ready&)> ready;
  std::function<void(const NewTokens&)> tokens;
  std::function<void(const Refused&)> refused;
  std::function<void(const Report&)> report;
  std::function<void(const SchedulerReport&)> scheduler;
  // Called at each loss. Returns how many of the last losses, this one included, had a cause that has been removed:
  // these do not count as restarts.
  std::function<int()> gone;
  std::function<void(const std::string& reason)> lost;    // the job is lost, and a restart follows
  std::function<void(const std::string& reason)> failed;  // it gives up: no restart follows, but ended()
  std::function<void()> ended;                            // no process is left, and none will be started any more
};

class Supervisor {
 public:
  Supervisor(boost::asio::io_context& io, SupervisorOptions options, SupervisorEvents events);
  // Kills what is left of the job.
  ~Supervisor();

  // Starts the first job. Throws Error if it cannot be started. If the first job ends before it was ready, the
  // supervisor gives up, because the next one would fail as well.
  void start();
  bool up() const;       // whether the ranks can be given work
  int restarts() const;  // since start()

  // Pass a request, or its end, to rank 0. They do nothing while the ranks are not up.
  void submit(const Request& request);
  void abort(std::int64_t id);

  // Ends the ranks after their current step, or by force if they do not end in time; then calls `ended`.
  void stop();
  // Ends the ranks by force at once.
  void kill();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace foe

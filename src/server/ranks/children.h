// The processes that we start, and what they leave behind.
//
// What they print goes to our log (log.h), a line at a time: a log that nobody reads does not stop them either.
//
// From the first object on, orphans among our descendants become our children, and are killed: mpirun leaves its remote
// shells behind where a host does not answer.
//
// Everything runs on the thread that runs the io_context.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/signal_set.hpp>
#include <sys/types.h>

namespace boost::asio {
class io_context;
}

namespace foe {

// Owned by a shared_ptr. Not more than one at a time.
class Children : public std::enable_shared_from_this<Children> {
 public:
  explicit Children(boost::asio::io_context& io);
  ~Children();

  // As spawn() in launch.h; `ended` is called later with the status of waitpid(). Throws Error where the system has no
  // process or no handles to give.
  pid_t start(const std::vector<std::string>& command, std::function<void(int status)> ended);
  // Kills them all and waits for that, and hears of no more: their `ended` is not called.
  void drop();

 private:
  class Output;
  struct Child {
    std::function<void(int status)> ended;
    std::shared_ptr<Output> output;
  };

  void wait();
  void reap();
  void kill_orphans() const;

  boost::asio::io_context& io_;
  boost::asio::signal_set signals_;
  bool waiting_ = false;
  std::map<pid_t, Child> children_;
};

}  // namespace foe

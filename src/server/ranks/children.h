// Starts child processes, and cleans up after them.
//
// What they print goes to the server's log (log.h), line by line, so a log that nobody reads does not stop them either.
//
// Once an object has been made, orphaned descendants of this process become its children and are killed: mpirun leaves
// its remote shells behind if a host does not answer. Every child that start() has not started is taken for one of
// these, so nothing else in the process may start children.
//
// All calls come from the thread that runs the io_context, and callbacks run there.
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

// Must be owned by a shared_ptr. There may be only one at a time.
class Children : public std::enable_shared_from_this<Children> {
 public:
  explicit Children(boost::asio::io_context& io);
  ~Children();

  // Starts a process like spawn() in launch.h and returns its id. `ended` is called later with the status from
  // waitpid(), after what is left of its process group has been killed. Throws Error if the system has no process or no
  // handles left.
  pid_t start(const std::vector<std::string>& command, std::function<void(int status)> ended);
  // Kills all children and orphans, and waits for their end. `ended` is not called.
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

#include "server/children.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "server/launch.h"

namespace foe {

Children::Children(boost::asio::io_context& io) : signals_(io, SIGCHLD) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

pid_t Children::start(const std::vector<std::string>& command, std::function<void(int status)> ended) {
  if (!std::exchange(waiting_, true)) wait();
  const pid_t child = spawn(command);
  ended_[child] = std::move(ended);
  return child;
}

void Children::drop() {
  signals_.cancel();
  waiting_ = false;
  for (const auto& [child, ended] : std::exchange(ended_, {})) {
    ::kill(-child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  do kill_orphans();
  while (waitpid(-1, nullptr, 0) > 0);
}

void Children::wait() {
  signals_.async_wait([self = shared_from_this(), this](const boost::system::error_code& error, int) {
    if (error || !waiting_) return;
    wait();
    reap();
  });
}

void Children::reap() {
  for (int status = 0; const pid_t child = waitpid(-1, &status, WNOHANG);) {
    if (child < 0) break;
    const auto found = ended_.find(child);
    if (found == ended_.end()) continue;
    const auto ended = std::move(found->second);
    ended_.erase(found);
    ::kill(-child, SIGKILL);  // whatever is left of its group
    ended(status);
  }
  kill_orphans();
}

void Children::kill_orphans() const {
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;)
      if (!ended_.contains(child)) ::kill(child, SIGKILL);
  }
}

}  // namespace foe

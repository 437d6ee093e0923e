#include "server/ranks/children.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/error.h"
#include "server/log/log.h"
#include "server/ranks/launch.h"

namespace foe {

namespace asio = boost::asio;

// Reads what a process and its descendants print, until all of them have closed it.
class Children::Output : public std::enable_shared_from_this<Output> {
 public:
  Output(asio::io_context& io, int fd) : pipe_(io, fd) { pipe_.non_blocking(true); }

  void read() {
    pipe_.async_read_some(asio::buffer(bytes_), [self = shared_from_this()](const auto& error, std::size_t n) {
      self->take({self->bytes_.data(), n});
      if (!error) return self->read();
      self->end_line();
    });
  }
  // Reads what has been printed so far, without waiting.
  void drain() {
    boost::system::error_code error;
    while (const std::size_t n = pipe_.read_some(asio::buffer(bytes_), error)) take({bytes_.data(), n});
    end_line();
  }

 private:
  static constexpr std::size_t kLongestLine = 1 << 16;

  void take(std::string_view bytes) {
    line_ += bytes;
    const std::size_t end = line_.size() > kLongestLine ? line_.size() : line_.rfind('\n') + 1;
    if (end == 0) return;
    log_writer().write(std::string_view(line_).substr(0, end));
    line_.erase(0, end);
  }
  void end_line() {
    if (!line_.empty()) log_writer().write(std::exchange(line_, {}) + "\n");
  }

  asio::posix::stream_descriptor pipe_;
  std::array<char, 1 << 14> bytes_;
  std::string line_;  // the beginning of a line whose end has not come
};

Children::Children(asio::io_context& io) : io_(io), signals_(io, SIGCHLD) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Children::~Children() = default;

pid_t Children::start(const std::vector<std::string>& command, std::function<void(int status)> ended) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    fail("cannot make a pipe for what {} prints: {} (a limit of open files, as of ulimit -n)", command[0],
         std::strerror(errno));
  const auto output = std::make_shared<Output>(io_, ends[0]);
  if (!std::exchange(waiting_, true)) wait();
  pid_t child = 0;
  try {
    child = spawn(command, ends[1]);
  } catch (...) {
    close(ends[1]);
    throw;
  }
  close(ends[1]);
  output->read();
  children_[child] = {std::move(ended), output};
  return child;
}

void Children::drop() {
  signals_.cancel();
  waiting_ = false;
  for (const auto& [pid, child] : std::exchange(children_, {})) {
    ::kill(-pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    child.output->drain();
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
  for (int status = 0; const pid_t pid = waitpid(-1, &status, WNOHANG);) {
    if (pid < 0) break;
    const auto found = children_.find(pid);
    if (found == children_.end()) continue;
    const Child child = std::move(found->second);
    children_.erase(found);
    ::kill(-pid, SIGKILL);  // ends whatever is left of its process group
    child.output->drain();
    child.ended(status);
  }
  kill_orphans();
}

void Children::kill_orphans() const {
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", error)) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;)
      if (!children_.contains(child)) ::kill(child, SIGKILL);
  }
}

}  // namespace foe

#include "base/inherited.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <poll.h>
#include <unistd.h>

#include "base/error.h"

namespace foe {

void mend_inherited_state() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO)  // open() takes the lowest handle that is free
    fd = open("/dev/null", O_RDWR);
  if (fd > STDERR_FILENO) close(fd);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGCHLD, SIG_DFL);
}

bool hangs_up() {
  struct sigaction now {};
  return sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler != SIG_IGN;
}

void print_error(const std::string& line) {
  constexpr int kPatienceMs = 2000;
  std::string rest = line + "\n";
  // If poll() says that a pipe can be written to, it takes PIPE_BUF bytes without waiting.
  for (pollfd ready{STDERR_FILENO, POLLOUT, 0}; !rest.empty() && poll(&ready, 1, kPatienceMs) > 0;) {
    const ssize_t written = write(STDERR_FILENO, rest.data(), std::min<std::size_t>(rest.size(), PIPE_BUF));
    if (written <= 0) return;
    rest.erase(0, static_cast<std::size_t>(written));
  }
}

void finish_output() {
  errno = 0;
  std::cout.flush();
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::cout && std::ferror(stdout) == 0) return;
  fail("standard output: expected to write all of it, got: {}",
       errno != 0 ? std::strerror(errno) : "an error earlier on (is the disk full?)");
}

}  // namespace foe

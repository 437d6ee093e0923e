// The server's log, on standard error. Whoever reads it may stop (a full pipe, a terminal with Ctrl-S) without stopping
// the server: a thread of its own writes, what it has not written yet is kept up to a limit, and whole messages past
// that are dropped, which the log then says.
//
// Any thread may call these.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace foe {

class LogWriter {
 public:
  // Writes to the handle `fd`, which must stay open as long as the process.
  explicit LogWriter(int fd, std::size_t most_bytes = std::size_t{1} << 20);
  // As flush(). A writer that is stuck is left behind.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // Never waits. A message is whole lines.
  void write(std::string_view message);
  // Waits until everything is written, for two seconds at most: nobody may be reading.
  void flush();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// The one on standard error. It begins with the first call and ends with the process.
LogWriter& log_writer();

// Makes it what spdlog writes to, and flushes it at the end of the object's life.
class LogToStderr {
 public:
  LogToStderr();
  ~LogToStderr() { log_writer().flush(); }
  LogToStderr(const LogToStderr&) = delete;
  LogToStderr& operator=(const LogToStderr&) = delete;
};

}  // namespace foe

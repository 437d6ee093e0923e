// The server's log, on standard error. If its reader stops reading (a full pipe, a terminal after Ctrl-S), the server
// goes on: a thread of its own writes the log. Messages that are not written yet are kept up to a limit in bytes;
// beyond it whole messages are dropped, and the log says so later.
//
// Any thread may call these functions.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace foe {

class LogWriter {
 public:
  // Writes to the handle `fd`, which must stay open until the process ends. At most `most_bytes` wait to be written.
  explicit LogWriter(int fd, std::size_t most_bytes = std::size_t{1} << 20);
  // Waits like flush(). If the thread is still stuck then, it is abandoned.
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // Appends a message, which must consist of whole lines. Never waits.
  void write(std::string_view message);
  // Waits until everything is written, but for at most two seconds, as nobody may be reading.
  void flush();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Returns the writer on standard error, which is made by the first call and lives until the process ends.
LogWriter& log_writer();

// While it lives, spdlog writes to log_writer(). Its destructor flushes the log.
class LogToStderr {
 public:
  LogToStderr();
  ~LogToStderr() { log_writer().flush(); }
  LogToStderr(const LogToStderr&) = delete;
  LogToStderr& operator=(const LogToStderr&) = delete;
};

}  // namespace foe

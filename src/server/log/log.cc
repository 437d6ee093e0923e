#include "server/log/log.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/core.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include "base/error.h"

namespace foe {

struct LogWriter::State {
  State(int handle, std::size_t most) : fd(handle), most_bytes(most) {}

  const int fd;
  const std::size_t most_bytes;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> messages;
  std::size_t bytes = 0;    // the bytes of these
  std::size_t dropped = 0;  // how many messages were dropped since the last one that was kept
  bool writing = false, stop = false;

  void note_dropped() {
    if (dropped > 0) messages.push_back(fmt::format("foe: {} messages of the log are lost: nobody read it\n", dropped));
    dropped = 0;
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stop || !messages.empty(); });
      if (messages.empty()) return;
      const std::string message = std::move(messages.front());
      messages.pop_front();
      bytes -= std::min(bytes, message.size());
      if (messages.empty()) note_dropped();
      writing = true;
      lock.unlock();
      write_all(message);
      lock.lock();
      writing = false;
      changed.notify_all();
    }
  }

  // Bytes that the system refuses are lost, as there is nowhere to report that.
  void write_all(std::string_view rest) const {
    while (!rest.empty()) {
      const ssize_t written = ::write(fd, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0 && errno == EAGAIN) {  // another process has made the handle non-blocking
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      if (written < 0) return;
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
  }
};

LogWriter::LogWriter(int fd, std::size_t most_bytes) : state_(std::make_shared<State>(fd, most_bytes)) {
  try {
    std::thread([state = state_] { state->work(); }).detach();
  } catch (const std::system_error& error) {
    fail("expected a thread that writes the log, got: {} (a limit of processes, as of ulimit -u)",
         error.code().message());
  }
}

LogWriter::~LogWriter() {
  flush();
  const std::lock_guard lock(state_->mutex);
  state_->stop = true;
  state_->changed.notify_all();
}

void LogWriter::flush() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, std::chrono::seconds(2), [&] { return state_->messages.empty() && !state_->writing; });
}

void LogWriter::write(std::string_view message) {
  const std::lock_guard lock(state_->mutex);
  if (state_->bytes + message.size() > state_->most_bytes) {
    ++state_->dropped;
    return;
  }
  state_->note_dropped();
  state_->messages.emplace_back(message);
  state_->bytes += message.size();
  state_->changed.notify_all();
}

LogWriter& log_writer() {
  static LogWriter writer(STDERR_FILENO);
  return writer;
}

namespace {

class Sink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::string text(line.data(), line.size());
    if (colours_ && message.color_range_end > message.color_range_start) {
      text.insert(message.color_range_end, "\033[m");
      text.insert(message.color_range_start, colour_of(message.level));
    }
    log_writer().write(text);
  }
  void flush_() override {}

 private:
  static const char* colour_of(spdlog::level::level_enum level) {
    if (level >= spdlog::level::err) return "\033[31m";
    return level == spdlog::level::warn ? "\033[33m" : "\033[32m";
  }

  const bool colours_ = isatty(STDERR_FILENO) == 1;
};

}  // namespace

LogToStderr::LogToStderr() {
  log_writer();  // made before spdlog's own state, so that it is destroyed after it
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("foe", std::make_shared<Sink>()));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
}

}  // namespace foe

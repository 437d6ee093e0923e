#include "stop_signals.h"

#include <csignal>
#include <unistd.h>
#include <utility>

#include "base/inherited.h"

namespace foe {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // so a signal handler may set it

namespace {

std::string stop_note;  // does not change while signals are handled

void request_stop(int signal) {
  stop_requested.store(true, std::memory_order_relaxed);
  std::signal(signal, SIG_DFL);
  if (!stop_note.empty() && write(STDERR_FILENO, stop_note.data(), stop_note.size()) < 0) return;
}

}  // namespace

void stop_at_signals(std::string note) {
  stop_note = std::move(note);
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  if (hangs_up()) std::signal(SIGHUP, request_stop);
}

}  // namespace foe

#include "comm/background.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace foe {
namespace {

thread_local bool background = false;

}  // namespace

bool in_background() {
  return background;
}

Background::Background(const Communicator& counted) : counted_(counted) {
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error& error) {
    fail("expected a thread for exchanges, got: {} (a limit of processes, as of ulimit -u)", error.code().message());
  }
}

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Background::Ticket Background::start(std::function<void()> exchange) {
  {
    const std::lock_guard lock(mutex_);
    started_.push_back(std::move(exchange));
  }
  changed_.notify_all();
  return next_++;
}

CommCounter Background::finish(Ticket ticket) {
  const Clock::time_point begin = Clock::now();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_.contains(ticket); });
  Done done = std::move(done_.extract(ticket).mapped());
  lock.unlock();
  if (done.error) std::rethrow_exception(done.error);
  done.sent.seconds = seconds_since(begin);
  done.sent.waiting_s = std::min(done.sent.waiting_s, done.sent.seconds);
  return done.sent;
}

void Background::drop() {
  std::unique_lock lock(mutex_);
  running_ += started_.size();
  started_.clear();
  changed_.wait(lock, [&] { return !busy_; });
  done_.clear();
}

void Background::work() {
  background = true;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !started_.empty(); });
    if (started_.empty()) return;
    const std::function<void()> exchange = std::move(started_.front());
    started_.pop_front();
    const Ticket ticket = running_++;
    busy_ = true;
    lock.unlock();
    const CommCounter before = counted_.counters().total();
    Done done;
    try {
      exchange();
    } catch (...) {
      done.error = std::current_exception();
    }
    done.sent = counted_.counters().total() - before;
    lock.lock();
    busy_ = false;
    done_[ticket] = std::move(done);
    changed_.notify_all();
  }
}

}  // namespace foe

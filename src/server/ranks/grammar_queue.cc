#include "server/ranks/grammar_queue.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>

#include "base/error.h"

namespace foe {

namespace {
constexpr std::size_t kKept = 8;  // unused grammars that are kept, as the next request may have the same schema
}

GrammarQueue::GrammarQueue(std::size_t most)
    : most_(std::max(most, kKept + 1)), event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), grammars_(kKept) {
  if (event_ < 0)
    fail("cannot make a file handle (eventfd): {} (a limit of open files, as of ulimit -n)", std::strerror(errno));
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
  } catch (const std::system_error& error) {
    close(event_);
    fail("cannot start a thread that compiles schemas: {} (a limit of processes, as of ulimit -u)", error.what());
  }
}

GrammarQueue::~GrammarQueue() {
  thread_.request_stop();
  thread_.join();
  close(event_);
}

void GrammarQueue::add(Request request) {
  const std::lock_guard lock(mutex_);
  const auto behind = std::find_if(waiting_.begin(), waiting_.end(),
                                   [&](const Compilation& other) { return other.request.priority > request.priority; });
  waiting_.insert(behind, Compilation{std::move(request), nullptr, ""});
  changed_.notify_one();
}

void GrammarQueue::abort(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  const auto is_it = [=](const Compilation& ready) { return ready.request.id == id; };
  std::erase_if(waiting_, is_it);
  std::erase_if(ready_, is_it);
  if (compiling_ == id) compiling_ = 0;  // then its grammar is thrown away
}

std::list<GrammarQueue::Compilation> GrammarQueue::take() {
  std::uint64_t ignored;
  while (read(event_, &ignored, sizeof ignored) > 0) {
  }
  const std::lock_guard lock(mutex_);
  if (!waiting_.empty()) changed_.notify_one();  // there may be room for another grammar
  return std::exchange(ready_, {});
}

std::size_t GrammarQueue::size() {
  const std::lock_guard lock(mutex_);
  return waiting_.size() + ready_.size() + (compiling_ != 0 ? 1 : 0);
}

void GrammarQueue::serve(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto may_go_on = [&] {
    return !waiting_.empty() && (grammars_.size() < most_ || grammars_.find(waiting_.front().request.constraint));
  };
  while (changed_.wait(lock, stop, may_go_on) && !stop.stop_requested()) {
    std::list<Compilation> one;
    one.splice(one.begin(), waiting_, waiting_.begin());
    Compilation& ready = one.front();
    compiling_ = ready.request.id;
    lock.unlock();
    try {
      ready.grammar = grammars_.get(ready.request.constraint);
    } catch (const std::exception& error) {
      ready.refusal = error.what();
    }
    lock.lock();
    if (std::exchange(compiling_, 0) == ready.request.id) ready_.splice(ready_.end(), one);
    wake();
  }
}

void GrammarQueue::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_, &one, sizeof one);
}

}  // namespace foe

#include "comm/shared_comm.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <sys/syscall.h>

#include "base/check.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace foe {
namespace {

constexpr std::size_t kHalfBytes = std::size_t{1} << 20;  // longer messages go in pieces
// Past this size each rank adds one slice of the sum and reads the others' slices, instead of adding all of it itself.
constexpr std::size_t kSliceBytes = 32 << 10;

int futex(std::atomic<unsigned>& word, int operation, unsigned value, const timespec* timeout) {
  return static_cast<int>(
      syscall(SYS_futex, reinterpret_cast<unsigned*>(&word), operation, value, timeout, nullptr, 0));
}

// Steps count up and may wrap around.
bool reached(unsigned value, unsigned step) {
  return static_cast<int>(value - step) >= 0;
}

}  // namespace

// The last collective in which a rank has done something that others wait for, and how many sleep until it moves on.
struct alignas(64) SharedComm::Flag {
  std::atomic<unsigned> step;
  std::atomic<unsigned> sleepers;
};

struct SharedComm::Header {
  Flag written;                // the rank has entered, and what it sends stands in its half
  Flag reduced;                // its slice of a large sum stands in its half
  std::atomic<unsigned> gone;  // its Communicator was destroyed
};

std::size_t SharedComm::memory_bytes(int size) {
  return size * (sizeof(Header) + 2 * kHalfBytes);
}

SharedComm::SharedComm(int rank, int size, std::byte* memory, double timeout_seconds, std::function<void()> on_destroy)
    : rank_(rank), size_(size), memory_(memory), timeout_seconds_(timeout_seconds), on_destroy_(std::move(on_destroy)) {
  static_assert(std::atomic<unsigned>::is_always_lock_free);
  FOE_CHECK(0 <= rank && rank < size, "rank {} of {}", rank, size);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  FOE_CHECK(address % alignof(Header) == 0, "memory at {:#x}", address);
}

SharedComm::~SharedComm() {
  Header& mine = reinterpret_cast<Header*>(memory_)[rank_];
  mine.gone.store(1);
  for (Flag* flag : {&mine.written, &mine.reduced}) futex(flag->step, FUTEX_WAKE, 1 << 30, nullptr);
  if (on_destroy_) on_destroy_();
}

std::byte* SharedComm::half(int rank) const {
  return memory_ + size_ * sizeof(Header) + (2 * rank + step_ % 2) * kHalfBytes;
}

void SharedComm::publish(Flag& flag) {
  flag.step.store(step_);  // sequentially consistent with the look at sleepers: see wait()
  if (flag.sleepers.load() > 0) futex(flag.step, FUTEX_WAKE, 1 << 30, nullptr);
}

void SharedComm::wait(Flag& flag, unsigned step, int peer) {
  const auto ready = [&] { return reached(flag.step.load(std::memory_order_acquire), step); };
  if (spin_until(ready)) return;
  // More ranks than cores: let the peer run. After that, sleep.
  for (int i = 0; i < 50; ++i) {
    sched_yield();
    if (ready()) return;
  }
  const Header* headers = reinterpret_cast<const Header*>(memory_);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_seconds_);
  const timespec nap{0, 100'000'000};
  flag.sleepers.fetch_add(1);
  for (unsigned seen; !reached(seen = flag.step.load(), step);) {
    const bool gone = headers[peer].gone.load() != 0 && !ready();
    if (gone || std::chrono::steady_clock::now() > deadline) {
      flag.sleepers.fetch_sub(1);
      if (gone) fail("rank {}: rank {} left the job", rank_, peer);
      fail("rank {}: heard nothing from rank {} for {} s", rank_, peer, timeout_seconds_);
    }
    futex(flag.step, FUTEX_WAIT, seen, &nap);
  }
  flag.sleepers.fetch_sub(1);
}

void SharedComm::wait_for_all(Flag Header::*flag) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) wait(headers[peer].*flag, step_, peer);
}

void SharedComm::enter() {
  Header* headers = reinterpret_cast<Header*>(memory_);
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) wait(headers[peer].written, step_, peer);
  ++step_;
}

void SharedComm::broadcast(std::vector<std::int32_t>& message) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  constexpr std::size_t kWords =
      kHalfBytes / sizeof(std::int32_t) - 1;  // after the first word: how many are still to come
  std::size_t done = 0;
  for (std::size_t left = message.size(), piece = 0;; done += piece, left -= piece) {
    enter();
    auto* words = reinterpret_cast<std::int32_t*>(half(0));
    if (rank_ == 0) {
      piece = std::min(left, kWords);
      words[0] = static_cast<std::int32_t>(left);
      std::copy_n(message.data() + done, piece, words + 1);
      publish(headers[0].written);
    } else {
      publish(headers[rank_].written);
      wait(headers[0].written, step_, 0);
      left = static_cast<std::size_t>(words[0]);
      piece = std::min(left, kWords);
      message.resize(done + piece);
      std::copy_n(words + 1, piece, message.data() + done);
    }
    if (left == piece) break;
  }
  ++counters_.broadcast.calls;
  if (rank_ == 0) {
    counters_.broadcast.messages += size_ - 1;
    counters_.broadcast.bytes += (size_ - 1) * message.size() * sizeof(std::int32_t);
  }
}

void SharedComm::ordered_sum(const SumPlan& plan, float* terms, std::size_t count) {
  FOE_CHECK(plan.ranks() == size_, "a plan for {} ranks on {}", plan.ranks(), size_);
  plan.reduce_own(rank_, terms, count);
  ++counters_.sum.calls;
  const std::size_t piece =
      kHalfBytes / sizeof(float) / (plan.max_partials() + 1);  // partials, and the slice of the sum
  for (std::size_t at = 0; at < count; at += piece) sum_piece(plan, terms + at, count, std::min(piece, count - at));
}

void SharedComm::sum_piece(const SumPlan& plan, float* terms, std::size_t stride, std::size_t count) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  const int own = plan.partials(rank_);
  enter();
  auto* mine = reinterpret_cast<float*>(half(rank_));
  for (int i = 0; i < own; ++i) std::copy_n(terms + i * stride, count, mine + i * count);
  publish(headers[rank_].written);
  wait_for_all(&Header::written);

  // Rank r's slice of the sum is [begin(r), begin(r + 1)): all of it for a small one.
  const bool sliced = count * sizeof(float) >= kSliceBytes;
  const auto begin = [&](int r) { return count * r / size_; };
  const std::size_t first = sliced ? begin(rank_) : 0;
  const std::size_t size = sliced ? begin(rank_ + 1) - first : count;
  std::vector<const float*> partials;
  for (int peer = 0; peer < size_; ++peer)
    for (int i = 0; i < plan.partials(peer); ++i)
      partials.push_back(reinterpret_cast<const float*>(half(peer)) + i * count + first);
  counters_.sum.messages += size_ - 1;
  if (!sliced) {
    counters_.sum.bytes += (size_ - 1) * own * count * sizeof(float);
    return plan.reduce_partials(partials, count, terms);
  }

  float* slice = mine + plan.max_partials() * count;
  plan.reduce_partials(partials, size, slice);
  publish(headers[rank_].reduced);
  wait_for_all(&Header::reduced);
  for (int peer = 0; peer < size_; ++peer) {
    const float* from = reinterpret_cast<const float*>(half(peer)) + plan.max_partials() * count;
    std::copy_n(from, begin(peer + 1) - begin(peer), terms + begin(peer));
  }
  counters_.sum.messages += size_ - 1;
  counters_.sum.bytes += ((count - size) * own + size * (size_ - 1)) * sizeof(float);
}

void SharedComm::gather(std::span<const float> send, std::span<const std::size_t> counts, float* out) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  FOE_CHECK(send.size() == counts[rank_], "{} floats, announced {}", send.size(), counts[rank_]);
  constexpr std::size_t kPiece = kHalfBytes / sizeof(float);
  const std::size_t longest = *std::max_element(counts.begin(), counts.end());
  for (std::size_t at = 0; at < longest; at += kPiece) {
    enter();
    const auto piece = [&](int rank) { return at < counts[rank] ? std::min(kPiece, counts[rank] - at) : 0; };
    if (rank_ != 0 && piece(rank_) > 0)
      std::copy_n(send.data() + at, piece(rank_), reinterpret_cast<float*>(half(rank_)));
    publish(headers[rank_].written);
    if (rank_ != 0) continue;
    wait_for_all(&Header::written);
    float* to = out;
    for (int peer = 0; peer < size_; to += counts[peer++])
      if (piece(peer) > 0)
        std::copy_n(peer == 0 ? send.data() + at : reinterpret_cast<const float*>(half(peer)), piece(peer), to + at);
  }
  ++counters_.gather.calls;
  if (rank_ != 0) {
    ++counters_.gather.messages;
    counters_.gather.bytes += send.size_bytes();
  }
}

}  // namespace foe

#include "comm/shared_comm.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <sys/syscall.h>

#include "base/check.h"
#include "base/error.h"
#include "base/stream_copy.h"
#include "base/thread_pool.h"

namespace foe {
namespace {

constexpr std::size_t kHalfBytes = std::size_t{1} << 20;  // longer messages go in pieces

int futex(std::atomic<unsigned>& word, int operation, unsigned value, const timespec* timeout) {
  return static_cast<int>(
      syscall(SYS_futex, reinterpret_cast<unsigned*>(&word), operation, value, timeout, nullptr, 0));
}

// Steps count up and may wrap around.
bool reached(unsigned value, unsigned step) {
  return static_cast<int>(value - step) >= 0;
}

// A half, and the lengths behind it.
std::size_t half_stride(int size) {
  constexpr std::size_t kLine = 64;
  return kHalfBytes + (size * sizeof(std::size_t) + kLine - 1) / kLine * kLine;
}

// What the part [begin, begin + size) of a stream and its piece [at, at + kHalfBytes) have in common: where that stands
// in either, and its length.
struct Overlap {
  std::size_t in_part = 0;
  std::size_t in_piece = 0;
  std::size_t size = 0;
};

Overlap overlap(std::size_t begin, std::size_t size, std::size_t at) {
  const std::size_t first = std::max(begin, at), last = std::min(begin + size, at + kHalfBytes);
  return first < last ? Overlap{first - begin, first - at, last - first} : Overlap{};
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
  return size * (sizeof(Header) + 2 * half_stride(size));
}

SharedComm::SharedComm(int rank, int size, std::byte* memory, double timeout_seconds, std::function<void()> on_destroy)
    : rank_(rank),
      size_(size),
      memory_(memory),
      timeout_seconds_(timeout_seconds),
      on_destroy_(std::move(on_destroy)),
      stream_begin_(size) {
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
  return memory_ + size_ * sizeof(Header) + (2 * rank + step_ % 2) * half_stride(size_);
}

std::size_t* SharedComm::lengths(int rank) const {
  return reinterpret_cast<std::size_t*>(half(rank) + kHalfBytes);
}

void SharedComm::publish(Flag& flag) {
  flag.step.store(step_);  // sequentially consistent with the look at sleepers: see wait()
  if (flag.sleepers.load() > 0) futex(flag.step, FUTEX_WAKE, 1 << 30, nullptr);
}

void SharedComm::wait(Flag& flag, unsigned step, int peer) {
  const auto ready = [&] { return reached(flag.step.load(std::memory_order_acquire), step); };
  if (ready()) return;
  const auto start = std::chrono::steady_clock::now();
  wait_until(ready, flag, step, peer);
  waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <typename Ready>
void SharedComm::wait_until(const Ready& ready, Flag& flag, unsigned step, int peer) {
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
  wait_for_all(&Header::written);
  ++step_;
}

void SharedComm::broadcast(std::vector<std::int32_t>& message) {
  const Call call(*this, counters_->broadcast);
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
      stream_copy(words + 1, message.data() + done, piece * sizeof(std::int32_t));
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
  if (rank_ == 0) {
    counters_->broadcast.messages += size_ - 1;
    counters_->broadcast.bytes += (size_ - 1) * message.size() * sizeof(std::int32_t);
  }
}

void SharedComm::ordered_sum(const SumPlan& plan, float* terms, std::size_t count) {
  const Call call(*this, counters_->sum);
  FOE_CHECK(plan.ranks() == size_, "a plan for {} ranks on {}", plan.ranks(), size_);
  plan.reduce_own(rank_, terms, count);
  const std::size_t piece =
      kHalfBytes / sizeof(float) / (plan.max_partials() + 1);  // partials, and the slice of the sum
  for (std::size_t at = 0; at < count; at += piece) sum_piece(plan, terms + at, count, std::min(piece, count - at));
}

void SharedComm::sum_piece(const SumPlan& plan, float* terms, std::size_t stride, std::size_t count) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  const int own = plan.partials(rank_);
  enter();
  auto* mine = reinterpret_cast<float*>(half(rank_));
  for (int i = 0; i < own; ++i) stream_copy(mine + i * count, terms + i * stride, count * sizeof(float));
  publish(headers[rank_].written);
  wait_for_all(&Header::written);

  // Rank r's slice of the sum is [begin(r), begin(r + 1)): all of it for a small one.
  const bool sliced = sums_in_slices(size_, count);
  const auto begin = [&](int r) { return count * r / size_; };
  const std::size_t first = sliced ? begin(rank_) : 0;
  const std::size_t size = sliced ? begin(rank_ + 1) - first : count;
  partials_.clear();
  for (int peer = 0; peer < size_; ++peer)
    for (int i = 0; i < plan.partials(peer); ++i)
      partials_.push_back(
          (peer == rank_ ? terms + i * stride : reinterpret_cast<const float*>(half(peer)) + i * count) + first);
  plan.reduce_partials(partials_, size, terms + first);
  counters_->sum.messages += size_ - 1;
  if (!sliced) {
    counters_->sum.bytes += (size_ - 1) * own * count * sizeof(float);
    return;
  }

  stream_copy(mine + plan.max_partials() * count, terms + first, size * sizeof(float));
  publish(headers[rank_].reduced);
  wait_for_all(&Header::reduced);
  for (int peer = 0; peer < size_; ++peer) {
    const float* from = reinterpret_cast<const float*>(half(peer)) + plan.max_partials() * count;
    if (peer != rank_) std::copy_n(from, begin(peer + 1) - begin(peer), terms + begin(peer));
  }
  counters_->sum.messages += size_ - 1;
  counters_->sum.bytes += ((count - size) * own + size * (size_ - 1)) * sizeof(float);
}

void SharedComm::gather(std::span<const float> send, std::span<const std::size_t> counts, float* out) {
  const Call call(*this, counters_->gather);
  Header* headers = reinterpret_cast<Header*>(memory_);
  FOE_CHECK(send.size() == counts[rank_], "{} floats, announced {}", send.size(), counts[rank_]);
  constexpr std::size_t kPiece = kHalfBytes / sizeof(float);
  const std::size_t longest = *std::max_element(counts.begin(), counts.end());
  for (std::size_t at = 0; at < longest; at += kPiece) {
    enter();
    const auto piece = [&](int rank) { return at < counts[rank] ? std::min(kPiece, counts[rank] - at) : 0; };
    if (rank_ != 0 && piece(rank_) > 0) stream_copy(half(rank_), send.data() + at, piece(rank_) * sizeof(float));
    publish(headers[rank_].written);
    if (rank_ != 0) continue;
    wait_for_all(&Header::written);
    float* to = out;
    for (int peer = 0; peer < size_; to += counts[peer++])
      if (piece(peer) > 0)
        std::copy_n(peer == 0 ? send.data() + at : reinterpret_cast<const float*>(half(peer)), piece(peer), to + at);
  }
  if (rank_ != 0) {
    ++counters_->gather.messages;
    counters_->gather.bytes += send.size_bytes();
  }
}

// A rank's messages to the others make one stream, from the next rank's on and around to the previous one's: so that
// long ones do not all go to rank 0 first, which would read alone. All streams pass through the halves in step, until
// the longest has ended.
void SharedComm::all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                            std::span<std::byte> receive, std::span<std::size_t> receive_bytes) {
  const Call call(*this, counters_->all_to_all);
  Header* headers = reinterpret_cast<Header*>(memory_);
  begin_all_to_all(send, send_bytes, receive_bytes);
  receive_bytes[rank_] = send_bytes[rank_];
  std::size_t longest = 0;
  for (std::size_t at = 0; at == 0 || at < longest; at += kHalfBytes) {
    enter();
    write_piece(send, send_bytes, at);
    if (at == 0) std::copy(send_bytes.begin(), send_bytes.end(), lengths(rank_));
    publish(headers[rank_].written);
    if (at == 0) {
      wait_for_all(&Header::written);
      longest = read_lengths(receive_bytes);
      const std::size_t total = std::accumulate(receive_bytes.begin(), receive_bytes.end(), std::size_t{0});
      FOE_CHECK(total <= receive.size(), "{} bytes to receive, room for {}", total, receive.size());
    }
    read_piece(receive.data(), receive_bytes, at);
  }
  const auto before = [&](std::span<const std::size_t> bytes) {
    return std::accumulate(bytes.begin(), bytes.begin() + rank_, std::size_t{0});
  };
  std::copy_n(send.data() + before(send_bytes), send_bytes[rank_], receive.data() + before(receive_bytes));
}

// Puts this rank's stream from `at` on into its half, as much as fits.
void SharedComm::write_piece(std::span<const std::byte> send, std::span<const std::size_t> send_bytes, std::size_t at) {
  const std::size_t before = std::accumulate(send_bytes.begin(), send_bytes.begin() + rank_, std::size_t{0});
  const auto head = send.subspan(before + send_bytes[rank_]), tail = send.first(before);
  const auto copy = [&](std::span<const std::byte> part, std::size_t begin) {
    const Overlap o = overlap(begin, part.size(), at);
    stream_copy(half(rank_) + o.in_piece, part.data() + o.in_part, o.size);
  };
  copy(head, 0);
  copy(tail, head.size());
}

// Notes how long the messages to this rank are and where each begins in its sender's stream. Returns the length of the
// longest stream.
std::size_t SharedComm::read_lengths(std::span<std::size_t> receive_bytes) {
  std::size_t longest = 0;
  for (int peer = 0; peer < size_; ++peer) {
    std::size_t stream = 0;
    for (int i = 1; i < size_; ++i) {
      const int receiver = (peer + i) % size_;
      if (receiver == rank_) stream_begin_[peer] = stream;
      stream += lengths(peer)[receiver];
    }
    longest = std::max(longest, stream);
    receive_bytes[peer] = lengths(peer)[rank_];
  }
  return longest;
}

// Takes what the others' pieces from `at` on hold for this rank.
void SharedComm::read_piece(std::byte* receive, std::span<const std::size_t> receive_bytes, std::size_t at) {
  Header* headers = reinterpret_cast<Header*>(memory_);
  for (int peer = 0; peer < size_; receive += receive_bytes[peer++]) {
    if (peer == rank_) continue;
    const Overlap o = overlap(stream_begin_[peer], receive_bytes[peer], at);
    if (o.size == 0) continue;
    wait(headers[peer].written, step_, peer);
    std::copy_n(half(peer) + o.in_piece, o.size, receive + o.in_part);
  }
}

}  // namespace foe

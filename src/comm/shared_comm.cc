#include "comm/shared_comm.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <time.h>
#include <unistd.h>

#include <linux/futex.h>
#include <sys/syscall.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/stream_copy.h"
#include "base/thread_pool.h"
#include "comm/rank_lost.h"

namespace foe {
namespace {

int futex(std::atomic<unsigned>& word, int operation, unsigned value, const timespec* timeout) {
  return static_cast<int>(
      syscall(SYS_futex, reinterpret_cast<unsigned*>(&word), operation, value, timeout, nullptr, 0));
}

// Compares the numbers of two collectives, which count up and may wrap around.
bool reached(unsigned value, unsigned step) {
  return static_cast<int>(value - step) >= 0;
}

// How often a rank looks for its peer before it sleeps. If each has a core of its own, the peer arrives meanwhile:
// about 30 microseconds. A peer without one needs this core, or that of another process. A sleeper is woken at once,
// while with sched_yield() it would stay behind a process that computes until that one has used up its time: some
// milliseconds.
int spins(int ranks) {
  return ranks <= sysconf(_SC_NPROCESSORS_ONLN) ? 3000 : 100;
}

// Bytes of a half and of the lengths after it.
std::size_t half_stride(int size) {
  constexpr std::size_t kLine = 64;
  return kHalfBytes + (size * sizeof(std::size_t) + kLine - 1) / kLine * kLine;
}

// The overlap of the part [begin, begin + size) of a stream with its piece [at, at + kHalfBytes): its offset in either,
// and its length.
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

std::size_t SharedComm::memory_bytes(int size) {
  return size * (sizeof(Header) + 2 * half_stride(size));
}

void SharedComm::clear(std::byte* memory, int size) {
  // What ranks send is written before it is read: touching those pages here would only take time.
  std::memset(memory, 0, size * sizeof(Header));
}

SharedComm::SharedComm(int rank, std::vector<int> nodes, std::byte* memory, double timeout_seconds,
                       std::function<void()> on_destroy)
    : Communicator(rank, std::move(nodes)),
      memory_(memory),
      on_destroy_(std::move(on_destroy)),
      spins_(spins(size_)),
      terms_(size_),
      stream_begin_(size_) {
  static_assert(std::atomic<unsigned>::is_always_lock_free);
  set_timeout(timeout_seconds);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  FOE_CHECK(address % alignof(Header) == 0, "memory at {:#x}", address);
}

SharedComm::~SharedComm() {
  Header& mine = header(rank_);
  mine.gone.store(1);
  futex(mine.written, FUTEX_WAKE, 1 << 30, nullptr);
  if (on_destroy_) on_destroy_();
}

SharedComm::Header& SharedComm::header(int rank) const {
  return reinterpret_cast<Header*>(memory_)[rank];
}

std::byte* SharedComm::half(int rank) const {
  return memory_ + size_ * sizeof(Header) + (2 * rank + step_ % 2) * half_stride(size_);
}

std::size_t* SharedComm::lengths(int rank) const {
  return reinterpret_cast<std::size_t*>(half(rank) + kHalfBytes);
}

void SharedComm::publish() {
  Header& mine = header(rank_);
  mine.written.store(step_);  // sequentially consistent with the look at sleepers: see wait_until()
  if (mine.sleepers.load() > 0) futex(mine.written, FUTEX_WAKE, 1 << 30, nullptr);
}

void SharedComm::wait(int peer) {
  Header& theirs = header(peer);
  const auto ready = [&] { return reached(theirs.written.load(std::memory_order_acquire), step_); };
  if (ready()) return;
  const auto start = Clock::now();
  wait_until(ready, theirs, peer);
  counters_->waited_s += seconds_since(start);
}

template <typename Ready>
void SharedComm::wait_until(const Ready& ready, Header& theirs, int peer) {
  if (spin_until(ready, spins_)) return;
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout());
  const timespec nap{0, 100'000'000}, short_nap{0, 50'000};
  theirs.sleepers.fetch_add(1);
  for (unsigned seen; !reached(seen = theirs.written.load(), step_);) {
    const bool gone = theirs.gone.load() != 0 && !ready();
    if (gone || Clock::now() > deadline) {
      theirs.sleepers.fetch_sub(1);
      if (gone) throw_gone(peer);
      throw_silent(peer);
    }
    const bool pushes = counters_->push_messages && counters_->push_messages();
    futex(theirs.written, FUTEX_WAIT, seen, pushes ? &short_nap : &nap);
  }
  theirs.sleepers.fetch_sub(1);
}

void SharedComm::throw_gone(int peer) const {
  throw RankLost(fmt::format("rank {} in {}: rank {} left the job", rank_, counters_->collective, peer));
}

void SharedComm::throw_silent(int peer) const {
  throw RankLost(
      fmt::format("rank {} in {}: heard nothing from rank {} for {} s: it died, hangs, or needs a longer --timeout",
                  rank_, counters_->collective, peer, timeout()));
}

void SharedComm::wait_for_all() {
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) wait(peer);
}

void SharedComm::enter() {
  wait_for_all();
  ++step_;
}

void SharedComm::do_broadcast(std::vector<std::int32_t>& message) {
  // The first word says how many words are still to come. The other ranks read a piece while rank 0 writes the next
  // one.
  constexpr std::size_t kWords = (std::size_t{1} << 17) / sizeof(std::int32_t) - 1;
  std::size_t done = 0;
  for (std::size_t left = message.size(), piece = 0;; done += piece, left -= piece) {
    enter();
    auto* words = reinterpret_cast<std::int32_t*>(half(0));
    if (rank_ == 0) {
      piece = std::min(left, kWords);
      words[0] = static_cast<std::int32_t>(left);
      stream_copy(words + 1, message.data() + done, piece * sizeof(std::int32_t));
      publish();
    } else {
      publish();
      wait(0);
      left = static_cast<std::size_t>(words[0]);
      piece = std::min(left, kWords);
      message.resize(done + piece);
      std::copy_n(words + 1, piece, message.data() + done);
    }
    if (left == piece) break;
  }
  for (int peer = 1; rank_ == 0 && peer < size_; ++peer)
    count_message(counters_->broadcast, peer, message.size() * sizeof(std::int32_t));
}

void SharedComm::do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) {
  const std::size_t longest = *std::max_element(bytes.begin(), bytes.end());
  for (std::size_t at = 0; at < longest; at += kHalfBytes) {
    enter();
    const auto piece = [&](int rank) { return at < bytes[rank] ? std::min(kHalfBytes, bytes[rank] - at) : 0; };
    if (rank_ != 0 && piece(rank_) > 0) stream_copy(half(rank_), send.data() + at, piece(rank_));
    publish();
    if (rank_ != 0) continue;
    wait_for_all();
    std::byte* to = out;
    for (int peer = 0; peer < size_; to += bytes[peer++])
      if (piece(peer) > 0) std::copy_n(peer == 0 ? send.data() + at : half(peer), piece(peer), to + at);
  }
}

// A rank's messages to the others make one stream, which begins with the message to the next rank and goes around to
// that to the previous rank. If all began with the message to rank 0, only rank 0 would read at first. All streams pass
// through the halves in step, until the longest has ended.
void SharedComm::do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                               std::span<std::byte> receive, std::span<std::size_t> receive_bytes) {
  receive_bytes[rank_] = send_bytes[rank_];
  std::size_t longest = 0;
  for (std::size_t at = 0; at == 0 || at < longest; at += kHalfBytes) {
    enter();
    write_piece(send, send_bytes, at);
    if (at == 0) std::copy(send_bytes.begin(), send_bytes.end(), lengths(rank_));
    publish();
    if (at == 0) {
      wait_for_all();
      longest = read_lengths(receive_bytes);
      check_room(receive_bytes, receive.size());
    }
    read_piece(receive.data(), receive_bytes, at);
  }
  const auto before = [&](std::span<const std::size_t> bytes) {
    return std::accumulate(bytes.begin(), bytes.begin() + rank_, std::size_t{0});
  };
  std::copy_n(send.data() + before(send_bytes), send_bytes[rank_], receive.data() + before(receive_bytes));
}

// Copies as much of this rank's stream, from `at` on, into its half as fits.
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

// Reads what the other ranks' pieces from `at` on hold for this rank.
void SharedComm::read_piece(std::byte* receive, std::span<const std::size_t> receive_bytes, std::size_t at) {
  for (int peer = 0; peer < size_; receive += receive_bytes[peer++]) {
    if (peer == rank_) continue;
    const Overlap o = overlap(stream_begin_[peer], receive_bytes[peer], at);
    if (o.size == 0) continue;
    wait(peer);
    std::copy_n(half(peer) + o.in_piece, o.size, receive + o.in_part);
  }
}

}  // namespace foe

#include "comm/communicator.h"

#include <algorithm>
#include <numeric>

#include "base/aligned.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"

namespace foe {

// Counts a call, and the time until the end of its scope.
class Communicator::Call {
 public:
  Call(Counters& counters, CommCounter& counter, const char* collective)
      : counters_(counters), counter_(counter), start_(Clock::now()), waited_before_(counters.waited_s) {
    ++counter_.calls;
    counters.collective = collective;
  }
  ~Call() {
    counter_.seconds += seconds_since(start_);
    counter_.waiting_s += counters_.waited_s - waited_before_;
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  const Counters& counters_;
  CommCounter& counter_;
  Clock::time_point start_;
  double waited_before_;
};

Communicator::Communicator(int rank, std::vector<int> nodes)
    : rank_(rank), size_(static_cast<int>(nodes.size())), nodes_(std::move(nodes)) {
  FOE_CHECK(0 <= rank_ && rank_ < size_, "rank {} of {}", rank_, size_);
}

std::unique_ptr<Communicator> Communicator::split(int color, int key) {
  struct Choice {
    int color, key, rank;
  };
  const CommCounters before = *counters_;
  const auto ranks = static_cast<std::size_t>(size());
  const std::vector<Choice> mine(ranks, Choice{color, key, rank()});
  std::vector<Choice> all(ranks);
  const std::vector<std::size_t> sent(ranks, sizeof(Choice));
  std::vector<std::size_t> received(ranks);
  all_to_all(std::as_bytes(std::span(mine)), sent, std::as_writable_bytes(std::span(all)), received);
  restore_counters(before);
  std::erase_if(all, [&](const Choice& c) { return c.color != color; });
  std::stable_sort(all.begin(), all.end(), [](const Choice& a, const Choice& b) { return a.key < b.key; });
  std::vector<int> part_ranks;
  for (const Choice& c : all) part_ranks.push_back(c.rank);
  std::unique_ptr<Communicator> part = make_part(part_ranks, color);
  if (color < 0) return nullptr;
  part->counters_ = counters_;
  part->count_levels();
  return part;
}

void Communicator::count_levels() {
  for (Communicator* level : levels()) {
    if (!level) continue;
    level->counters_ = counters_;
    level->count_levels();
  }
}

void Communicator::broadcast(std::vector<std::int32_t>& message) {
  const Call call(*counters_, counters_->broadcast, "a broadcast");
  do_broadcast(message);
}

void Communicator::ordered_sum(const SumPlan& plan, float* terms, std::size_t count, Wire wire) {
  FOE_CHECK(plan.ranks() == size(), "a plan for {} ranks on {}", plan.ranks(), size());
  plan.reduce_own(rank_, terms, count);
  sum_partials(plan, terms, count, wire);
}

void Communicator::sum_partials(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  const Call call(*counters_, counters_->sum, "a sum");
  FOE_CHECK(plan.ranks() == size(), "a plan for {} ranks on {}", plan.ranks(), size());
  if (count > 0 && size() > 1) do_sum(plan, partials, count, wire);
}

TermBuffer Communicator::allocate_terms(std::size_t floats) {
  counters_->collective = "an allocation";
  return do_allocate_terms(floats);
}

TermBuffer Communicator::do_allocate_terms(std::size_t floats) {
  const auto owner = std::make_shared<AlignedBuffer<float>>(floats);
  return {{owner, owner->data()}, floats};
}

void Communicator::gather(std::span<const float> send, std::span<const std::size_t> counts, float* out, Wire wire) {
  const Call call(*counters_, counters_->gather, "a gather");
  FOE_CHECK(counts.size() == nodes_.size() && send.size() == counts[rank_], "{} floats, announced {}", send.size(),
            counts[rank_]);
  if (size() == 1) wire = Wire::kF32;
  gather_lengths_.clear();
  for (const std::size_t n : counts) gather_lengths_.push_back(wire_bytes(wire, n));
  if (wire == Wire::kF32)
    return count_and_gather(std::as_bytes(send), gather_lengths_, reinterpret_cast<std::byte*>(out));
  gather_.resize(gather_lengths_[rank_]);
  encode(wire, send.data(), send.size(), gather_.data());
  if (rank_ == 0) gathered_.resize(std::accumulate(gather_lengths_.begin(), gather_lengths_.end(), std::size_t{0}));
  count_and_gather(gather_, gather_lengths_, gathered_.data());
  if (rank_ != 0) return;
  const std::byte* from = gathered_.data();
  for (const std::size_t n : counts) {
    decode(wire, from, n, out);
    from += wire_bytes(wire, n);
    out += n;
  }
}

void Communicator::gather_bytes(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) {
  const Call call(*counters_, counters_->gather, "a gather");
  FOE_CHECK(bytes.size() == nodes_.size() && send.size() == bytes[rank_], "{} bytes, announced {}", send.size(),
            bytes[rank_]);
  count_and_gather(send, bytes, out);
}

void Communicator::count_and_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes,
                                    std::byte* out) {
  if (rank_ != 0) count_message(counters_->gather, 0, bytes[rank_]);
  do_gather(send, bytes, out);
}

void Communicator::all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                              std::span<std::byte> receive, std::span<std::size_t> receive_bytes) {
  const Call call(*counters_, counters_->all_to_all, "an all-to-all");
  check_lengths(send, send_bytes, receive_bytes);
  for (int peer = 0; peer < size(); ++peer)
    if (peer != rank_) count_message(counters_->all_to_all, peer, send_bytes[peer]);
  do_all_to_all(send, send_bytes, receive, receive_bytes);
}

void Communicator::check_lengths(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                                 std::span<const std::size_t> receive_bytes) const {
  FOE_CHECK(send_bytes.size() == nodes_.size() && receive_bytes.size() == nodes_.size(),
            "{} and {} lengths for {} ranks", send_bytes.size(), receive_bytes.size(), size());
  const std::size_t announced = std::accumulate(send_bytes.begin(), send_bytes.end(), std::size_t{0});
  FOE_CHECK(send.size() == announced, "{} bytes, announced {}", send.size(), announced);
}

void Communicator::send(int peer, std::vector<std::byte> message) {
  const Call call(*counters_, counters_->send, "a message");
  FOE_CHECK(0 <= peer && peer < size_ && peer != rank_, "a message from rank {} to {} of {}", rank_, peer, size_);
  count_message(counters_->send, peer, message.size());
  do_send(peer, std::move(message));
}

void Communicator::receive(int peer, std::size_t bytes, std::vector<std::byte>& message) {
  const Call call(*counters_, counters_->send, "a message");
  FOE_CHECK(0 <= peer && peer < size_ && peer != rank_, "a message from rank {} to {} of {}", peer, rank_, size_);
  do_receive(peer, bytes, message);
}

void Communicator::refuse_message(int peer, std::size_t bytes, std::size_t got) const {
  fail("rank {}: expected a message of {} bytes from rank {}, got one of {}", rank_, bytes, peer, got);
}

void Communicator::check_room(std::span<const std::size_t> receive_bytes, std::size_t room) const {
  std::size_t left = room;
  for (std::size_t peer = 0; peer < receive_bytes.size(); left -= receive_bytes[peer++])
    if (receive_bytes[peer] > left)
      fail("rank {} in an all-to-all: rank {} sends {} bytes, expected at most {}, of {} from all ranks", rank_, peer,
           receive_bytes[peer], left, room);
}

void Communicator::count_message(CommCounter& counter, int peer, std::size_t bytes) const {
  ++counter.messages;
  counter.bytes += bytes;
  if (nodes_[peer] != nodes_[rank_]) counter.node_bytes += bytes;
}

void meet(Communicator& comm) {
  const float here = 0;
  std::vector<float> all(comm.size());
  comm.gather({&here, 1}, std::vector<std::size_t>(comm.size(), 1), all.data());
  std::vector<std::int32_t> go;
  comm.broadcast(go);
}

}  // namespace foe

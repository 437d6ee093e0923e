// Sums of ranks that share memory: over copies in slots, or in place.
#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "base/stream_copy.h"
#include "comm/shared_comm.h"

namespace foe {
namespace {

// Returns how many floats of each of `vectors` vectors fit into a half together, a multiple of kWireBlock.
std::size_t floats_in_half(Wire wire, int vectors) {
  const std::size_t blocks = kHalfBytes / std::max(1, vectors) / wire_bytes(wire, kWireBlock);
  FOE_CHECK(blocks > 0, "{} vectors in {} bytes", vectors, kHalfBytes);
  return blocks * kWireBlock;
}

}  // namespace

TermBuffer SharedComm::do_allocate_terms(std::size_t floats) {
  std::erase_if(allocations_, [](const Allocation& old) { return old.memory.expired(); });
  const std::shared_ptr<TermMemory> memory = TermMemory::make(*this, floats);
  if (!memory) return Communicator::do_allocate_terms(floats);
  allocations_.push_back({++allocated_, memory});
  return {{memory, memory->of(rank_)}, floats};
}

SharedComm::Held SharedComm::held(const float* x, Wire wire) const {
  if (wire == Wire::kF32)
    for (const Allocation& allocation : allocations_)
      if (std::shared_ptr<const TermMemory> memory = allocation.memory.lock())
        if (const auto place = memory->place(x)) return {std::move(memory), allocation.number, *place};
  return {};
}

// Tells the other ranks where this rank's terms are, and reads where theirs are.
void SharedComm::open_terms(const SumPlan& plan, const Held& own, std::size_t count) {
  enter();
  Header& mine = header(rank_);
  mine.opened = step_;
  mine.allocation = own.allocation;
  mine.place = own.place;
  publish();
  wait_for_all();
  for (int peer = 0; peer < size_; ++peer) {
    const Header& theirs = header(peer);
    const std::size_t floats = count * std::max(1, plan.partials(peer));
    if (theirs.opened != step_ || theirs.allocation != own.allocation)
      fail("rank {} in a sum: expected terms in allocation {}, got rank {}'s elsewhere", rank_, own.allocation, peer);
    if (!own.memory->has(peer, theirs.place, floats))
      fail("rank {} in a sum: expected {} floats in rank {}'s terms, got fewer at {}", rank_, floats, peer,
           theirs.place);
    terms_[peer] = own.memory->of(peer) + theirs.place;
  }
}

// Writes the plan's sums of the elements [begin, begin + n) of everyone's partials, vectors of `count` floats.
void SharedComm::add_terms(const SumPlan& plan, std::size_t count, std::size_t begin, std::size_t n, float* sums,
                           std::size_t stride) {
  sum_.clear();
  for (int peer = 0; peer < size_; ++peer)
    for (int i = 0; i < plan.partials(peer); ++i)
      sum_.add(reinterpret_cast<const std::byte*>(terms_[peer] + i * count + begin));
  sum_.reduce(plan, Wire::kF32, n, sums, stride);
}

// Writes the elements [begin, begin + n) of the sum into the other ranks' memory.
void SharedComm::spread(const float* sum, std::size_t begin, std::size_t n) {
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) std::copy_n(sum, n, terms_[peer] + begin);
}

// Waits until all ranks have written their slices. Afterwards this rank's terms hold the sum, and this rank must not
// use the other ranks' terms.
void SharedComm::close_terms() {
  enter();
  publish();
  wait_for_all();
}

void SharedComm::sum_in_place(const SumPlan& plan, const Held& own, std::size_t count) {
  constexpr std::size_t kBlock = 1024;  // floats, which are written to the others from the first-level cache
  const Slices slices{count, size_};
  open_terms(plan, own, count);
  for (std::size_t at = slices.begin(rank_), end = slices.begin(rank_ + 1); at < end; at += kBlock) {
    const std::size_t n = std::min(kBlock, end - at);
    add_terms(plan, count, at, n, terms_[rank_] + at, 0);
    spread(terms_[rank_] + at, at, n);
  }
  close_terms();
}

void SharedComm::write(Wire wire, const float* x, std::size_t n, std::byte* to) {
  if (wire == Wire::kF32) return stream_copy(to, x, n * sizeof(float));
  encoded_.resize(wire_bytes(wire, n));
  encode(wire, x, n, encoded_.data());
  stream_copy(to, encoded_.data(), encoded_.size());
}

void SharedComm::do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  const Slices slices{count, size_};
  const bool in_slices = sums_in_slices(size_, count);
  if (const Held own = held(partials, wire); own.memory) {
    sum_in_place(plan, own, count);
  } else if (in_slices) {
    reduce_copies(plan, partials, slices, wire, partials + slices.begin(rank_));
    gather_copies(partials, slices, wire);
  } else {
    sum_whole(plan, partials, count, wire);
  }
  if (in_slices) {
    count_scatter(plan, slices, wire);
    count_gather(slices, wire);
    return;
  }
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) count_message(counters_->sum, peer, plan.partials(rank_) * wire_bytes(wire, count));
}

void SharedComm::reduce_scatter(const SumPlan& plan, const float* partials, const Slices& slices, Wire wire,
                                float* sums) {
  if (const Held own = held(partials, wire); own.memory) {
    open_terms(plan, own, slices.count);
    if (rank_ < slices.parts)
      add_terms(plan, slices.count, slices.begin(rank_), slices.size(rank_), sums, slices.size(rank_));
  } else {
    reduce_copies(plan, partials, slices, wire, sums);
  }
  count_scatter(plan, slices, wire);
}

void SharedComm::all_gather(float* x, const Slices& slices, Wire wire) {
  if (held(x, wire).memory) {
    if (rank_ < slices.parts) spread(x + slices.begin(rank_), slices.begin(rank_), slices.size(rank_));
    close_terms();
  } else {
    gather_copies(x, slices, wire);
  }
  count_gather(slices, wire);
}

void SharedComm::count_scatter(const SumPlan& plan, const Slices& slices, Wire wire) {
  for (int peer = 0; peer < slices.parts; ++peer)
    if (peer != rank_) count_message(counters_->sum, peer, plan.partials(rank_) * wire_bytes(wire, slices.size(peer)));
}

void SharedComm::count_gather(const Slices& slices, Wire wire) {
  for (int peer = 0; rank_ < slices.parts && peer < size_; ++peer)
    if (peer != rank_) count_message(counters_->sum, peer, wire_bytes(wire, slices.size(rank_)));
}

// Every rank reads all partials and adds them in the plan's order.
void SharedComm::sum_whole(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  const int own = plan.partials(rank_);
  const std::size_t piece = floats_in_half(wire, plan.max_partials());
  for (std::size_t at = 0; at < count; at += piece) {
    const std::size_t n = std::min(piece, count - at), bytes = wire_bytes(wire, n);
    enter();
    for (int i = 0; i < own; ++i) write(wire, partials + i * count + at, n, half(rank_) + i * bytes);
    publish();
    wait_for_all();
    sum_.clear();
    for (int peer = 0; peer < size_; ++peer)
      for (int i = 0; i < plan.partials(peer); ++i)
        sum_.add(peer == rank_ && wire == Wire::kF32 ? reinterpret_cast<const std::byte*>(partials + i * count + at)
                                                     : half(peer) + i * bytes);
    sum_.reduce(plan, wire, n, partials + at);
  }
}

void SharedComm::reduce_copies(const SumPlan& plan, const float* partials, const Slices& slices, Wire wire,
                               float* sums) {
  const int own = plan.partials(rank_);
  const bool have_slice = rank_ < slices.parts;
  const std::size_t most = floats_in_half(wire, slices.parts * plan.max_partials());
  const std::size_t longest = slices.longest(), room = wire_bytes(wire, std::min(most, longest));
  for (std::size_t at = 0; at < longest; at += most) {
    // A piece is the same part of every slice.
    const auto piece = [&](int slice) {
      const std::size_t size = slices.size(slice);
      return at < size ? std::min(most, size - at) : 0;
    };
    // The offset of the i-th partial of a slice in the half of a rank that has so many partials.
    const auto place = [&](int slice, int i, int of) { return (slice * of + i) * room; };
    enter();
    for (int slice = 0; slice < slices.parts; ++slice)
      for (int i = 0; i < own; ++i)
        if (slice != rank_ || wire != Wire::kF32)
          write(wire, partials + i * slices.count + slices.begin(slice) + at, piece(slice),
                half(rank_) + place(slice, i, own));
    publish();
    if (!have_slice || piece(rank_) == 0) continue;
    wait_for_all();
    sum_.clear();
    for (int peer = 0; peer < size_; ++peer)
      for (int i = 0; i < plan.partials(peer); ++i)
        sum_.add(peer == rank_ && wire == Wire::kF32
                     ? reinterpret_cast<const std::byte*>(partials + i * slices.count + slices.begin(rank_) + at)
                     : half(peer) + place(rank_, i, plan.partials(peer)));
    sum_.reduce(plan, wire, piece(rank_), sums + at, slices.size(rank_));
  }
}

void SharedComm::gather_copies(float* x, const Slices& slices, Wire wire) {
  const std::size_t most = floats_in_half(wire, 1), longest = slices.longest();
  for (std::size_t at = 0; at < longest; at += most) {
    const auto piece = [&](int slice) {
      const std::size_t size = slices.size(slice);
      return at < size ? std::min(most, size - at) : 0;
    };
    enter();
    if (rank_ < slices.parts) write(wire, x + slices.begin(rank_) + at, piece(rank_), half(rank_));
    publish();
    for (int slice = 0; slice < slices.parts; ++slice) {
      if (slice == rank_ && wire == Wire::kF32) continue;
      wait(slice);
      decode(wire, half(slice), piece(slice), x + slices.begin(slice) + at);
    }
  }
}

}  // namespace foe

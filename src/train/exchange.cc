#include "train/exchange.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "kernels/rows/rows.h"

namespace foe::train {
namespace {

SumPlan plan_of(int shards, int ranks) {
  if (ranks > shards)
    fail(
        "train.shards: expected at least one shard for each of the {} ranks, got {}; start at most {} ranks, or begin a"
        " run with more shards",
        ranks, shards, shards);
  std::vector<int> begin;
  for (int r = 0; r <= ranks; ++r) begin.push_back(static_cast<int>(std::int64_t{shards} * r / ranks));
  return SumPlan(std::move(begin));
}

}  // namespace

double tree_sum(std::span<const double> terms) {
  if (terms.size() < 2) return terms.empty() ? 0 : terms[0];
  const std::size_t left = std::bit_floor(terms.size() - 1);
  return tree_sum(terms.first(left)) + tree_sum(terms.subspan(left));
}

Exchange::Exchange(const Layout& layout, int shards, Communicator& comm)
    : comm_(comm),
      parts_(layout, comm.size()),
      plan_(plan_of(shards, comm.size())),
      send_bytes_(comm.size()),
      receive_bytes_(comm.size()),
      arrived_(Stages::count(layout.dims.layers)) {
  for (const Piece& piece : parts_.pieces())
    if (piece.owner == rank()) own_pieces_.push_back(piece);
  if (ranks() == 1) return;
  std::size_t own = 0;
  for (const Bucket& bucket : parts_.buckets()) own = std::max(own, parts_.floats(bucket, rank()));
  send_ = AlignedBuffer<float>(parts_.largest() * std::max(plan_.partials(rank()), ranks()));
  receive_ = AlignedBuffer<float>(std::max(own * plan_.total_partials(), parts_.largest()));
  background_.emplace(comm);
}

Exchange::~Exchange() {
  if (background_) background_->drop();
}

void Exchange::begin(std::span<AlignedBuffer<float>> gradients) {
  FOE_CHECK(static_cast<int>(gradients.size()) == shards().size(), "{} arrays of {} shards", gradients.size(),
            shards().size());
  gradients_ = gradients;
  std::fill(arrived_.begin(), arrived_.end(), 0);
}

// A shard completes its stages in order, so the buckets of a stage are not started before those of an earlier one.
void Exchange::arrive(int stage) {
  if (!background_) return;
  const std::lock_guard lock(mutex_);
  if (++arrived_[stage] < shards().size()) return;
  for (const Bucket& bucket : parts_.buckets())
    if (bucket.stage == stage) tickets_.push_back(background_->start([this, &bucket] { sum_over_ranks(bucket); }));
}

void Exchange::finish(ThreadPool& pool) {
  if (!background_)
    return pool.parallel_for(parts_.pieces().size(), [this](std::size_t i) { add_own(parts_.pieces()[i]); });
  const std::vector<Background::Ticket> tickets = std::exchange(tickets_, {});
  for (const Background::Ticket ticket : tickets) background_->finish(ticket);
}

// Adds this rank's shards to its partial sums, each in the array of its first term.
void Exchange::add_own(const Piece& piece) const {
  for (int i = 0; i < plan_.partials(rank()); ++i) {
    const SumPlan::Partial own = plan_.partial(rank(), i);
    const auto term = [&](int index) { return gradients_[own.first + index].data() + piece.offset; };
    for (const Merge& merge : own.merges) add_to(term(merge.into), term(merge.from), piece.size);
  }
}

// A message has one piece after the other, and of each piece all partial sums of the sender.
void Exchange::sum_over_ranks(const Bucket& bucket) {
  float* to = send_.data();
  for (int r = 0; r < ranks(); ++r) {
    const float* const first = to;
    for (const Piece& piece : parts_.pieces_of(bucket, r)) {
      add_own(piece);
      for (int i = 0; i < plan_.partials(rank()); ++i, to += piece.size)
        std::copy_n(gradients_[plan_.partial(rank(), i).first].data() + piece.offset, piece.size, to);
    }
    send_bytes_[r] = (to - first) * sizeof(float);
  }
  comm_.all_to_all(std::as_bytes(std::span(send_.data(), to)), send_bytes_, std::as_writable_bytes(receive_.span()),
                   receive_bytes_);
  const std::size_t own = parts_.floats(bucket, rank());
  std::vector<const float*> partials(plan_.total_partials());
  std::size_t at = 0;
  for (const Piece& piece : parts_.pieces_of(bucket, rank())) {
    for (int r = 0; r < ranks(); ++r)
      for (int i = 0; i < plan_.partials(r); ++i) {
        const int index = plan_.first_partial(r) + i;
        partials[index] = receive_.data() + own * plan_.first_partial(r) + at * plan_.partials(r) + i * piece.size;
      }
    plan_.reduce_partials(partials, piece.size, gradients_[0].data() + piece.offset);
    at += piece.size;
  }
}

// For each bucket, sends the pieces of the owners sent(from, to) from each rank to each: they are read from `source`
// and written to `target`, which give the place of a piece.
template <typename Sent, typename Source, typename Target>
void Exchange::move(const Sent& sent, const Source& source, const Target& target) {
  for (const Bucket& bucket : parts_.buckets()) {
    const auto pieces = [&](const Range& owners) {
      const int first = bucket.begin[owners.begin];
      return parts_.pieces().subspan(first, bucket.begin[owners.end] - first);
    };
    float* to = send_.data();
    for (int r = 0; r < ranks(); ++r) {
      const float* const first = to;
      for (const Piece& piece : pieces(sent(rank(), r))) to = std::copy_n(source(piece), piece.size, to);
      send_bytes_[r] = (to - first) * sizeof(float);
    }
    comm_.all_to_all(std::as_bytes(std::span(send_.data(), to)), send_bytes_, std::as_writable_bytes(receive_.span()),
                     receive_bytes_);
    const float* from = receive_.data();
    for (int r = 0; r < ranks(); ++r)
      for (const Piece& piece : pieces(sent(r, rank()))) {
        std::copy_n(from, piece.size, target(piece));
        from += piece.size;
      }
  }
}

void Exchange::share_params(float* params) {
  if (ranks() == 1) return;
  const auto at = [params](const Piece& piece) { return params + piece.offset; };
  move([](int from, int) { return Range{from, from + 1}; }, at, at);
}

void Exchange::spread_params(float* params) {
  if (ranks() == 1) return;
  const auto at = [params](const Piece& piece) { return params + piece.offset; };
  move([this](int from, int) { return Range{0, from == 0 ? ranks() : 0}; }, at, at);
}

void Exchange::gather_moments(const float* own, float* all) {
  move(
      [](int from, int to) {
        return Range{from, to == 0 ? from + 1 : from};
      },
      [own](const Piece& piece) { return own + piece.moment; },
      [all](const Piece& piece) { return all + piece.offset; });
}

void Exchange::scatter_moments(const float* all, float* own) {
  move(
      [](int from, int to) {
        return Range{to, from == 0 ? to + 1 : to};
      },
      [all](const Piece& piece) { return all + piece.offset; },
      [own](const Piece& piece) { return own + piece.moment; });
}

std::vector<double> Exchange::all_of(std::span<const double> own, std::span<const std::size_t> counts) {
  std::vector<double> send, all(std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
  for (int r = 0; r < ranks(); ++r) send.insert(send.end(), own.begin(), own.end());
  std::fill(send_bytes_.begin(), send_bytes_.end(), own.size_bytes());
  comm_.all_to_all(std::as_bytes(std::span(send)), send_bytes_, std::as_writable_bytes(std::span(all)), receive_bytes_);
  return all;
}

std::vector<double> Exchange::all_of_shards(std::span<const double> own) {
  const std::size_t each = own.size() / shards().size();
  std::vector<std::size_t> counts;
  for (int r = 0; r < ranks(); ++r) counts.push_back((plan_.begin()[r + 1] - plan_.begin()[r]) * each);
  return all_of(own, counts);
}

std::vector<double> Exchange::all_of_pieces(std::span<const double> own) {
  std::vector<std::size_t> counts(ranks());
  for (const Piece& piece : parts_.pieces()) ++counts[piece.owner];
  const std::vector<double> by_rank = all_of(own, counts);
  std::vector<std::size_t> next(ranks());
  std::partial_sum(counts.begin(), counts.end() - 1, next.begin() + 1);
  std::vector<double> all;
  for (const Piece& piece : parts_.pieces()) all.push_back(by_rank[next[piece.owner]++]);
  return all;
}

int Exchange::from_lead(int number) {
  std::vector<std::int32_t> message{number};
  comm_.broadcast(message);
  return message.at(0);
}

void Exchange::gather_shards(std::span<const std::byte> own, std::span<std::byte> all) {
  std::vector<std::size_t> bytes;
  const std::size_t each = own.size() / shards().size();
  for (int r = 0; r < ranks(); ++r) bytes.push_back((plan_.begin()[r + 1] - plan_.begin()[r]) * each);
  comm_.gather(own, bytes, all.data());
}

}  // namespace foe::train

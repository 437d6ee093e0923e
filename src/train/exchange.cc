#include "train/exchange.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/rows/rows.h"

namespace foe::train {

Exchange::Exchange(const Layout& layout, const Split& split, Communicator& comm)
    : comm_(comm),
      split_(split),
      parts_(layout, split),
      send_bytes_(comm.size()),
      receive_bytes_(comm.size()),
      arrived_(Stages::count(layout.dims.layers)) {
  for (const Piece& piece : parts_.pieces())
    if (piece.owner == rank()) own_pieces_.push_back(piece);
  if (ranks() == 1) return;
  reserve();
  if (split.group_ranks() == 1) background_.emplace(comm);
}

// The most that a bucket takes: of gradients, or of what move() sends of it.
void Exchange::reserve() {
  std::size_t most_sent = parts_.largest() * ranks(), most_received = parts_.largest();
  for (const Bucket& bucket : parts_.buckets()) {
    std::size_t sent = 0, received = 0;
    for (const Piece& piece : parts_.pieces_of(bucket)) {
      sent += terms_of(piece, rank()).partials() * piece.size;
      for (int r = 0; piece.owner == rank() && r < ranks(); ++r) received += terms_of(piece, r).partials() * piece.size;
    }
    most_sent = std::max(most_sent, sent);
    most_received = std::max(most_received, received);
  }
  send_ = AlignedBuffer<float>(most_sent);
  receive_ = AlignedBuffer<float>(most_received);
}

Exchange::Terms Exchange::terms_of(const Piece& piece, int of_rank) const {
  if (piece.ends) return {split_.over_ends(), of_rank, split_.ends(of_rank).begin - split_.shards(of_rank).begin};
  return {split_.over_sets(), split_.place_of(of_rank) == piece.place ? split_.set_of(of_rank) : -1, 0};
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
  pool.parallel_for(own_pieces_.size(), [this](std::size_t i) {
    if (stays(own_pieces_[i])) add_own(own_pieces_[i]);
  });
  if (!background_)
    for (const Bucket& bucket : parts_.buckets()) sum_over_ranks(bucket);
  const std::vector<Background::Ticket> tickets = std::exchange(tickets_, {});
  for (const Background::Ticket ticket : tickets) background_->finish(ticket);
}

// Adds this rank's shards to its partial sums, each in the array of its first term.
void Exchange::add_own(const Piece& piece) const {
  const Terms terms = terms_of(piece, rank());
  for (int i = 0; i < terms.partials(); ++i) {
    const SumPlan::Partial own = terms.plan.partial(terms.rank, i);
    const auto term = [&](int index) { return gradients_[terms.first + own.first + index].data() + piece.offset; };
    for (const Merge& merge : own.merges) add_to(term(merge.into), term(merge.from), piece.size);
  }
}

// A message has one piece after the other, and of each piece all partial sums of the sender.
void Exchange::sum_over_ranks(const Bucket& bucket) {
  const std::span<const Piece> all = parts_.pieces_of(bucket);
  if (std::all_of(all.begin(), all.end(), [this](const Piece& piece) { return stays(piece); })) return;
  float* to = send_.data();
  for (int r = 0; r < ranks(); ++r) {
    const float* const first = to;
    for (const Piece& piece : parts_.pieces_of(bucket, r)) {
      if (stays(piece)) continue;
      add_own(piece);
      const Terms terms = terms_of(piece, rank());
      for (int i = 0; i < terms.partials(); ++i, to += piece.size)
        std::copy_n(gradients_[terms.first + terms.plan.partial(terms.rank, i).first].data() + piece.offset, piece.size,
                    to);
    }
    send_bytes_[r] = (to - first) * sizeof(float);
  }
  comm_.all_to_all(std::as_bytes(std::span(send_.data(), to)), send_bytes_, std::as_writable_bytes(receive_.span()),
                   receive_bytes_);
  std::vector<const float*> next{receive_.data()};  // what comes next of each sender
  std::vector<const float*> partials;
  for (int r = 0; r < ranks(); ++r) next.push_back(next[r] + receive_bytes_[r] / sizeof(float));
  for (const Piece& piece : parts_.pieces_of(bucket, rank())) {
    if (stays(piece)) continue;
    partials.clear();
    for (int r = 0; r < ranks(); ++r)
      for (int i = terms_of(piece, r).partials(); i > 0; --i, next[r] += piece.size) partials.push_back(next[r]);
    terms_of(piece, rank()).plan.reduce_partials(partials, piece.size, gradients_[0].data() + piece.offset);
  }
}

// For each bucket, sends the pieces for which sent(piece, from, to) from each rank to each: they are read from `source`
// and written to `target`, which give the place of a piece.
template <typename Sent, typename Source, typename Target>
void Exchange::move(const Sent& sent, const Source& source, const Target& target) {
  for (const Bucket& bucket : parts_.buckets()) {
    const std::span<const Piece> pieces = parts_.pieces_of(bucket);
    const auto travels = [&](const Piece& piece) {
      for (int r = 0; r < ranks() * ranks(); ++r)
        if (sent(piece, r / ranks(), r % ranks())) return true;
      return false;
    };
    if (std::none_of(pieces.begin(), pieces.end(), travels)) continue;
    float* to = send_.data();
    for (int r = 0; r < ranks(); ++r) {
      const float* const first = to;
      for (const Piece& piece : pieces)
        if (sent(piece, rank(), r)) to = std::copy_n(source(piece), piece.size, to);
      send_bytes_[r] = (to - first) * sizeof(float);
    }
    comm_.all_to_all(std::as_bytes(std::span(send_.data(), to)), send_bytes_, std::as_writable_bytes(receive_.span()),
                     receive_bytes_);
    const float* from = receive_.data();
    for (int r = 0; r < ranks(); ++r)
      for (const Piece& piece : pieces)
        if (sent(piece, r, rank())) {
          std::copy_n(from, piece.size, target(piece));
          from += piece.size;
        }
  }
}

void Exchange::share_params(float* params) {
  if (ranks() == 1) return;
  const auto at = [params](const Piece& piece) { return params + piece.offset; };
  move([this](const Piece& piece, int from, int to) { return from == piece.owner && to != from && has(piece, to); }, at,
       at);
}

void Exchange::spread_params(float* params) {
  if (ranks() == 1) return;
  const auto at = [params](const Piece& piece) { return params + piece.offset; };
  move([this](const Piece& piece, int from, int to) { return from == 0 && to != 0 && has(piece, to); }, at, at);
}

void Exchange::gather_params(float* params) {
  if (ranks() == 1) return;
  const auto at = [params](const Piece& piece) { return params + piece.offset; };
  move([this](const Piece& piece, int from, int to) { return from == piece.owner && to == 0 && !has(piece, 0); }, at,
       at);
}

void Exchange::gather_moments(const float* own, float* all) {
  move([](const Piece& piece, int from, int to) { return from == piece.owner && to == 0; },
       [own](const Piece& piece) { return own + piece.moment; },
       [all](const Piece& piece) { return all + piece.offset; });
}

void Exchange::scatter_moments(const float* all, float* own) {
  move([](const Piece& piece, int from, int to) { return from == 0 && to == piece.owner; },
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

std::vector<double> Exchange::all_of_shards(std::span<const double> own, std::size_t each) {
  std::vector<std::size_t> counts;
  for (int r = 0; r < ranks(); ++r) counts.push_back(split_.ends(r).size() * each);
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

void Exchange::gather_shards(std::span<const std::byte> own, std::size_t each, std::span<std::byte> all) {
  std::vector<std::size_t> bytes;
  for (int r = 0; r < ranks(); ++r) bytes.push_back(split_.ends(r).size() * each);
  comm_.gather(own, bytes, all.data());
}

}  // namespace foe::train

#include "model/token_head.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/rows/rows.h"
#include "model/step.h"

namespace foe {
namespace {

// Which member has which of the batch's sampled rows: of those that are scored and, in state_places(), of those whose
// states are wanted. Either are counted by themselves.
class SampledRows {
 public:
  SampledRows(const Model& model, const Batch& batch, const Activations& a) {
    const RowsByMember by = rows_by_member(model, batch, a);
    constexpr std::int32_t kNotSampled = kWantsState - 1;
    std::vector<std::int32_t> wanted(batch.num_tokens(), kNotSampled), place(batch.num_tokens());
    int scored = 0, states = 0;
    for (int i = 0; i < batch.num_sampled(); ++i) {
      const std::int32_t row = batch.sampled_rows[i];
      wanted[row] = batch.candidates[i];
      place[row] = wanted[row] == kWantsState ? states++ : scored++;
      if (wanted[row] != kWantsState) whole_before_.push_back(whole_before_.back() + (wanted[row] == 0));
    }
    for (int member = 0; member < model.placement.members; ++member) {
      for (int i = by.begin[member]; i < by.begin[member + 1]; ++i) {
        const std::int32_t row = by.rows[i];
        if (wanted[row] == kNotSampled) continue;
        if (wanted[row] == kWantsState) {
          state_order_.push_back(place[row]);
          continue;
        }
        order_.push_back(place[row]);
        wanted_.push_back(wanted[row]);
      }
      begin_.push_back(static_cast<int>(order_.size()));
      state_begin_.push_back(static_cast<int>(state_order_.size()));
    }
  }

  // Returns, for each row of a member, how many candidates it wants from each rank (which has fewer if its part of the
  // vocabulary has fewer tokens); 0: all logits.
  std::span<const std::int32_t> wanted(int member) const { return of_member(wanted_, begin_, member); }
  // Returns the places of a member's rows among all rows of the batch that are scored, or whose states are wanted.
  std::span<const std::int32_t> places(int member) const { return of_member(order_, begin_, member); }
  std::span<const std::int32_t> state_places(int member) const { return of_member(state_order_, state_begin_, member); }
  std::size_t whole(int member) const {
    const auto rows = wanted(member);
    return std::count(rows.begin(), rows.end(), 0);
  }
  // Returns how many of the rows before this place are wanted whole.
  std::size_t whole_before(int place) const { return whole_before_[place]; }
  std::size_t all_whole() const { return whole_before_.back(); }
  int count() const { return begin_.back(); }
  // Whether the rows of all members, one member after the other, are those of the batch.
  bool in_order() const { return std::ranges::is_sorted(order_); }
  std::size_t candidates(const Share& share) const {
    std::size_t sum = 0;
    for (const int n : wanted(share.member)) sum += std::min(n, share.vocab.size());
    return sum;
  }

 private:
  static std::span<const std::int32_t> of_member(const std::vector<std::int32_t>& rows, const std::vector<int>& begin,
                                                 int member) {
    return std::span(rows).subspan(begin[member], begin[member + 1] - begin[member]);
  }

  std::vector<std::int32_t> order_, wanted_, state_order_;  // member after member
  std::vector<int> begin_ = {0}, state_begin_ = {0};        // by member
  std::vector<std::size_t> whole_before_ = {0};
};

// Finds the candidates that are wanted of this rank's logits, and moves the rows that are wanted whole to the front.
void select(const Model& model, std::span<const std::int32_t> wanted, Activations& a, ThreadPool& pool) {
  const Range vocab = model.share().vocab;
  const std::size_t v = vocab.size();
  const auto row = [&](std::size_t i) { return std::span(a.head.logits_Sv.data() + i * v, v); };
  std::vector<std::size_t> begin(wanted.size() + 1);
  for (std::size_t i = 0; i < wanted.size(); ++i) begin[i + 1] = begin[i] + std::min(wanted[i], vocab.size());
  a.head.candidates.resize(begin.back());
  pool.parallel_for(wanted.size(), [&](std::size_t i) {
    if (wanted[i] == 0) return;
    std::vector<Candidate> found;
    append_most_likely(row(i), wanted[i], vocab.begin, found);
    std::copy(found.begin(), found.end(), a.head.candidates.begin() + begin[i]);
  });
  for (std::size_t i = 0, to = 0; i < wanted.size(); ++i)
    if (wanted[i] == 0) std::ranges::copy(row(i), row(to++).begin());
}

// Sends so many bytes of each rank to rank 0: a gather by messages, whose senders do not wait.
void gather_messages(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out,
                     Communicator& comm) {
  if (comm.rank() != 0) {
    if (!send.empty()) comm.send(0, {send.begin(), send.end()});
    return;
  }
  std::vector<std::byte> message;
  for (int rank = 1; rank < comm.size(); out += bytes[rank++]) {
    if (bytes[rank] == 0) continue;
    comm.receive(rank, bytes[rank], message);
    std::ranges::copy(message, out);
  }
}

// The same of floats in the encoding of the wire.
void gather_floats(std::span<const float> send, std::span<const std::size_t> counts, float* out, Wire wire,
                   Communicator& comm) {
  std::vector<std::size_t> bytes;
  for (const std::size_t n : counts) bytes.push_back(wire_bytes(wire, n));
  std::vector<std::byte> own(bytes[comm.rank()]);
  std::vector<std::byte> all(comm.rank() == 0 ? std::accumulate(bytes.begin(), bytes.end(), std::size_t{0}) : 0);
  encode(wire, send.data(), send.size(), own.data());
  gather_messages(own, bytes, all.data(), comm);
  if (comm.rank() != 0) return;
  const std::byte* from = all.data();
  for (std::size_t rank = 0; rank < counts.size(); from += bytes[rank], out += counts[rank++])
    decode(wire, from, counts[rank], out);
}

// Collective. Rank 0 receives the rows that are wanted whole, puts the ranks' parts of them side by side, and returns
// them.
std::span<const float> gather_whole(const Model& model, const SampledRows& rows, Activations& a, RankGrid& grid) {
  const Placement& placement = model.placement;
  const std::size_t V = model.config.vocab_size;
  std::vector<std::size_t> counts;
  for (const Share& share : placement.ranks) counts.push_back(rows.whole(share.member) * share.vocab.size());
  const std::span<const float> own(a.head.logits_Sv.data(), counts[model.rank]);
  if (placement.stages > 1)
    gather_floats(own, counts, a.head.gathered.data(), a.wire, grid.messages());
  else
    grid.world().gather(own, counts, a.head.gathered.data(), a.wire);
  if (model.rank != 0) return {};
  if (placement.group_ranks() == 1 && rows.in_order()) return {a.head.gathered.data(), rows.all_whole() * V};
  const float* block = a.head.gathered.data();
  for (const Share& share : placement.ranks) {
    const std::span<const std::int32_t> wanted = rows.wanted(share.member), places = rows.places(share.member);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] != 0) continue;
      std::copy(block, block + share.vocab.size(),
                a.head.logits_SV.data() + rows.whole_before(places[i]) * V + share.vocab.begin);
      block += share.vocab.size();
    }
  }
  return {a.head.logits_SV.data(), rows.all_whole() * V};
}

// Writes where, on rank 0, the candidates of each row begin, and at the end their number.
void count_candidates(const Placement& placement, const SampledRows& rows, std::vector<std::int32_t>& begin) {
  begin.assign(rows.count() + 1, 0);
  for (const Share& share : placement.ranks)
    for (auto place = rows.places(share.member).begin(); const int wanted : rows.wanted(share.member))
      begin[*place++ + 1] += std::min(wanted, share.vocab.size());
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
}

// Collective. Rank 0 receives all candidates, and puts the ranks' candidates of each row side by side.
void gather_candidates(const Model& model, const SampledRows& rows, Activations& a, RankGrid& grid) {
  const Placement& placement = model.placement;
  std::vector<std::size_t> counts;
  for (const Share& share : placement.ranks) counts.push_back(rows.candidates(share));
  if (model.rank == 0) a.head.gathered_candidates.resize(a.head.candidates_begin.back());
  if (placement.stages > 1) {
    for (std::size_t& n : counts) n *= sizeof(Candidate);
    gather_messages(std::as_bytes(std::span(a.head.candidates)), counts,
                    std::as_writable_bytes(std::span(a.head.gathered_candidates)).data(), grid.messages());
  } else {
    grid.world().gather(a.head.candidates, counts, a.head.gathered_candidates.data());
  }
  if (model.rank != 0) return;
  a.head.candidates.resize(a.head.gathered_candidates.size());
  std::vector<std::int32_t> end = a.head.candidates_begin;  // where the candidates end that a row has so far
  const Candidate* from = a.head.gathered_candidates.data();
  for (const Share& share : placement.ranks)
    for (auto place = rows.places(share.member).begin(); const int wanted : rows.wanted(share.member)) {
      const int n = std::min(wanted, share.vocab.size());
      std::copy(from, from + n, a.head.candidates.begin() + end[*place]);
      from += n;
      end[*place++] += n;
    }
}

// Collective. Rank 0 receives the states of all members. A member's states are the same on each rank of the last stage
// that has its rows: the first of these sends them.
std::span<const float> gather_states(const Model& model, const SampledRows& rows, Activations& a, RankGrid& grid) {
  const Placement& placement = model.placement;
  const std::size_t D = model.config.hidden_size;
  std::vector<std::size_t> counts;
  std::vector<bool> sent(placement.members);
  for (const Share& share : placement.ranks) {
    const bool sends = !share.idle() && share.stage == placement.stages - 1 && !sent[share.member];
    if (sends) sent[share.member] = true;
    counts.push_back(sends ? rows.state_places(share.member).size() * D : 0);
  }
  const std::span<const float> own(a.head.states.data(), counts[model.rank]);
  std::vector<float> all(model.rank == 0 ? std::accumulate(counts.begin(), counts.end(), std::size_t{0}) : 0);
  if (placement.stages > 1)
    gather_floats(own, counts, all.data(), Wire::kF32, grid.messages());
  else
    grid.world().gather(own, counts, all.data());
  if (model.rank != 0) return {};
  a.head.gathered_states.resize(all.size());
  const float* from = all.data();
  for (std::size_t rank = 0; rank < counts.size(); ++rank) {
    if (counts[rank] == 0) continue;
    for (const std::int32_t place : rows.state_places(placement.ranks[rank].member)) {
      std::copy(from, from + D, a.head.gathered_states.data() + place * D);
      from += D;
    }
  }
  return a.head.gathered_states;
}

}  // namespace

void finish_logits(const Model& model, ThreadPool& pool, int rows, float* logits_Sv) {
  const auto factor = static_cast<float>(model.config.logit_factor);
  const auto cap = static_cast<float>(model.config.logit_softcap);
  if (factor == 1 && cap == 0) return;
  const int v = model.share().vocab.size();
  pool.parallel_for(rows, [&](std::size_t row) { scale_and_cap(logits_Sv + row * v, v, factor, cap); });
}

Logits gather_logits(const Model& model, const Batch& batch, Activations& a, ThreadPool& pool, RankGrid& grid) {
  const Placement& placement = model.placement;
  const SampledRows rows(model, batch, a);
  const std::size_t whole = rows.all_whole();
  const bool alone = placement.ranks.size() == 1;
  select(model, rows.wanted(model.share().member), a, pool);
  if (model.rank == 0) count_candidates(placement, rows, a.head.candidates_begin);
  std::span<const float> whole_SV(a.head.logits_Sv.data(), alone ? whole * model.config.vocab_size : 0);
  if (!alone && whole > 0) whole_SV = gather_whole(model, rows, a, grid);
  if (!alone && whole < static_cast<std::size_t>(rows.count())) gather_candidates(model, rows, a, grid);
  std::span<const float> states = a.head.states;
  if (!alone && batch.num_states() > 0) states = gather_states(model, rows, a, grid);
  if (model.rank != 0) return {};
  return {whole_SV, a.head.candidates, a.head.candidates_begin, states};
}

}  // namespace foe

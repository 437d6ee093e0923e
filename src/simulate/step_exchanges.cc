#include <algorithm>
#include <functional>
#include <numeric>

#include "base/rng.h"
#include "costs/wire_cost.h"
#include "kernels/rows/candidates.h"
#include "simulate/step_simulator.h"

namespace foe {
namespace {

// Adds what a rank has sent in one call.
void count(CommCounter& counter, const SumTraffic& sent) {
  counter.messages += sent.messages;
  counter.bytes += sent.bytes;
  counter.node_bytes += sent.node_bytes;
}

std::vector<int> nodes_of(const std::vector<int>& nodes, const std::vector<int>& ranks) {
  std::vector<int> of_ranks;
  for (const int rank : ranks) of_ranks.push_back(nodes[rank]);
  return of_ranks;
}

}  // namespace

std::size_t StepSimulator::SumHash::operator()(const SumKey& key) const {
  const std::uint64_t begin = std::hash<const void*>()(key.begin);
  return random_bits(random_bits(begin, key.first_rank), key.count * 4 + static_cast<std::uint64_t>(key.wire));
}

const std::vector<SumTraffic>& StepSimulator::traffic_of(const std::vector<int>& ranks, const std::vector<int>& begin,
                                                         std::size_t count, Wire wire) {
  constexpr std::size_t kMostKept = 1 << 14;
  if (sums_.size() >= kMostKept) sums_.clear();
  const auto [found, is_new] = sums_.try_emplace({&begin, ranks.front(), count, wire});
  if (is_new) {
    const SumPlan plan(begin);
    const std::vector<int> nodes = nodes_of(model_.nodes, ranks);
    for (int place = 0; place < static_cast<int>(ranks.size()); ++place)
      found->second.push_back(sum_traffic(plan, nodes, place, count, wire));
  }
  return found->second;
}

// A rank that waits for an exchange is in it from then on.
void StepSimulator::pass_time(int rank, double begin, double end, CommCounter& counter) {
  const double waiting = std::max(0.0, begin - clock_[rank]);
  const double moving = std::max(0.0, end - clock_[rank] - waiting);
  clock_[rank] += waiting + moving;
  seconds_[rank].waiting += waiting;
  seconds_[rank].moving += moving;
  counter.seconds += waiting + moving;
  counter.waiting_s += waiting;
}

// The other ranks wait for rank 0, which goes on at once.
void StepSimulator::broadcast(const Batch& batch) {
  const int ranks = static_cast<int>(clock_.size());
  if (ranks == 1) return;
  const std::size_t words = 1 + encoded_words(batch);  // the first word is the engine's
  const double begin = clock_[0], bytes = static_cast<double>(words * sizeof(std::int32_t));
  const auto way = [&](const LinkSpeed& link) { return link.latency_s + link.message_s + bytes / link.bytes_per_s; };
  const bool far = std::ranges::any_of(model_.nodes, [](int node) { return node != 0; });
  const double first = begin + cluster_.broadcast_s + (far ? way(cluster_.network) : 0);
  for (int rank = 0; rank < ranks; ++rank) {
    CommCounter& counter = sent_[rank].broadcast;
    ++counter.calls;
    count(counter, broadcast_traffic(model_.nodes, rank, words, model_.threads));
    const double end = first + way(cluster_.node);
    if (rank == 0)
      pass_time(0, begin, begin + cluster_.broadcast_s, counter);
    else
      pass_time(rank, std::min(begin, end), end, counter);
  }
}

void StepSimulator::start_exchange(const Stage& stage, const StepStage& step, Part& part) {
  const std::size_t D = model_.config.hidden_size;
  switch (exchange_of(model_.config, model_.placement, step)) {
    case StageExchange::kNone:
      return;
    case StageExchange::kAttentionSum:
      return start_sum(stage, model_.placement.attention_begin, model_.exchange.wire, D, part);
    case StageExchange::kExpertSum:
      return start_sum(stage, *expert_terms_[step.layer], model_.exchange.wire, D, part);
    case StageExchange::kKeys:
    case StageExchange::kDispatch:
    case StageExchange::kReturn:
      return start_all_to_all(stage, step, part);
  }
}

void StepSimulator::start_sum(const Stage& stage, const std::vector<int>& begin, Wire wire, std::size_t floats_of_row,
                              Part& part) {
  std::vector<ExchangeForm> forms;
  for (const std::vector<int>& ranks : stage.sums) {
    const int member = model_.placement.ranks[ranks.front()].member;
    const std::size_t floats = part.rows(member) * floats_of_row;
    const std::vector<SumTraffic>& sent = traffic_of(ranks, begin, floats, wire);
    const std::vector<int> nodes = nodes_of(model_.nodes, ranks);
    for (std::size_t place = 0; place < ranks.size(); ++place) {
      CommCounter& counter = sent_[ranks[place]].sum;
      ++counter.calls;
      count(counter, sent[place]);
      flows_[ranks[place]] = floats == 0 ? Flow{} : sum_flow(cluster_.sum_algorithm, sent[place], nodes, floats, wire);
    }
    forms.push_back(sum_form(cluster_.sum_algorithm, nodes, floats));
  }
  start(stage.sums, forms, cluster_.sum_s, &CommCounters::sum, part);
}

void StepSimulator::start_all_to_all(const Stage& stage, const StepStage& step, Part& part) {
  const StageExchange what = exchange_of(model_.config, model_.placement, step);
  std::vector<ExchangeForm> forms;
  for (const std::vector<int>& ranks : stage.members) {
    for (const int rank : ranks) {
      Flow flow{.messages = static_cast<double>(ranks.size() - 1)};
      if (what == StageExchange::kKeys) {
        const std::size_t row_bytes =
            kv_shape(model_.config, model_.placement.ranks[rank], model_.kv_type).position_wire_bytes();
        const auto bytes = [&](int r) {
          return static_cast<double>(part.tokens[model_.placement.ranks[r].member] * row_bytes);
        };
        for (const int peer : ranks) {
          if (peer == rank) continue;
          const int level = model_.nodes[peer] != model_.nodes[rank] ? 1 : 0;
          flow.out[level] += bytes(rank);
          flow.in[level] += bytes(peer);
        }
      } else {
        const bool dispatches = what == StageExchange::kDispatch;
        const Units& units = (dispatches ? part.counts.rows : part.counts.sums)[rank];
        const auto unit =
            static_cast<double>(dispatches ? dispatched_row_bytes(model_.config, step.layer, model_.exchange)
                                           : wire_bytes(model_.exchange.wire, model_.config.hidden_size));
        for (const int level : {0, 1}) {
          flow.out[level] = static_cast<double>(units.out[level]) * unit;
          flow.in[level] = static_cast<double>(units.in[level]) * unit;
        }
      }
      CommCounter& counter = sent_[rank].all_to_all;
      ++counter.calls;
      count(counter, {ranks.size() - 1, static_cast<std::uint64_t>(flow.out[0] + flow.out[1]),
                      static_cast<std::uint64_t>(flow.out[1])});
      flows_[rank] = flow;
    }
    forms.push_back(all_to_all_form(nodes_of(model_.nodes, ranks)));
  }
  start(stage.members, forms, cluster_.all_to_all_s, &CommCounters::all_to_all, part);
}

void StepSimulator::start(std::span<const std::vector<int>> groups, std::span<const ExchangeForm> forms, double call_s,
                          CommCounter CommCounters::*counter, Part& part) {
  part.pending = {
      .counter = counter, .groups = groups, .seconds = exchange_seconds(cluster_, model_.nodes, groups, forms, flows_)};
  for (double& seconds : part.pending.seconds) seconds += call_s;
  if (!model_.exchange.overlap) return;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    double begin = 0;
    for (const int rank : groups[g]) begin = std::max({begin, clock_[rank], exchange_clock_[rank]});
    part.pending.end.push_back(begin + part.pending.seconds[g]);
    for (const int rank : groups[g]) exchange_clock_[rank] = part.pending.end.back();
  }
}

// If an exchange went on beside arithmetic, only what is left of it takes time.
void StepSimulator::finish_exchange(Part& part) {
  const Exchange& exchange = part.pending;
  if (!exchange.counter) return;
  for (std::size_t g = 0; g < exchange.groups.size(); ++g) {
    double begin = 0;
    for (const int rank : exchange.groups[g]) begin = std::max(begin, clock_[rank]);
    const double end = exchange.end.empty() ? begin + exchange.seconds[g] : exchange.end[g];
    if (!exchange.end.empty()) begin = end - exchange.seconds[g];
    for (const int rank : exchange.groups[g]) pass_time(rank, begin, end, sent_[rank].*exchange.counter);
  }
  part.pending = {};
}

// Returns when the message has come.
double StepSimulator::send(int from, int to, std::uint64_t bytes) {
  const bool network = model_.nodes[from] != model_.nodes[to];
  CommCounter& counter = sent_[from].send;
  ++counter.calls;
  count(counter, {1, bytes, network ? bytes : 0});
  pass_time(from, clock_[from], clock_[from] + cluster_.message_s, counter);
  port_free_[from] =
      std::max(port_free_[from], clock_[from]) + message_seconds(cluster_, network, static_cast<double>(bytes));
  return port_free_[from] + (network ? cluster_.network : cluster_.node).latency_s;
}

void StepSimulator::receive_rows(const Stage& stage, std::span<const Part> halves) {
  if (&stage == &stages_.front()) return;
  for (const int rank : stage.ranks)
    for (std::size_t i = 0; i < halves.size(); ++i) {
      ++sent_[rank].send.calls;
      pass_time(rank, arrival_[rank], arrival_[rank] + cluster_.message_s, sent_[rank].send);
    }
}

void StepSimulator::pass_rows(const Stage& stage, std::span<const Part> halves) {
  if (&stage == &stages_.back()) return;
  for (const int rank : stage.ranks) {
    const Share& share = model_.placement.ranks[rank];
    const int to = rank_of_stage(model_.placement, rank, 1);
    const auto vectors = static_cast<std::uint64_t>(passed_vectors(model_.config, share, share.stage_layers.end));
    for (const Part& part : halves) {
      const std::size_t floats = static_cast<std::size_t>(part.rows(share.member)) * model_.config.hidden_size;
      arrival_[to] = send(rank, to, vectors * wire_bytes(model_.exchange.wire, floats));
    }
  }
}

// Rank 0 gets whole rows of logits, and then candidates, as far as there are any.
void StepSimulator::gather(const Batch& batch, std::span<const Part> parts, Flight& flight) {
  const Placement& placement = model_.placement;
  std::vector<std::size_t> whole(placement.members);
  std::vector<std::vector<std::int32_t>> wanted(placement.members);  // candidates of each row
  for (const Part& part : parts)
    for (const Piece& piece : part.pieces)
      for (auto row = std::ranges::lower_bound(batch.sampled_rows, piece.begin);
           row != batch.sampled_rows.end() && *row < piece.end; ++row) {
        const std::int32_t candidates = batch.candidates[row - batch.sampled_rows.begin()];
        if (candidates == 0)
          ++whole[piece.owner];
        else
          wanted[piece.owner].push_back(candidates);
      }
  const auto gather_all = [&](const auto& bytes_of) {
    std::vector<std::uint64_t> bytes;
    for (const Share& share : placement.ranks) bytes.push_back(bytes_of(share));
    gather_bytes(bytes, flight);
  };
  const std::size_t all_whole = std::accumulate(whole.begin(), whole.end(), std::size_t{0});
  if (all_whole > 0)
    gather_all([&](const Share& share) {
      return gathered_bytes(model_.exchange.wire, whole[share.member], share.vocab.size(), 0);
    });
  if (all_whole < batch.sampled_rows.size())
    gather_all([&](const Share& share) {
      std::uint64_t bytes = 0;
      for (const std::int32_t n : wanted[share.member])
        bytes += gathered_bytes(model_.exchange.wire, 1, share.vocab.size(), n);
      return bytes;
    });
}

void StepSimulator::gather_bytes(std::span<const std::uint64_t> bytes, Flight& flight) {
  const int ranks = static_cast<int>(bytes.size());
  if (model_.placement.stages > 1) {
    for (int rank = 1; rank < ranks; ++rank)
      if (bytes[rank] > 0) flight.messages.push_back(send(rank, 0, bytes[rank]));
    return;
  }
  double ready = clock_[0], moving = 0, latency = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    CommCounter& counter = sent_[rank].gather;
    ++counter.calls;
    if (rank == 0) continue;
    const bool network = model_.nodes[rank] != model_.nodes[0];
    count(counter, {1, bytes[rank], network ? bytes[rank] : 0});
    ready = std::max(ready, clock_[rank]);
    moving += message_seconds(cluster_, network, static_cast<double>(bytes[rank]));
    latency = std::max(latency, (network ? cluster_.network : cluster_.node).latency_s);
    pass_time(rank, clock_[rank], clock_[rank] + cluster_.gather_s, counter);
  }
  flight.gather_s = cluster_.gather_s + moving + latency;
  flight.gathers.push_back(ready + flight.gather_s);
}

}  // namespace foe

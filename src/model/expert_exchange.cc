#include "model/expert_exchange.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "kernels/rows/rows.h"

namespace foe {
namespace {

constexpr int kBlock = 16;  // rows per task

template <typename Body>
void for_each_row(ThreadPool& pool, int rows, Body&& body) {
  pool.parallel_for((rows + kBlock - 1) / kBlock, [&](std::size_t task) {
    const int begin = static_cast<int>(task) * kBlock, end = std::min(rows, begin + kBlock);
    for (int row = begin; row < end; ++row) body(row);
  });
}

// Sets the lengths of the next messages: counts[rank] units of `unit_bytes` to each rank.
void announce(ExpertExchange& x, std::size_t unit_bytes, const std::vector<std::size_t>& counts) {
  x.unit_bytes = unit_bytes;
  for (std::size_t r = 0; r < counts.size(); ++r) x.bytes_out[r] = counts[r] * unit_bytes;
}

// Counts the units that have come from each rank, which may be `most` in all, and decodes them.
void take_units(ExpertExchange& x, ThreadPool& pool, std::size_t most, std::vector<std::size_t>& counts) {
  for (std::size_t r = 0, left = most; r < counts.size(); left -= counts[r++]) {
    if (x.bytes_in[r] % x.unit_bytes != 0)
      fail("rank {} sent {} bytes, expected a multiple of {}", r, x.bytes_in[r], x.unit_bytes);
    counts[r] = x.bytes_in[r] / x.unit_bytes;
    if (counts[r] > left)
      fail("rank {} sent {} rows or sums, expected at most {}, of {} from all ranks", r, counts[r], left, most);
  }
  if (x.options.wire == Wire::kF32) {  // they are used where they are
    x.arrived = reinterpret_cast<const float*>(x.in.data());
    x.arrived_stride = x.unit_bytes / sizeof(float);
    return;
  }
  x.arrived = x.decoded.data();
  x.arrived_stride = x.hidden_size;
  const auto units = static_cast<int>(std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
  for_each_row(pool, units, [&](int i) {
    decode(x.options.wire, x.in.data() + i * x.unit_bytes, x.hidden_size, x.decoded.data() + i * x.arrived_stride);
  });
}

// Numbers the units of all entries, rank by rank: fills slot_J, and counts the units of each rank.
// `shared(previous, node)` says whether an entry has the same unit as the one before it.
template <typename Shared>
void number_units(ExpertExchange& x, const Routing& own, int tokens, std::vector<std::size_t>& counts,
                  const Shared& shared) {
  const LayerExchange& layer = x.current();
  const auto for_each_unit = [&](auto&& body) {
    for (int t = 0; t < tokens; ++t) {
      const Range entries = own.entries(t, layer.experts);
      for (int i = entries.begin, previous = -1; i < entries.end; ++i) {
        const int node = layer.node_of_E[own.experts_J[i]];
        body(i, layer.nodes[node].member, previous >= 0 && shared(previous, node));
        previous = node;
      }
    }
  };
  std::fill(counts.begin(), counts.end(), 0);
  for_each_unit([&](int, int rank, bool same) { counts[rank] += same ? 0 : 1; });
  std::vector<std::size_t>& next = x.bytes_out;  // used as scratch memory here; announce() sets it later
  std::exclusive_scan(counts.begin(), counts.end(), next.begin(), std::size_t{0});
  for_each_unit([&](int i, int rank, bool same) { x.slot_J[i] = same ? -1 : static_cast<std::int32_t>(next[rank]++); });
}

// Behind a row that travels: the experts of some entries and their weights, `most` each.
void write_entries(const Routing& own, Range entries, int most, std::byte* to) {
  const std::size_t count = entries.size(), weights = most * sizeof(std::int32_t);
  std::memcpy(to, own.experts_J.data() + entries.begin, count * sizeof(std::int32_t));
  std::memcpy(to + weights, own.weights_J.data() + entries.begin, count * sizeof(float));
  std::memset(to + count * sizeof(std::int32_t), 0xff, (most - count) * sizeof(std::int32_t));  // -1
  std::memset(to + weights + count * sizeof(float), 0, (most - count) * sizeof(float));
}

// Reads the experts and weights that came with the rows.
void read_entries(ExpertExchange& x) {
  Routing& r = x.routing;
  const LayerExchange& layer = x.current();
  const auto experts = static_cast<std::int32_t>(layer.node_of_E.size());
  for (int row = 0, at = 0; row < x.rows; ++row) {
    const std::byte* entry = x.in.data() + row * layer.row_bytes + wire_bytes(x.options.wire, x.hidden_size);
    const std::byte* weight = entry + layer.entries * sizeof(std::int32_t);
    r.begin_T[row] = at;
    for (int j = 0; j < layer.entries; ++j, entry += sizeof(std::int32_t), weight += sizeof(float)) {
      std::int32_t expert;
      std::memcpy(&expert, entry, sizeof expert);
      if (expert == -1 && j > 0) break;  // the rest is absent
      if (expert < (j > 0 ? r.experts_J[at - 1] + 1 : 0) || expert >= experts || layer.node_of_E[expert] < 0)
        fail("a row for expert {}: expected ascending ones of [{}, {})", expert, layer.nodes.front().experts.begin,
             layer.nodes.back().experts.end);
      r.experts_J[at] = expert;
      std::memcpy(&r.weights_J[at++], weight, sizeof(float));
    }
    r.begin_T[row + 1] = at;
  }
  if (x.rows == 0) r.begin_T[0] = 0;
}

// Calls body(node, partial) for each of this rank's nodes that row `row` has selected; `partial` counts them. Returns
// how many there are.
template <typename Body>
int for_each_partial(const ExpertExchange& x, int row, Body&& body) {
  int partials = 0;
  const LayerExchange& layer = x.current();
  const Range entries = x.routing.entries(row);
  for (int i = entries.begin, previous = -1; i < entries.end; ++i) {
    const int node = layer.node_of_E[x.routing.experts_J[i]];
    if (node == previous || layer.nodes[node].member != x.rank) continue;
    body(node, partials++);
    previous = node;
  }
  return partials;
}

// T: how many tokens all ranks have together, at most.
LayerExchange exchange_of_layer(const ModelConfig& config, int layer, std::span<const Range> members, int rank,
                                const ExchangeOptions& how, std::size_t T) {
  LayerExchange x{.table = expert_table(config, layer),
                  .row_bytes = dispatched_row_bytes(config, layer, how),
                  .entries = dispatched_entries(config, layer, how.dispatch),
                  .experts = {members.front().begin, members.back().end},
                  .own = members[rank]};
  x.nodes = expert_nodes(x.table, members, how.dispatch);
  x.node_of_E = node_of_each_expert(x.nodes, x.table.with_rows());
  const std::size_t k = dispatched_entries(config, layer, Dispatch::kPerRank);
  const bool per_rank = how.dispatch == Dispatch::kPerRank;
  const auto own_nodes =
      std::count_if(x.nodes.begin(), x.nodes.end(), [&](const ExpertNode& n) { return n.member == rank; });
  x.rows_out = T * (per_rank ? std::min(members.size(), k) : k);
  x.rows_in = T * (per_rank ? 1 : k);
  x.sums_out = T * std::min<std::size_t>(own_nodes, k);
  x.sums_in = T * std::min(x.nodes.size(), k);
  return x;
}

}  // namespace

ExpertExchange::ExpertExchange(const ModelConfig& config, std::span<const std::vector<Range>> members, int own_rank,
                               const ExchangeOptions& how, int max_tokens)
    : options(how), rank(own_rank), hidden_size(config.hidden_size), layers(config.num_layers()) {
  const std::size_t T = max_tokens, D = hidden_size, sum_bytes = wire_bytes(how.wire, D);
  for (int l = 0; l < config.num_layers(); ++l)
    if (!config.experts(l).dense()) layers[l] = exchange_of_layer(config, l, members[l], rank, how, T);
  const auto most = [this](const auto& of) {
    std::size_t largest = 0;
    for (const LayerExchange& x : layers) largest = std::max<std::size_t>(largest, of(x));
    return largest;
  };
  most_in = most([](const LayerExchange& x) { return x.rows_in; });
  sums_out = most([](const LayerExchange& x) { return x.sums_out; });
  sums_in = most([](const LayerExchange& x) { return x.sums_in; });
  const auto entries = static_cast<int>(most([](const LayerExchange& x) { return x.entries; }));
  const auto own_experts = static_cast<int>(most([](const LayerExchange& x) { return x.own.size(); }));
  routing = Routing(entries, own_experts, static_cast<int>(most_in));
  out = AlignedBuffer<std::byte>(
      most([&](const LayerExchange& x) { return std::max(x.rows_out * x.row_bytes, x.sums_out * sum_bytes); }));
  in = AlignedBuffer<std::byte>(
      most([&](const LayerExchange& x) { return std::max(x.rows_in * x.row_bytes, x.sums_in * sum_bytes); }));
  if (how.wire != Wire::kF32) decoded = AlignedBuffer<float>(std::max({most_in, sums_in, sums_out}) * D);
  slot_J.resize(T * most_entries(config));
  partial_begin_R.resize(most_in + 1);
  for (auto* by_rank : {&rows_to, &rows_from, &partials_to, &partials_from, &bytes_out, &bytes_in})
    by_rank->resize(members.front().size());
}

std::size_t ExpertExchange::bytes() const {
  return out.size() + in.size() + 4 * (decoded.size() + slot_J.size() + partial_begin_R.size());
}

void pack_rows(ExpertExchange& x, int layer, ThreadPool& pool, const Routing& own, const float* x_TD, int tokens) {
  x.layer = layer;
  const LayerExchange& now = x.current();
  const std::size_t D = x.hidden_size;
  const bool per_rank = x.options.dispatch == Dispatch::kPerRank;
  number_units(x, own, tokens, x.rows_to, [&](int previous, int node) {
    return per_rank && now.nodes[previous].member == now.nodes[node].member;
  });
  for_each_row(pool, tokens, [&](int t) {
    const Range entries = own.entries(t, now.experts);
    for (int i = entries.begin; i < entries.end; ++i) {
      if (x.slot_J[i] < 0) continue;
      std::byte* row = x.out.data() + x.slot_J[i] * now.row_bytes;
      encode(x.options.wire, x_TD + t * D, D, row);
      write_entries(own, per_rank ? entries : Range{i, i + 1}, now.entries, row + wire_bytes(x.options.wire, D));
    }
  });
  announce(x, now.row_bytes, x.rows_to);
}

void exchange_messages(ExpertExchange& x, Communicator& comm) {
  const std::size_t total = std::accumulate(x.bytes_out.begin(), x.bytes_out.end(), std::size_t{0});
  comm.all_to_all(x.out.span().first(total), x.bytes_out, x.in.span(), x.bytes_in);
}

void take_rows(ExpertExchange& x, ThreadPool& pool) {
  take_units(x, pool, x.current().rows_in, x.rows_from);
  x.rows = static_cast<int>(std::accumulate(x.rows_from.begin(), x.rows_from.end(), std::size_t{0}));
  read_entries(x);
  sort_rows(x.current().own, x.rows, x.routing);
}

void pack_sums(ExpertExchange& x, ThreadPool& pool, const float* y_RD) {
  const LayerExchange& layer = x.current();
  const std::size_t D = x.hidden_size, sum_bytes = wire_bytes(x.options.wire, D);
  const bool encoded = x.options.wire != Wire::kF32;
  x.partial_begin_R[0] = 0;
  for (int row = 0; row < x.rows; ++row)
    x.partial_begin_R[row + 1] = x.partial_begin_R[row] + for_each_partial(x, row, [](int, int) {});
  if (const std::size_t sums = x.partial_begin_R[x.rows]; sums > layer.sums_out)
    fail("rank {}: {} rows have arrived for {} sums, expected at most {}", x.rank, x.rows, sums, layer.sums_out);
  for_each_row(pool, x.rows, [&](int row) {
    for_each_partial(x, row, [&](int node, int i) {
      const std::size_t slot = x.partial_begin_R[row] + i;
      // The rows that arrived have been multiplied already, so `decoded` is free.
      float* sum = (encoded ? x.decoded.data() : reinterpret_cast<float*>(x.out.data())) + slot * D;
      combine_row(layer.table, x.routing, row, layer.nodes[node].experts, y_RD, x.hidden_size, sum);
      if (encoded) encode(x.options.wire, sum, D, x.out.data() + slot * sum_bytes);
    });
  });
  for (std::size_t r = 0, row = 0; r < x.rows_from.size(); row += x.rows_from[r++])
    x.partials_to[r] = x.partial_begin_R[row + x.rows_from[r]] - x.partial_begin_R[row];
  announce(x, sum_bytes, x.partials_to);
}

void take_sums(ExpertExchange& x, ThreadPool& pool, const Routing& own, int tokens, float* update_TD) {
  const LayerExchange& layer = x.current();
  const std::size_t D = x.hidden_size;
  take_units(x, pool, layer.sums_in, x.partials_from);
  number_units(x, own, tokens, x.rows_to, [](int previous, int node) { return previous == node; });
  if (x.rows_to != x.partials_from) fail("rank {}: partial sums are missing, or too many came back", x.rank);
  for_each_row(pool, tokens, [&](int t) {
    const float* rows[kMaxSelected];
    int indices[kMaxSelected], count = 0;
    const Range entries = own.entries(t, layer.experts);
    for (int i = entries.begin; i < entries.end; ++i) {
      if (x.slot_J[i] < 0) continue;
      rows[count] = x.arrived + x.slot_J[i] * x.arrived_stride;
      indices[count++] = layer.nodes[layer.node_of_E[own.experts_J[i]]].index;
    }
    add_in_tree_order(rows, indices, nullptr, count, static_cast<int>(D), update_TD + t * D);
  });
}

}  // namespace foe

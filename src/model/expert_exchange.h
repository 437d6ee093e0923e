// Expert parallelism's two exchanges of a layer, among the ranks that share a group (in plan ep all of them): rows
// travel to the ranks that hold their experts, and sums of the experts' outputs travel back. "Rank" here means one of
// these.
//
// A token's sum over its experts is a tree over the experts' indices (core/sum_tree.h). A rank's experts make up whole
// subtrees of it; it adds each of them and returns one vector per subtree, which the token's owner adds in the order of
// the tree: the bits are those of one rank with all experts.
//
// Shape letters: T tokens of this rank, K selected experts, D model width, R rows that arrived here, E experts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "core/model_config.h"
#include "model/routing.h"
#include "placement/expert_nodes.h"

namespace foe {

struct ExpertExchange {
  ExchangeOptions options;
  int rank;
  int hidden_size;
  std::size_t row_bytes;
  int entries;                          // (expert, weight) pairs that travel with a row
  Range selected;                       // those of a token's K selections that are for these ranks
  std::vector<ExpertNode> nodes;        // of all ranks, ascending
  std::vector<std::int32_t> node_of_E;  // -1: of another group
  std::size_t most_in, sums_out,
      sums_in;  // rows that can arrive, sums that can leave and arrive: what there is room for

  // Of the layer that runs.
  int rows = 0;     // that arrived, in the order of their ranks and there of their tokens
  Routing routing;  // of these rows
  // Messages of the exchange that runs: rows of D encoded floats, each with its experts and their weights behind it,
  // and then sums of D encoded floats.
  AlignedBuffer<std::byte> out, in;
  AlignedBuffer<float> decoded;       // what arrived, where it was encoded
  const float* arrived = nullptr;     // the rows or sums, D floats each,
  std::size_t arrived_stride = 0;     // so far apart
  std::vector<std::int32_t> slot_TK;  // the row or sum of each selection; -1: shares the one before
  std::vector<std::int32_t> partial_begin_R;
  std::size_t unit_bytes = 0;  // of a row or sum in the messages
  std::vector<std::size_t> rows_to, rows_from, partials_to, partials_from, bytes_out, bytes_in;  // by rank

  // `members`: the ranks' experts. Room for `max_tokens` tokens of all ranks together, wherever they are and wherever
  // they go.
  ExpertExchange(const ModelConfig& config, std::span<const Range> members, int own_rank, const ExchangeOptions& how,
                 int max_tokens);
  // Where in experts_TK the selections of token t begin that are for these ranks.
  int first_selected(const Routing& own, int t) const { return t * own.entries + selected.begin; }
  std::size_t bytes() const;
};

// The steps of a layer, in this order; exchange_messages() may run on another thread.

// Writes the messages with the rows of x_TD to their experts, as `own` has selected them.
void pack_rows(ExpertExchange& exchange, ThreadPool& pool, const Routing& own, const float* x_TD, int tokens);
// Collective: sends what was packed, receives what the others did.
void exchange_messages(ExpertExchange& exchange, Communicator& comm);
// Sorts the rows that have arrived: exchange.rows, exchange.routing, and the rows themselves in `arrived`. Throws Error
// if a peer sends what no peer of this model can.
void take_rows(ExpertExchange& exchange, ThreadPool& pool, const Share& share);
// Writes the messages with the sums of y_RD, the experts' outputs for the sorted rows. exchange_messages() follows.
// Throws Error if what arrived asks for more sums than there are.
void pack_sums(ExpertExchange& exchange, ThreadPool& pool, const ModelConfig& config, const float* y_RD);
// Adds what has come back: update_TD = the sum over each token's experts of weight * output. Throws Error if it is not
// what was asked for.
void take_sums(ExpertExchange& exchange, ThreadPool& pool, const Routing& own, int tokens, float* update_TD);

}  // namespace foe

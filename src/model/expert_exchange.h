// The two exchanges of a layer under expert parallelism. First the row of each token travels to the ranks that hold its
// selected experts; then sums of the experts' outputs travel back. They go between the members of a group (in plan ep
// between all ranks): in this file "rank" means one of these members.
//
// The sum over a token's experts is a tree over the indices of the experts (core/sum_tree.h). The experts of a rank
// make up whole subtrees of it. The rank adds each subtree and returns one vector for it, a partial sum; the token's
// owner adds these in the order of the tree. So the bits are those of one rank that holds all experts.
//
// Shape letters: T tokens of this rank, J entries (model/routing.h), D model width, R rows that arrived here, E
// experts.
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

// What travels in one layer.
struct LayerExchange {
  ExpertTable table;
  std::size_t row_bytes = 0;
  int entries = 0;                           // how many (expert, weight) pairs travel with a row; -1: no expert
  Range experts = {}, own = {};              // of all these ranks, and of this one
  std::vector<ExpertNode> nodes = {};        // of all ranks, ascending: each that is selected returns a partial sum
  std::vector<std::int32_t> node_of_E = {};  // index into `nodes`; -1: an expert of another group
  // How many rows and how many sums can leave and arrive.
  std::size_t rows_out = 0, rows_in = 0, sums_out = 0, sums_in = 0;
};

struct ExpertExchange {
  ExchangeOptions options;
  int rank;
  int hidden_size;
  std::vector<LayerExchange> layers;  // those of dense layers are empty: nothing travels there
  // How many rows can arrive, and how many sums can leave and arrive, in any layer: there is memory for so many.
  std::size_t most_in = 0, sums_out = 0, sums_in = 0;

  // The current layer.
  int layer = 0;
  int rows = 0;     // R, rows that have arrived, ordered by their ranks and then by their tokens
  Routing routing;  // the experts of these rows
  // The messages of the current exchange. In the first, a unit is a row: D encoded floats, then its experts, then their
  // weights. In the second, a unit is a partial sum: D encoded floats.
  AlignedBuffer<std::byte> out, in;
  AlignedBuffer<float> decoded;               // the floats that have arrived, if the wire is not f32
  const float* arrived = nullptr;             // the rows or sums that have arrived, D floats each
  std::size_t arrived_stride = 0;             // floats from one to the next
  std::vector<std::int32_t> slot_J;           // which unit stands for an entry; -1: that of the entry before it
  std::vector<std::int32_t> partial_begin_R;  // the first partial sum of each row that arrived
  std::size_t unit_bytes = 0;                 // of a row or sum in the messages
  std::vector<std::size_t> rows_to, rows_from, partials_to, partials_from, bytes_out, bytes_in;  // by rank

  // `members` has for each layer the experts of each rank. Allocates all memory for batches of up to `max_tokens`
  // tokens on all ranks together, whichever ranks own them and whichever experts they select.
  ExpertExchange(const ModelConfig& config, std::span<const std::vector<Range>> members, int own_rank,
                 const ExchangeOptions& how, int max_tokens);
  const LayerExchange& current() const { return layers[layer]; }
  std::size_t bytes() const;
};

// A layer calls these functions in this order: pack_rows, exchange_messages, take_rows, then multiplies the experts,
// then pack_sums, exchange_messages, take_sums. Only exchange_messages() communicates; it may run on another thread
// while nobody uses `exchange`.

// Writes the messages that take the rows of x_TD to the experts of a layer that `own` has selected for them.
void pack_rows(ExpertExchange& exchange, int layer, ThreadPool& pool, const Routing& own, const float* x_TD,
               int tokens);
// Collective. Sends the messages that were packed, and receives those of the other ranks.
void exchange_messages(ExpertExchange& exchange, Communicator& comm);
// Reads the rows that have arrived into exchange.rows, exchange.arrived and exchange.routing, which sorts them by
// expert. Throws Error if they are not what a rank with this model can send.
void take_rows(ExpertExchange& exchange, ThreadPool& pool);
// Writes the messages with the partial sums of y_RD, the outputs of the experts for the sorted rows. Throws Error if
// the rows that arrived ask for more partial sums than `max_tokens` tokens can.
void pack_sums(ExpertExchange& exchange, ThreadPool& pool, const float* y_RD);
// Adds the partial sums that have come back: update_TD = for each token the sum over its experts of weight * output.
// Throws Error if they are not as many as were asked for.
void take_sums(ExpertExchange& exchange, ThreadPool& pool, const Routing& own, int tokens, float* update_TD);

}  // namespace foe

// The memory of a forward pass, by what it serves, and what a pass counts.
//
// Shape letters: T tokens, B tokens of a block, D model width, G local streams, P partial sums of this rank's terms,
// n/m local query/KV heads, C width of a query or key, W of a value, E experts, R rows sorted by expert, f local hidden
// width of an expert, S sampled rows, V vocabulary, v local part of the vocabulary.
#pragma once

#include <optional>
#include <vector>

#include "base/aligned.h"
#include "comm/communicator.h"
#include "kernels/products/gemm.h"
#include "kernels/rows/candidates.h"
#include "model/expert_exchange.h"
#include "model/expert_load.h"
#include "model/key_exchange.h"
#include "model/model.h"
#include "model/routes.h"
#include "model/routing.h"
#include "placement/step_parts.h"

namespace foe {

// Attention's inputs are normalised and projected in blocks of so many tokens, which stay in a cache in between.
inline constexpr int kInputBlock = 192;

// The angles of a step's tokens in the layers that have this rotation.
struct Angles {
  Rotation rotation;
  RopeFrequencies frequencies;                // of texts that are no longer than those of the training
  AlignedBuffer<float> cosines_TR, sines_TR;  // [T, width / 2]
};

// What the local heads have for each token.
struct HeadRows {
  int heads = 0, width = 0;
  AlignedBuffer<float> x;  // [T, heads, width]

  std::size_t stride() const { return static_cast<std::size_t>(heads) * width; }
  float* row(std::size_t t) { return x.data() + t * stride(); }
};

// What a step keeps from one stage to the next. Each half of a step has its own, because exchanges read and write it
// while the other half computes.
struct StepState {
  AlignedBuffer<float> r_TD;  // the residual, which every rank holds in full
  TermBuffer update_GTD;  // the update M_h of each stream; with a shared residual [P, T, D], partial sums of experts
  AlignedBuffer<float> added_GTD;   // what the experts of a layer that does not sync add to it; empty if all do
  AlignedBuffer<float> affine_GTD;  // what affine experts add to the update of each stream; empty if there are none
  TermBuffer term_PTD;              // partial sums of attention's terms
  HeadRows q;                       // queries, of n heads C wide
  std::vector<Angles> angles;       // of every rotation that a layer has
  // After a range of layers: how many rows r has, and which layer they run next. 0 after the last layer or an Error.
  int rows = 0, next_layer = 0;
  Routing routing;
  std::optional<ExpertExchange> exchange;  // if ranks share groups, or in plan ep the whole model
  std::optional<KeyExchange> keys;         // if these ranks split sequences
  std::vector<std::int32_t> record_TW;     // if routes are recorded, those of the step's tokens (core/route.h)

  // Collective over `groups`. Allocates memory for `tokens` tokens.
  StepState(const Model& model, Communicator& across_groups, int tokens, const ExchangeOptions& options);
  std::size_t bytes() const;
  const Angles& angles_of(const AttentionConfig& attention) const;
};

// The scratch memory below is valid within one stage, so halves share it. Every stage may use what products take.
struct ProductScratch {
  AlignedBuffer<float> input_TD;   // normalised rows: the input of experts and token head; of attention [G, B, D]
  AlignedBuffer<std::byte> codes;  // the rounded rows that products with rounded weights take (quantise_rows)
  std::vector<Product> list;       // of one parallel loop
};
struct AttentionScratch {
  HeadRows k, v, attended;           // of m, m and n heads; C, W and W wide
  AlignedBuffer<float> squares_BT2;  // sums of squares of q and k in each block of heads, for a QK-norm over all heads
};
struct ExpertsScratch {
  AlignedBuffer<float> scores_TE;
  AlignedBuffer<float> hidden_Rf;
  AlignedBuffer<float> output_RD;
};

// The logits and states of a whole step. What forward() returns points into it.
struct HeadScratch {
  AlignedBuffer<float> logits_Sv;
  AlignedBuffer<float> gathered;  // rank 0: logits_Sv of all ranks, one after the other
  AlignedBuffer<float> logits_SV;
  std::vector<Candidate> candidates, gathered_candidates;  // this rank's and, on rank 0, all ranks' as they came
  std::vector<std::int32_t> candidates_begin;              // rank 0: where those of each scored row begin
  // The states that batches have wanted of this rank's rows [S, D] and, on rank 0, of all.
  std::vector<float> states, gathered_states;
};

// What a part of the last forward pass took on one rank.
struct PartStats {
  double arithmetic_s = 0;             // computing, including norms and copies
  double moving_s = 0, waiting_s = 0;  // in exchanges: moving data, and waiting for other ranks
  std::uint64_t bytes = 0;             // sent to other ranks
};
struct LayerStats {
  PartStats attention, experts;  // each with the exchanges that end it
  std::int64_t rows = 0;         // rows that the rank's experts ran: (token, selected expert) pairs
};
struct ForwardStats {
  std::vector<LayerStats> layers;
  PartStats last_sum;  // of a federated model
  PartStats passing;   // rows from the stage before and to the next one
  PartStats scoring;   // the token head, and sending logits to rank 0, which counts as arithmetic here
  ExpertLoad load;     // of all passes so far
};

// All memory of a forward pass, allocated once for `max_tokens` tokens and `max_sampled` rows of logits.
struct Activations {
  int max_tokens;
  int max_sampled;
  Wire wire;
  RouteForm record;               // of StepState::record_TW; without layers if routes are not recorded
  std::vector<StepState> states;  // with --overlap two, each sized for one half
  ProductScratch products;
  AttentionScratch attention;
  ExpertsScratch experts;
  HeadScratch head;
  ForwardStats stats;

  // Collective over `across_groups`, which sums terms: RankGrid::across_groups().
  Activations(const Model& model, Communicator& across_groups, int max_tokens, int max_sampled,
              const ExchangeOptions& options = {}, const RecordOptions& recorded = {});
  bool overlap() const { return states.size() == 2; }
  std::size_t bytes() const;
};

}  // namespace foe

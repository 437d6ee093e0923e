// A model as one rank holds it, and the scratch memory of a forward pass.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "comm/communicator.h"
#include "core/batch.h"
#include "core/model_config.h"
#include "kernels/formats/kv_format.h"
#include "kernels/products/gemm.h"
#include "kernels/rows/candidates.h"
#include "model/expert_exchange.h"
#include "model/expert_load.h"
#include "model/routing.h"
#include "placement/placement.h"
#include "weights/model_weights.h"
#include "weights/output_blocks.h"

namespace foe {

// A layer's row-parallel products in the blocks of their sums: views of its weights.
struct BlockWeights {
  std::vector<PackedMatrix> o;     // of all streams, as Model::o_blocks says
  std::vector<PackedMatrix> down;  // of a dense model's expert, as Model::down_begin says
};

// Immutable once made.
struct Model {
  ModelConfig config;
  Placement placement;
  int rank = 0;
  Weights weights;
  std::string identity = {};  // tensors_digest() of its folder; empty where nothing was read

  SumPlan attention_sums, expert_sums;
  // This rank's blocks of heads; `at` and `depth` are as if all streams had one matrix.
  std::vector<OutputBlock> o_blocks = {};
  // Where this rank's blocks of a dense model's hidden units begin, and the last one's end.
  std::vector<int> down_begin = {};
  std::vector<Range> expert_parts = {};   // not dense: which experts each of this rank's partial sums adds
  std::vector<BlockWeights> blocks = {};  // by layer

  const Share& share() const { return placement.ranks[rank]; }
  int query_heads() const {
    return share().kv_heads.size() * (config.num_attention_heads / config.num_key_value_heads);
  }
  KvShape kv_shape(KvType type, AttentionType attention = AttentionType::kF32) const;
};

// A rank's model of weights that are there: with the order of its sums.
Model make_model(ModelConfig config, Placement placement, int rank, Weights weights);

// Loads the share of the model folder that `comm`'s rank holds, on so many threads. `formats` converts the weights;
// without it they keep the file's. Throws Error where the folder is not a model, or the plan does not fit it or the
// ranks.
Model load_model(const std::string& model_dir, Plan plan, const Communicator& comm, const FormatChoice& formats = {},
                 int threads = 1);

// Where a rank's time went in a part of the last forward pass, and what it sent.
struct PartStats {
  double arithmetic_s = 0;             // norms and copies included
  double moving_s = 0, waiting_s = 0;  // in exchanges: moving data, waiting for other ranks
  std::uint64_t bytes = 0;             // sent to other ranks
};
struct LayerStats {
  PartStats attention, experts;  // each with the exchanges that end it
  std::int64_t rows = 0;         // rows that the rank's experts ran: (token, selected expert) pairs
};

// Batches of so many tokens run as two halves where these can overlap. Below, the exchanges are too short for what
// halving costs: every expert's weights are read twice.
inline constexpr int kOverlapTokens = 128;

// Attention's inputs are normed and projected in blocks of so many tokens, which stay in the cache in between.
inline constexpr int kInputBlock = 192;

// All scratch memory of a forward pass, sized once for `max_tokens` tokens and `max_sampled` rows of logits.
// Shape letters: T tokens, B of them in a block, D model width, G local streams, P partial sums of their terms, n/m
// local query/KV heads, C head width, E experts, R rows sorted by expert, f local hidden width of an expert, S sampled
// rows, V vocabulary, v local part of it.
struct Activations {
  int max_tokens;
  int max_sampled;
  Wire wire;
  AlignedBuffer<float> r_TD;      // the residual that every rank holds in full
  AlignedBuffer<float> input_TD;  // normed: what experts and the token head read. Attention: [G, B, D], a block of rows
  AlignedBuffer<float> q_TnC, k_TmC, v_TmC;
  AlignedBuffer<float> attended_TnC;
  TermBuffer term_PTD;    // attention's terms of the sum into r, added down to P partial sums
  TermBuffer update_GTD;  // each stream's M: the sum of its experts' outputs; in a shared residual P partial sums of it
  AlignedBuffer<float> scores_TE;
  AlignedBuffer<float> hidden_Rf;
  AlignedBuffer<float> output_RD;
  AlignedBuffer<std::byte> codes;  // what products with quantised weights take for their x, one x after the other
  AlignedBuffer<float> cosines_TC, sines_TC;  // of half the head width
  AlignedBuffer<float> squares_BT2;  // sums of squares of q and k in each block of heads, where their norm spans blocks
  AlignedBuffer<float> logits_Sv;
  AlignedBuffer<float> gathered;  // rank 0: all ranks' logits_Sv, one after the other
  AlignedBuffer<float> logits_SV;
  std::vector<Candidate> candidates, gathered_candidates;  // of this rank, or where it is rank 0 of all; as they came
  std::vector<std::int32_t> candidates_begin;              // on rank 0, by sampled row
  Routing routing;
  std::vector<Product> products;
  std::vector<LayerStats> layers;
  PartStats scoring;  // the token head, and the way of its scores to rank 0, which counts as arithmetic here
  ExpertLoad load;
  std::optional<ExpertExchange> exchange;   // where ranks share groups (in plan ep: the model)
  Batch part;                               // what of the step runs here, where that is not all
  std::unique_ptr<Activations> other_half;  // where halves of a batch overlap: this is sized for one

  // Collective over `groups`, which sums terms: RankGrid::groups().
  Activations(const Model& model, Communicator& groups, int max_tokens, int max_sampled,
              const ExchangeOptions& exchange = {});
  bool overlaps(int tokens) const { return other_half && tokens >= kOverlapTokens; }
  std::size_t bytes() const;
};

}  // namespace foe

// One rank's part of a model, and the scratch memory of a forward pass.
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

// Views of a layer's weights, cut into the blocks of the sums that the products end in (core/sum_blocks.h).
struct BlockWeights {
  std::vector<PackedMatrix> o;     // attention's output projection, cut as Model::o_blocks says
  std::vector<PackedMatrix> down;  // a dense model's down projection, cut as Model::down_begin says
};

// Immutable once it is made. Owns its weights.
struct Model {
  ModelConfig config;
  Placement placement;
  int rank = 0;
  Weights weights;
  std::string identity = {};  // tensors_digest() of its folder; empty if it was not read from a folder

  SumPlan attention_sums, expert_sums;
  // This rank's blocks of heads. Their `at` and `depth` count as if the streams had one matrix together.
  std::vector<OutputBlock> o_blocks = {};
  // Dense models: where this rank's blocks of hidden units begin, and where the last one ends.
  std::vector<int> down_begin = {};
  std::vector<Range> affine_parts = {};   // which affine experts each local stream adds; none if there are none
  std::vector<Range> expert_parts = {};   // other models: which experts each of this rank's partial sums adds
  std::vector<BlockWeights> blocks = {};  // by layer

  const Share& share() const { return placement.ranks[rank]; }
  int query_heads() const { return share().kv_heads.size() * config.heads().per_kv_head(); }
  KvShape kv_shape(KvType type, AttentionType attention = AttentionType::kF32) const;
};

// Makes a rank's model from weights that are loaded already.
Model make_model(ModelConfig config, Placement placement, int rank, Weights weights);

// Loads the share of a model folder that this rank of `comm` holds, with `threads` threads. Weights get the formats
// that `formats` names; others keep the format of the file. Throws Error if the folder is not a model, or if the plan
// does not fit the model or the number of ranks.
Model load_model(const std::string& model_dir, Plan plan, const Communicator& comm, const FormatChoice& formats = {},
                 int threads = 1);

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

// With --overlap, batches of at least so many tokens run as two halves. In smaller batches the exchanges are too short
// for what halving costs: the weights of every expert are read twice.
inline constexpr int kOverlapTokens = 128;

// Attention's inputs are normalised and projected in blocks of so many tokens, which stay in a cache in between.
inline constexpr int kInputBlock = 192;

// All scratch memory of a forward pass, allocated once for `max_tokens` tokens and `max_sampled` rows of logits.
// Shape letters: T tokens, B tokens of a block, D model width, G local streams, P partial sums of this rank's terms,
// n/m local query/KV heads, C head width, E experts, R rows sorted by expert, f local hidden width of an expert, S
// sampled rows, V vocabulary, v local part of the vocabulary.
struct Activations {
  int max_tokens;
  int max_sampled;
  Wire wire;
  AlignedBuffer<float> r_TD;      // the residual, which every rank holds in full
  AlignedBuffer<float> input_TD;  // normalised rows: the input of experts and token head; of attention [G, B, D]
  AlignedBuffer<float> q_TnC, k_TmC, v_TmC;
  AlignedBuffer<float> attended_TnC;
  TermBuffer term_PTD;    // partial sums of attention's terms
  TermBuffer update_GTD;  // the update M_h of each stream; with a shared residual [P, T, D], partial sums of experts
  AlignedBuffer<float> scores_TE;
  AlignedBuffer<float> hidden_Rf;
  AlignedBuffer<float> output_RD;
  AlignedBuffer<std::byte> codes;  // the rounded rows that products with rounded weights take (quantise_rows)
  AlignedBuffer<float> cosines_TC, sines_TC;  // [T, C / 2]
  AlignedBuffer<float> squares_BT2;  // sums of squares of q and k in each block of heads, for a QK-norm over all heads
  AlignedBuffer<float> logits_Sv;
  AlignedBuffer<float> gathered;  // rank 0: logits_Sv of all ranks, one after the other
  AlignedBuffer<float> logits_SV;
  std::vector<Candidate> candidates, gathered_candidates;  // this rank's and, on rank 0, all ranks' as they came
  std::vector<std::int32_t> candidates_begin;              // rank 0: where those of each sampled row begin
  Routing routing;
  std::vector<Product> products;
  std::vector<LayerStats> layers;
  PartStats scoring;  // the token head, and sending logits to rank 0, which counts as arithmetic here
  ExpertLoad load;
  std::optional<ExpertExchange> exchange;   // if ranks share groups, or in plan ep the whole model
  Batch part;                               // the part of the step's batch that runs here, if that is not all
  std::unique_ptr<Activations> other_half;  // with --overlap: each of the two is sized for one half

  // Collective over `groups`, which sums terms: RankGrid::groups().
  Activations(const Model& model, Communicator& groups, int max_tokens, int max_sampled,
              const ExchangeOptions& exchange = {});
  bool overlaps(int tokens) const { return other_half && tokens >= kOverlapTokens; }
  std::size_t bytes() const;
};

}  // namespace foe

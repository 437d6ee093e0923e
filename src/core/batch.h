// The work of one step as plain data, which rank 0 broadcasts and every rank runs. Prefill and decode are not told
// apart: each sequence brings the tokens that it has not run yet, one in decode and many in prefill.
//
// Where several ranks share a group (as in plan ep), each sequence has an owner, which runs its attention and holds its
// KV cache. The sequences of a batch are in ascending order of owner. So a rank's part of every array is contiguous,
// and the sampled rows of all owners, one owner after the other, are those of the whole batch. Where these ranks split
// sequences instead (Placement::split_sequences), the owner is 0 until the step deals the rows (placement/deal.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/route.h"
#include "core/share.h"

namespace foe {

inline constexpr int kKvBlock = 16;        // positions per KV block
inline constexpr int kMaxCandidates = 64;  // candidates of one sampled row
inline constexpr int kWantsState = -1;     // in place of a number of candidates

// Rows, and the layers that they run through. The rows of one batch may take several steps, one for each range of
// layers, in ascending order and with no other batch in between: a batch whose layers do not begin with the first one
// continues the batch before it, and only one that ends with the last layer gives logits.
//
// T tokens, S sequences, R sampled rows.
struct Batch {
  Range layers = kAllLayers;                 // an end beyond the last layer means the last layer
  std::vector<std::int32_t> tokens;          // [T]
  std::vector<std::int32_t> positions;       // [T], ascending by one within a sequence
  std::vector<std::int32_t> sequence_begin;  // [S + 1] indices into tokens
  std::vector<std::int32_t> sequence_owner;  // [S] members, ascending; all 0 where sequences have no owners
  std::vector<std::int32_t> block_table;     // ids of KV blocks in the owner's cache, sequence after sequence
  std::vector<std::int32_t> table_begin;     // [S + 1] indices into block_table
  std::vector<std::int32_t> sampled_rows;    // [R] indices of the tokens whose logits or states are wanted, ascending
  // [R] how many of the largest logits each row wants; 0: all; kWantsState: none, but its hidden state behind the last
  // norm.
  std::vector<std::int32_t> candidates;
  // How long the prompt of each sequence is, in models whose RoPE depends on it (core/rope.h); 0: no longer than the
  // texts of the training. [S], or empty: all 0.
  std::vector<std::int32_t> prompt_lengths;
  // Which row of `route` says what a token's experts are, instead of the router; -1: none. [T], or empty: none of any.
  std::vector<std::int32_t> route_rows;
  Route route;

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_sequences() const { return static_cast<int>(sequence_begin.size()) - 1; }
  int num_sampled() const { return static_cast<int>(sampled_rows.size()); }
  int num_states() const { return static_cast<int>(std::count(candidates.begin(), candidates.end(), kWantsState)); }
  bool empty() const { return tokens.empty(); }

  Batch() : sequence_begin{0}, table_begin{0} {}

  enum class Sample { kNone, kLast, kAll };
  // Appends a sequence: its tokens from position `first_position` on, the ids of its KV blocks, and which of its tokens
  // are sampled. All logits of these rows are wanted, unless `candidates` is changed afterwards. Requires that `owner`
  // is not less than that of the sequence before.
  void add_sequence(std::span<const std::int32_t> sequence_tokens, int first_position,
                    std::span<const std::int32_t> blocks, Sample sample, int owner = 0, int prompt_length = 0);
  int prompt_length(int sequence) const { return prompt_lengths.empty() ? 0 : prompt_lengths[sequence]; }
  // The tokens of the last sequence are routed by what `by` has for their positions. Those behind its end are not.
  void route_last_sequence(const Route& by);
};

// Rows [begin, end) of a batch, which belong to one sequence, and the member that runs them.
struct Piece {
  int begin, end;
  int owner;
};
// Returns these rows as a batch of their own, each piece as a sequence with its KV blocks. Owners must ascend.
Batch pieces_of(const Batch& batch, std::span<const Piece> pieces);
// Returns the sequences of one owner as a batch of their own, which is empty if the owner has none.
Batch part_of(const Batch& batch, int owner);
// Returns the tokens [begin, end) as a batch of their own. A sequence may be cut: the two parts are then run in order.
Batch rows_of(const Batch& batch, int begin, int end);

// Turn a batch into one message for the broadcast, and back. What a peer sends is input: decode() throws Error if the
// message is not a batch that a model with so many layers and tokens can run on `owners` members with `kv_blocks`
// blocks each. (What its route says of experts is for check_route() in model/routes.h.)
std::vector<std::int32_t> encode(const Batch& batch);
// Returns how long that message is.
std::size_t encoded_words(const Batch& batch);
Batch decode(std::span<const std::int32_t> message, int num_layers, int vocab_size, int kv_blocks, int owners);

}  // namespace foe

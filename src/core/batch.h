// One step's work as plain data: what rank 0 broadcasts and every rank runs. There is no prefill and no decode: each
// sequence brings the tokens it has not run yet.
//
// Where ranks own whole sequences (plan ep), a sequence's owner runs its attention and holds its KV. Sequences stand in
// ascending order of owner, so that a rank's part of every array is contiguous, and the owners' sampled rows, one rank
// after the other, are those of the whole batch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foe {

inline constexpr int kKvBlock = 16;        // positions per KV block
inline constexpr int kMaxCandidates = 64;  // of one row

struct Batch {
  std::vector<std::int32_t> tokens;          // [T]
  std::vector<std::int32_t> positions;       // [T], ascending by one within a sequence
  std::vector<std::int32_t> sequence_begin;  // [S + 1] into tokens
  std::vector<std::int32_t> sequence_owner;  // [S] ranks, ascending; 0 where all ranks share every sequence
  std::vector<std::int32_t> block_table;     // ids of KV blocks, the owner's, of all sequences, one after the other
  std::vector<std::int32_t> table_begin;     // [S + 1] into block_table
  std::vector<std::int32_t> sampled_rows;    // [R] rows of tokens whose logits are wanted, ascending
  std::vector<std::int32_t> candidates;      // [R] of those, how many of the largest logits suffice; 0: all are wanted

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_sequences() const { return static_cast<int>(sequence_begin.size()) - 1; }
  int num_sampled() const { return static_cast<int>(sampled_rows.size()); }
  bool empty() const { return tokens.empty(); }

  Batch() : sequence_begin{0}, table_begin{0} {}
  void clear();  // but keeps the memory

  enum class Sample { kNone, kLast, kAll };
  // Appends the tokens at positions first_position.. of a sequence whose KV blocks are `blocks`. Owners ascend. All
  // logits of its sampled rows are wanted.
  void add_sequence(std::span<const std::int32_t> sequence_tokens, int first_position,
                    std::span<const std::int32_t> blocks, Sample sample, int owner = 0);
};

// The sequences of one owner as a batch of their own; empty if it has none.
Batch part_of(const Batch& batch, int owner);
// Its tokens [begin, end) as a batch of their own: a sequence that is cut goes on there.
Batch rows_of(const Batch& batch, int begin, int end);
// How many of the sampled rows each of `owners` ranks has, by rank.
std::vector<int> sampled_by_owner(const Batch& batch, int owners);

// The batch as one message, and back. decode throws Error if the message is not a batch that a model with `vocab_size`
// tokens can run on `owners` ranks with `kv_blocks` blocks each: what a peer sends is input.
std::vector<std::int32_t> encode(const Batch& batch);
Batch decode(std::span<const std::int32_t> message, int vocab_size, int kv_blocks, int owners);

}  // namespace foe

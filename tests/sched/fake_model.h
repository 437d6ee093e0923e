// A model without arithmetic, for tests of the scheduler. The next token is a pure function of all tokens before it, as
// they are found through the batch's block tables in a KV store that remembers what was written to each slot. A block
// that is stale, missing or of another sequence gives another token, and fails the test where it is read.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/rng.h"
#include "core/batch.h"

namespace foe {

inline constexpr int kFakeVocabulary = 5;  // small, so that different requests often begin with the same tokens

// Returns the contents of a slot, which identify a token and all tokens before it.
inline std::uint64_t fake_kv(std::uint64_t before, std::int32_t token) {
  return random_bits(before, static_cast<std::uint64_t>(token) + 1);
}

inline std::int32_t fake_next(std::uint64_t kv) {
  return static_cast<std::int32_t>(kv % kFakeVocabulary);
}

inline std::uint64_t fake_kv_of(std::span<const std::int32_t> tokens) {
  std::uint64_t kv = 0;
  for (const std::int32_t token : tokens) kv = fake_kv(kv, token);
  return kv;
}

class FakeModel {
 public:
  FakeModel(int owners, int kv_blocks) : slots_(owners, std::vector<Slot>(kv_blocks * kKvBlock)) {}

  // Runs a batch, and returns the contents of the sampled rows' slots.
  std::vector<std::uint64_t> run(const Batch& batch) {
    check_writers(batch);
    for (int q = 0; q < batch.num_sequences(); ++q)
      for (int t = batch.sequence_begin[q]; t < batch.sequence_begin[q + 1]; ++t) {
        const int position = batch.positions[t];
        const std::uint64_t before = position > 0 ? slot(batch, q, position - 1).kv : 0;
        slot(batch, q, position) = {fake_kv(before, batch.tokens[t]), batch.tokens[t]};
      }
    std::vector<std::uint64_t> sampled;
    int row = 0;
    for (int q = 0; q < batch.num_sequences(); ++q) {
      check_chain(batch, q);
      for (; row < batch.num_sampled() && batch.sampled_rows[row] < batch.sequence_begin[q + 1]; ++row)
        sampled.push_back(slot(batch, q, batch.positions[batch.sampled_rows[row]]).kv);
    }
    return sampled;
  }

 private:
  struct Slot {
    std::uint64_t kv = 0;
    std::int32_t token = -1;
  };

  Slot& slot(const Batch& batch, int q, int position) {
    const std::int32_t block = batch.block_table[batch.table_begin[q] + position / kKvBlock];
    return slots_[batch.sequence_owner[q]][block * kKvBlock + position % kKvBlock];
  }

  // Attention reads every position, so each must have been written after the one before it.
  void check_chain(const Batch& batch, int q) {
    const int end = batch.positions[batch.sequence_begin[q + 1] - 1] + 1;
    std::uint64_t before = 0;
    for (int p = 0; p < end; ++p) {
      const Slot& s = slot(batch, q, p);
      if (s.token < 0 || s.kv != fake_kv(before, s.token))
        throw std::runtime_error(fmt::format("sequence {}: position {} holds another's KV", q, p));
      before = s.kv;
    }
  }

  // A block that one sequence writes must not be in another's table, because the sequences of a step run in any order.
  static void check_writers(const Batch& batch) {
    std::multiset<std::pair<std::int32_t, std::int32_t>> users;
    for (int q = 0; q < batch.num_sequences(); ++q)
      for (int i = batch.table_begin[q]; i < batch.table_begin[q + 1]; ++i)
        users.emplace(batch.sequence_owner[q], batch.block_table[i]);
    for (int q = 0; q < batch.num_sequences(); ++q) {
      const int first = batch.table_begin[q] + batch.positions[batch.sequence_begin[q]] / kKvBlock;
      for (int i = first; i < batch.table_begin[q + 1]; ++i)
        if (users.count({batch.sequence_owner[q], batch.block_table[i]}) > 1)
          throw std::runtime_error(fmt::format("block {} is written and used by others", batch.block_table[i]));
    }
  }

  std::vector<std::vector<Slot>> slots_;  // by owner
};

}  // namespace foe

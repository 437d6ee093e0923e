#include "core/batch.h"

#include <algorithm>
#include <functional>

#include "base/error.h"

namespace foe {
namespace {

void append(std::vector<std::int32_t>& message, const std::vector<std::int32_t>& values) {
  message.push_back(static_cast<std::int32_t>(values.size()));
  message.insert(message.end(), values.begin(), values.end());
}

std::vector<std::int32_t> take(std::span<const std::int32_t>& message) {
  if (message.empty()) fail("batch message: expected a length, got the end");
  const std::int32_t size = message.front();
  message = message.subspan(1);
  if (size < 0 || static_cast<std::size_t>(size) > message.size())
    fail("batch message: expected a length of at most {}, got {}", message.size(), size);
  std::vector<std::int32_t> values(message.begin(), message.begin() + size);
  message = message.subspan(size);
  return values;
}

// Offsets 0 = o_0 <= o_1 <= ... = total.
void check_offsets(const std::vector<std::int32_t>& offsets, std::size_t total, const char* name) {
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      static_cast<std::size_t>(offsets.back()) != total)
    fail("batch message: expected {} to ascend from 0 to {}", name, total);
}

void check_range(const std::vector<std::int32_t>& values, int limit, const char* name) {
  for (const std::int32_t v : values)
    if (v < 0 || v >= limit) fail("batch message: expected {} in [0, {}), got {}", name, limit, v);
}

}  // namespace

void Batch::add_sequence(std::span<const std::int32_t> sequence_tokens, int first_position,
                         std::span<const std::int32_t> blocks, Sample sample) {
  const int first_row = num_tokens();
  tokens.insert(tokens.end(), sequence_tokens.begin(), sequence_tokens.end());
  for (std::size_t i = 0; i < sequence_tokens.size(); ++i) positions.push_back(first_position + static_cast<int>(i));
  sequence_begin.push_back(num_tokens());
  block_table.insert(block_table.end(), blocks.begin(), blocks.end());
  table_begin.push_back(static_cast<std::int32_t>(block_table.size()));
  if (sample == Sample::kNone) return;
  for (int row = sample == Sample::kAll ? first_row : num_tokens() - 1; row < num_tokens(); ++row)
    sampled_rows.push_back(row);
}

std::vector<std::int32_t> encode(const Batch& batch) {
  std::vector<std::int32_t> message;
  for (const auto* part : {&batch.tokens, &batch.positions, &batch.sequence_begin, &batch.block_table,
                           &batch.table_begin, &batch.sampled_rows})
    append(message, *part);
  return message;
}

Batch decode(std::span<const std::int32_t> message, int vocab_size, int kv_blocks) {
  Batch batch;
  for (auto* part : {&batch.tokens, &batch.positions, &batch.sequence_begin, &batch.block_table, &batch.table_begin,
                     &batch.sampled_rows})
    *part = take(message);
  if (!message.empty()) fail("batch message: expected the end, got {} more words", message.size());
  if (batch.positions.size() != batch.tokens.size())
    fail("batch message: expected {} positions, got {}", batch.tokens.size(), batch.positions.size());
  check_offsets(batch.sequence_begin, batch.tokens.size(), "sequence_begin");
  check_offsets(batch.table_begin, batch.block_table.size(), "table_begin");
  if (batch.table_begin.size() != batch.sequence_begin.size())
    fail("batch message: expected {} block tables, got {}", batch.num_sequences(), batch.table_begin.size() - 1);
  check_range(batch.tokens, vocab_size, "a token");
  check_range(batch.block_table, kv_blocks, "a KV block");
  check_range(batch.sampled_rows, batch.num_tokens(), "a sampled row");
  const auto& sampled = batch.sampled_rows;
  if (const auto at = std::adjacent_find(sampled.begin(), sampled.end(), std::greater_equal()); at != sampled.end())
    fail("batch message: expected sampled rows to ascend, got {} after {}", at[1], at[0]);
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int capacity = (batch.table_begin[s + 1] - batch.table_begin[s]) * kKvBlock;
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t) {
      const int expected = batch.positions[batch.sequence_begin[s]] + (t - batch.sequence_begin[s]);
      if (batch.positions[t] != expected || expected < 0 || expected >= capacity)
        fail("batch message: expected position {} of sequence {} within its {} KV slots, got {}", expected, s, capacity,
             batch.positions[t]);
    }
  }
  return batch;
}

}  // namespace foe

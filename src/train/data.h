// Token files, and which part of them a step reads: a pure function of (seed, step), so there is no state to save.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/config.h"

namespace foe::train {

// One split: ids, and the bytes of text that they stand for.
struct TokenFile {
  std::vector<std::uint16_t> tokens;
  std::int64_t bytes = 0;

  // Nats per token as bits per byte of text.
  double bits_per_byte(double nats_per_token) const;
};

struct TokenData {
  TokenFile train, valid;
  int vocab_size = 0;
  std::int32_t end_of_text = 0;
  std::uint64_t fingerprint = 0;  // of the training tokens
};

// A folder of tools/pack_tokens.py: meta.json with {vocab_size, end_of_text, train: {file, tokens, bytes}, valid:
// {...}} and the files, raw little-endian uint16. Throws Error for a file that is not as meta.json says, ids past the
// vocabulary, or fewer tokens than two windows of `length`.
TokenData load_token_data(const std::string& dir, int length);

// Where window number `sample` of a run begins; it reads length + 1 tokens. Each epoch visits windows of `length`
// tokens side by side, without replacement, in an order and from an offset (below `length`) of its own.
std::size_t window_start(std::size_t tokens, int length, std::uint64_t seed, std::uint64_t sample);

// The inputs and targets of `count` sequences of step `step` (from 0), beginning with the batch's sequence `first`.
void fill_batch(const TokenFile& file, const TrainConfig& config, std::uint64_t step, int first, int count,
                std::span<std::int32_t> inputs, std::span<std::int32_t> targets);

// A bijection of [0, count), different for every key (a Feistel network on the next power of four, walking its cycles
// back into the range).
std::uint64_t permute(std::uint64_t index, std::uint64_t count, std::uint64_t key);

}  // namespace foe::train

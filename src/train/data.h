// Token files, and which part of them each step reads. That is a pure function of (seed, step), so there is no state to
// save.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/config.h"

namespace foe::train {

// One split: its ids, and how many bytes of text they stand for.
struct TokenFile {
  std::vector<std::uint16_t> tokens;
  std::int64_t bytes = 0;

  // Returns bits per byte of text for a loss in nats per token.
  double bits_per_byte(double nats_per_token) const;
};

struct TokenData {
  TokenFile train, valid;
  int vocab_size = 0;
  std::int32_t end_of_text = 0;
  std::uint64_t fingerprint = 0;  // a digest of the training tokens
};

// Reads a folder that tools/pack_tokens.py has written: meta.json with {vocab_size, end_of_text, train: {file, tokens,
// bytes}, valid: {...}}, and the files with raw little-endian uint16. Throws Error if a file is not as meta.json says,
// has ids beyond the vocabulary, or has fewer tokens than two windows of `length`.
TokenData load_token_data(const std::string& dir, int length);

// Returns where window number `sample` of a run begins; it reads length + 1 tokens. Each epoch reads adjacent windows
// of `length` tokens, each once, in an order and from an offset (below `length`) of its own.
std::size_t window_start(std::size_t tokens, int length, std::uint64_t seed, std::uint64_t sample);

// Writes the inputs and targets of `count` sequences of step `step` (counted from 0), from the batch's sequence `first`
// on.
void fill_batch(const TokenFile& file, const TrainConfig& config, std::uint64_t step, int first, int count,
                std::span<std::int32_t> inputs, std::span<std::int32_t> targets);

// A permutation of [0, count), which differs for each key. It is a Feistel network on the next power of four that is
// applied until the result is in the range (cycle walking).
std::uint64_t permute(std::uint64_t index, std::uint64_t count, std::uint64_t key);

}  // namespace foe::train

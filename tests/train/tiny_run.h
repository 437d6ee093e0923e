// A configuration and token files for training runs that take about a second.
#pragma once

#include <string>

#include "base/rng.h"
#include "temporary_dir.h"
#include "train/config.h"
#include "train/run.h"

namespace foe::train {

inline const RunOptions kQuiet{1, nullptr, false, true};

constexpr const char* kTinyToml = R"(
[model]
vocab_size = 61
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
num_experts = 8
num_experts_per_tok = 2
moe_intermediate_size = 16
expert_groups = 2
residual = "federated"
group_sync = "sum"
qk_norm = "head"
tie_word_embeddings = true

[train]
sequence_length = 24
batch_sequences = 4
shards = 2
steps = 40
seed = 3
learning_rate = 1e-2
warmup_steps = 4
decay_steps = 10

[run]
log_every = 1
valid_every = 5
valid_tokens = 200
checkpoint_every = 2
save_dtype = "f32"
)";

// The same with a key of [train].
inline std::string with_train_key(std::string toml, const std::string& line) {
  return toml.insert(toml.find("[train]") + 7, "\n" + line);
}

inline std::string u16_bytes(const std::vector<std::uint16_t>& tokens) {
  std::string bytes;
  for (const std::uint16_t token : tokens) {
    bytes.push_back(static_cast<char>(token & 0xff));
    bytes.push_back(static_cast<char>(token >> 8));
  }
  return bytes;
}

// Returns a text with something to learn: each token is one of two successors of the one before.
inline std::vector<std::uint16_t> tiny_text(std::size_t count, int vocab, std::uint64_t seed) {
  std::vector<std::uint16_t> tokens(count);
  for (std::size_t i = 1; i < count; ++i)
    tokens[i] = static_cast<std::uint16_t>((tokens[i - 1] * 7 + 3 + random_bits(seed, i) % 2) % vocab);
  return tokens;
}

// Writes tokens/ and tokenizer/ below `dir` and returns the configuration of a run in dir/run.
inline TrainConfig tiny_run(const TemporaryDir& dir, const std::string& toml = kTinyToml) {
  TrainConfig config = parse_train_config(toml, "tiny.toml");
  write_all(dir / "tokens/train.u16", u16_bytes(tiny_text(2000, 61, 1)));
  write_all(dir / "tokens/valid.u16", u16_bytes(tiny_text(301, 61, 2)));
  write_all(dir / "tokens/meta.json",
            R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 2000, "bytes": 8000},
                "valid": {"file": "valid.u16", "tokens": 301, "bytes": 1204}})");
  write_all(dir / "tokenizer/tokenizer.json", "{}");
  config.tokens = dir / "tokens";
  config.tokenizer = dir / "tokenizer";
  config.run_dir = dir / "run";
  return config;
}

}  // namespace foe::train

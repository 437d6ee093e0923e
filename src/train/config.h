// The configuration of a training run: a TOML file with the tables [model], [data], [train] and [run].
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "core/model_config.h"
#include "train/layout.h"

namespace foe::train {

struct TrainConfig {
  // [model]: the keys of config.json; max_position_embeddings defaults to sequence_length. With init_from, that of its
  // folder.
  ModelConfig model;

  // [data]: folders.
  std::string tokens = "tokens";        // written by tools/pack_tokens.py
  std::string tokenizer = "tokenizer";  // its files are copied into the saved model

  // [train]
  int sequence_length = 0;
  int batch_sequences = 0;  // sequences per step
  int shards = 2;           // parts of a batch, each for one thread; the bits depend on it
  int steps = 0;
  std::uint64_t seed = 0;
  double learning_rate = 1e-3;
  double final_learning_rate = 0.1;  // at the end of the decay, as a share of learning_rate
  int warmup_steps = 0;              // steps of a linear rise from 0
  int decay_steps = 0;               // steps of a linear fall at the end
  double beta1 = 0.9, beta2 = 0.95, adam_eps = 1e-8;
  double weight_decay = 0.1;   // of matrices only
  double gradient_clip = 1.0;  // the largest global norm
  double balance_loss = 0.01, z_loss = 0.001;
  InitScales init;  // output_init_scale, embedding_init_scale
  // What products round their operands to, but the router's: f32, which is not to round, or bf16. Parameters, sums and
  // moments are f32.
  DType precision = DType::kF32;
  std::string init_from;        // a model folder, whose parameters the run begins with; empty: random ones
  std::string distill_from;     // a model folder to learn from (distillation.h); empty: none
  double distill_weight = 0.5;  // of what is learned from it, and 1 less this of the text's next tokens

  // [run]
  std::string run_dir;  // the folder of checkpoint, metrics and model; or `foe train --run`
  int log_every = 1, valid_every = 100, checkpoint_every = 100;  // in steps
  int valid_tokens = 65536;                                      // how many tokens are scored while training
  DType save_dtype = DType::kBF16;

  // Every key that the final bits depend on, with its value as text. A checkpoint must agree with all of them.
  std::map<std::string, std::string> identity;

  int batch_tokens() const { return batch_sequences * sequence_length; }
};

// The key of `precision` in the identity, which has it only if it is not f32.
inline constexpr const char* kPrecisionKey = "train.precision";

// Both throw Error naming the file, the key, what was expected and what was found. Unknown keys are errors. In the
// result the model is valid. Relative paths of folders but `dir` start at `base`, or of a file without one at its
// folder.
TrainConfig parse_train_config(std::string_view text, const std::string& source, const std::string& base = "");
TrainConfig load_train_config(const std::string& path, const std::string& base = "");

}  // namespace foe::train

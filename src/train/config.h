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
  ModelConfig model;  // [model]: the keys of config.json; max_position_embeddings defaults to sequence_length

  // [data]: folders; relative ones start at the configuration's folder, or at `foe train --data`.
  std::string tokens = "tokens";        // of tools/pack_tokens.py
  std::string tokenizer = "tokenizer";  // whose files go into the saved model

  // [train]
  int sequence_length = 0;
  int batch_sequences = 0;  // per step
  int shards = 2;           // parts that a batch is cut into; a thread works on one. Part of what fixes the bits.
  int steps = 0;
  std::uint64_t seed = 0;
  double learning_rate = 1e-3;
  double final_learning_rate = 0.1;  // where the decay ends, as a share of learning_rate
  int warmup_steps = 0;              // linear, from 0
  int decay_steps = 0;               // linear, the last ones
  double beta1 = 0.9, beta2 = 0.95, adam_eps = 1e-8;
  double weight_decay = 0.1;   // of matrices
  double gradient_clip = 1.0;  // of the global norm
  double balance_loss = 0.01, z_loss = 0.001;
  InitScales init;  // output_init_scale, embedding_init_scale

  // [run]
  std::string run_dir;  // for checkpoint, metrics and model; or `foe train --run`
  int log_every = 1, valid_every = 100, checkpoint_every = 100;  // steps
  int valid_tokens = 65536;                                      // of the validation file, while training
  DType save_dtype = DType::kBF16;

  // Every key that the final bits depend on, with its value as text: what a checkpoint must agree with.
  std::map<std::string, std::string> identity;

  int batch_tokens() const { return batch_sequences * sequence_length; }
};

// Both throw Error naming the file, the key, what was expected and what was found; unknown keys are errors, and the
// model is valid. Paths are as in the file.
TrainConfig parse_train_config(std::string_view text, const std::string& source);
TrainConfig load_train_config(const std::string& path);

}  // namespace foe::train

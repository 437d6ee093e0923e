// The state of a run: parameters, both moments, the number of finished steps, and what it was configured with.
// Everything else (data order, learning rate) is a function of those, so a resumed run ends with the bits of an
// uninterrupted one.
#pragma once

#include <map>
#include <span>
#include <string>

#include "core/dtype.h"
#include "train/layout.h"

namespace foe::train {

// Flat arrays in the layout of the parameters.
struct TrainState {
  std::span<float> params, first, second;
};

// Atomically replaces the file; the old checkpoint is there until the new one is complete and on disk.
void save_checkpoint(const std::string& path, const TrainState& state, int steps_done,
                     const std::map<std::string, std::string>& identity);

// Fills `state` and returns the number of finished steps. Throws Error naming the first key of the identity that
// differs, with both values, or what is wrong with the file: each checkpoint has a digest of all of its contents, so
// one that has lost a bit is refused.
int load_checkpoint(const std::string& path, const TrainState& state,
                    const std::map<std::string, std::string>& identity);

// Writes a model folder (weights/model_folder.h) with weights of that type.
void save_model(const std::string& dir, const Layout& layout, std::span<const float> params, DType dtype,
                const std::string& tokenizer_dir);

}  // namespace foe::train

// Saves and loads the state of a training run: parameters, both moments, the number of finished steps, and what the run
// was configured with. Everything else (the order of the data, the learning rate) is a function of these, so a run that
// resumes ends with the same bits as one that was not interrupted.
#pragma once

#include <map>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "core/dtype.h"
#include "train/layout.h"

namespace foe::train {

// Views of flat arrays in the layout of the parameters.
struct TrainState {
  std::span<float> params, first, second;
};

// Which arithmetic a run has: its number changes whenever the bits of a step do. 4 is that of federated models, whose
// gradients are trees over groups.
using CheckpointFormat = int;
CheckpointFormat checkpoint_format(const ModelConfig& model);

// Replaces the file atomically: the old checkpoint stays until the new one is complete and on disk. Throws Error if the
// disk refuses.
void save_checkpoint(const std::string& path, const TrainState& state, int steps_done,
                     const std::map<std::string, std::string>& identity, CheckpointFormat format);

// Fills `state` and returns the number of finished steps. Throws Error if a key of the identity differs, naming the
// first one and both values, if a version of foe with other bits wrote the file, or if it is damaged: each checkpoint
// has a digest of all of its contents.
int load_checkpoint(const std::string& path, const TrainState& state,
                    const std::map<std::string, std::string>& identity, CheckpointFormat format);

// Writes a model folder (weights/model_folder.h) with weights of type `dtype`. Throws Error if the disk refuses.
void save_model(const std::string& dir, const Layout& layout, std::span<const float> params, DType dtype,
                const std::string& tokenizer_dir);

// Reads the parameters of a model folder, whose configuration must be that of the layout, in f32, bf16 or f16. Throws
// Error if tensors are missing, packed or of another shape or type, or have weights that are not finite.
void load_params(ThreadPool& pool, const std::string& model_dir, const Layout& layout, float* params);

}  // namespace foe::train

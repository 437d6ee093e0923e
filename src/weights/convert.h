// Quantises a model folder.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "base/thread_pool.h"
#include "core/model_config.h"
#include "weights/weight_formats.h"

namespace foe {

// Writes the folder `out` with the model's matrices packed as `formats` says (those that it does not name: as in the
// file), for load_weights() to map; all other tensors, and tokenizer and configuration, are as they were. One matrix at
// a time is in memory. `progress` is called with bytes written and their total, now and then. Throws Error where the
// model is packed already, has weights that are not finite, there is something at `out`, or the disk refuses. A process
// that is killed leaves nothing at `out` (NewFolder in model_folder.h).
void convert_model(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config,
                   const FormatChoice& formats, const std::string& out,
                   const std::function<void(std::size_t, std::size_t)>& progress);

}  // namespace foe

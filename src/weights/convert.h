// Writes a model folder with packed, usually quantised, weights.
#pragma once

#include <map>
#include <string>

#include "base/thread_pool.h"
#include "core/model_config.h"
#include "weights/importance.h"
#include "weights/model_folder.h"
#include "weights/weight_formats.h"

namespace foe {

// Writes the folder `out` with the model's matrices packed in the formats that `formats` names, so that load_weights()
// can map them; parts that it does not name keep the format of the file. All other tensors, the tokenizer and the
// configuration are copied. Only one matrix at a time is in memory. `progress` is called now and then with the bytes
// that are written and their total. `files` are written as well, by their names: a GGUF file has no tokenizer's files
// that could be copied. With `importance`, matrices in int4 are rounded by it, and the folder's metadata have its
// source as `calibrated_with`. Throws Error if the model is packed already, has weights that are not finite, something
// exists at `out`, or the disk refuses. If the process is killed, nothing is left at `out` (NewFolder in
// model_folder.h).
void convert_model(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config,
                   const FormatChoice& formats, const std::string& out, const WriteProgress& progress,
                   const std::map<std::string, std::string>& files = {}, const Importance& importance = {});

}  // namespace foe

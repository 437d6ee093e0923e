// Names that files give tensors, where they are not those of core/model_tensors.h.
#pragma once

#include <string_view>
#include <vector>

#include "core/model_tensors.h"

namespace foe {

// How the rows of several roles stand in one tensor.
enum class RowOrder {
  kBelow,       // one role below the other, of any heights
  kTurns,       // they take turns, as in the two that follow: all roles have equally many
  kTransposed,  // [in, out]: rows are columns
  kMxfp4,       // [out, in / 32, 16] codes, beside the tensor `exponents` [out, in / 32] (rearranged.h)
};

// A tensor in a file, which has the rows of one role, or of several.
struct TensorAlias {
  const char* name;  // behind the layer's prefix; {} is the expert
  std::vector<TensorRole> roles;
  bool of_all = false;  // one tensor [E, ...] has those of all experts
  // If not null, the name means this only in layers that also have a tensor of this name: families differ in which
  // norms they call the same.
  const char* beside = nullptr;
  RowOrder order = RowOrder::kBelow;
  const char* exponents = nullptr;
};

// Those of Hugging Face's folders, behind "model.layers.L.".
const std::vector<TensorAlias>& folder_aliases();
// All names of GGUF files, behind "blk.L.". The first of a role is the usual one.
const std::vector<TensorAlias>& gguf_aliases();

}  // namespace foe

// What the matrices of a model multiply, by name.
#pragma once

#include <compare>

namespace foe {

enum class ModelInput {
  kAttention,  // of the query, key and value projections
  kAttended,   // of attention's output projection: what all heads have attended to
  kExpert,     // of an expert's gate and up
  kHidden,     // of its down projection
  kHead,       // of the token head
};

struct InputPlace {
  ModelInput input;
  int layer = -1;  // -1: of the model
  int index = 0;   // the group whose stream attention reads, in a federated model; the id of an expert; otherwise 0

  auto operator<=>(const InputPlace&) const = default;
};

}  // namespace foe

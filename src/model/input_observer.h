// Sees what a step's matrices multiply.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/model_input.h"

namespace foe {

// Activations [count, depth], before they are rounded.
struct SeenRows {
  const float* x = nullptr;
  std::size_t stride = 0;              // floats from row to row
  const std::int32_t* rows = nullptr;  // which rows of x; null: the first `count`
  int count = 0, depth = 0;
};

class InputObserver {
 public:
  InputObserver() = default;
  InputObserver(const InputObserver&) = delete;
  InputObserver& operator=(const InputObserver&) = delete;
  virtual ~InputObserver() = default;

  // Is called by the thread that runs the forward pass, whose thread pool is free meanwhile. One place may come several
  // times in a step, its rows in the order of the batch.
  virtual void see(const InputPlace& place, const SeenRows& rows) = 0;
};

}  // namespace foe

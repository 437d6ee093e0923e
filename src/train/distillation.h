// Learning from another model's predictions (Hinton, Vinyals, Dean 2015, at temperature 1): with the weight w, a
// token's loss is (1 - w) times the cross entropy of the text's next token, and w times KL(p || q), where p are the
// teacher's probabilities and q those of the model in training. The teacher is a constant.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "train/model.h"

namespace foe::train {

// A model that training could train, as it is.
struct Teacher {
  // Reads a model folder. Throws Error if its vocabulary is not of `vocab` tokens, or where load_params() does
  // (checkpoint.h).
  Teacher(ThreadPool& pool, const std::string& model_dir, int vocab);

  Layout layout;
  AlignedBuffer<float> params;
  PackedWeights<float> weights;
};

// What head_backward() needs to distil, for one shard. `activations` are the teacher's, after forward() with the same
// tokens.
template <typename T>
struct Distillation {
  Distillation(const Model<T>& t, Activations<T>& a, T w)
      : teacher(t), activations(a), weight(w), row_V(t.layout.dims.vocab) {}

  Model<T> teacher;
  Activations<T>& activations;
  T weight;               // w
  double divergence = 0;  // the sum of KL(p || q) over all tokens that have a target
  std::vector<T> row_V;
};

// Writes the gradient of a token's loss, times `scale`, in place of its logits, and p in place of those of the teacher.
// Adds to `divergence`, and returns -log q(target).
template <typename T>
T distilled_row_backward(T* logits, T* teacher_logits, std::int32_t target, T scale, Distillation<T>& distillation);

}  // namespace foe::train

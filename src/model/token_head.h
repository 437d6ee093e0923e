// The end of a forward pass: scores of the vocabulary, which rank 0 receives.
//
// Shape letters: S sampled rows, D model width, V vocabulary, v this rank's part of it.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "model/model.h"

namespace foe {

// logits_Sv = the scores of this rank's part of the vocabulary for x_SD.
void score_vocabulary(const Model& model, ThreadPool& pool, const float* x_SD, int rows, float* logits_Sv);

// Collective: rank 0 receives every rank's a.logits_Sv and puts them side by side: the logits [S, V] of the batch's
// sampled rows, valid until the next forward pass. Nothing elsewhere.
std::span<const float> gather_logits(const Model& model, const Batch& batch, Activations& a, Communicator& world);

}  // namespace foe

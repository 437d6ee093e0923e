// The end of a forward pass: scores of the vocabulary, of which rank 0 receives what it needs to choose tokens.
//
// Shape letters: S sampled rows, D model width, V vocabulary, v this rank's part of it.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "kernels/rows/candidates.h"
#include "model/model.h"

namespace foe {

// The logits of a batch's sampled rows, on rank 0 until the next forward pass; elsewhere all of it is empty.
struct Logits {
  std::span<const float> whole_SV;        // of the rows whose logits are all wanted, in their order
  std::span<const Candidate> candidates;  // of the others: the most likely of each rank's part of the vocabulary
  std::span<const std::int32_t> candidates_begin;  // [S + 1], by row, into candidates; a row that is whole has none
};

// logits_Sv = the scores of this rank's part of the vocabulary for x_SD, `codes` where the head is
// quantised.
void score_vocabulary(const Model& model, ThreadPool& pool, const float* x_SD, const QuantisedRows& codes, int rows,
                      float* logits_Sv);

// Collective: what the batch wants of every rank's a.logits_Sv goes to rank 0: rows as the wire has them, candidates
// exactly. Nothing travels for a kind of row that the batch does not have. a.logits_Sv is used up.
Logits gather_logits(const Model& model, const Batch& batch, Activations& a, ThreadPool& pool, Communicator& world);

}  // namespace foe

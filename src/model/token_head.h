// The end of a forward pass: each rank computes the logits of its part of the vocabulary, and rank 0 receives what it
// needs to choose tokens, and the states that are wanted instead.
//
// Shape letters: S sampled rows that are scored, V vocabulary, v this rank's part of the vocabulary, D model width.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "kernels/rows/candidates.h"
#include "model/activations.h"
#include "model/rank_grid.h"

namespace foe {

// The logits of a batch's sampled rows, or their states. They are views, valid until the next forward pass, and empty
// on all ranks but rank 0.
struct Logits {
  std::span<const float> whole_SV;        // all logits of the rows that want them all, in the order of the rows
  std::span<const Candidate> candidates;  // of other rows: the largest of each rank's part of the vocabulary
  std::span<const std::int32_t> candidates_begin;  // [S + 1] where the candidates of each scored row begin
  std::span<const float> states;                   // [rows, D] of the rows that want them, in the order of the rows
};

// Multiplies so many rows of logits by the model's factor, and caps them.
void finish_logits(const Model& model, ThreadPool& pool, int rows, float* logits_Sv);

// Collective. Sends what the batch wants of every rank's a.head.logits_Sv to rank 0 and returns it there: whole rows in
// the encoding of the wire, candidates exactly; and of a.head.states exactly, which each rank with the same sequences
// has, so that one of them sends them. If the batch has no rows of a kind, there is no exchange for it. The ranks of a
// last stage send messages, so that they need not wait for rank 0. a.head.logits_Sv is undefined afterwards.
Logits gather_logits(const Model& model, const Batch& batch, Activations& a, ThreadPool& pool, RankGrid& grid);

}  // namespace foe

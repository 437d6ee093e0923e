#pragma once

#include "base/thread_pool.h"
#include "core/batch.h"
#include "model/activations.h"
#include "model/input_observer.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/rank_grid.h"
#include "model/token_head.h"

namespace foe {

// Runs one batch through the model. Collective: every rank calls it with the same batch, which must fit the activations
// and the KV cache. It writes keys and values to `kv`. On rank 0 it returns the logits that the batch wants, which are
// valid until the next call; on the other ranks the result is empty. docs/architecture.md, "The layer", has the
// equations. With the f32 wire, the bits of the logits do not depend on how tokens are batched, on threads, or on the
// number of ranks. Throws Error if another rank has died, is silent for too long, or sends what it should not.
// `observer`, unless it is null, sees what the matrices of this rank multiply.
Logits forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid, ThreadPool& pool,
               InputObserver* observer = nullptr);

// The same in two parts. Where ranks are stages, rank 0 may begin with further batches of other sequences before it
// ends the first of them, so that all stages have work. It ends them in the order in which it began them; the other
// ranks call both functions for one batch after the other.
void begin_forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                   ThreadPool& pool, InputObserver* observer = nullptr);
Logits end_forward(const Model& model, const Batch& batch, Activations& a, RankGrid& grid, ThreadPool& pool);

}  // namespace foe

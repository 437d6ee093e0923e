#pragma once

#include "base/thread_pool.h"
#include "core/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/rank_grid.h"
#include "model/token_head.h"

namespace foe {

// Runs one batch through the model: called by every rank with the same batch, which must fit the activations and the KV
// cache. Writes KV, and returns what the batch wants of the logits of its sampled rows. Design: the equations of the
// layer (docs/architecture.md, "The layer"); its bits do not depend on how tokens are batched, on threads, or
// (federated models) on the number of ranks.
Logits forward(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid, ThreadPool& pool);

}  // namespace foe

// Sampling of a step's batch, on rank 0.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "engine/sampler.h"
#include "model/token_head.h"
#include "sched/scheduler.h"

namespace foe {

// Says of each sampled row of the scheduler's batch how many candidates it needs.
void want_candidates(const Scheduler& scheduler, Batch& batch);

class BatchSampler {
 public:
  // Rows are sampled by all threads of the pool.
  BatchSampler(int vocab_size, ThreadPool& pool);

  // What stands at the sampled rows of the scheduler's batch: chosen tokens, or the prompt's own. The logits are those
  // that the batch wants.
  std::vector<SampledToken> sample(const Scheduler& scheduler, const Batch& batch, const Logits& logits);
  // Drops what is kept of a request. It comes back by itself where the request goes on: it follows from its tokens.
  void forget(std::int64_t id) { counts_.erase(id); }

 private:
  ThreadPool& pool_;
  std::vector<Sampler> samplers_;                         // one for each thread
  std::unordered_map<std::int64_t, TokenCounts> counts_;  // of requests with penalties, by id
};

}  // namespace foe

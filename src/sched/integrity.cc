#include <algorithm>

#include "base/check.h"
#include "sched/scheduler.h"

namespace foe {

void Scheduler::check() const {
  std::vector<std::vector<int>> users(pools_.size(), std::vector<int>(limits_.kv_blocks));
  FOE_CHECK(sequences_.size() == running_.size() + waiting_.size(), "{} sequences, {} running, {} waiting",
            sequences_.size(), running_.size(), waiting_.size());
  FOE_CHECK(num_running() <= limits_.max_sequences, "{} running of {}", num_running(), limits_.max_sequences);
  FOE_CHECK(std::is_sorted(running_.begin(), running_.end(), RanksBefore()), "{} running, out of order", num_running());
  for (const auto& [id, s] : sequences_) {
    FOE_CHECK(s->request.id == id && !s->ended, "request {} is kept as {}", s->request.id, id);
    FOE_CHECK(s->tokens.size() == s->request.prompt.size() + s->request.output.size() + s->drafted,
              "request {}: {} tokens, {} guessed", id, s->tokens.size(), s->drafted);
    const bool waits = waiting_.contains(s.get());
    FOE_CHECK(waits != std::binary_search(running_.begin(), running_.end(), s.get(), RanksBefore()),
              "request {} must either run or wait", id);
    FOE_CHECK(!waits || (s->blocks.empty() && s->done == 0 && s->scheduled == 0), "request {} waits with {} blocks", id,
              s->blocks.size());
    const int end = s->done + s->scheduled, blocks = static_cast<int>(s->blocks.size());
    const int all = s->total() + s->drafted;
    FOE_CHECK(end <= all && (s->drafted == 0 || end == all) && s->done <= s->first_wanted(),
              "request {}: {} done and {} scheduled of {}, {} guessed", id, s->done, s->scheduled, all, s->drafted);
    FOE_CHECK(blocks >= blocks_for(end) && blocks <= blocks_for(all), "request {}: {} blocks for {} of {}", id, blocks,
              end, all);
    FOE_CHECK(s->published == (shares_blocks(*s) ? s->done / kKvBlock : 0), "request {}: {} of {} published", id,
              s->published, s->done);
    for (int i = 0; i < blocks; ++i) {
      ++users[s->owner][s->blocks[i]];
      if (i >= s->published) continue;
      const std::int32_t found = pools_[s->owner].find(s->parent_of(i), s->block_tokens(i));
      FOE_CHECK(found == s->blocks[i], "request {}: its block {} is {}, but {} is found", id, i, s->blocks[i], found);
    }
  }
  for (std::size_t owner = 0; owner < pools_.size(); ++owner) pools_[owner].check(users[owner]);
}

}  // namespace foe

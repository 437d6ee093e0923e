// Decides which waiting requests start to run, with which owner, and which cached blocks they use.
#include <algorithm>

#include "sched/scheduler.h"

namespace foe {
namespace {

// What a running sequence costs its owner beyond the tokens that it has: it will decode for some steps.
constexpr int kTokensAhead = 32;

}  // namespace

void Scheduler::admit() {
  int kept = 0;  // requests that wait for blocks which are being computed: later requests may not take their places
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Sequence& sequence = **it;
    if (num_running() + kept >= limits_.max_sequences && !preempt_for(sequence)) return;
    std::optional<Place> place = find_place(sequence);
    while (!place && preempt_for(sequence)) place = find_place(sequence);
    if (!place) return;
    if (place->coming > 0) {
      ++kept;
      ++it;
    } else {
      it = waiting_.erase(it);
      start(sequence, *place);
    }
  }
}

// Preempts the last running sequence that comes after `waiting` in the order, has a lower priority, and is in no step
// of another lane that is under way. Returns false if there is none.
bool Scheduler::preempt_for(const Sequence& waiting) {
  for (auto it = running_.rbegin(); it != running_.rend() && served_before(waiting, **it); ++it)
    if ((*it)->request.priority > waiting.request.priority && (*it)->scheduled == 0) {
      preempt(**it);
      return true;
    }
  return false;
}

// Returns the load of an owner. Each running sequence certainly needs blocks for the tokens that it has. One more block
// is counted for each that may grow, so that sequences do not compete for the last blocks at once.
Scheduler::Load Scheduler::load_of(int owner) const {
  Load load;
  for (const Sequence* s : running_) {
    if (s->owner != owner) continue;
    const int blocks = blocks_for(s->total());
    load.tokens += s->remaining() + kTokensAhead;
    load.blocks += blocks - static_cast<int>(s->blocks.size());
    if (blocks_for(s->max_positions()) > blocks) ++load.blocks;
  }
  return load;
}

std::vector<std::int32_t> Scheduler::find_hits(const Sequence& sequence, int owner) const {
  std::vector<std::int32_t> hits;
  if (!shares_blocks(sequence)) return hits;
  for (int i = 0; (i + 1) * kKvBlock <= sequence.first_wanted(); ++i) {
    const BlockPool::Parent parent = hits.empty() ? BlockPool::start(sequence.request.cache_salt) : hits.back();
    const std::int32_t block = pools_[owner].find(parent, sequence.block_tokens(i));
    if (block == BlockPool::kNone) break;
    hits.push_back(block);
  }
  return hits;
}

// Returns how many tokens after `hits` a running sequence is about to compute that this sequence could use. Only
// sequences before it in the order count, because they cannot be held up by later ones.
int Scheduler::find_coming(const Sequence& sequence, int owner, std::span<const std::int32_t> hits) const {
  if (!shares_blocks(sequence)) return 0;
  const int count = static_cast<int>(hits.size()), begin = count * kKvBlock, end = sequence.first_wanted();
  if (end - begin < kKvBlock) return 0;
  for (const Sequence* s : running_) {
    if (!served_before(*s, sequence)) break;
    if (!shares_blocks(*s) || s->owner != owner || s->published != count ||
        s->request.cache_salt != sequence.request.cache_salt || (count > 0 && s->blocks[count - 1] != hits.back()))
      continue;
    const auto first = s->tokens.begin() + begin, last = s->tokens.begin() + std::min(end, s->total());
    const auto alike = std::mismatch(first, last, sequence.tokens.begin() + begin).first - first;
    if (alike >= kKvBlock) return static_cast<int>(alike) / kKvBlock * kKvBlock;
  }
  return 0;
}

// Returns the owner with the least cost, or nothing if no owner has enough blocks. The cost is the tokens that the
// owner has to run before it, plus twice the sequence's own uncached tokens, because it waits for them and so do the
// others. So a sequence goes where most of its prompt is cached, unless that owner has too much to do.
std::optional<Scheduler::Place> Scheduler::find_place(const Sequence& sequence) const {
  std::optional<Place> best;
  std::int64_t least = 0;
  for (int owner = 0; owner < limits_.owners * limits_.lanes; ++owner) {
    const Load load = load_of(owner);
    Place place{.owner = owner, .hits = find_hits(sequence, owner), .coming = 0};
    place.coming = find_coming(sequence, owner, place.hits);
    const int hits = static_cast<int>(place.hits.size());
    const std::int64_t cost = load.tokens + 2 * (sequence.total() - hits * kKvBlock - place.coming);
    if (best && cost >= least) continue;
    const auto unused = std::count_if(place.hits.begin(), place.hits.end(),
                                      [&](std::int32_t block) { return !pools_[owner].used(block); });
    const auto needed = blocks_for(sequence.total()) - hits + unused + load.blocks;
    if (place.coming == 0 && needed > pools_[owner].available()) continue;
    least = cost;
    best = std::move(place);
  }
  return best;
}

void Scheduler::start(Sequence& s, const Place& place) {
  for (const std::int32_t block : place.hits) pools_[place.owner].retain(block);
  s.owner = place.owner;
  s.blocks = place.hits;
  s.published = static_cast<int>(place.hits.size());
  s.done = s.published * kKvBlock;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &s, RanksBefore()), &s);
  if (s.cached_tokens) return;
  started_.push_back(s.request.id);
  const int prompt = static_cast<int>(s.request.prompt.size());
  s.cached_tokens = std::min(s.done, prompt);
  stats_.prompt_tokens += prompt;
  if (!shares_blocks(s) || s.wants_many()) return;
  stats_.prefix_queries += s.total();
  stats_.prefix_hits += s.done;
}

}  // namespace foe

#include "train/split.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"

namespace foe::train {
namespace {

// Cuts a range in parts whose sizes differ by at most one.
std::vector<int> even_parts(Range whole, int parts) {
  std::vector<int> begin;
  for (int i = 0; i <= parts; ++i)
    begin.push_back(whole.begin + static_cast<int>(std::int64_t{whole.size()} * i / parts));
  return begin;
}

SumPlan plan_of_sets(int shards, int streams, int ranks, int group_ranks) {
  if (group_ranks > 1 && streams == 1)
    fail(
        "--group-ranks: expected 1 for a model whose groups have no updates "
        "of their own (residual = \"shared\", or "
        "expert_groups = 1), got {}",
        group_ranks);
  if (group_ranks < 1 || group_ranks > streams)
    fail("--group-ranks: expected 1 to {}, the groups of the model, got {}", streams, group_ranks);
  if (ranks % group_ranks != 0) fail("--group-ranks: expected a divisor of the {} ranks, got {}", ranks, group_ranks);
  const int sets = ranks / group_ranks;
  if (sets > shards)
    fail(
        "train.shards: expected at least one shard for each of the {} {}, got "
        "{}; start at most {} ranks, or begin a run"
        " with more shards",
        sets, group_ranks == 1 ? "ranks" : "sets of ranks that share groups", shards, shards * group_ranks);
  return SumPlan(even_parts({0, shards}, sets));
}

SumPlan plan_of_ends(const SumPlan& sets, int group_ranks) {
  std::vector<int> begin{0};
  for (int set = 0; set < sets.ranks(); ++set) {
    const std::vector<int> parts = even_parts({sets.begin()[set], sets.begin()[set + 1]}, group_ranks);
    begin.insert(begin.end(), parts.begin() + 1, parts.end());
  }
  return SumPlan(std::move(begin));
}

int part_with(const SumPlan& plan, int i) {
  return static_cast<int>(std::upper_bound(plan.begin().begin(), plan.begin().end(), i) - plan.begin().begin()) - 1;
}

}  // namespace

Split::Split(int shards, int streams, int ranks, int group_ranks)
    : shards_(plan_of_sets(shards, streams, ranks, group_ranks)),
      ends_(plan_of_ends(shards_, group_ranks)),
      streams_(even_parts({0, streams}, group_ranks)) {}

int Split::place_with(int stream) const {
  return part_with(streams_, stream);
}

int Split::place_with_ends(int shard) const {
  return place_of(part_with(ends_, shard));
}

}  // namespace foe::train

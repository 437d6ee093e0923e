#include "grammar/rule_mask.h"

#include <algorithm>

namespace foe {

std::uint32_t RuleMask::number_of(std::vector<Stack> stacks) {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> key;
  for (const Stack& stack : stacks) key.emplace_back(rule_state(stack), stack.below);
  const auto [found, added] = numbers_.try_emplace(std::move(key), static_cast<std::uint32_t>(readings_.size()));
  if (added) {
    readings_.push_back({std::move(stacks), std::vector(program_.byte_classes, kUnknown)});
    stacks_.compared += kPerReadings;
  }
  return found->second;
}

std::uint32_t RuleMask::step(std::uint32_t from, std::uint8_t byte) {
  const std::uint8_t byte_class = program_.byte_class[byte];
  if (readings_[from].next[byte_class] == kUnknown) {
    const std::uint32_t to = number_of(stacks_.step_rules(readings_[from].stacks, byte));
    readings_[from].next[byte_class] = to;
  }
  return readings_[from].next[byte_class];
}

bool RuleMask::spent() const {
  return stacks_.compared > limit_ && std::ranges::any_of(bits_, [](std::uint64_t word) { return word != 0; });
}

bool RuleMask::fill(const std::vector<Stack>& open) {
  const Stacks::Mark mark = stacks_.mark();
  limit_ = stacks_.compared + kMaxCompared;
  number_of({});
  const auto nodes = table_.nodes();
  std::vector<std::uint32_t> path(table_.longest() + 1);  // by the depth of a node: the readings there
  path[0] = number_of(open);
  bool all = true;
  for (std::uint32_t i = 1; i < nodes.size() && all;) {
    const TokenTable::Node& node = nodes[i];
    path[node.depth] = step(path[node.depth - 1u], node.byte);
    if (path[node.depth] == 0) {
      i = node.end;
      continue;
    }
    table_.mark(i++, bits_);
    all = !spent();
  }
  stacks_.rewind(mark);
  return all;
}

}  // namespace foe

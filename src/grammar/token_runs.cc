#include "grammar/token_runs.h"

#include <algorithm>

namespace foe {
namespace {

constexpr std::size_t kMaxRuns = 256;  // they take some megabytes

// Whether a child of the node begins with a byte that can follow a number.
bool has_structural_child(const TokenTable& table, std::uint32_t node) {
  const auto nodes = table.nodes();
  for (std::uint32_t i = node + 1; i < nodes[node].end; i = nodes[i].end) {
    if (std::string_view(" \n,]}").find(static_cast<char>(nodes[i].byte)) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

TokenRun find_run(const TokenTable& table, const ByteAutomaton& automaton, std::uint16_t state,
                  std::uint32_t max_characters) {
  TokenRun run;
  run.bits.resize(table.mask_words());
  if (automaton.states[state].accepting) run.exits.push_back({0, 0});
  const auto nodes = table.nodes();
  struct At {
    std::uint16_t state;
    std::uint32_t characters;
  };
  std::vector<At> path(table.longest() + 1);  // by the depth of a node
  path[0] = {state, 0};
  for (std::uint32_t i = 1; i < nodes.size();) {
    const TokenTable::Node& node = nodes[i];
    At at = path[node.depth - 1u];
    if (automaton.states[at.state].between_characters && node.byte != '"' && at.characters++ == max_characters) {
      i = node.end;
      continue;
    }
    at.state = automaton.step(at.state, node.byte);
    const bool dead =
        at.state == ByteAutomaton::kDead || automaton.states[at.state].distance > max_characters - at.characters;
    if (dead || automaton.states[at.state].final) {
      if (!dead) run.exits.push_back({i, at.characters});
      i = node.end;
      continue;
    }
    if (automaton.states[at.state].accepting && has_structural_child(table, i)) run.exits.push_back({i, at.characters});
    table.mark(i, run.bits);
    path[node.depth] = at;
    ++i;
  }
  return run;
}

const TokenRun& TokenRuns::get(const TokenTable& table, std::uint32_t id, const ByteAutomaton& automaton,
                               std::uint16_t state, std::uint32_t max_characters) {
  // A token has at most as many characters as bytes, and what it leaves needs no more than the greatest distance, so
  // larger limits are equivalent.
  const auto longest = static_cast<std::uint32_t>(table.longest());
  const auto most = std::min(max_characters, longest + automaton.most_distance);
  const auto key = std::tuple(&table, id, state, most);
  const auto found = runs_.find(key);
  if (found != runs_.end()) return found->second;
  if (runs_.size() >= kMaxRuns) runs_.clear();
  return runs_[key] = find_run(table, automaton, state, most);
}

}  // namespace foe

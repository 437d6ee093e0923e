#include "grammar/byte_automaton.h"

#include <algorithm>
#include <bitset>
#include <deque>
#include <map>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxNfaStates = 32 * 1024;
constexpr std::size_t kMaxStates = 16 * 1024;

// The subset construction, in which the number of characters so far is a part of each state.
class SubsetBuilder {
 public:
  SubsetBuilder(const ByteNfa& nfa, std::uint32_t accept, bool quoted, CountRange characters, AutomatonBudget& budget)
      : nfa_(nfa),
        accept_(accept),
        quoted_(quoted),
        characters_(characters),
        budget_(budget),
        seen_(nfa.states().size(), 0) {}

  ByteAutomaton build(std::uint32_t start) {
    spend(budget_.steps, 4 * nfa_.states().size(), "steps to make automata");
    make_classes();
    const std::uint16_t first = quoted_ ? add_state() : 0;
    if (quoted_) end_ = add_state();
    const std::uint16_t body = find_or_add({0, closure({start}, ByteNfa::EdgeKind::kBegin)});
    if (quoted_) {
      cell(first, '"') = body;
      result_.states[end_].accepting = true;
    }
    for (std::size_t i = 0; i < subsets_.size(); ++i) expand(i);
    if (!result_.calls.empty()) result_.calls.resize(result_.states.size());
    result_.start = quoted_ ? first : body;
    drop_dead_ends(result_);
    return std::move(result_);
  }

 private:
  struct Subset {
    std::uint32_t count;
    std::vector<std::uint32_t> states;  // ascending
    auto operator<=>(const Subset&) const = default;
  };

  // Finds the classes of bytes that no edge tells apart, in ascending order.
  void make_classes() {
    std::bitset<257> begins;  // the bytes at which a class begins
    const auto mark = [&](std::uint8_t low, std::uint8_t high) { begins.set(low), begins.set(high + 1u); };
    for (const ByteNfa::State& state : nfa_.states()) {
      for (const ByteNfa::Edge& edge : state.edges) {
        if (edge.kind == ByteNfa::EdgeKind::kByte) mark(edge.low, edge.high);
      }
    }
    if (quoted_) mark('"', '"');
    begins.reset(0);
    std::uint8_t last = 0;
    for (unsigned byte = 0; byte < 256; ++byte) {
      if (begins[byte]) ++last;
      result_.byte_class[byte] = last;
    }
    result_.classes = last + 1u;
  }

  std::uint16_t& cell(std::size_t state, std::uint8_t byte) {
    return result_.next[state * result_.classes + result_.byte_class[byte]];
  }

  std::uint16_t add_state() {
    if (result_.states.size() >= kMaxStates)
      fail("expected a pattern whose automaton has at most {} states, got one with more; use shorter repeats",
           kMaxStates);
    spend(budget_.cells, result_.classes, "cells of automata");
    result_.states.emplace_back();
    result_.next.resize(result_.next.size() + result_.classes, ByteAutomaton::kDead);
    return static_cast<std::uint16_t>(result_.states.size() - 1);
  }

  static void spend(std::size_t& budget, std::size_t amount, std::string_view what) {
    if (amount > budget)
      fail("expected patterns within the limit on {} of one schema, got one past it; use shorter repeats", what);
    budget -= amount;
  }

  // Returns the states that `from` reaches without a byte. `allowed` is the assertion that holds here.
  std::vector<std::uint32_t> closure(std::vector<std::uint32_t> from, ByteNfa::EdgeKind allowed) {
    ++round_;
    std::vector<std::uint32_t> result;
    const auto visit = [&](std::uint32_t state) {
      if (std::exchange(seen_[state], round_) != round_) result.push_back(state);
    };
    for (const std::uint32_t state : from) visit(state);
    for (std::size_t i = 0; i < result.size(); ++i) {
      const ByteNfa::State& state = nfa_.states()[result[i]];
      spend(budget_.steps, 1 + state.edges.size(), "steps to make automata");
      for (const ByteNfa::Edge& edge : state.edges) {
        if (edge.kind == ByteNfa::EdgeKind::kEmpty || (edge.kind == allowed && allowed != ByteNfa::EdgeKind::kByte)) {
          visit(edge.to);
        }
      }
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  std::uint16_t find_or_add(Subset subset) {
    const auto [found, added] = ids_.try_emplace(std::move(subset), std::uint16_t{0});
    if (added) {
      found->second = add_state();
      subsets_.push_back(&*found);
    }
    return found->second;
  }

  void expand(std::size_t i) {
    const auto& [subset, id] = *subsets_[i];
    const bool between = std::none_of(subset.states.begin(), subset.states.end(),
                                      [&](std::uint32_t s) { return nfa_.states()[s].inside_character; });
    result_.states[id].between_characters = between;
    if (between && subset.count >= characters_.min) accept(subset, id);
    if (between && subset.count == characters_.max) return;
    // Beyond both limits, counts need not be told apart.
    const std::uint32_t most = characters_.max == kNoLimit ? characters_.min : characters_.max;
    const std::uint32_t count = between ? std::min(subset.count + 1, most) : subset.count;
    std::vector<std::vector<std::uint32_t>> targets(result_.classes);
    for (const std::uint32_t state : subset.states) {
      for (const ByteNfa::Edge& edge : nfa_.states()[state].edges) {
        if (edge.kind != ByteNfa::EdgeKind::kByte) continue;
        const std::size_t low = result_.byte_class[edge.low], high = result_.byte_class[edge.high];
        spend(budget_.steps, high - low + 1, "steps to make automata");
        for (std::size_t c = low; c <= high; ++c) targets[c].push_back(edge.to);
      }
    }
    for (std::size_t c = 0; c < targets.size(); ++c) {
      if (targets[c].empty()) continue;
      const std::uint16_t next = find_or_add({count, closure(std::move(targets[c]), ByteNfa::EdgeKind::kByte)});
      result_.next[id * result_.classes + c] = next;
    }
    expand_calls(subset, id);
  }

  void expand_calls(const Subset& subset, std::uint16_t id) {
    std::map<std::uint32_t, std::vector<std::uint32_t>> targets;  // by rule
    for (const std::uint32_t state : subset.states)
      for (const ByteNfa::Edge& edge : nfa_.states()[state].edges)
        if (edge.kind == ByteNfa::EdgeKind::kCall) targets[edge.rule].push_back(edge.to);
    for (auto& [rule, to] : targets) {
      const std::uint16_t next = find_or_add({0, closure(std::move(to), ByteNfa::EdgeKind::kByte)});
      spend(budget_.cells, 1, "cells of automata");
      result_.calls.resize(std::max<std::size_t>(result_.calls.size(), id + 1u));
      result_.calls[id].push_back({rule, next});
    }
  }

  void accept(const Subset& subset, std::uint16_t id) {
    const auto at_end = closure(subset.states, ByteNfa::EdgeKind::kEnd);
    if (!std::binary_search(at_end.begin(), at_end.end(), accept_)) return;
    if (quoted_) {
      cell(id, '"') = end_;
    } else {
      result_.states[id].accepting = true;
    }
  }

  const ByteNfa& nfa_;
  std::uint32_t accept_;
  bool quoted_;
  CountRange characters_;
  AutomatonBudget& budget_;
  ByteAutomaton result_;
  std::uint16_t end_ = 0;
  std::map<Subset, std::uint16_t> ids_;
  std::vector<const std::pair<const Subset, std::uint16_t>*> subsets_;  // by the number of the state
  std::vector<std::uint32_t> seen_;                                     // by NFA state: the last closure that had it
  std::uint32_t round_ = 0;
};

}  // namespace

std::uint32_t ByteNfa::add_state(bool inside_character) {
  if (states_.size() >= kMaxNfaStates)
    fail("expected a pattern of at most {} states, got one with more; use shorter repeats", kMaxNfaStates);
  states_.push_back({inside_character, {}});
  return static_cast<std::uint32_t>(states_.size() - 1);
}

void ByteNfa::add_bytes(std::uint32_t from, std::uint32_t to, std::uint8_t low, std::uint8_t high) {
  states_[from].edges.push_back({EdgeKind::kByte, low, high, to, 0});
}

void ByteNfa::add_call(std::uint32_t from, std::uint32_t to, std::uint32_t rule) {
  states_[from].edges.push_back({EdgeKind::kCall, 0, 0, to, rule});
}

void ByteNfa::add_empty(std::uint32_t from, std::uint32_t to, EdgeKind kind) {
  states_[from].edges.push_back({kind, 0, 0, to, 0});
}

void add_distances(ByteAutomaton& automaton) {
  const std::size_t size = automaton.states.size();
  std::vector<std::vector<std::pair<std::uint16_t, bool>>> sources(size);  // with whether a character begins
  for (std::size_t s = 0; s < size; ++s)
    for (unsigned byte = 0; byte < 256; ++byte) {
      const std::uint16_t to = automaton.step(static_cast<std::uint16_t>(s), static_cast<std::uint8_t>(byte));
      const std::pair<std::uint16_t, bool> edge(s, automaton.states[s].between_characters && byte != '"');
      if (to != ByteAutomaton::kDead && (sources[to].empty() || sources[to].back() != edge))
        sources[to].push_back(edge);
    }
  // States in the order of their distances: those at the same distance first, those one further last.
  constexpr std::uint32_t kUnknown = kNoLimit;
  std::deque<std::pair<std::uint16_t, std::uint32_t>> open;
  for (std::size_t s = 0; s < size; ++s) {
    automaton.states[s].distance = kUnknown;
    if (automaton.states[s].accepting) open.emplace_back(static_cast<std::uint16_t>(s), 0);
  }
  while (!open.empty()) {
    const auto [state, distance] = open.front();
    open.pop_front();
    if (automaton.states[state].distance != kUnknown) continue;
    automaton.states[state].distance = distance;
    automaton.most_distance = std::max(automaton.most_distance, distance);
    for (const auto& [source, begins] : sources[state])
      begins ? open.emplace_back(source, distance + 1) : open.emplace_front(source, distance);
  }
}

void drop_dead_ends(ByteAutomaton& automaton) {
  std::vector<std::vector<std::uint16_t>> sources(automaton.states.size());
  std::vector<std::uint16_t> alive;
  std::vector<bool> is_alive(automaton.states.size());
  const auto visit = [&](std::uint16_t state) {
    if (!is_alive[state]) alive.push_back(state);
    is_alive[state] = true;
  };
  for (std::size_t s = 0; s < automaton.states.size(); ++s) {
    for (std::size_t c = 0; c < automaton.classes; ++c) {
      const std::uint16_t to = automaton.next[s * automaton.classes + c];
      if (to != ByteAutomaton::kDead) sources[to].push_back(static_cast<std::uint16_t>(s));
    }
    if (automaton.has_calls(static_cast<std::uint16_t>(s)))
      for (const auto& call : automaton.calls[s]) sources[call.to].push_back(static_cast<std::uint16_t>(s));
    if (automaton.states[s].accepting) visit(static_cast<std::uint16_t>(s));
  }
  for (std::size_t i = 0; i < alive.size(); ++i) {
    for (const std::uint16_t source : sources[alive[i]]) visit(source);
  }
  for (std::uint16_t& to : automaton.next) {
    if (to != ByteAutomaton::kDead && !is_alive[to]) to = ByteAutomaton::kDead;
  }
  for (auto& calls : automaton.calls) std::erase_if(calls, [&](const auto& call) { return !is_alive[call.to]; });
  for (std::size_t s = 0; s < automaton.states.size(); ++s) {
    const auto row = automaton.next.begin() + static_cast<std::ptrdiff_t>(s * automaton.classes);
    const bool ends = std::all_of(row, row + static_cast<std::ptrdiff_t>(automaton.classes),
                                  [](std::uint16_t to) { return to == ByteAutomaton::kDead; });
    automaton.states[s].final =
        automaton.states[s].accepting && ends && !automaton.has_calls(static_cast<std::uint16_t>(s));
  }
  if (!is_alive[automaton.start]) automaton.start = ByteAutomaton::kDead;
}

ByteAutomaton make_automaton(const ByteNfa& nfa, std::uint32_t start, std::uint32_t accept, bool quoted,
                             CountRange characters, AutomatonBudget& budget) {
  return SubsetBuilder(nfa, accept, quoted, characters, budget).build(start);
}

}  // namespace foe

#include "grammar/automaton_product.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"

namespace foe {
namespace {

using Pair = std::pair<std::uint16_t, std::uint16_t>;

constexpr std::size_t kMaxPairs = 16 * 1024;

class Product {
 public:
  Product(const ByteAutomaton& a, const ByteAutomaton& b, AutomatonBudget& budget) : a_(a), b_(b), budget_(budget) {}

  ByteAutomaton build() {
    make_classes();
    result_.start = state({a_.start, b_.start});
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const auto [x, y] = pairs_[i];
      for (std::size_t c = 0; c < bytes_.size(); ++c) {
        const std::uint16_t to_x = a_.step(x, bytes_[c]), to_y = b_.step(y, bytes_[c]);
        if (to_x == ByteAutomaton::kDead || to_y == ByteAutomaton::kDead) continue;
        const std::uint16_t to = state({to_x, to_y});
        result_.next[i * result_.classes + c] = to;
      }
    }
    drop_dead_ends(result_);
    return std::move(result_);
  }

 private:
  // A class of bytes for each pair of theirs.
  void make_classes() {
    std::map<std::pair<std::uint8_t, std::uint8_t>, std::uint8_t> classes;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const auto [found, added] =
          classes.try_emplace({a_.byte_class[byte], b_.byte_class[byte]}, static_cast<std::uint8_t>(bytes_.size()));
      if (added) bytes_.push_back(static_cast<std::uint8_t>(byte));
      result_.byte_class[byte] = found->second;
    }
    result_.classes = bytes_.size();
  }

  std::uint16_t state(Pair pair) {
    const auto [found, added] = ids_.try_emplace(pair, static_cast<std::uint16_t>(pairs_.size()));
    if (!added) return found->second;
    if (pairs_.size() >= kMaxPairs || result_.classes > budget_.cells)
      fail("expected patterns that hold together within the limit on automata, got some past it; use shorter repeats");
    budget_.cells -= result_.classes;
    pairs_.push_back(pair);
    const ByteAutomaton::State &x = a_.states[pair.first], &y = b_.states[pair.second];
    result_.states.push_back({.accepting = x.accepting && y.accepting, .between_characters = x.between_characters});
    result_.next.resize(result_.next.size() + result_.classes, ByteAutomaton::kDead);
    return found->second;
  }

  const ByteAutomaton &a_, &b_;
  AutomatonBudget& budget_;
  ByteAutomaton result_;
  std::vector<std::uint8_t> bytes_;  // by class: one of its bytes
  std::map<Pair, std::uint16_t> ids_;
  std::vector<Pair> pairs_;  // by state
};

}  // namespace

ByteAutomaton intersection(const ByteAutomaton& a, const ByteAutomaton& b, AutomatonBudget& budget) {
  if (a.start == ByteAutomaton::kDead) return a;
  if (b.start == ByteAutomaton::kDead) return b;
  return Product(a, b, budget).build();
}

bool accepts(const ByteAutomaton& automaton, std::string_view text) {
  std::uint16_t state = automaton.start;
  for (const char byte : text) {
    if (state == ByteAutomaton::kDead) return false;
    state = automaton.step(state, static_cast<std::uint8_t>(byte));
  }
  return state != ByteAutomaton::kDead && automaton.states[state].accepting;
}

bool goes_on_for_ever(const ByteAutomaton& automaton) {
  if (automaton.start == ByteAutomaton::kDead) return false;
  // The states that can be reached, and by state those before it and how many are behind it.
  std::vector<std::uint16_t> reached = {automaton.start};
  std::vector<bool> known(automaton.states.size());
  known[automaton.start] = true;
  std::vector<std::vector<std::uint16_t>> before(automaton.states.size());
  std::vector<std::size_t> behind(automaton.states.size(), 0);
  for (std::size_t i = 0; i < reached.size(); ++i) {
    const auto row = automaton.next.begin() + static_cast<std::ptrdiff_t>(reached[i] * automaton.classes);
    for (std::size_t c = 0; c < automaton.classes; ++c) {
      const std::uint16_t to = row[static_cast<std::ptrdiff_t>(c)];
      if (to == ByteAutomaton::kDead) continue;
      ++behind[reached[i]];
      before[to].push_back(reached[i]);
      if (!known[to]) reached.push_back(to);
      known[to] = true;
    }
  }
  // States behind which all are such that texts end.
  std::vector<std::uint16_t> ending;
  for (const std::uint16_t state : reached)
    if (behind[state] == 0) ending.push_back(state);
  for (std::size_t i = 0; i < ending.size(); ++i) {
    if (!automaton.states[ending[i]].final) return false;
    for (const std::uint16_t state : before[ending[i]])
      if (--behind[state] == 0) ending.push_back(state);
  }
  return true;
}

}  // namespace foe

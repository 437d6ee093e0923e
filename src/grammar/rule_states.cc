#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "grammar/rule_compiler.h"

namespace foe {
namespace {

constexpr std::size_t kMaxWork = 2'000'000;  // cells that are looked at for one rule, in some milliseconds

using Class = std::uint16_t;

// What a state is known by: whether it accepts, its class so far, and the classes of the states behind it.
std::vector<std::uint32_t> signature(const ByteAutomaton& rule, std::size_t s, const std::vector<Class>& of) {
  std::vector<std::uint32_t> result = {rule.states[s].accepting, of[s]};
  for (std::size_t c = 0; c < rule.classes; ++c) {
    const std::uint16_t to = rule.next[s * rule.classes + c];
    result.push_back(to == ByteAutomaton::kDead ? to : of[to]);
  }
  if (rule.has_calls(static_cast<std::uint16_t>(s)))
    for (const ByteAutomaton::Call& call : rule.calls[s])  // ascending by rule, and one for each
      result.insert(result.end(), {call.rule, of[call.to]});
  return result;
}

// Returns the class of each state, such that states of one class are equal (Moore's algorithm); empty if this takes too
// long. Classes are numbered by their first states.
std::vector<Class> equal_states(const ByteAutomaton& rule) {
  std::vector<Class> of(rule.states.size(), 0);
  std::size_t classes = 1;
  for (std::size_t work = 0; work <= kMaxWork; work += rule.next.size() + 2 * rule.states.size()) {
    std::map<std::vector<std::uint32_t>, Class> known;
    std::vector<Class> finer;
    for (std::size_t s = 0; s < of.size(); ++s)
      finer.push_back(known.try_emplace(signature(rule, s, of), static_cast<Class>(known.size())).first->second);
    of = std::move(finer);
    if (known.size() == classes) return of;
    classes = known.size();
  }
  return {};
}

void merge_equal_states(ByteAutomaton& rule) {
  const std::vector<Class> of = equal_states(rule);
  if (of.empty()) return;
  ByteAutomaton merged = rule;
  merged.states.clear();
  merged.next.clear();
  merged.calls.clear();
  for (std::size_t s = 0; s < of.size(); ++s) {
    if (of[s] < merged.states.size()) continue;
    merged.states.push_back(rule.states[s]);
    for (std::size_t c = 0; c < rule.classes; ++c) {
      const std::uint16_t to = rule.next[s * rule.classes + c];
      merged.next.push_back(to == ByteAutomaton::kDead ? to : of[to]);
    }
    merged.calls.push_back(rule.calls[s]);
    for (ByteAutomaton::Call& call : merged.calls.back()) call.to = of[call.to];
  }
  merged.start = of[rule.start];
  rule = std::move(merged);
}

// Whether the state accepts, and no other that does can be reached from it: then what may follow it may come any number
// of times.
bool repeats(const ByteAutomaton& rule, std::uint16_t state, std::size_t& work) {
  if (!rule.states[state].accepting) return false;
  std::vector<bool> known(rule.states.size());
  std::vector<std::uint16_t> open = {state};
  known[state] = true;
  const auto visit = [&](std::uint16_t to) {
    if (to == ByteAutomaton::kDead || known[to]) return;
    known[to] = true;
    open.push_back(to);
  };
  for (std::size_t i = 0; i < open.size(); ++i) {
    work += rule.classes;
    if (work > kMaxWork || (i > 0 && rule.states[open[i]].accepting)) return false;
    for (std::size_t c = 0; c < rule.classes; ++c) visit(rule.next[open[i] * rule.classes + c]);
    if (rule.has_calls(open[i]))
      for (const ByteAutomaton::Call& call : rule.calls[open[i]]) visit(call.to);
  }
  return true;
}

}  // namespace

void simplify_rule(ByteAutomaton& rule) {
  if (rule.start == ByteAutomaton::kDead || rule.calls.empty()) return;
  merge_equal_states(rule);
  std::size_t work = 0;
  for (std::size_t s = 0; s < rule.states.size(); ++s)
    rule.states[s].repeats = repeats(rule, static_cast<std::uint16_t>(s), work);
}

}  // namespace foe

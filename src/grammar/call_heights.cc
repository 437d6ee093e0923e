#include <queue>
#include <utility>
#include <vector>

#include "grammar/rule_compiler.h"

namespace foe {
namespace {

// Finds heights from the lowest on (Dijkstra's algorithm). A state's height is 0 if it accepts, else the least over its
// ways on: of a byte, the next state's; of a call, the greater one of the state behind it and of the rule, which is one
// higher unless nothing can follow the call.
class Heights {
 public:
  Heights(const GrammarProgram& program, std::vector<ByteAutomaton>& automata) : automata_(automata) {
    for (const ByteAutomaton& one : automata) {
      begins_.push_back(sources_.size());
      sources_.resize(sources_.size() + one.states.size());
    }
    heights_.resize(sources_.size(), kNone);
    for (std::size_t a = 0; a < automata.size(); ++a) add_edges(program, a);
  }

  void find() {
    for (std::size_t a = 0; a < automata_.size(); ++a)
      for (std::size_t s = 0; s < automata_[a].states.size(); ++s)
        if (automata_[a].states[s].accepting) open_.emplace(0, begins_[a] + s);
    while (!open_.empty()) {
      const auto [height, state] = open_.top();
      open_.pop();
      if (heights_[state] != kNone) continue;
      heights_[state] = height;
      for (const Edge& edge : sources_[state]) {
        const std::uint32_t own = edge.other == kNoOther ? 0 : heights_[edge.other];
        if (own == kNone) continue;  // comes again with the other one
        const std::uint32_t callee = edge.callee_is_other ? own : height, behind = edge.callee_is_other ? height : own;
        const std::uint32_t least = edge.other == kNoOther ? height : std::max(callee + edge.cost, behind);
        open_.emplace(least, edge.from);
      }
    }
    for (std::size_t a = 0; a < automata_.size(); ++a)
      for (std::size_t s = 0; s < automata_[a].states.size(); ++s) set(a, s);
  }

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::size_t kNoOther = static_cast<std::size_t>(-1);
  struct Edge {
    std::size_t from;
    std::size_t other = kNoOther;  // calls: the state whose height is needed, too
    bool callee_is_other = false;
    std::uint32_t cost = 0;
  };

  void add_edges(const GrammarProgram& program, std::size_t a) {
    const ByteAutomaton& rule = automata_[a];
    for (std::size_t s = 0; s < rule.states.size(); ++s) {
      const std::size_t from = begins_[a] + s;
      std::size_t last = kNoOther;
      for (std::size_t c = 0; c < rule.classes; ++c) {
        const std::uint16_t to = rule.next[s * rule.classes + c];
        if (to == ByteAutomaton::kDead || begins_[a] + to == last) continue;
        last = begins_[a] + to;
        sources_[last].push_back({from});
      }
      if (!rule.has_calls(static_cast<std::uint16_t>(s))) continue;
      for (const ByteAutomaton::Call& call : rule.calls[s]) {
        const std::uint32_t callee = std::get<RuleNode>(program.nodes[call.rule].body).automaton;
        if (automata_[callee].start == ByteAutomaton::kDead) continue;
        const std::size_t start = begins_[callee] + automata_[callee].start, behind = begins_[a] + call.to;
        const std::uint32_t cost = rule.states[call.to].final ? 0 : 1;
        sources_[start].push_back({from, behind, false, cost});
        sources_[behind].push_back({from, start, true, cost});
      }
    }
  }

  void set(std::size_t a, std::size_t s) {
    const std::uint32_t height = heights_[begins_[a] + s];
    auto& state = automata_[a].states[s];
    state.height = static_cast<std::uint16_t>(std::min(height, kMaxCalls + 1));
    if (height <= kMaxCalls) automata_[a].height = std::max(automata_[a].height, state.height);
  }

  std::vector<ByteAutomaton>& automata_;
  std::vector<std::size_t> begins_;         // by automaton: the number of its state 0
  std::vector<std::vector<Edge>> sources_;  // by state: the edges that lead to it
  std::vector<std::uint32_t> heights_;
  using Found = std::pair<std::uint32_t, std::size_t>;
  std::priority_queue<Found, std::vector<Found>, std::greater<>> open_;
};

// Finds the bytes with which a rule can begin, of those it calls first. Chains of these are short enough to follow by
// functions within each other: each is a rule.
class FirstBytes {
 public:
  FirstBytes(const GrammarProgram& program, std::vector<ByteAutomaton>& automata)
      : program_(program), automata_(automata), known_(automata.size(), false) {}

  const std::bitset<256>& of(std::uint32_t a) {
    ByteAutomaton& rule = automata_[a];
    if (known_[a] || rule.start == ByteAutomaton::kDead) return rule.first;
    known_[a] = true;
    if (rule.has_calls(rule.start))
      for (const auto& call : rule.calls[rule.start]) rule.first |= of(automaton_of(call));
    for (unsigned byte = 0; byte < 256; ++byte)
      if (rule.step(rule.start, static_cast<std::uint8_t>(byte)) != ByteAutomaton::kDead) rule.first.set(byte);
    return rule.first;
  }

  void set_call_bytes(std::uint32_t a) {
    ByteAutomaton& rule = automata_[a];
    rule.call_bytes.resize(rule.calls.size());
    for (std::size_t s = 0; s < rule.calls.size(); ++s)
      for (const auto& call : rule.calls[s]) rule.call_bytes[s] |= of(automaton_of(call));
  }

 private:
  std::uint32_t automaton_of(const ByteAutomaton::Call& call) const {
    return std::get<RuleNode>(program_.nodes[call.rule].body).automaton;
  }

  const GrammarProgram& program_;
  std::vector<ByteAutomaton>& automata_;
  std::vector<bool> known_;
};

}  // namespace

void finish_rules(GrammarProgram& program, std::vector<ByteAutomaton>& automata) {
  Heights(program, automata).find();
  FirstBytes first(program, automata);
  for (std::uint32_t a = 0; a < automata.size(); ++a) first.of(a);
  for (std::uint32_t a = 0; a < automata.size(); ++a) first.set_call_bytes(a);
}

}  // namespace foe

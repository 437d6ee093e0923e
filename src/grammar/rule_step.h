// Steps of stacks of rules. Private to stacks.cc and rule_step.cc.
//
// A frame of a rule has a state of the rule's automaton. It begins in phase kOpen, when no byte has come, and goes on
// in kAfter. The state of a rule that has called another one is the one behind the call. A call behind which nothing
// can follow takes the place of its frame, so that rules that end with themselves need no depth. Nor does a frame in a
// state that repeats lie on an equal one: both together say the same as one of them. So the readings of e: e e | "x"
// are few. Where a rule may be empty, an empty edge of the caller's automaton says so: a frame in kOpen is never left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

#include "grammar/stacks.h"

namespace foe {

struct Stacks::RuleStep {
  Stacks& stacks;
  std::vector<Stack>& out;
  std::size_t begin;
  std::uint8_t byte;

  const GrammarProgram& program() const { return *stacks.program_; }
  const ByteAutomaton& automaton(const RuleNode& node) const { return *program().automata[node.automaton]; }

  std::size_t most = stacks.program_->of_rules ? kMaxRuleStacks : kMaxStacks;

  bool full() const { return out.size() - begin >= most; }
  void emit(const Stack& stack) {
    const auto first = out.begin() + static_cast<std::ptrdiff_t>(begin);
    if (!full() && std::find(first, out.end(), stack) == out.end()) out.push_back(stack);
  }

  Stack popped(const Stack& stack) const {
    const Below& below = stacks.frames_[stack.below];
    return {below.frame, below.below};
  }

  // What follows is of rules alone.
  struct Hash {
    std::size_t operator()(const Stack& stack) const {
      return (rule_state(stack) ^ stack.below * 0x9e3779b97f4a7c15) * 0xd6e8feb86659fd93 >> 16;
    }
  };
  std::unordered_set<Stack, Hash> seen = {};  // the stacks that have been stepped

  // Returns how many calls may still be open above the stack's top frame.
  std::uint32_t levels(const Stack& stack) const { return kMaxCalls - stacks.frames_[stack.below].nesting; }
  bool lies_on_equal(const ByteAutomaton& rule, const Stack& stack) const {
    return rule.states[stack.top.state].repeats && stacks.frames_[stack.below].frame == stack.top;
  }
  void run_rule(const Stack& stack);
  void call(const ByteAutomaton::Call& call, const ByteAutomaton& rule, const Stack& stack);
};

}  // namespace foe

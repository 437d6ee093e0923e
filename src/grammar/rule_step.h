// Steps of stacks of rules. Private to stacks.cc and rule_step.cc.
//
// A frame of a rule has a state of the rule's automaton. It begins in phase kOpen, when no byte has come, and goes on
// in kAfter. The state of a rule that has called another one is the one behind the call. A call behind which nothing
// can follow takes the place of its frame, so that rules that end with themselves need no depth. Where a rule may be
// empty, an empty edge of the caller's automaton says so: a frame in kOpen is never left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "grammar/stacks.h"

namespace foe {

struct Stacks::RuleStep {
  Stacks& stacks;
  std::vector<Stack>& out;
  std::size_t begin;
  std::uint8_t byte;
  std::vector<Stack> called = {};  // frames in kOpen that have been stepped

  const GrammarProgram& program() const { return *stacks.program_; }
  const ByteAutomaton& automaton(const RuleNode& node) const { return *program().automata[node.automaton]; }

  std::size_t most = stacks.program_->of_rules ? kMaxRuleStacks : kMaxStacks;

  bool full() const { return out.size() - begin >= most; }
  void emit(const Stack& stack) {
    stacks.compared += out.size() - begin;
    const auto first = out.begin() + static_cast<std::ptrdiff_t>(begin);
    if (!full() && std::find(first, out.end(), stack) == out.end()) out.push_back(stack);
  }

  Stack popped(const Stack& stack) const {
    const Below& below = stacks.frames_[stack.below];
    return {below.frame, below.below};
  }

  // Returns how many calls may still be open above the stack's top frame.
  std::uint32_t levels(const Stack& stack) const { return kMaxCalls - stacks.frames_[stack.below].nesting; }

  void run_rule(const RuleNode& node, const Stack& stack);
  // Calls f with the stack of each call that the state of the top frame may make.
  template <typename F>
  void each_call(const RuleNode& node, const Stack& stack, const F& f);
};

template <typename F>
void Stacks::RuleStep::each_call(const RuleNode& node, const Stack& stack, const F& f) {
  const ByteAutomaton& rule = automaton(node);
  if (!rule.has_calls(stack.top.state)) return;
  for (const ByteAutomaton::Call& call : rule.calls[stack.top.state]) {
    const ByteAutomaton::State& behind = rule.states[call.to];
    if (behind.height > levels(stack)) continue;
    Stack rest = stack;
    rest.top.state = call.to;
    rest.top.phase = Frame::Phase::kAfter;
    if (!behind.final && levels(stack) == 0) continue;
    Stack callee{{}, behind.final ? stack.below : stacks.push(rest)};
    const ByteAutomaton& called_rule = automaton(std::get<RuleNode>(program().nodes[call.rule].body));
    callee.top.node = call.rule;
    callee.top.phase = Frame::Phase::kOpen;
    callee.top.state = called_rule.start;
    if (called_rule.states[called_rule.start].height <= levels(callee)) f(callee);
  }
}

}  // namespace foe

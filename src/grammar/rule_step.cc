#include "grammar/rule_step.h"

namespace foe {

namespace {
using Phase = Frame::Phase;
}

// What the rule's own automaton reads comes first: a token that it reads to the end then never falls to the limit on
// stacks.
void Stacks::RuleStep::run_rule(const Stack& stack) {
  if (stack.top.node == Frame::kDocument || full()) return;
  const ByteAutomaton& rule = automaton(std::get<RuleNode>(program().nodes[stack.top.node].body));
  const bool open = stack.top.phase == Phase::kOpen;
  ++stacks.compared;
  if ((open && !rule.first[byte]) || !seen.insert(stack).second) return;
  const std::uint16_t state = rule.step(stack.top.state, byte);
  if (state != ByteAutomaton::kDead && rule.states[state].height <= levels(stack)) {
    Stack next = stack;
    next.top.state = state;
    next.top.phase = Phase::kAfter;
    emit(rule.states[state].final || lies_on_equal(rule, next) ? popped(stack) : next);
  }
  if (rule.has_calls(stack.top.state) && rule.call_bytes[stack.top.state][byte])
    for (const ByteAutomaton::Call& one : rule.calls[stack.top.state]) call(one, rule, stack);
  if (!open && rule.states[stack.top.state].accepting) run_rule(popped(stack));
}

// Steps the stack of a call that the state of the top frame may make.
void Stacks::RuleStep::call(const ByteAutomaton::Call& call, const ByteAutomaton& rule, const Stack& stack) {
  const ByteAutomaton::State& behind = rule.states[call.to];
  if (behind.height > levels(stack) || (!behind.final && levels(stack) == 0)) return;
  Stack rest = stack;
  rest.top.state = call.to;
  rest.top.phase = Phase::kAfter;
  Stack callee{{}, behind.final || lies_on_equal(rule, rest) ? stack.below : stacks.push(rest)};
  const ByteAutomaton& called_rule = automaton(std::get<RuleNode>(program().nodes[call.rule].body));
  callee.top.node = call.rule;
  callee.top.phase = Phase::kOpen;
  callee.top.state = called_rule.start;
  if (called_rule.states[called_rule.start].height <= levels(callee)) run_rule(callee);
}

std::vector<Stack> Stacks::step_rules(const std::vector<Stack>& stacks, std::uint8_t byte) {
  std::vector<Stack> result;
  RuleStep step{*this, result, 0, byte};
  for (const Stack& stack : stacks) step.run_rule(begun_rule(stack).value_or(stack));
  return result;
}

// Returns the stack of a document whose value is a text of a rule before its first byte, as reading it begins.
std::optional<Stack> Stacks::begun_rule(const Stack& stack) {
  if (stack.top.node != Frame::kDocument || stack.top.phase != Phase::kValue) return std::nullopt;
  const auto& roots = std::get<ChoiceNode>(program_->nodes[program_->root].body).alternatives;
  const auto* node = roots.size() == 1 ? std::get_if<RuleNode>(&program_->nodes[roots[0]].body) : nullptr;
  if (!node || program_->nodes[roots[0]].height == kUnreachable) return std::nullopt;
  Stack document = stack;
  document.top.phase = Phase::kAfter;
  Stack result{{}, push(document)};
  result.top.node = roots[0];
  result.top.phase = Phase::kOpen;
  result.top.state = program_->automata[node->automaton]->start;
  return result;
}

}  // namespace foe

#include "grammar/rule_step.h"

namespace foe {

namespace {
using Phase = Frame::Phase;
}

// What the rule's own automaton reads comes first: a token that it reads to the end then never falls to the limit on
// stacks.
void Stacks::RuleStep::run_rule(const RuleNode& node, const Stack& stack) {
  const ByteAutomaton& rule = automaton(node);
  const bool open = stack.top.phase == Phase::kOpen;
  stacks.compared += 8 + called.size();  // a step of an automaton costs some comparisons
  if (full() || (open && !rule.first[byte])) return;
  if (open && std::find(called.begin(), called.end(), stack) != called.end()) return;
  if (open) called.push_back(stack);
  const std::uint16_t state = rule.step(stack.top.state, byte);
  if (state != ByteAutomaton::kDead && rule.states[state].height <= levels(stack)) {
    Stack next = stack;
    next.top.state = state;
    next.top.phase = Phase::kAfter;
    emit(rule.states[state].final ? popped(stack) : next);
  }
  const auto step = [&](const Stack& one) {
    if (one.top.node == Frame::kDocument) return;
    run_rule(std::get<RuleNode>(program().nodes[one.top.node].body), one);
  };
  if (rule.has_calls(stack.top.state) && rule.call_bytes[stack.top.state][byte]) each_call(node, stack, step);
  if (!open && rule.states[stack.top.state].accepting) step(popped(stack));
}

std::vector<Stack> Stacks::without_byte(const std::vector<Stack>& stacks) {
  std::vector<Stack> result = stacks;
  if (!program_->of_rules) return result;
  RuleStep step{*this, result, 0, 0};
  step.most = kMaxClosedStacks;
  for (Stack& stack : result)
    if (const auto begun = begun_rule(stack)) stack = *begun;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const Stack one = result[i];
    const auto* node = rule(one);
    if (node) step.each_call(*node, one, [&](const Stack& callee) { step.emit(callee); });
    if (node && one.top.phase != Phase::kOpen && step.automaton(*node).states[one.top.state].accepting)
      step.emit(step.popped(one));
  }
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

void Stacks::follow(const Stack& stack, std::string_view bytes, std::vector<Stack>& out) {
  const RuleNode* node = rule(stack);
  if (!node) return follow_from({stack}, bytes, out);
  const ByteAutomaton& automaton = *program_->automata[node->automaton];
  const std::size_t length = text.size();
  RuleStep step{*this, out, 0, 0};
  Stack now = stack;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) {
      std::vector<Stack> behind;
      leave(now, 0, behind, 0);
      text.append(bytes.substr(0, i));
      follow_from(std::move(behind), bytes.substr(i), out);
      text.resize(length);
    }
    now.top.state = automaton.step(now.top.state, static_cast<std::uint8_t>(bytes[i]));
    now.top.phase = Phase::kAfter;
    if (now.top.state == ByteAutomaton::kDead || automaton.states[now.top.state].height > step.levels(stack)) return;
    if (!automaton.states[now.top.state].final) continue;
    text.append(bytes.substr(0, i + 1));
    follow_from({step.popped(stack)}, bytes.substr(i + 1), out);
    text.resize(length);
    return;
  }
  step.emit(now);
}

void Stacks::follow_from(std::vector<Stack> now, std::string_view bytes, std::vector<Stack>& out) {
  const std::size_t length = text.size();
  std::vector<Stack> next;
  for (const char byte : bytes) {
    text.push_back(byte);
    next.clear();
    for (const Stack& one : now) step(one, next, 0);
    now.swap(next);
  }
  text.resize(length);
  RuleStep merge{*this, out, 0, 0};
  for (const Stack& one : now) merge.emit(one);
}

}  // namespace foe

#include "grammar/pattern.h"

#include "grammar/json_characters.h"
#include "grammar/pattern_syntax.h"

namespace foe {
namespace {

std::uint32_t add_repeat(ByteNfa& nfa, std::uint32_t from, const PatternNode& node, Spelling spelling,
                         const AddRule& add_rule) {
  const PatternNode& part = node.children.front();
  const auto add_copy = [&](std::uint32_t state) {
    const std::uint32_t begin = nfa.add_state();
    nfa.add_empty(state, begin);
    return add_pattern(nfa, begin, part, spelling, add_rule);
  };
  for (std::uint32_t i = 0; i < node.times.min; ++i) from = add_copy(from);
  const std::uint32_t end = nfa.add_state();
  if (node.times.max == kNoLimit) {
    const std::uint32_t loop = nfa.add_state();
    nfa.add_empty(from, loop);
    nfa.add_empty(add_copy(loop), loop);
    from = loop;
  } else {
    for (std::uint32_t i = node.times.min; i < node.times.max; ++i) {
      nfa.add_empty(from, end);
      from = add_copy(from);
    }
  }
  nfa.add_empty(from, end);
  return end;
}

}  // namespace

std::uint32_t add_pattern(ByteNfa& nfa, std::uint32_t from, const PatternNode& node, Spelling spelling,
                          const AddRule& add_rule) {
  using Kind = PatternNode::Kind;
  if (node.kind == Kind::kRepeat) return add_repeat(nfa, from, node, spelling, add_rule);
  if (node.kind == Kind::kRule) return add_rule(nfa, from, node.rule);
  if (node.kind == Kind::kSequence) {
    for (const PatternNode& child : node.children) from = add_pattern(nfa, from, child, spelling, add_rule);
    return from;
  }
  const std::uint32_t to = nfa.add_state();
  if (node.kind == Kind::kCharacters) add_characters(nfa, from, to, node.characters, spelling);
  if (node.kind == Kind::kBegin) nfa.add_empty(from, to, ByteNfa::EdgeKind::kBegin);
  if (node.kind == Kind::kEnd) nfa.add_empty(from, to, ByteNfa::EdgeKind::kEnd);
  for (const PatternNode& child : node.children) nfa.add_empty(add_pattern(nfa, from, child, spelling, add_rule), to);
  return to;
}

ByteAutomaton compile_pattern(std::string_view pattern, PatternUse use, CountRange characters,
                              AutomatonBudget& budget) {
  const PatternNode tree = parse_pattern(pattern);
  ByteNfa nfa;
  const std::uint32_t start = nfa.add_state();
  if (use == PatternUse::kWhole) {
    const std::uint32_t end = add_pattern(nfa, start, tree, Spelling::kPlain);
    return make_automaton(nfa, start, end, /*quoted=*/false, characters, budget);
  }
  const CodePoints any = complement({});
  const std::uint32_t match = nfa.add_state();
  nfa.add_empty(start, match);
  add_characters(nfa, start, start, any);
  const std::uint32_t matched = add_pattern(nfa, match, tree, Spelling::kJson);
  const std::uint32_t end = nfa.add_state();
  nfa.add_empty(matched, end);
  add_characters(nfa, end, end, any);
  return make_automaton(nfa, start, end, /*quoted=*/true, characters, budget);
}

}  // namespace foe

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "grammar/nodes.h"

namespace foe {
namespace {

constexpr std::size_t kMaxAlternatives = 128;
constexpr std::size_t kMaxFlattening = 1'000'000;  // the most steps of flattening

void flatten(GrammarProgram& program) {
  std::size_t steps = 0;
  const auto choice = [&](NodeId id) { return std::get_if<ChoiceNode>(&program.nodes[id].body); };
  std::vector<std::vector<NodeId>> flat(program.nodes.size());
  std::vector<NodeId> seen_by(program.nodes.size(), kUnreachable);  // the last choice that has reached the node
  for (NodeId id = 0; id < program.nodes.size(); ++id) {
    if (!choice(id)) continue;
    // Depth first, so that alternatives stay in the order of the schema.
    std::vector<NodeId> open = {id};
    while (!open.empty()) {
      const NodeId next = open.back();
      open.pop_back();
      if (++steps > kMaxFlattening)
        fail("expected at most {} steps through anyOf and oneOf within each other, got more", kMaxFlattening);
      if (std::exchange(seen_by[next], id) == id) continue;
      if (const ChoiceNode* inner = choice(next)) {
        open.insert(open.end(), inner->alternatives.rbegin(), inner->alternatives.rend());
      } else {
        flat[id].push_back(next);
      }
    }
    if (flat[id].size() > kMaxAlternatives) {
      fail("expected at most {} alternatives, got {}", kMaxAlternatives, flat[id].size());
    }
  }
  for (NodeId id = 0; id < program.nodes.size(); ++id) {
    if (ChoiceNode* node = std::get_if<ChoiceNode>(&program.nodes[id].body)) node->alternatives = std::move(flat[id]);
  }
}

// Computes the height of a node from those of the nodes below, as far as they are known.
struct HeightOf {
  const GrammarProgram& program;

  std::uint32_t of(NodeId id) const { return program.nodes[id].height; }
  static std::uint32_t around(std::uint32_t inner) { return inner >= kMaxNesting ? kUnreachable : inner + 1; }

  std::uint32_t operator()(const ChoiceNode& node) const {
    std::uint32_t result = kUnreachable;
    for (const NodeId id : node.alternatives) result = std::min(result, of(id));
    return result;
  }
  std::uint32_t operator()(const LiteralsNode& node) const { return node.texts.empty() ? kUnreachable : 0; }
  std::uint32_t operator()(const AutomatonNode& node) const {
    const ByteAutomaton& automaton = *program.automata[node.automaton];
    const bool has_texts =
        automaton.start != ByteAutomaton::kDead && automaton.states[automaton.start].distance <= node.max_characters;
    return has_texts ? 0 : kUnreachable;
  }
  std::uint32_t operator()(const RuleNode& node) const {
    const ByteAutomaton& automaton = *program.automata[node.automaton];
    const bool has_texts =
        automaton.start != ByteAutomaton::kDead && automaton.states[automaton.start].height <= kMaxCalls;
    return has_texts ? 0 : kUnreachable;
  }
  std::uint32_t operator()(const StringNode& node) const {
    return node.characters.min <= node.characters.max ? 0 : kUnreachable;
  }
  std::uint32_t operator()(const ArrayNode& node) const {
    if (node.count.min > node.count.max) return kUnreachable;
    std::uint32_t inner = 0;
    const auto in_prefix = std::min<std::size_t>(node.count.min, node.prefix.size());
    for (std::size_t i = 0; i < in_prefix; ++i) inner = std::max(inner, of(node.prefix[i]));
    if (node.count.min > in_prefix) inner = std::max(inner, node.items ? of(*node.items) : kUnreachable);
    return around(inner);
  }
  std::uint32_t operator()(const ObjectNode& node) const {
    const std::uint32_t required = node.required.front();
    if (std::max(required, node.count.min) > node.count.max) return kUnreachable;
    std::uint32_t inner = 0;
    std::vector<std::uint32_t> optional;
    for (const ObjectNode::Property& property : node.properties) {
      if (property.required) {
        inner = std::max(inner, of(property.value));
      } else {
        optional.push_back(of(property.value));
      }
    }
    if (node.count.min > required) {
      const std::size_t more = node.count.min - required;
      std::sort(optional.begin(), optional.end());
      std::uint32_t last = node.additional ? of(*node.additional) : kUnreachable;
      if (more <= optional.size()) last = std::min(last, optional[more - 1]);
      inner = std::max(inner, last);
    }
    return around(inner);
  }
};

}  // namespace

void finish_program(GrammarProgram& program) {
  flatten(program);
  // This ends because every finite height is at most kMaxNesting, and is found after those below it.
  for (bool changed = true; changed;) {
    changed = false;
    for (GrammarNode& node : program.nodes) {
      const std::uint32_t height = std::visit(HeightOf{program}, node.body);
      FOE_CHECK(height <= node.height, "{} {}", height, node.height);
      changed |= height != node.height;
      node.height = height;
    }
  }
}

}  // namespace foe

// The nodes that a schema or a grammar of rules is compiled to. Private to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "grammar/byte_automaton.h"

namespace foe {

// An index into GrammarProgram::nodes. A value is referred to by its ChoiceNode, whose alternatives are complete after
// finish_program().
using NodeId = std::uint32_t;

// The most arrays and objects that may be open at once. Texts that would need more are not allowed.
constexpr std::uint32_t kMaxNesting = 64;
// The most calls of rules that may be open at once; one at the end of a rule takes the place of that rule.
constexpr std::uint32_t kMaxCalls = 128;
constexpr std::uint32_t kUnreachable = std::numeric_limits<std::uint32_t>::max();

// One of several values. finish_program() replaces alternatives that are choices by theirs.
struct ChoiceNode {
  std::vector<NodeId> alternatives;
};

// One of these texts, which are in ascending order.
struct LiteralsNode {
  std::vector<std::string> texts;
};

// A number, or a string with a pattern.
struct AutomatonNode {
  std::uint32_t automaton;                  // an index into GrammarProgram::automata
  std::uint32_t max_characters = kNoLimit;  // the most characters, if the automaton does not count them
};

// A text of a rule. A program has either such nodes, one for each rule that is called, or the others.
struct RuleNode {
  std::uint32_t automaton;  // an index into GrammarProgram::automata; its calls have the ids of nodes
};

// Any string with so many characters, read by automaton kStringAutomaton.
struct StringNode {
  CountRange characters;
};

struct ArrayNode {
  std::vector<NodeId> prefix;   // the values of the first items
  std::optional<NodeId> items;  // the value of all later items; none: there must be none
  CountRange count;

  std::optional<NodeId> item(std::uint32_t index) const { return index < prefix.size() ? prefix[index] : items; }
};

struct ObjectNode {
  struct Property {
    std::string key;  // as a JSON string
    NodeId value;
    bool required;
  };
  std::vector<Property> properties;     // in the order in which they come, before all others
  std::vector<std::uint32_t> by_key;    // the indices of properties in ascending order of keys
  std::vector<std::uint32_t> required;  // by index: how many properties from there on are required
  std::optional<NodeId> additional;     // the value of any other property; none: there must be none
  // The automaton of the names of others, an index into GrammarProgram::automata. Any beginning of a name goes on in
  // infinitely many ways, so that there is always one that has not come.
  std::uint32_t names = 0;
  CountRange count;
};

struct GrammarNode {
  std::variant<ChoiceNode, LiteralsNode, AutomatonNode, RuleNode, StringNode, ArrayNode, ObjectNode> body;
  std::uint32_t height = kUnreachable;  // how many arrays and objects the flattest value has open at once
};

constexpr std::uint32_t kStringAutomaton = 0;

struct GrammarProgram {
  std::vector<GrammarNode> nodes;
  std::vector<std::shared_ptr<const ByteAutomaton>> automata;
  NodeId root = 0;
  bool of_rules = false;  // whether the root is a RuleNode
  // Rules: bytes of one class are told apart by no automaton.
  std::array<std::uint8_t, 256> byte_class = {};
  std::size_t byte_classes = 0;
  bool allows_empty = false;  // whether the empty text is allowed
};

// Flattens the choices and computes the heights. A height stays kUnreachable if there is no value, or none that is flat
// enough. Throws Error if flattening takes too many steps, or leaves a choice with too many alternatives.
void finish_program(GrammarProgram& program);

}  // namespace foe

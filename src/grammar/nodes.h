// What a schema is compiled to. Private to this folder.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "grammar/byte_automaton.h"

namespace foe {

// An index into GrammarProgram::nodes. Values are referred to by their choice, which is complete once it is flattened.
using NodeId = std::uint32_t;

// Arrays and objects that may be open at once. Texts that would need more are not allowed.
constexpr std::uint32_t kMaxNesting = 64;
constexpr std::uint32_t kUnreachable = std::numeric_limits<std::uint32_t>::max();

// One of several values. Choices among the alternatives are replaced by theirs in the end.
struct ChoiceNode {
  std::vector<NodeId> alternatives;
};

// One of these texts, in ascending order.
struct LiteralsNode {
  std::vector<std::string> texts;
};

// A number, or a string with a pattern.
struct AutomatonNode {
  std::uint32_t automaton;  // an index into GrammarProgram::automata
};

// Any string of so many characters, run by automaton kStringAutomaton.
struct StringNode {
  CountRange characters;
};

struct ArrayNode {
  std::vector<NodeId> prefix;   // of the first items
  std::optional<NodeId> items;  // of those after them
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
  std::vector<std::uint32_t> by_key;    // their indices, in ascending order of keys
  std::vector<std::uint32_t> required;  // by index: how many from there on are required
  std::optional<NodeId> additional;     // value of any other property
  CountRange count;
};

struct GrammarNode {
  std::variant<ChoiceNode, LiteralsNode, AutomatonNode, StringNode, ArrayNode, ObjectNode> body;
  std::uint32_t height = kUnreachable;  // arrays and objects that the flattest value has open at once
};

constexpr std::uint32_t kStringAutomaton = 0;

struct GrammarProgram {
  std::vector<GrammarNode> nodes;
  std::vector<std::shared_ptr<const ByteAutomaton>> automata;
  NodeId root = 0;
};

// Flattens the choices and finds the heights. kUnreachable stays where no value is flat enough, or there is none.
void finish_program(GrammarProgram& program);

}  // namespace foe

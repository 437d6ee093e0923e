#include "grammar/schema_exclusion.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxComparisons = 1'000'000;  // the most comparisons of literals and keys

class Exclusion {
 public:
  explicit Exclusion(const GrammarProgram& program) : program_(program) {}

  bool choices(NodeId a, NodeId b, bool literals_only = false) {
    for (const NodeId x : alternatives(a)) {
      for (const NodeId y : alternatives(b)) {
        if (!nodes(x, y, literals_only)) return false;
      }
    }
    return true;
  }

 private:
  const std::vector<NodeId>& alternatives(NodeId choice) const {
    return std::get<ChoiceNode>(program_.nodes[choice].body).alternatives;
  }

  // Returns a letter for each type that the node's values have: the first character of their texts, for numbers '0'.
  std::string types(NodeId id) const {
    const auto& body = program_.nodes[id].body;
    const auto type_of = [](char first) { return std::string_view("\"[{ntf").find(first) < 6 ? first : '0'; };
    if (std::holds_alternative<StringNode>(body)) return "\"";
    if (std::holds_alternative<ArrayNode>(body)) return "[";
    if (std::holds_alternative<ObjectNode>(body)) return "{";
    std::string result;
    if (const auto* node = std::get_if<LiteralsNode>(&body)) {
      for (const std::string& text : node->texts) {
        if (result.empty() || result.back() != type_of(text[0])) result += type_of(text[0]);
      }
    } else if (const auto* automaton = std::get_if<AutomatonNode>(&body)) {
      const ByteAutomaton& a = *program_.automata[automaton->automaton];
      if (a.start == ByteAutomaton::kDead) return "";
      result = a.step(a.start, '"') != ByteAutomaton::kDead ? "\"" : "0";
    }
    return result;
  }

  bool nodes(NodeId a, NodeId b, bool literals_only) {
    if (++comparisons_ > kMaxComparisons) return false;
    if (types(a).find_first_of(types(b)) == std::string::npos) return true;
    const auto* literals_a = std::get_if<LiteralsNode>(&program_.nodes[a].body);
    const auto* literals_b = std::get_if<LiteralsNode>(&program_.nodes[b].body);
    if (literals_a && literals_b) return literals(*literals_a, *literals_b);
    if (literals_only) return false;
    const auto* object_a = std::get_if<ObjectNode>(&program_.nodes[a].body);
    const auto* object_b = std::get_if<ObjectNode>(&program_.nodes[b].body);
    return object_a && object_b && objects(*object_a, *object_b);
  }

  // Different texts are different values, unless both sides have numbers, arrays or objects, which have several texts.
  bool literals(const LiteralsNode& a, const LiteralsNode& b) {
    comparisons_ += a.texts.size() + b.texts.size();
    const auto plain = [](const std::string& text) { return std::string_view("\"ntf").find(text[0]) < 4; };
    const auto all_plain = [&](const LiteralsNode& node) {
      return std::all_of(node.texts.begin(), node.texts.end(), plain);
    };
    return (all_plain(a) || all_plain(b)) && std::none_of(a.texts.begin(), a.texts.end(), [&](const auto& text) {
             return std::binary_search(b.texts.begin(), b.texts.end(), text);
           });
  }

  bool objects(const ObjectNode& a, const ObjectNode& b) {
    for (const ObjectNode::Property& property : a.properties) {
      ++comparisons_;
      if (!property.required) continue;
      const auto found =
          std::lower_bound(b.by_key.begin(), b.by_key.end(), property.key,
                           [&](std::uint32_t i, const std::string& key) { return b.properties[i].key < key; });
      if (found == b.by_key.end() || b.properties[*found].key != property.key) continue;
      if (b.properties[*found].required && choices(property.value, b.properties[*found].value, true)) return true;
    }
    return false;
  }

  const GrammarProgram& program_;
  std::size_t comparisons_ = 0;
};

}  // namespace

void check_exclusion(const GrammarProgram& program, const std::vector<OneOf>& one_ofs) {
  Exclusion exclusion(program);
  for (const OneOf& one_of : one_ofs) {
    const std::vector<NodeId>& choices = one_of.choices;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      for (std::size_t k = i + 1; k < choices.size(); ++k) {
        if (exclusion.choices(choices[i], choices[k])) continue;
        fail(
            "{}: expected alternatives that exclude each other by type or by a required property with a const; {} and "
            "{} "
            "do not, so use anyOf",
            one_of.path, i, k);
      }
    }
  }
}

}  // namespace foe

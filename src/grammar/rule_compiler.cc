#include "grammar/rule_compiler.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/ranges.h>

#include "base/error.h"
#include "grammar/pattern.h"
#include "grammar/rule_parser.h"

namespace foe {
namespace {

using Kind = PatternNode::Kind;

constexpr std::size_t kMaxInlined = 1000;     // nodes of a rule that becomes a part of others
constexpr std::size_t kMaxExpanded = 20'000;  // nodes of an automaton, with all copies of such parts

std::string short_name(std::string_view name) {
  return name.size() <= 40 ? std::string(name) : std::string(name.substr(0, 40)) + "...";
}

void each_rule(const PatternNode& node, const auto& f) {
  if (node.kind == Kind::kRule) f(node.rule);
  for (const PatternNode& child : node.children) each_rule(child, f);
}

// Replaces a rule that begins with itself, as a ::= a x | y, by one that does not, as a ::= y x*.
void remove_left_recursion(PatternNode& body, std::uint32_t rule) {
  if (body.kind != Kind::kAlternatives) return;
  const auto begins_with_itself = [&](const PatternNode& node) {
    return node.kind == Kind::kSequence && !node.children.empty() && node.children[0].kind == Kind::kRule &&
           node.children[0].rule == rule;
  };
  PatternNode first{.kind = Kind::kAlternatives}, more{.kind = Kind::kAlternatives};
  for (PatternNode& alternative : body.children) {
    if (!begins_with_itself(alternative)) {
      first.children.push_back(std::move(alternative));
    } else if (alternative.children.size() > 1) {  // a ::= a says nothing
      alternative.children.erase(alternative.children.begin());
      more.children.push_back(std::move(alternative));
    }
  }
  PatternNode repeat{.kind = Kind::kRepeat, .times = {0, kNoLimit}};
  const bool any = !more.children.empty();
  repeat.children.push_back(std::move(more));
  body = {};
  body.children.push_back(std::move(first));
  if (any) body.children.push_back(std::move(repeat));
}

class RuleCompiler {
 public:
  RuleCompiler(const RuleSet& set, std::size_t max_inlined)
      : set_(set), max_inlined_(max_inlined), nullable_(set.rules.size()), sizes_(set.rules.size(), 0) {}

  GrammarProgram compile() {
    find_nullable();
    find_inlined();
    node_of(set_.root);
    for (std::size_t i = 0; i < called_.size(); ++i) {
      automata_.push_back(automaton(called_[i]));
      simplify_rule(automata_.back());
    }
    check_left_recursion();
    program_.nodes.push_back({ChoiceNode{{1}}, kUnreachable});
    for (std::uint32_t i = 0; i < called_.size(); ++i) program_.nodes.push_back({RuleNode{i}, kUnreachable});
    finish_rules(program_, automata_);
    set_byte_classes();
    for (ByteAutomaton& one : automata_)
      program_.automata.push_back(std::make_shared<const ByteAutomaton>(std::move(one)));
    program_.of_rules = true;
    program_.allows_empty = nullable_[set_.root];
    finish_program(program_);
    if (program_.nodes[0].height == kUnreachable && !program_.allows_empty)
      fail("{}expected rules by which some text ends with at most {} calls open at once, got none",
           set_.rules[set_.root].where, kMaxCalls);
    return std::move(program_);
  }

 private:
  bool is_empty(const PatternNode& node) const {
    switch (node.kind) {
      case Kind::kRule:
        return nullable_[node.rule];
      case Kind::kRepeat:
        return node.times.min == 0 || is_empty(node.children[0]);
      case Kind::kSequence:
        return std::all_of(node.children.begin(), node.children.end(), [&](const auto& n) { return is_empty(n); });
      case Kind::kAlternatives:
        return std::any_of(node.children.begin(), node.children.end(), [&](const auto& n) { return is_empty(n); });
      default:
        return false;
    }
  }

  void find_nullable() {
    std::vector<std::vector<std::uint32_t>> users(set_.rules.size());
    std::vector<std::uint32_t> open;
    for (std::uint32_t i = 0; i < set_.rules.size(); ++i) {
      each_rule(set_.rules[i].body, [&](std::uint32_t used) { users[used].push_back(i); });
      open.push_back(i);
    }
    while (!open.empty()) {
      const std::uint32_t i = open.back();
      open.pop_back();
      if (nullable_[i] || !is_empty(set_.rules[i].body)) continue;
      nullable_[i] = true;
      open.insert(open.end(), users[i].begin(), users[i].end());
    }
  }

  // How many nodes the automaton's parts for `node` have, up to kMaxExpanded.
  std::size_t size(const PatternNode& node) const {
    if (node.kind == Kind::kRule) return 1 + sizes_[node.rule];
    std::size_t result = 1 + 2 * node.characters.size();
    for (const PatternNode& child : node.children) result += size(child);
    if (node.kind == Kind::kRepeat)
      result *= std::max<std::size_t>(1, node.times.max == kNoLimit ? node.times.min + 1 : node.times.max);
    return std::min(result, kMaxExpanded);
  }

  // Rules are taken in the order in which all rules that they name come before them; those for which there is no such
  // order are part of themselves, or name one that is.
  void find_inlined() {
    std::vector<std::size_t> missing(set_.rules.size(), 0);
    std::vector<std::vector<std::uint32_t>> users(set_.rules.size());
    std::vector<std::uint32_t> ready;
    for (std::uint32_t i = 0; i < set_.rules.size(); ++i) {
      each_rule(set_.rules[i].body, [&](std::uint32_t used) {
        users[used].push_back(i);
        ++missing[i];
      });
      if (missing[i] == 0) ready.push_back(i);
    }
    for (std::size_t k = 0; k < ready.size(); ++k) {
      const std::uint32_t i = ready[k];
      const std::size_t expanded = size(set_.rules[i].body);
      sizes_[i] = expanded <= max_inlined_ ? expanded : 0;
      for (const std::uint32_t user : users[i])
        if (--missing[user] == 0) ready.push_back(user);
    }
  }

  // Returns the node of a rule that is called, which is compiled later.
  NodeId node_of(std::uint32_t rule) {
    const auto [found, added] = ids_.try_emplace(rule, static_cast<NodeId>(called_.size() + 1));
    if (added) called_.push_back(rule);
    return found->second;
  }

  ByteAutomaton automaton(std::uint32_t rule) {
    ByteNfa nfa;
    add_rule_ = [this](ByteNfa& to, std::uint32_t from, std::uint32_t used) -> std::uint32_t {
      if (sizes_[used] > 0) return add_pattern(to, from, set_.rules[used].body, Spelling::kPlain, add_rule_);
      const std::uint32_t end = to.add_state();
      to.add_call(from, end, node_of(used));
      if (nullable_[used]) to.add_empty(from, end);
      return end;
    };
    try {
      if (size(set_.rules[rule].body) >= kMaxExpanded) fail("expected at most {} parts, got more", kMaxExpanded);
      const std::uint32_t start = nfa.add_state();
      const std::uint32_t begin = nfa.add_state();
      nfa.add_empty(start, begin);
      const std::uint32_t end = add_pattern(nfa, begin, set_.rules[rule].body, Spelling::kPlain, add_rule_);
      return make_automaton(nfa, start, end, /*quoted=*/false, {}, budget_);
    } catch (const Error& error) {
      fail("{}in the rule {}, {}", set_.rules[rule].where, short_name(set_.rules[rule].name), error.what());
    }
  }

  void set_byte_classes() {
    for (const ByteAutomaton& rule : automata_) {
      std::map<std::pair<std::uint8_t, std::uint8_t>, std::uint8_t> finer;
      for (unsigned byte = 0; byte < 256; ++byte)
        program_.byte_class[byte] = finer
                                        .try_emplace({program_.byte_class[byte], rule.byte_class[byte]},
                                                     static_cast<std::uint8_t>(finer.size()))
                                        .first->second;
      program_.byte_classes = finer.size();
    }
  }

  // Refuses rules that begin with themselves: a stack would grow without end before the first byte.
  void check_left_recursion() const {
    enum class Mark : std::uint8_t { kNew, kOpen, kDone };
    std::vector<Mark> marks(called_.size(), Mark::kNew);
    std::vector<std::pair<std::uint32_t, std::size_t>> path;  // automata, and the next call of each
    for (std::uint32_t root = 0; root < called_.size(); ++root) {
      if (marks[root] != Mark::kNew) continue;
      path = {{root, 0}};
      marks[root] = Mark::kOpen;
      while (!path.empty()) {
        auto& [at, next] = path.back();
        const ByteAutomaton& rule = automata_[at];
        const bool has_calls = rule.start != ByteAutomaton::kDead && rule.has_calls(rule.start);
        if (!has_calls || next == rule.calls[rule.start].size()) {
          marks[at] = Mark::kDone;
          path.pop_back();
          continue;
        }
        const std::uint32_t callee = rule.calls[rule.start][next++].rule - 1;
        if (marks[callee] == Mark::kOpen) refuse_circle(path, callee);
        if (marks[callee] != Mark::kNew) continue;
        marks[callee] = Mark::kOpen;
        path.emplace_back(callee, 0);
      }
    }
  }

  [[noreturn]] void refuse_circle(const std::vector<std::pair<std::uint32_t, std::size_t>>& path,
                                  std::uint32_t callee) const {
    std::vector<std::string> names;
    for (const auto& [at, next] : path)
      if (!names.empty() || at == callee) names.push_back(short_name(set_.rules[called_[at]].name));
    names.push_back(names.front());
    if (names.size() > 8) names.erase(names.begin() + 4, names.end() - 4);
    fail(
        "{}expected rules that do not begin with each other in a circle, got {} (only a rule whose alternative begins "
        "plainly with itself may)",
        set_.rules[called_[callee]].where, fmt::join(names, " > "));
  }

  const RuleSet& set_;
  std::size_t max_inlined_;
  std::vector<bool> nullable_;
  std::vector<std::size_t> sizes_;       // by rule: its size if it becomes a part of others, otherwise 0
  std::map<std::uint32_t, NodeId> ids_;  // the nodes of the rules that are called
  std::vector<std::uint32_t> called_;    // these rules: node i + 1 is of rule called_[i], and so is automaton i
  std::vector<ByteAutomaton> automata_;
  AddRule add_rule_;
  AutomatonBudget budget_;
  GrammarProgram program_;
};

}  // namespace

GrammarProgram compile_rules(std::string_view text) {
  RuleSet set = parse_rules(text);
  for (std::uint32_t i = 0; i < set.rules.size(); ++i) remove_left_recursion(set.rules[i].body, i);
  try {
    return RuleCompiler(set, kMaxInlined).compile();
  } catch (const Error&) {  // calls make smaller automata
    return RuleCompiler(set, 0).compile();
  }
}

}  // namespace foe

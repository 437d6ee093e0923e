#include "grammar/plain_texts.h"

#include <set>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "grammar/schema_scalars.h"

namespace foe {
namespace {

constexpr std::size_t kMaxTexts = 10'000;

// Makes `body` the only value of a program.
GrammarProgram finished(GrammarProgram program, decltype(GrammarNode::body) body) {
  program.nodes = {{ChoiceNode{{1}}, kUnreachable}, {std::move(body), kUnreachable}};
  finish_program(program);
  return program;
}

}  // namespace

GrammarProgram compile_regex(std::string_view pattern) {
  // ECMAScript reads these as plain characters, Python and POSIX otherwise: whoever writes them may mean either.
  for (const char* unclear : {"{,", "[[:"})
    if (pattern.find(unclear) != pattern.npos)
      fail("expected no {} in a pattern (write {{0,n}}, or the characters of the class)", unclear);
  GrammarProgram program;
  auto body = ScalarCompiler(program).make({.type = "text", .patterns = {std::string(pattern)}});
  if (const auto* node = std::get_if<AutomatonNode>(&body)) {
    const ByteAutomaton& automaton = *program.automata[node->automaton];
    program.allows_empty = automaton.start != ByteAutomaton::kDead && automaton.states[automaton.start].accepting;
  }
  program = finished(std::move(program), std::move(body));
  if (program.nodes[program.root].height == kUnreachable)
    fail("expected a pattern that some text matches, got one that none does");
  return program;
}

GrammarProgram compile_choice(std::string_view texts) {
  const nlohmann::ordered_json list = parse_ordered_json(texts, "choice");
  if (!list.is_array() || list.empty()) fail("expected a list of at least one text, got {}", excerpt(list));
  if (list.size() > kMaxTexts) fail("expected at most {} texts, got {}", kMaxTexts, list.size());
  std::set<std::string> ascending;
  for (const auto& text : list) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty())
      fail("expected texts of at least one character, got {}", excerpt(text));
    ascending.insert(text.get<std::string>());
  }
  GrammarProgram program;
  ScalarCompiler scalars(program);
  return finished(std::move(program), LiteralsNode{{ascending.begin(), ascending.end()}});
}

}  // namespace foe

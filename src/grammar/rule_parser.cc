#include "grammar/rule_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "grammar/lark_terminals.h"
#include "grammar/rule_expressions.h"
#include "grammar/rule_names.h"
#include "grammar/rule_reader.h"
#include "text/utf8.h"

namespace foe {
namespace {

using Kind = PatternNode::Kind;
using Of = RuleExpressions::Of;

constexpr std::size_t kMaxGrammarBytes = 128 * 1024;

// Whether rules are defined with a colon: no line has ::= outside of texts, classes and comments.
bool is_lark(std::string_view text) {
  char quote = '\0';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') quote = '\0';
    if (quote != '\0') {
      if (c == '\\') ++i;
      if (c == quote) quote = '\0';
    } else if (c == '"') {
      quote = c;
    } else if (c == '#' || text.substr(i).starts_with("//")) {
      i = std::min(text.find('\n', i), text.size()) - 1;
    } else if (text.substr(i).starts_with("::=")) {
      return false;
    }
  }
  return true;
}

class RuleParser {
 public:
  RuleParser(std::string_view text, bool lark)
      : reader_(text, lark),
        lark_(lark),
        names_(reader_),
        ignored_rule_(rule_of_ignored(text)),
        expressions_(reader_, names_, lark, ignored_rule_) {}

  RuleSet parse() {
    reader_.skip_blanks();
    while (!reader_.done()) {
      if (lark_ && reader_.next() == '%')
        directive();
      else
        rule();
    }
    read_uses();
    if (ignored_rule_) {
      PatternNode body{.kind = Kind::kRepeat, .times = {0, ignored_.children.empty() ? 0 : kNoLimit}};
      body.children.push_back(std::move(ignored_));
      names_.set_body(*ignored_rule_, 0, std::move(body));
    }
    const std::uint32_t start = root();
    RuleSet result = names_.take();
    result.root = start;
    return result;
  }

 private:
  std::optional<std::uint32_t> rule_of_ignored(std::string_view text) {
    if (!lark_ || text.find("%ignore") == text.npos) return std::nullopt;
    return names_.add("%ignore", 0, /*terminal=*/true);
  }

  std::uint32_t root() {
    const std::string_view name = lark_ ? "start" : "root";
    if (names_.defined(name)) return names_.id_of(name, 0);
    if (!first_) reader_.bad_at(0, "a rule, as root ::= \"yes\" | \"no\"");
    if (!lark_) fail("line 1, column 1: expected a rule named root, got none");
    return *first_;
  }

  void rule() {
    const std::size_t place = reader_.place();
    const RuleExpressions::Head head = expressions_.head();
    if (head.name.empty()) reader_.bad_at(place, lark_ ? "a rule, as name: ..." : "a rule, as name ::= ...");
    if (!head.parameters.empty()) {
      const std::size_t begin = reader_.place();
      expressions_.right_side(Of::kTemplate);
      return names_.define_template(head.name, place, {head.parameters, begin, reader_.place()});
    }
    const std::uint32_t rule = names_.id_of(head.name, place);
    names_.define(head.name, place, right_side(rule));
    if (!first_) first_ = rule;
  }

  PatternNode right_side(std::uint32_t rule) {
    return expressions_.right_side(names_.is_terminal(rule) ? Of::kTerminal : Of::kRule);
  }

  // Reads the bodies of templates for the arguments with which they are used.
  void read_uses() {
    std::uint32_t rule = 0;
    std::size_t begin = 0;
    while (names_.next_use(rule, begin)) {
      reader_.go_to(begin);
      PatternNode body = expressions_.right_side(Of::kRule);
      names_.set_body(rule, begin, std::move(body));
    }
  }

  void directive() {
    const std::size_t place = reader_.place();
    if (reader_.accept("%import")) return import_names(place);
    if (reader_.accept("%ignore")) {
      if (reader_.done() || expressions_.at_rule()) reader_.bad("an expression behind %ignore");
      ignored_.children.push_back(expressions_.right_side(Of::kTerminal));
    } else if (reader_.accept("%declare")) {
      while (!reader_.done() && !expressions_.at_rule()) {
        const std::string_view name = reader_.name();
        if (name.empty()) reader_.bad("names behind %declare");
        names_.declare(name);
      }
    } else if (reader_.accept("%extend")) {
      change(place, /*extend=*/true);
    } else if (reader_.accept("%override")) {
      change(place, /*extend=*/false);
    } else {
      reader_.bad("no directive but %import, %ignore, %declare, %extend and %override");
    }
  }

  // Takes %import common.NAME, which may have `-> OTHER`, or %import common (NAME, NAME).
  void import_names(std::size_t place) {
    if (!reader_.accept("common")) reader_.bad("an import from common");
    if (reader_.accept("(")) {
      do {
        import(reader_.name(), {}, place);
      } while (reader_.accept(","));
      if (!reader_.accept(")")) reader_.bad("a )");
      return;
    }
    if (!reader_.accept(".")) reader_.bad("a . and the name of a terminal");
    const std::string_view name = reader_.name();
    import(name, reader_.accept("->") ? reader_.name() : std::string_view(), place);
  }

  void import(std::string_view name, std::string_view as, std::size_t place) {
    const auto source = lark_terminal(name);
    if (!source) reader_.bad_at(place, fmt::format("a terminal of Lark's common ({})", lark_terminal_names()));
    if (as.empty()) as = name;
    names_.define(as, place, parse_pattern(*source));
    names_.set_terminal(names_.id_of(as, place));
  }

  // Takes the rule behind %extend, which adds alternatives to an earlier one, or %override, which replaces it.
  void change(std::size_t place, bool extend) {
    const RuleExpressions::Head head = expressions_.head();
    if (head.name.empty() || !head.parameters.empty()) reader_.bad_at(place, "a rule behind it, as name: ...");
    if (!names_.defined(head.name))
      reader_.bad_at(place, fmt::format("an earlier rule {}, which this could change", head.name));
    const std::uint32_t rule = names_.id_of(head.name, place);
    PatternNode body = right_side(rule);
    if (extend) {
      PatternNode both{.kind = Kind::kAlternatives};
      both.children.push_back(std::move(names_.body(rule)));
      both.children.push_back(std::move(body));
      body = std::move(both);
    }
    names_.body(rule) = std::move(body);
  }

  RuleReader reader_;
  bool lark_;
  RuleNames names_;
  std::optional<std::uint32_t> ignored_rule_;  // what is between terminals, if something may be
  RuleExpressions expressions_;
  PatternNode ignored_{.kind = Kind::kAlternatives};
  std::optional<std::uint32_t> first_;
};

}  // namespace

RuleSet parse_rules(std::string_view text) {
  if (text.size() > kMaxGrammarBytes)
    fail("expected a grammar of at most {} bytes, got {}", kMaxGrammarBytes, text.size());
  check_utf8(text, "the grammar");
  return RuleParser(text, is_lark(text)).parse();
}

}  // namespace foe

// Parses grammars of rules. Private to this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/pattern_syntax.h"

namespace foe {

struct RuleSet {
  struct Rule {
    std::string name;
    std::string where;  // the place of its definition, as "line 2, column 1: "
    PatternNode body;   // whose kRule nodes are indices into `rules`
  };
  std::vector<Rule> rules;
  std::uint32_t root = 0;
};

// Parses a grammar in one of two notations. If it defines rules with ::= it is GBNF (llama.cpp's grammars/README.md) or
// the EBNF of xgrammar, and begins with the rule `root`; if with a colon, it is Lark's (its documentation's "Grammar
// Reference"), and begins with the rule `start`, or else with the first one. Throws Error with line and column, as
// "line 2, column 7: expected ..., got ...", if it is neither, if a rule is missing or comes twice, or if it has what
// is not supported: look-ahead, tokens by id, and imports of others than the terminals of Lark's `common`. What %ignore
// names may stand behind every terminal of a rule, and so not before the first one.
RuleSet parse_rules(std::string_view text);

}  // namespace foe

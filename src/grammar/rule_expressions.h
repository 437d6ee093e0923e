// Parses the right sides of rules. Private to this folder.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "grammar/rule_names.h"
#include "grammar/rule_reader.h"

namespace foe {

class RuleExpressions {
 public:
  // With `ignored`, a rule, texts of it may stand behind every terminal of Lark's rules.
  RuleExpressions(RuleReader& reader, RuleNames& names, bool lark, std::optional<std::uint32_t> ignored)
      : reader_(reader), names_(names), lark_(lark), ignored_(ignored) {}

  struct Head {
    std::string_view name;  // empty if no rule begins here
    std::vector<std::string> parameters;
  };
  // Takes what stands before the right side of a rule.
  Head head();
  // Whether a rule or a directive begins here.
  bool at_rule();

  enum class Of {
    kRule,
    kTerminal,  // behind whose parts nothing is ignored
    kTemplate,  // it is only read to its end: its names stand for nothing yet
  };
  // Takes the right side of a rule, up to the next one.
  PatternNode right_side(Of of);

 private:
  PatternNode alternatives();
  PatternNode sequence();
  PatternNode term();
  PatternNode atom();
  PatternNode named();
  std::vector<std::uint32_t> arguments();
  PatternNode blanks_behind(PatternNode node);
  PatternNode group(std::string_view close);
  bool is_class() const;
  std::optional<CountRange> repeats();
  PatternNode text();
  PatternNode regex();

  RuleReader& reader_;
  RuleNames& names_;
  bool lark_;
  std::optional<std::uint32_t> ignored_;
  Of of_ = Of::kRule;
  int depth_ = 0, depth_of_repeats_ = 0;
};

}  // namespace foe

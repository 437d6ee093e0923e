#include "grammar/rule_parser.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "grammar/lark_terminals.h"
#include "grammar/rule_reader.h"
#include "text/utf8.h"

namespace foe {
namespace {

using Kind = PatternNode::Kind;

constexpr std::size_t kMaxGrammarBytes = 128 * 1024;
constexpr std::size_t kMaxRules = 2000;
constexpr std::uint32_t kMaxRuleTimes = 10'000;
constexpr int kMaxGroups = 64;

PatternNode one_character(char32_t low, char32_t high) {
  return {.kind = Kind::kCharacters, .characters = {{low, high}}};
}

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

// Adds the other case of ASCII letters, for Lark's flag i.
void ignore_case(PatternNode& node, const RuleReader& reader, std::size_t place) {
  CodePoints more;
  for (const auto& [low, high] : node.characters) {
    if (high > 0x7f && high != 0x10ffff) reader.bad_at(place, "only characters of ASCII with the flag i");
    for (char32_t c = low; c <= std::min<char32_t>(high, 'z'); ++c) {
      if (c >= 'a' && c <= 'z') more.emplace_back(c - 32, c - 32);
      if (c >= 'A' && c <= 'Z') more.emplace_back(c + 32, c + 32);
    }
  }
  node.characters.insert(node.characters.end(), more.begin(), more.end());
  for (PatternNode& child : node.children) ignore_case(child, reader, place);
}

bool has_anchor(const PatternNode& node) {
  if (node.kind == Kind::kBegin || node.kind == Kind::kEnd) return true;
  return std::any_of(node.children.begin(), node.children.end(), has_anchor);
}

class RuleParser {
 public:
  RuleParser(std::string_view text, bool lark) : reader_(text, lark), lark_(lark) {}

  RuleSet parse() {
    reader_.skip_blanks();
    while (!reader_.done()) {
      if (lark_ && reader_.next() == '%')
        directive();
      else
        rule();
    }
    for (std::uint32_t i = 0; i < result_.rules.size(); ++i)
      if (result_.rules[i].where.empty()) reader_.bad_at(uses_[i], fmt::format("a rule for {}", result_.rules[i].name));
    result_.root = root();
    return std::move(result_);
  }

 private:
  std::uint32_t root() const {
    if (result_.rules.empty()) reader_.bad_at(0, "a rule, as root ::= \"yes\" | \"no\"");
    const auto found = ids_.find(lark_ ? "start" : "root");
    if (found != ids_.end()) return found->second;
    if (!lark_) fail("line 1, column 1: expected a rule named root, got none");
    return first_;
  }

  // Returns the number of a rule, which may be defined later.
  std::uint32_t id_of(std::string_view name, std::size_t place) {
    const auto [found, added] = ids_.try_emplace(std::string(name), static_cast<std::uint32_t>(result_.rules.size()));
    if (added) {
      if (result_.rules.size() >= kMaxRules) reader_.bad_at(place, fmt::format("at most {} rules", kMaxRules));
      result_.rules.push_back({std::string(name), {}, {}});
      uses_.push_back(place);
    }
    return found->second;
  }

  void rule() {
    const std::size_t place = reader_.place();
    const std::string_view name = rule_head();
    if (name.empty()) reader_.bad_at(place, lark_ ? "a rule, as name: ..." : "a rule, as name ::= ...");
    PatternNode body = alternatives();
    if (!reader_.done() && !at_rule()) reader_.bad("an alternative, or the next rule");
    define(name, place, std::move(body));
  }

  void define(std::string_view name, std::size_t place, PatternNode body) {
    const std::uint32_t id = id_of(name, place);
    if (!result_.rules[id].where.empty()) reader_.bad_at(place, fmt::format("one rule for {}", name));
    if (!defined_any_) first_ = id;
    defined_any_ = true;
    result_.rules[id].where = reader_.where(place);
    result_.rules[id].body = std::move(body);
  }

  // Takes what stands before the right side, and returns the rule's name; empty if no rule begins here. Of Lark's
  // marks, ? and ! are about trees and a number is the priority of a terminal: none changes which texts there are.
  std::string_view rule_head() {
    if (lark_ && (reader_.next() == '?' || reader_.next() == '!')) reader_.accept(reader_.rest().substr(0, 1));
    const std::string_view name = reader_.name();
    if (name.empty()) return {};
    if (!lark_) return reader_.accept("::=") ? name : std::string_view();
    if (reader_.next() == '.' && !reader_.starts_with("..")) {
      reader_.accept(".");
      reader_.accept("-");
      const std::string_view digits = reader_.rest();
      if (digits.empty() || digits[0] < '0' || digits[0] > '9') return {};
      reader_.number(1'000'000);
      reader_.skip_blanks();
    }
    return reader_.accept(":") ? name : std::string_view();
  }

  bool at_rule() {
    if (lark_ && reader_.next() == '%') return true;
    const std::size_t place = reader_.place();
    const bool result = !rule_head().empty();
    reader_.go_to(place);
    return result;
  }

  PatternNode alternatives() {
    if (++depth_ > kMaxGroups) reader_.bad(fmt::format("groups nested at most {} deep", kMaxGroups));
    PatternNode result{.kind = Kind::kAlternatives};
    if (lark_) reader_.accept("|");
    do {
      result.children.push_back(sequence());
    } while (reader_.accept("|"));
    --depth_;
    return result.children.size() == 1 ? std::move(result.children.front()) : std::move(result);
  }

  PatternNode sequence() {
    PatternNode result;
    while (!reader_.done() && std::string_view("|)]").find(reader_.next()) == std::string_view::npos && !at_rule()) {
      if (lark_ && reader_.accept("->")) {  // the name of a tree
        if (reader_.name().empty()) reader_.bad("a name behind ->");
        continue;
      }
      PatternNode part = term();
      while (const auto times = repeats()) {
        PatternNode repeat{.kind = Kind::kRepeat, .times = *times};
        repeat.children.push_back(std::move(part));
        part = std::move(repeat);
        if (++depth_of_repeats_ > kMaxGroups) reader_.bad("fewer repeats of one part");
      }
      depth_of_repeats_ = 0;
      result.children.push_back(std::move(part));
    }
    return result;
  }

  PatternNode term() {
    const std::size_t place = reader_.place();
    switch (reader_.next()) {
      case '"':
        return text();
      case '\'':
        if (lark_) return text();
        break;
      case '(':
        return group(")");
      case '[':
        if (lark_ && !is_class()) {
          PatternNode result{.kind = Kind::kRepeat, .times = {0, 1}};
          result.children.push_back(group("]"));
          return result;
        }
        return blanks_behind({.kind = Kind::kCharacters, .characters = reader_.character_class()});
      case '/':
        if (lark_) return regex();
        break;
      case '.':
        if (lark_) break;
        reader_.accept(".");
        return {.kind = Kind::kCharacters, .characters = complement({})};
      default:
        break;
    }
    const std::string_view name = reader_.name();
    if (name.empty()) reader_.bad("a text, a class, a group or the name of a rule (others are not supported)");
    if (lark_ && reader_.next() == '{') reader_.bad_at(place, "no template (not supported)");
    return {.kind = Kind::kRule, .rule = id_of(name, place)};
  }

  PatternNode blanks_behind(PatternNode node) {
    reader_.skip_blanks();
    return node;
  }

  PatternNode group(std::string_view close) {
    reader_.accept(reader_.rest().substr(0, 1));
    if (reader_.next() == '=' || reader_.next() == '?') reader_.bad("no look-ahead (not supported)");
    PatternNode result = alternatives();
    if (!reader_.accept(close)) reader_.bad(fmt::format("a {}", close));
    return result;
  }

  // Whether the bracket opens a class of characters, as in GBNF, and not an optional part: vLLM passes Lark's rules on
  // to xgrammar, where brackets are classes, so people write [0-9] in them.
  bool is_class() const {
    const std::string_view inside = reader_.rest().substr(1, reader_.rest().find(']') - 1);
    if (inside.find_first_of(" \t\n\"'(|") != std::string_view::npos && !inside.starts_with('^')) return false;
    return inside.find_first_of("-\\^.,+*/@0123456789") != std::string_view::npos;
  }

  // Takes *, +, ? or an interval: {n}, {n,} and {n,m}, in Lark ~n and ~n..m.
  std::optional<CountRange> repeats() {
    if (reader_.accept("*")) return CountRange{0, kNoLimit};
    if (reader_.accept("+")) return CountRange{1, kNoLimit};
    if (reader_.next() == '?' && !(lark_ && at_rule())) {
      reader_.accept("?");
      return CountRange{0, 1};
    }
    const std::size_t place = reader_.place();
    CountRange times;
    if (lark_ && reader_.accept("~")) {
      times.min = times.max = reader_.number(kMaxRuleTimes);
      reader_.skip_blanks();
      if (reader_.accept("..")) times.max = reader_.number(kMaxRuleTimes);
    } else if (reader_.accept("{")) {
      times.min = times.max = reader_.number(kMaxRuleTimes);
      reader_.skip_blanks();
      if (reader_.accept(",")) times.max = reader_.next() == '}' ? kNoLimit : reader_.number(kMaxRuleTimes);
      reader_.skip_blanks();
      if (reader_.next() != '}') reader_.bad("a }");
      reader_.accept("}");
    } else {
      return std::nullopt;
    }
    if (times.min > times.max) reader_.bad_at(place, "an interval in ascending order");
    reader_.skip_blanks();
    return times;
  }

  PatternNode text() {
    const std::size_t place = reader_.place();
    const std::u32string low = reader_.quoted();
    if (lark_ && reader_.starts_with("..")) {
      reader_.accept("..");
      if (reader_.next() != '"' && reader_.next() != '\'') reader_.bad("a text behind ..");
      const std::u32string high = reader_.quoted();
      if (low.size() != 1 || high.size() != 1 || low > high)
        reader_.bad_at(place, "a range of two characters in ascending order");
      return blanks_behind(one_character(low[0], high[0]));
    }
    PatternNode result;
    for (const char32_t code : low) result.children.push_back(one_character(code, code));
    if (lark_ && reader_.next() == 'i') {
      reader_.accept("i");
      ignore_case(result, reader_, place);
    }
    return blanks_behind(std::move(result));
  }

  PatternNode regex() {
    const std::size_t place = reader_.place();
    const std::string_view source = reader_.regex();
    PatternNode result;
    try {
      result = parse_pattern(source);
    } catch (const Error& error) {
      fail("{}in a regular expression, {}", reader_.where(place), error.what());
    }
    if (has_anchor(result)) reader_.bad_at(place, "a regular expression without ^ and $");
    bool all = false, case_ignored = false;
    for (; std::string_view("imslux").find(reader_.next()) != std::string_view::npos && reader_.next() != '\0';) {
      const char flag = reader_.next();
      if (flag != 'i' && flag != 'u' && flag != 's') reader_.bad("no flag but i, s and u");
      if (flag == 's' && source.find('.') != source.npos) all = true;
      case_ignored |= flag == 'i';
      reader_.go_to(reader_.place() + 1);
    }
    if (all) reader_.bad_at(place, "no . with the flag s (write [\\s\\S])");
    if (case_ignored) ignore_case(result, reader_, place);
    return blanks_behind(std::move(result));
  }

  // Takes %import common.NAME, which may have `-> OTHER`, or %import common (NAME, NAME).
  void directive() {
    const std::size_t place = reader_.place();
    if (!reader_.accept("%import")) reader_.bad("no directive but %import (others are not supported)");
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
    const std::uint32_t first = first_;
    const bool any = defined_any_;
    define(as.empty() ? name : as, place, parse_pattern(*source));
    first_ = first, defined_any_ = any;  // the first rule is one that is written out
  }

  RuleReader reader_;
  bool lark_;
  RuleSet result_;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::vector<std::size_t> uses_;  // by rule: the first place that names it
  std::uint32_t first_ = 0;
  bool defined_any_ = false;
  int depth_ = 0, depth_of_repeats_ = 0;
};

}  // namespace

RuleSet parse_rules(std::string_view text) {
  if (text.size() > kMaxGrammarBytes)
    fail("expected a grammar of at most {} bytes, got {}", kMaxGrammarBytes, text.size());
  check_utf8(text, "the grammar");
  return RuleParser(text, is_lark(text)).parse();
}

}  // namespace foe

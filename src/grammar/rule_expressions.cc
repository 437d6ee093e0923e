#include "grammar/rule_expressions.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

using Kind = PatternNode::Kind;

constexpr std::uint32_t kMaxRuleTimes = 10'000;
constexpr int kMaxGroups = 64;

PatternNode one_character(char32_t low, char32_t high) {
  return {.kind = Kind::kCharacters, .characters = {{low, high}}};
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

}  // namespace

// Of Lark's marks, ? and ! are about trees and a number is the priority of a terminal: none changes which texts there
// are.
RuleExpressions::Head RuleExpressions::head() {
  if (lark_ && (reader_.next() == '?' || reader_.next() == '!')) reader_.accept(reader_.rest().substr(0, 1));
  Head result{.name = reader_.name(), .parameters = {}};
  if (result.name.empty()) return {};
  if (!lark_) return reader_.accept("::=") ? result : Head();
  if (reader_.accept("{")) {
    do {
      const std::size_t place = reader_.place();
      const std::string_view name = reader_.name();
      if (name.empty()) return {};
      if (std::ranges::find(result.parameters, name) != result.parameters.end())
        reader_.bad_at(place, "parameters with different names");
      result.parameters.emplace_back(name);
    } while (reader_.accept(","));
    if (!reader_.accept("}")) return {};
  }
  if (reader_.next() == '.' && !reader_.starts_with("..")) {
    reader_.accept(".");
    reader_.accept("-");
    const std::string_view digits = reader_.rest();
    if (digits.empty() || digits[0] < '0' || digits[0] > '9') return {};
    reader_.number(1'000'000);
    reader_.skip_blanks();
  }
  return reader_.accept(":") ? result : Head();
}

bool RuleExpressions::at_rule() {
  if (lark_ && reader_.next() == '%') return true;
  const std::size_t place = reader_.place();
  const bool result = !head().name.empty();
  reader_.go_to(place);
  return result;
}

PatternNode RuleExpressions::right_side(Of of) {
  of_ = of;
  PatternNode result = alternatives();
  if (!reader_.done() && !at_rule()) reader_.bad("an alternative, or the next rule");
  return result;
}

PatternNode RuleExpressions::alternatives() {
  if (++depth_ > kMaxGroups) reader_.bad(fmt::format("groups nested at most {} deep", kMaxGroups));
  PatternNode result{.kind = Kind::kAlternatives};
  if (lark_) reader_.accept("|");
  do {
    result.children.push_back(sequence());
  } while (reader_.accept("|"));
  --depth_;
  return result.children.size() == 1 ? std::move(result.children.front()) : std::move(result);
}

PatternNode RuleExpressions::sequence() {
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

PatternNode RuleExpressions::term() {
  const bool is_group = reader_.next() == '(' || (lark_ && reader_.next() == '[' && !is_class());
  PatternNode result = atom();
  const bool is_rule = result.kind == Kind::kRule && !names_.is_terminal(result.rule);
  if (!ignored_ || of_ != Of::kRule || is_group || is_rule) return result;
  PatternNode both;
  both.children.push_back(std::move(result));
  both.children.push_back({.kind = Kind::kRule, .rule = *ignored_});
  return both;
}

PatternNode RuleExpressions::atom() {
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
  return named();
}

// A rule, or the use of a template.
PatternNode RuleExpressions::named() {
  const std::size_t place = reader_.place();
  const std::string_view name = reader_.name();
  if (name.empty()) reader_.bad("a text, a class, a group or the name of a rule (others are not supported)");
  const std::string_view behind = reader_.rest().substr(0, 2);
  const bool repeat = behind.size() == 2 && behind[1] >= '0' && behind[1] <= '9';
  if (!lark_ || !behind.starts_with('{') || repeat)
    return of_ == Of::kTemplate ? PatternNode() : PatternNode{.kind = Kind::kRule, .rule = names_.id_of(name, place)};
  const std::vector<std::uint32_t> given = arguments();
  if (of_ == Of::kTemplate) return {};
  return {.kind = Kind::kRule, .rule = names_.use(name, given, place)};
}

// The arguments of a template, as rules.
std::vector<std::uint32_t> RuleExpressions::arguments() {
  if (++depth_ > kMaxGroups) reader_.bad(fmt::format("groups nested at most {} deep", kMaxGroups));
  std::vector<std::uint32_t> result;
  reader_.accept("{");
  do {
    const std::size_t place = reader_.place();
    if (reader_.next() == '(' || reader_.next() == '[')
      reader_.bad("a name, a text or a regular expression as the argument of a template");
    PatternNode node = atom();
    const std::string_view source = reader_.text_from(place);
    if (of_ == Of::kTemplate) continue;
    result.push_back(node.kind == Kind::kRule ? node.rule : names_.argument(source, place, std::move(node)));
  } while (reader_.accept(","));
  if (!reader_.accept("}")) reader_.bad("a }");
  --depth_;
  return result;
}

PatternNode RuleExpressions::blanks_behind(PatternNode node) {
  reader_.skip_blanks();
  return node;
}

PatternNode RuleExpressions::group(std::string_view close) {
  reader_.accept(reader_.rest().substr(0, 1));
  if (reader_.next() == '=' || reader_.next() == '?') reader_.bad("no look-ahead (not supported)");
  PatternNode result = alternatives();
  if (!reader_.accept(close)) reader_.bad(fmt::format("a {}", close));
  return result;
}

// Whether the bracket opens a class of characters, as in GBNF, and not an optional part: vLLM passes Lark's rules on
// to xgrammar, where brackets are classes, so people write [0-9] in them.
bool RuleExpressions::is_class() const {
  const std::string_view inside = reader_.rest().substr(1, reader_.rest().find(']') - 1);
  if (inside.find_first_of(" \t\n\"'(|") != std::string_view::npos && !inside.starts_with('^')) return false;
  return inside.find_first_of("-\\^.,+*/@0123456789") != std::string_view::npos;
}

// Takes *, +, ? or an interval: {n}, {n,} and {n,m}, in Lark ~n and ~n..m.
std::optional<CountRange> RuleExpressions::repeats() {
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

PatternNode RuleExpressions::text() {
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

PatternNode RuleExpressions::regex() {
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

}  // namespace foe

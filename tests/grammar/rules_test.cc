// Grammars of rules, in GBNF and Lark's notation: which texts they allow, masks against what is accepted, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/walk.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::shared_ptr<const Grammar> compile_rules(const std::string& rules) {
  return compile_grammar({Constraint::Kind::kGrammar, rules});
}

GrammarMatcher after_rules(const std::string& rules, std::string_view text) {
  static const auto table = make_table({});
  GrammarMatcher matcher(compile_rules(rules), table);
  for (const char byte : text) matcher.accept(static_cast<std::uint8_t>(byte));
  return matcher;
}

void expect_rule_texts(const std::string& rules, const std::vector<std::string>& right,
                       const std::vector<std::string>& wrong) {
  for (const std::string& text : right) EXPECT_TRUE(after_rules(rules, text).complete()) << rules << "\n" << text;
  for (const std::string& text : wrong) EXPECT_FALSE(after_rules(rules, text).complete()) << rules << "\n" << text;
}

constexpr const char* kJson = R"gbnf(root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws   # a comment, with a " in it
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
)gbnf";

constexpr const char* kSums = R"lark(
?start: sum
?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub
?product.2: atom | product "*" atom -> mul
?atom: NUMBER -> number
     | "-" atom
     | "(" sum ")"      // a comment
     | [name] "!"
name: "x".."z" ~ 1..2 | /[A-Z]\/?/ | "pi"i
%import common.INT -> NUMBER
)lark";

TEST(Rules, Gbnf) {
  expect_rule_texts(kJson, {"{}", R"({"a": [1, {"b":"\u00e9\"é"}], "c":-1.5e+3} )", "{\n\t \"a\":null}"},
                    {"", "[]", "{", R"({"a"})", R"({"a":1,})", R"({"a":01})", "{}x", R"({"a":"\x"})"});
  expect_rule_texts("root ::= \"a\" [b-d]{2} | [^a-z\\n]+ .? # end\n", {"abc", "add", "A", "ÄÖx", "A\n"},
                    {"", "ab", "abcd", "Ax\n", "abce"});
  expect_rule_texts("root ::= a-1 | b_2\na-1 ::= \"\\x41\\u00e9\\U0001F600\"\nb_2 ::= (\"x\"{2,} \"y\"{0}){1,2}",
                    {"A\xc3\xa9\xf0\x9f\x98\x80", "xx", "xxxxx"}, {"A", "x", "xy"});
  expect_rule_texts("root ::= \"\" | \"a\"?", {"", "a"}, {"aa"});
  expect_rule_texts("root ::= ([0-9]+ \".\" )* \"]\" [\\]-]", {"]]", "1.22.]-"}, {"1]-"});
}

TEST(Rules, Lark) {
  expect_rule_texts(kSums, {"1", "1+2*(3-x!)", "((22))", "--1", "!", "pI!+xx!", "A/!"},
                    {"", "1+", "(1", "a!", "1 + 2", "xyz!"});
  // As vLLM's users write it, for xgrammar behind it.
  expect_rule_texts(
      "start: select\nselect: \"SELECT \" column ' WHERE ' number\n# names\ncolumn: \"a\" | \"b\"\n"
      "  | \"c\"\nnumber: [0-9]+",
      {"SELECT c WHERE 12"}, {"SELECT c", "SELECT d WHERE 1"});
  expect_rule_texts(
      "first: \"a\" second*\nsecond: ESCAPED_STRING | /[^\\W_]{2}/i | WORD \"::=\"\n"
      "%import common (ESCAPED_STRING, WORD)",
      {"a", R"(a"\"x")", "azz", "aab::="}, {"aa", "a_b"});
}

// What is ignored may stand behind every terminal of a rule, not within one, and not at the beginning.
TEST(Rules, LarkIgnores) {
  const std::string list =
      "start: NAME \"=\" (number \",\")* [number] \";\"\nnumber: /[0-9]+/ | \"-\" number\n"
      "NAME: LETTER (LETTER | \"_\")*\n%import common (LETTER, WS, SH_COMMENT)\n%ignore WS\n%ignore SH_COMMENT | "
      "\"..\"";
  expect_rule_texts(list, {"a=1,2;", "a = - 1 , 2\t; ", "a_b# x\n=  ;", "a..=..1...., -2;..", "a=;"},
                    {" a=1;", "a_ b=1;", "a=1 2;", "a=;.", "a=1 .;"});
  expect_rule_texts("start: \"a\" \"%ignore\"", {"a%ignore"}, {"a %ignore"});
  EXPECT_EQ(allowed_tokens(after_rules("start: \"a\" \"b\"\n%ignore \" \"", "a  "), *make_table({})),
            (std::vector<std::int32_t>{' ', 'b'}));
}

TEST(Rules, LarkTemplates) {
  expect_rule_texts(
      "start: \"[\" _sep{item, \",\"} \"]\"\n_sep{x, y}: x (y x)*\nitem: A | \"(\" _sep{A, /[;:]/} \")\"\nA: \"a\"",
      {"[a]", "[a,a,(a;a:a),a]"}, {"[]", "[a;a]", "[a,(a,a)]", "[a,]"});
  // A template may use itself and others, and a parameter hides a rule of its name.
  expect_rule_texts("start: many{two{\"x\", b}}\nb: \"b\"\nmany{b}: b | many{b} \"+\" b\ntwo{x, y}: x y{2} ~ 1..2 | y",
                    {"b", "xbb", "xbbbb+b+xbb"}, {"xb", "bb", "xbb+", "xbbb"});
  expect_rule_texts("start: s{A}\ns{x}: x \"-\" x \"!\"\nA: \"a\" \"b\"\n%ignore \" \"", {"ab-ab!", "ab - ab ! "},
                    {"a b-ab!", " ab-ab!"});
}

TEST(Rules, LarkChangesRules) {
  expect_rule_texts("start: A b\nb: \"x\"\nA: \"a\"\n%extend A: \"c\" | \"d\"\n%override b: \"y\"\n%declare C D",
                    {"ay", "cy", "dy"}, {"ax", "by"});
  expect_rule_texts("start: INT C_COMMENT\n%import common.INT\n%import common.C_COMMENT\n%extend INT: \"one\"",
                    {"12/**/", "one/* a * b **/"}, {"one/* */ */", "1/*/"});
}

TEST(Rules, RulesMayBePartOfThemselvesInMostWays) {
  expect_rule_texts("root ::= \"a\" root \"b\" | \"\"", {"", "ab", "aaabbb"}, {"a", "aab", "abb", "ba"});
  expect_rule_texts("root ::= root \"+\" root | [0-9]", {"1", "1+2+3"}, {"+", "1+", "12"});
  expect_rule_texts("root ::= list\nlist ::= [a-z] | list \", \" [a-z]", {"a", "a, b, c"}, {"a, ", ", a"});
  // Rules that end with themselves need no depth, and others some.
  std::string many;
  for (int i = 0; i < 2000; ++i) many += "a,";
  expect_rule_texts("root ::= \"a\" | \"a,\" root", {many + "a"}, {many});
  const std::string nested = "root ::= \"(\" root \")\" | \"x\"";
  EXPECT_TRUE(after_rules(nested, std::string(128, '(') + "x" + std::string(128, ')')).complete());
  EXPECT_TRUE(after_rules(nested, std::string(129, '(')).dead());
  // At the limit only what still ends is allowed.
  const GrammarMatcher deep = after_rules(nested, std::string(128, '('));
  EXPECT_EQ(allowed_tokens(deep, *make_table({})), std::vector<std::int32_t>{'x'});
  const std::string two = "root ::= \"(\" (root root | \"\") \")\" | \"[\" root \"]\"";
  EXPECT_EQ(allowed_tokens(after_rules(two, std::string(128, '[')), *make_table({})), std::vector<std::int32_t>{'('});
  EXPECT_EQ(allowed_tokens(after_rules(two, std::string(128, '[') + "("), *make_table({})),
            std::vector<std::int32_t>{')'});
}

// The mask comes from walks over all tokens at once, and from what is remembered of them.
TEST(Rules, MasksAreWhatIsAcceptedOfARealVocabulary) {
  const auto table = shipped_table();
  const std::string words = "root ::= (word \" \")* word \".\"\nword ::= [a-z]+ | \"(\" root \")\" | root \"!\" \"?\"";
  for (const auto& [rules, begin] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {kJson,
            {"", "{", "{\"", "{\"the", "{\"a\":[", "{\"a\":[1", "{\"a\":{\"b\": tr", "{\"a\":\"\xc3",
             "{\"a\":[[[\"x\"]]"}},
           {kSums, {"", "1", "1+", "(1", "((x", "pi!*", "(1)"}},
           {"root ::= (word \" \")* word \".\"\nword ::= [a-z]+ | \"(\" root \")\"",
            {"", "the", "the ", "(the (a", "(a."}},
           {"root ::= \"a\" root | root2 \"b\"\nroot2 ::= \"a\" root2 \"b\" | \"\" | [ -~]{0,5}",
            {"", "a", "aa", "aab", "aaxy"}},
       }) {
    for (const std::string& text : begin) {
      GrammarMatcher matcher(compile_rules(rules), table);
      for (const char byte : text)
        for (std::int32_t token = 0; token < 300; ++token)
          if (table->bytes(token) == std::string_view(&byte, 1)) matcher.accept(token);
      ASSERT_FALSE(matcher.dead()) << rules << text;
      const auto allowed = allowed_tokens(matcher, *table);
      for (std::int32_t token = 0; token < static_cast<std::int32_t>(table->mask_words() * 64); ++token) {
        GrammarMatcher next = matcher;
        next.accept(token);
        const bool expected = std::binary_search(allowed.begin(), allowed.end(), token);
        ASSERT_EQ(!next.dead(), expected) << rules << "\n" << text << " and " << table->bytes(token);
      }
    }
  }
}

// Readings that say the same are followed as one, so that no token falls to the limits on what is followed.
TEST(Rules, NoTokenIsGivenUpOfGrammarsThatReadATextInManyWays) {
  const auto table = shipped_table();
  std::vector<std::int32_t> words;
  for (std::int32_t token = 0; token < static_cast<std::int32_t>(table->mask_words() * 64); ++token) {
    const std::string_view bytes = table->bytes(token);
    if (!bytes.empty() && bytes.find_first_not_of("abcdefghijklmnopqrstuvwxyz ") == bytes.npos) words.push_back(token);
  }
  ASSERT_GT(words.size(), 3000u);
  for (const char* rules :
       {"start: e\ne: e e | /[a-z ]/", "root ::= [a-z ] | root root | root root root",
        "root ::= (a | b | c)*\na ::= [a-z ]+ | \"(\" root \")\"\nb ::= [a-z ]+ | \"[\" root \"]\"\n"
        "c ::= [a-z ]+ | \"{\" root \"}\"",
        "root ::= a\na ::= [a-z ] b | [a-z ] c | [a-z ]\nb ::= [a-z ] c | [a-z ] a a\n"
        "c ::= [a-z ] a b | [a-z ] a"}) {
    GrammarMatcher matcher(compile_rules(rules), table);
    for (int i = 0; i < 100; ++i) matcher.accept(words[i * 31 % words.size()]);
    const std::vector<std::int32_t> allowed = allowed_tokens(matcher, *table);
    EXPECT_TRUE(std::ranges::includes(allowed, words)) << rules << " " << allowed.size();
  }
}

TEST(Rules, RandomOutputsEndAndAreJson) {
  const auto table = shipped_table();
  const auto grammar = compile_rules(kJson);
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const std::string text = random_output(grammar, table, seed);
    EXPECT_TRUE(nlohmann::json::parse(text).is_object()) << text;
  }
}

TEST(Rules, RefusalsSayWhereAndWhat) {
  std::string nested;
  for (int i = 0; i < 70; ++i) nested += "s{";
  for (const auto& [rules, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "line 1, column 1: expected a rule, as root ::= \"yes\" | \"no\", got the end of the grammar"},
           {"main ::= \"a\"", "line 1, column 1: expected a rule named root, got none"},
           {"root ::= \"a\"\n  é", "line 2, column 3: expected a text, a class, a group or the name of a rule"},
           {"root ::= a\nb ::= \"x\"", "line 1, column 10: expected a rule for a, got 'a'"},
           {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: expected one rule for root, got 'root ::= \"b\"'"},
           {"root ::= \"é\" \"a\n\"", "line 1, column 14: expected a text that ends with its quote in the same line"},
           {"root ::= [z-a]", "line 1, column 11: expected a range in ascending order, got 'z-a]'"},
           {"root ::= [a", "line 1, column 10: expected a class that ends with ], got '[a'"},
           {"root ::= \"\\q\"", "line 1, column 11: expected an escape as"},
           {"root ::= \"\\ud800\"", "line 1, column 11: expected an escape of a character of Unicode"},
           {"root ::= (\"a\"", "line 1, column 14: expected a ), got the end of the grammar"},
           {"root ::= \"a\")", "line 1, column 13: expected an alternative, or the next rule, got ')'"},
           {"root ::= \"a\"{3,2}", "line 1, column 13: expected an interval in ascending order, got '{3,2}'"},
           {"root ::= \"a\"{99999}", "line 1, column 14: expected a number of at most 10000, got '99999}'"},
           {"root ::= (=\"a\") \"a\"", "line 1, column 11: expected no look-ahead (not supported)"},
           {"root ::= <think>", "line 1, column 10: expected a text, a class"},
           {"root ::= \"a\" root", "line 1, column 1: expected rules by which some text ends with at most 128 calls"},
           {"root ::= a \"x\" | \"y\"\na ::= root | b\nb ::= a", "begin with each other in a circle, got "},
           {"root ::= ws root \"x\" | \"y\"\nws ::= \" \"*", "in a circle, got root > root"},
           {"root ::= " + std::string(70, '(') + "\"a\"", "expected groups nested at most 64 deep"},
           {"root ::= (\"abcdefgh\"{1000}){1000}", "in the rule root, expected at most 20000 parts, got more"},
           {"start: \"a\"\n%ignore WS", "line 2, column 9: expected a rule for WS, got 'WS'"},
           {"start: \"a\"\n%ignore", "expected an expression behind %ignore"},
           {"start: \"a\"\n%ignore\nb: \"b\"", "line 3, column 1: expected an expression behind %ignore"},
           {"start: a{\"x\", \"y\"}\na{p, p}: p", "line 2, column 6: expected parameters with different names"},
           {"start: \"a\"\n%json {}", "line 2, column 1: expected no directive but %import, %ignore"},
           {"start: A\n%declare A",
            "expected a rule for A (%declare leaves it to a lexer, which is not here), got 'A'"},
           {"start: \"a\"\n%extend b: \"c\"", "line 2, column 1: expected an earlier rule b, which this could change"},
           {"start: WS\n%import common.WHAT", "line 2, column 1: expected a terminal of Lark's common (DIGIT"},
           {"start: sep{\"a\"}", "line 1, column 8: expected a template sep, got 'sep{\"a\"}'"},
           {"start: s{\"a\"}\ns{x, y}: x y", "line 1, column 8: expected 2 arguments for the template, got 's{\"a\"}'"},
           {"start: s{(\"a\")}\ns{x}: x", "line 1, column 10: expected a name, a text or a regular expression as the"},
           {"start: s\ns{x}: x", "line 1, column 8: expected a rule for s, got 's'"},
           {"start: s{\"a\"}\ns{x}: x\ns: \"b\"", "line 3, column 1: expected one rule for s"},
           {"start: s{\"a\"}\ns{x}: s{t{x}}\nt{x}: x", "expected at most 2000 rules, with those that templates make"},
           {"start: " + nested + "\"a\"", "expected groups nested at most 64 deep"},
           {"start: /a(?=b)/", "line 1, column 8: in a regular expression, at byte 1: expected no look-around"},
           {"start: /a$/", "line 1, column 8: expected a regular expression without ^ and $"},
           {"start: /a/x", "line 1, column 11: expected no flag but i, s and u, got 'x'"},
           {"start: \"é\"i", "line 1, column 8: expected only characters of ASCII with the flag i"},
       })
    EXPECT_THAT([r = rules] { compile_rules(r); }, ThrowsMessage<Error>(HasSubstr(message))) << rules;
}

// Whatever comes, the time is bounded: these would take for ever if alternatives were tried one after the other.
TEST(Rules, HostileGrammarsAreShortWork) {
  std::string doubling = "root ::= a0 a0\n", circle, tails = "root ::= t0\n";
  for (int i = 0; i < 60; ++i) doubling += fmt::format("a{} ::= a{} a{}\n", i, i + 1, i + 1);
  EXPECT_FALSE(after_rules(doubling + "a60 ::= \"x\"?", "xxx").dead());
  for (int i = 0; i < 40; ++i)
    tails += fmt::format("t{} ::= t{} | u{}\nu{} ::= t{} | u{}\n", i, i + 1, i + 1, i, i + 1, i + 1);
  EXPECT_TRUE(after_rules(tails + "t40 ::= \"x\" t0 | \"x\"\nu40 ::= \"x\" u0 | \"x\"", "xxx").complete());
  // So ambiguous that not all alternatives can be followed: what is followed is right all the same.
  const std::string ambiguous = "root ::= \"a\" | root root | root root root";
  EXPECT_TRUE(after_rules("root ::= (\"a\" | \"(\" root \")\" | root2)+\nroot2 ::= (\"a\" | \"a\" root2)+",
                          "aaaaaaaaaaaaaaaaaaaaaaaaaa")
                  .complete());
  EXPECT_FALSE(after_rules(ambiguous, std::string(100, 'a')).dead());
}

}  // namespace
}  // namespace foe

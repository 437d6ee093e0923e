// Every refusal of a schema, and schemas that are hostile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grammar/walk.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

void expect_refused(const std::string& schema, const std::string& place, const std::string& message) {
  EXPECT_THAT([&] { compile(schema); }, ThrowsMessage<Error>(testing::AllOf(StartsWith(place), HasSubstr(message))))
      << schema.substr(0, 200);
}

struct Case {
  const char *schema, *place, *message;
};

TEST(GrammarRefusals, SaysWhereAndWhat) {
  for (const auto& [schema, place, message] : std::vector<Case>{
           {"", "#", "expected JSON"},
           {"{", "#", "expected JSON"},
           {"{} {}", "#", "expected JSON"},
           {"{\"a\":\"\xff\"}", "#", "expected JSON"},
           {R"({"type":"null","type":"null"})", "#", "expected every key once, got \"type\" twice"},
           {R"({"minimum":1e999})", "#", "expected JSON"},
           {"[]", "#", "expected a schema (an object, true or false), got []"},
           {R"({"properties":{"a/~b":{"type":"strin"}}})", "#/properties/a~1~0b/type", "expected a type of JSON"},
           {R"({"type":[1]})", "#/type", "expected a type of JSON"},
           {R"({"minimun":2})", "#/minimun", "expected a keyword that is supported, got \"minimun\""},
           {R"({"not":{}})", "#/not", "got \"not\": what must not be has no grammar of its own"},
           {R"({"items":{"if":{}}})", "#/items/if", "it depends on a whole value whether another holds; use anyOf"},
           {R"({"contains":{}})", "#/contains", "any item may be the one; use prefixItems"},
           {R"({"unevaluatedItems":false})", "#/unevaluatedItems", "use items"},
           {R"({"$dynamicRef":"#a"})", "#/$dynamicRef", "use $ref"},
           {R"({"multipleOf":0})", "#/multipleOf", "expected a number above 0, got 0"},
           {R"({"multipleOf":"2"})", "#/multipleOf", "expected a number"},
           {R"({"multipleOf":1e-9})", "#/multipleOf", "expected a number of at most 6 digits behind the point"},
           {R"({"multipleOf":12345})", "#/multipleOf", "expected a step of at most 2000"},
           {R"({"type":"integer","multipleOf":1999})", "#", "within the limit on automata"},
           {R"({"patternProperties":{"^a":{},"^b":{"type":"null"}}})", "#/patternProperties/^b",
            "expected the same schema"},
           {R"({"patternProperties":{"^a":{}},"additionalProperties":{"type":"null"}})", "#/patternProperties/^a",
            "expected it beside additionalProperties that is false"},
           {R"({"patternProperties":{"^a{2}$":{}}})", "#/patternProperties/^a{2}$", "goes on in infinitely many ways"},
           {R"({"patternProperties":{"^(a|b.+)$":{}}})", "#/patternProperties/^(a|b.+)$",
            "goes on in infinitely many ways"},
           {R"({"propertyNames":{"maxLength":3}})", "#/propertyNames", "goes on in infinitely many ways"},
           {R"({"propertyNames":{"anyOf":[{"pattern":"a"}]}})", "#/propertyNames/anyOf", "no alternatives of names"},
           {R"({"dependentRequired":{"a":["b"]}})", "#/dependentRequired/a",
            "only of a property that properties lists"},
           {R"({"allOf":[{"unevaluatedProperties":false}]})", "#/allOf/0/unevaluatedProperties", "not within allOf"},
           {R"({"nullable":true})", "#/nullable", "expected a type beside it"},
           {R"({"$ref":"#nowhere"})", "#/$ref", "an $anchor that is there"},
           {R"({"$ref":"#/%2"})", "#/$ref", "expected two hexadecimal digits behind %"},
           {R"({"uniqueItems":true})", "#/uniqueItems", "expected false"},
           {R"({"items":[1]})", "#/items/0", "expected a schema"},
           {R"({"prefixItems":{}})", "#/prefixItems", "expected an array"},
           {R"({"minItems":-1})", "#/minItems", "expected an integer of at least 0, got -1"},
           {R"({"maxLength":1.5})", "#/maxLength", "expected an integer of at least 0, got 1.5"},
           {R"({"minimum":"1"})", "#/minimum", "expected a number"},
           {R"({"type":"number","exclusiveMinimum":true})", "#/exclusiveMinimum", "as there is no minimum beside it"},
           {R"({"type":"number","minimum":1e18})", "#", "expected bounds that leave numbers within 1e+18, got 1e+18"},
           {R"({"type":"integer","maximum":-1e19})", "#",
            "expected bounds that leave integers from -9223372036854775808 to 18446744073709551615, got none"},
           {R"({"type":"integer","format":"int7"})", "#/format", "expected int32, int64"},
           {R"({"properties":[]})", "#/properties", "expected an object"},
           {R"({"required":"a"})", "#/required", "expected an array"},
           {R"({"required":[1]})", "#/required/0", "expected a string"},
           {R"({"enum":1})", "#/enum", "expected an array"},
           {R"({"enum":["a"],"minLength":1})", "#/minLength", "expected no keyword but type beside enum"},
           {R"({"const":100000000000000000001})", "#/const", "expected numbers within 64 bits"},
           {R"({"enum":[1,[36893488147419103232]]})", "#/enum", "expected numbers within 64 bits"},
           {R"({"anyOf":[]})", "#/anyOf", "expected at least one schema"},
           {R"({"anyOf":[1]})", "#/anyOf/0", "expected a schema"},
           {R"({"format":"phone"})", "#/format", "expected date, time"},
           {R"({"format":"date","pattern":"a"})", "#", "expected a schema that some value satisfies"},
           {R"({"allOf":[{"prefixItems":[{}]},{"prefixItems":[]}]})", "#/allOf/1/prefixItems",
            "the same value as #/allOf/0/prefixItems"},
           {R"({"allOf":[{"properties":{"a":{}}},{"additionalProperties":false}]})", "#/allOf/1/additionalProperties",
            "expected true where properties are merged"},
           {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "#/oneOf", "exclude each other"},
           {R"({"oneOf":[{"const":1},{"const":1.0}]})", "#/oneOf", "exclude each other"},
           {R"({"oneOf":[{"properties":{"a":{"const":"x"}}},{"properties":{"a":{"const":"y"}}}]})", "#/oneOf",
            "exclude each other"},
           {R"({"$ref":1})", "#/$ref", "expected a string"},
           {R"({"$ref":"http://a/b"})", "#/$ref", "expected \"#\", \"#/...\" or"},
           {R"({"$ref":"#/$defs/a"})", "#/$ref", "expected a pointer to a part of the schema"},
           {R"({"$ref":"#/~2"})", "#/$ref", "expected a pointer"},
           {R"({"$ref":"#/$defs","$defs":3})", "#/$defs", "expected a schema"},
           {R"({"$ref":"#"})", "#", "leads to itself"},
           {R"({"allOf":[{"$ref":"#"}]})", "#/allOf/0", "contains itself"},
           {R"({"type":"null","anyOf":[{"$ref":"#"}]})", "#/anyOf/0", "beside other keywords nested at most"},
           {"false", "#", "expected a schema that some value satisfies"},
           {R"({"anyOf":[{"$ref":"#"}]})", "#", "expected a schema that some value satisfies"},
           {R"({"required":["a"],"properties":{"a":{"$ref":"#"}}})", "#", "expected a schema that some value"},
           {R"({"required":["a"],"additionalProperties":false})", "#", "expected a schema that some value"},
           {R"({"minProperties":2,"properties":{"a":{}},"additionalProperties":false})", "#", "some value satisfies"},
           {R"({"type":"integer","minimum":2,"maximum":1})", "#", "expected a schema that some value satisfies"},
           {R"({"minLength":2,"maxLength":1})", "#", "expected a schema that some value satisfies"},
           {R"({"pattern":"^a{3}$","maxLength":2})", "#", "expected a schema that some value satisfies"},
           {R"({"type":"string","enum":[1]})", "#", "expected a schema that some value satisfies"},
       }) {
    expect_refused(schema, place, message);
  }
}

TEST(GrammarRefusals, SaysWhereInRulesForNamesAndInDependencies) {
  for (const auto& [schema, place, message] : std::vector<Case>{
           {R"({"patternProperties":{"^a":{},"(":{}}})", "#/patternProperties/(", "expected"},
           {R"x({"patternProperties":{"(":{},")":{}}})x", "#/patternProperties/(", "expected"},
           {R"({"patternProperties":{"^a":{},"^b$":{}}})", "#/patternProperties/^b$",
            "goes on in infinitely many ways"},
           {R"({"patternProperties":{"^a":{},"^b":{},"/":{"type":1}}})", "#/patternProperties/~1",
            "expected the same schema as #/patternProperties/^a"},
           {R"({"patternProperties":{"^a":{"type":1}}})", "#/patternProperties/^a/type", "expected a type of JSON"},
           {R"({"properties":{"b":{"propertyNames":{"pattern":"("}}}})", "#/properties/b/propertyNames/pattern",
            "expected"},
           {R"({"propertyNames":{"$ref":"#/$defs/n"},"$defs":{"n":{"pattern":"("}}})", "#/$defs/n/pattern", "expected"},
           {R"({"propertyNames":{"type":1}})", "#/propertyNames/type", "expected a type of JSON"},
           {R"({"propertyNames":{"maxLength":"1"}})", "#/propertyNames/maxLength", "expected an integer"},
           {R"({"properties":{"a":{}},"dependentRequired":{"a":1}})", "#/dependentRequired/a", "expected an array"},
           {R"({"properties":{"a":{}},"dependentRequired":{"a":["b",1]}})", "#/dependentRequired/a/1",
            "expected a string"},
           {R"({"properties":{"a":{}},"dependencies":{"a":[1]}})", "#/dependencies/a/0", "expected a string"},
           {R"({"properties":{"a":{}},"dependentSchemas":{"a":1}})", "#/dependentSchemas/a", "expected a schema"},
           {R"({"properties":{"a":{}},"dependentSchemas":{"a":{"properties":{"b":{"type":1}}}}})",
            "#/dependentSchemas/a/properties/b/type", "expected a type of JSON"},
           {R"({"properties":{"a":{}},"dependentSchemas":{"a":{"not":{}}}})", "#/dependentSchemas/a/not",
            "expected a keyword that is supported"},
           {R"({"properties":{"a":{}},"dependentSchemas":{"a":{"allOf":[{"minProperties":-1}]}}})",
            "#/dependentSchemas/a/allOf/0/minProperties", "expected an integer"},
           {R"({"properties":{"a":{}},"dependentSchemas":{"a":{"anyOf":[{"required":1}]}}})",
            "#/dependentSchemas/a/anyOf/0/required", "expected an array"},
           {R"({"properties":{"a":{}},"dependencies":{"a":{"properties":{"b":{"pattern":"("}}}}})",
            "#/dependencies/a/properties/b/pattern", "expected"},
       }) {
    expect_refused(schema, place, message);
  }
}

TEST(GrammarRefusals, TextsThatAreNotJson) {
  using Kind = Constraint::Kind;
  for (const auto& [kind, rule, message] : std::vector<std::tuple<Kind, std::string, std::string>>{
           {Kind::kRegex, "(", "expected"},
           {Kind::kRegex, "(?=a)b", "(not supported)"},
           {Kind::kRegex, "a^b", "expected a pattern that some text matches"},
           {Kind::kRegex, "a{,3}", "expected no {, in a pattern"},
           {Kind::kRegex, "[[:alpha:]]", "expected no [[: in a pattern"},
           {Kind::kChoice, "{}", "expected a list of at least one text, got {}"},
           {Kind::kChoice, "[]", "expected a list of at least one text, got []"},
           {Kind::kChoice, "[1]", "expected texts of at least one character, got 1"},
           {Kind::kChoice, "[\"\"]", "expected texts of at least one character, got \"\""},
           {Kind::kChoice, "[", "expected JSON"},
       })
    EXPECT_THAT(([kind = kind, rule = rule] {
                  compile_grammar({kind, rule});
                }),
                ThrowsMessage<Error>(HasSubstr(message)))
        << rule;
}

TEST(GrammarRefusals, PatternsThatNoAutomatonReads) {
  for (const char* pattern : {"(",         ")",        "a)",       "[a",      "[b-a]",
                              "[\\\\d-z]", "*a",       "a**",      "a{2}{3}", "a{3,2}",
                              "a++",       "(?=a)",    "(?!a)",    "(?<=a)",  "(?<!a)",
                              "(?i)a",     "(a)\\\\1", "\\\\k<a>", "\\\\b",   "\\\\B",
                              "\\\\p{L}",  "\\\\",     "\\\\xg0",  "\\\\u12", "\\\\u{110000}",
                              "\\\\ud83d", "\\\\0",    "(?<a",     "a{20000}"}) {
    expect_refused(fmt::format(R"({{"type":"string","pattern":"{}"}})", pattern), "#/pattern", "expected ");
  }
}

TEST(GrammarRefusals, WhatBlowsUp) {
  const auto pattern = [](const std::string& text) { return R"({"type":"string","pattern":")" + text + "\"}"; };
  for (const std::string& bomb :
       {std::string("(a|b)*a(a|b){20}"), std::string("((((a{100}){100}){100}){100})"), std::string("((){9999}){9999}"),
        repeated("(.*)*", 500) + "x{1,9999}", "^" + repeated("(a?){99}", 99) + "$", std::string("(.{1,999}b){1,99}")}) {
    expect_refused(pattern(bomb), "#/pattern", "expected ");
  }
  expect_refused(pattern(repeated("(", 100) + repeated(")", 100)), "#/pattern", "nested at most 64 deep");
  expect_refused(pattern(repeated("a", 5000)), "#/pattern", "at most 4096 bytes");
  expect_refused(R"({"type":"string","pattern":"^(ab?)*$","minLength":1000000})", "#/pattern", "the limit on");
  expect_refused(repeated(R"({"items":)", 32) + "{}" + repeated("}", 32), "#", "nested at most 32 deep");
  expect_refused(repeated("[", 100'000), "#", "nested at most 32 deep");
  expect_refused("\"" + repeated("a", 200'000) + "\"", "#", "at most 131072 bytes");
  expect_refused(std::string("{}\0", 3), "#", "a NUL");
  std::string members;
  for (int i = 0; i < 1025; ++i) members += fmt::format("{}\"k{}\":1", i > 0 ? "," : "", i);
  expect_refused("{" + members + "}", "#", "at most 1024 members");

  // Merging doubles: allOf of allOf, anyOf beside anyOf.
  std::string defs;
  for (int i = 0; i < 40; ++i) {
    defs += fmt::format(R"("a{0}":{{"allOf":[{{"$ref":"#/$defs/a{1}"}},{{"$ref":"#/$defs/a{1}"}}]}},)", i, i + 1);
  }
  expect_refused(R"({"allOf":[{"$ref":"#/$defs/a0"}],"$defs":{)" + defs + R"("a40":{}}})", "#/$defs/a15/allOf/0",
                 "expected allOf and $ref nested at most 32 deep");
  const std::string choice = R"({"anyOf":[{"minimum":1},{"minimum":2},{"minimum":3},{"minimum":4}]})";
  expect_refused(R"({"allOf":[)" + choice + repeated("," + choice, 20) + "]}", "#/allOf/",
                 "beside other keywords, got more");
  std::string alternatives;
  for (int i = 0; i < 130; ++i) alternatives += fmt::format("{}{{\"const\":{}}}", i > 0 ? "," : "", i);
  expect_refused(R"({"anyOf":[)" + alternatives + "]}", "#", "at most 128 alternatives, got 130");
  std::string chain = R"("a0":{"anyOf":[{"$ref":"#"}]})";
  for (int i = 1; i < 900; ++i) chain += fmt::format(R"(,"a{}":{{"anyOf":[{{"$ref":"#/$defs/a{}"}}]}})", i, i - 1);
  expect_refused(R"({"anyOf":[{"$ref":"#/$defs/a899"}],"$defs":{)" + chain + "}}", "#", "some value satisfies");
}

// A few tokens of each, to see that the masks of what is large work as well.
TEST(GrammarRefusals, LargeSchemasWork) {
  std::string values = "\"a\"", properties = R"("p":{"type":"integer"})";
  for (int i = 0; i < 9'000; ++i) values += fmt::format(",\"v{}\"", i);
  for (int i = 0; i < 999; ++i) properties += fmt::format(R"(,"p{}":{{"type":"integer","minimum":{}}})", i, i % 7);
  const auto table = shipped_table();
  for (const std::string& schema :
       {"{\"enum\":[" + values + "]}", "{\"properties\":{" + properties + "},\"additionalProperties\":false}",
        // As many stacks as there may be, and more of them with every bracket.
        std::string(R"({"anyOf":[{"items":{"$ref":"#"},"maxItems":5},{"items":{"$ref":"#"},"maxItems":6},
                                 {"items":{"$ref":"#"},"maxItems":7},{"type":"string","maxLength":9},{"minLength":1}]})"),
        std::string(R"({"minItems":4000000000,"items":{"minLength":1000000,"maxLength":99999999999999999}})")}) {
    const auto grammar = compile(schema);
    for (std::uint64_t seed = 0; seed < 1; ++seed) {
      EXPECT_FALSE(random_output(grammar, table, seed).starts_with("dead")) << schema.substr(0, 100);
    }
  }
}

}  // namespace
}  // namespace foe

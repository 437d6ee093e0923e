// What schemas, patterns and choices allow, by examples.
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "grammar/texts.h"

namespace foe {
namespace {

TEST(Grammar, SchemasAllowWhatTheySay) {
  expect_texts(R"({"type":["string","null"],"minLength":2,"maxLength":3})",
               {"null", R"("ab")", R"("\n\u00e9\ud83d\ude00")"}, {R"("a")", R"("abcd")", R"("\ud83d\ude00")", "1"});
  expect_texts(R"({"pattern":"b+$"})", {R"("ab")", R"("bb")"}, {R"("ba")", R"("")", "1"});
  expect_texts(R"({"pattern":"^a|\\.c"})", {R"("a!")", R"("!.c!")"}, {R"("ba")", R"("!c")"});
  expect_texts(R"({"pattern":"^[^a-c\"]{2}?$","minLength":1})", {R"("dé")", R"("\\\n")"},
               {R"("da")", R"("d\"")", R"("d")"});
  expect_texts(R"({"pattern":"^(?:a|b(?<x>c){2,}){0,2}$","maxLength":4})", {R"("")", R"("abcc")", R"("bcc")"},
               {R"("abc")", R"("abccc")", R"("bccbcc")"});
  expect_texts(R"({"pattern":"^.$"})", {R"("😀")", R"("\u0001")", R"("\"")"},
               {R"("\n")", R"("\u2028")", "\"\xe2\x80\xa8\""});
  expect_texts(R"({"anyOf":[{"pattern":"a^b"},{"type":"null"}]})", {"null"}, {R"("ab")"});
  expect_texts(R"({"format":"date"})", {R"("2024-04-30")"}, {R"("2024-04-31")", R"("2024-4-3")"});
  expect_texts(R"({"format":"date-time"})", {R"("2024-04-30T23:59:59.5+01:00")"}, {R"("2024-04-30 23:59:59Z")"});
  expect_texts(R"({"format":"date"})", {R"("0001-01-01")", R"("0100-02-28")", R"("2000-12-31")"}, {R"("0000-01-01")"});
  expect_texts(R"({"format":"duration"})", {R"("P3Y6M4DT12H30M5S")", R"("PT5M")", R"("P2W")", R"("P1Y")"},
               {R"("P")", R"("PT")", R"("P1YT")", R"("P1Y4D")", R"("1Y")"});
  expect_texts(R"({"format":"ipv6"})",
               {R"("::")", R"("::1")", R"("2001:db8::8a2e:370:7334")", R"("1:2:3:4:5:6:7:8")", R"("1:2:3:4:5:6:7::")",
                R"("1::3:4:5:6:7:8")"},
               {R"("1::2::3")", R"("1:2:3:4:5:6:7")", R"("1:2:3:4:5:6:7:8:9")", R"(":1")", R"("12345::")",
                R"("1:2:3:4:5:6:7:8::")"});
  expect_texts(R"({"format":"hostname"})", {R"("a")", R"("a-b.example.org")"}, {R"("-a")", R"("a..b")", R"("a_b")"});
  expect_texts(R"({"format":"email"})", {R"("a.b+c@example.org")"}, {R"("a@b")", R"(".a@b.org")", R"("a..b@c.org")"});
  expect_texts(R"({"format":"uri"})", {R"("https://example.org:80/a/b?c=d#e")", R"("http://a")", R"("http://a/%20")"},
               {R"("example.org")", R"("http://")", R"("http://a b")", R"("http://a/%2")"});
  expect_texts(R"({"format":"uri-reference"})", {R"("/a?b#c")", R"("http://a")"}, {R"("a b")", R"("")"});
  expect_texts(R"({"format":"json-pointer"})", {R"("")", R"("/a~1b/~0")"}, {R"("a")", R"("/~2")"});
  expect_texts(R"({"format":"relative-json-pointer"})", {R"("0#")", R"("1/a")"}, {R"("01")", R"("/a")"});
  expect_texts(R"({"format":"ipv4"})", {R"("255.0.19.1")"}, {R"("256.0.0.1")", R"("01.0.0.1")"});
  expect_texts(R"({"exclusiveMinimum":-1.5,"maximum":100})",
               {"-1.4", "-1.499999", "0", "0.000001", "100.0", "99.999999", "100"},
               {"-1.5", "-1.50", "100.000001", "1e1", "-0", "101", "1.0000001", "00"});
  expect_texts(R"({"type":"integer","minimum":0.5,"exclusiveMaximum":1000})", {"1", "999", "10"},
               {"0", "1000", "1.0", "-1"});
  expect_texts(R"({"type":"integer"})", {"0", "-1", "123456789012345678"},
               {"-0", "1234567890123456789", "1.0", "1e1", "01"});
  expect_texts(R"({"type":"integer","minimum":-9007199254740991,"maximum":9007199254740991})",
               {"9007199254740991", "-9007199254740991"}, {"9007199254740992", "-9007199254740992"});
  expect_texts(R"({"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807})",
               {"9223372036854775807", "-9223372036854775808"}, {"9223372036854775808", "-9223372036854775809"});
  expect_texts(R"({"type":"integer","format":"uint64"})", {"18446744073709551615", "0"},
               {"18446744073709551616", "-1"});
  expect_texts(R"({"type":"integer","format":"int32","maximum":5})", {"-2147483648", "5"}, {"-2147483649", "6"});
  expect_texts(R"({"type":"integer","exclusiveMinimum":18446744073709551613})",
               {"18446744073709551614", "18446744073709551615"}, {"18446744073709551613", "18446744073709551616"});
  expect_texts(R"({"type":"integer","minimum":9007199254740993,"exclusiveMaximum":9007199254740995})",
               {"9007199254740993", "9007199254740994"}, {"9007199254740992", "9007199254740995"});
  expect_texts(R"({"type":"integer","maximum":1e300})", {"123456789012345678", "-1"}, {"1234567890123456789"});
  expect_texts(R"({"type":"number","minimum":-1.7976931348623157e308,"maximum":1.7976931348623157e308})",
               {"-1.5e10", "0.25"}, {"1e100"});
  expect_texts(R"({"type":"number","maximum":1e18})", {"-5", "999999999999999999.5"}, {"1e1", "1000000000000000000"});
  expect_texts(R"({"type":"integer","format":"int64","minimum":9223372036854775806,"maximum":9223372036854775808})",
               {"9223372036854775807"}, {"9223372036854775808"});
  expect_texts(R"({"type":"integer","minimum":1e18,"exclusiveMinimum":999999999999999995})", {"1000000000000000000"},
               {"999999999999999999"});
  expect_texts(R"({"type":"number","minimum":9007199254740992.0,"maximum":9007199254740995})", {"9007199254740995"},
               {"9007199254740996"});
  expect_texts(R"({"type":"number","minimum":0,"maximum":1e300})", {"0", "1.5"}, {"-0.5", "1e1"});
  expect_texts(R"({"type":"number","minimum":1e16,"maximum":2e16})", {"10000000000000000", "15000000000000001"},
               {"9999999999999999", "20000000000000001"});
  expect_texts(R"({"type":"integer","maximum":-5})", {"-5", "-10", "-999999999999999999"}, {"-4", "5", "0"});
  expect_texts(R"({"type":"object","properties":{"a":{}},"required":["b"],"additionalProperties":true})",
               {R"({"a":1,"b":2,"c":3})", R"({"b":1})"},
               {R"({"b":1,"a":2})", R"({"a":1})", R"({"b":1,"\u0061":2})", R"({"b":1,"c":2,"c":3})"});
  expect_texts(R"({"additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2})",
               {R"({"x":1})", R"({"x":1,"y":2})"}, {"{}", R"({"x":1,"y":2,"z":3})", R"({"x":"1"})"});
  expect_texts(R"({"type":"object","properties":{"a":false,"b":true},"additionalProperties":true})",
               {R"({"b":1,"c":2})"}, {R"({"a":1})", R"({"c":1,"a":2})"});
  expect_texts(R"({"type":"array","minItems":1000000,"maxItems":4000000000})", {}, {"[]", "[1]"});
  expect_texts(R"({"type":"array","maxItems":1000000})", {"[]", "[1,\"a\"]"}, {});
  expect_texts(R"({"type":"string","maxLength":1000000000})", {R"("a")"}, {});
}

// As other servers have it: otherwise a model could go on with properties for ever.
TEST(Grammar, ObjectsHaveWhatTheirSchemaListsUnlessItSaysMore) {
  const std::string listed = R"({"type":"object","properties":{"a":{}},"required":["b"]})";
  expect_texts(listed, {R"({"a":1,"b":2})", R"({"b":1})"}, {R"({"a":1})", R"({"b":1,"c":2})"});
  expect_texts(R"({"type":"object"})", {"{}", R"({"c":2})"}, {});
  expect_texts(R"({"required":["a"]})", {R"({"a":1,"c":2})"}, {"{}"});
  expect_texts(R"({"allOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]})", {R"({"a":1,"b":2})"},
               {R"({"a":1,"c":2})"});
  GrammarMatcher open(compile_grammar({Constraint::Kind::kJsonSchema, listed, /*open_objects=*/true}), make_table({}));
  for (const char byte : std::string_view(R"({"b":1,"c":2})")) open.accept(static_cast<std::uint8_t>(byte));
  EXPECT_TRUE(open.complete());
  expect_texts(
      R"({"type":"object","x-order":1,"strict":true,"discriminator":{"propertyName":"t"},"properties":{"t":{"const":1}}})",
      {R"({"t":1})"}, {});
}

// The characters of a long text are counted beside the automaton of its pattern.
TEST(Grammar, LongPatternsHaveAMostLength) {
  const std::string uri = R"({"type":"string","format":"uri","maxLength":2083})";
  const auto text = [](std::size_t size) { return "\"https://a.b/" + std::string(size - 12, 'x') + "\""; };
  EXPECT_TRUE(after(uri, text(2083)).complete());
  EXPECT_FALSE(after(uri, text(2084)).complete());
  expect_texts(R"({"type":"string","pattern":"^(é|ab\\n){2,}$","maxLength":40})", {R"("éé")", R"("ab\néab\n")"},
               {R"("é")"});
  // Only what can still come to its end in time may come: 38 characters, and three more that belong together.
  const std::string pairs = R"({"type":"string","pattern":"^(abc)*$","maxLength":40})";
  std::string most;
  for (int i = 0; i < 13; ++i) most += "abc";
  EXPECT_TRUE(after(pairs, "\"" + most + "\"").complete());
  EXPECT_TRUE(after(pairs, "\"" + most + "a").dead());
  EXPECT_THAT([] { compile(R"({"type":"string","pattern":"^a{50}$","maxLength":40})"); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("expected a schema that some value satisfies")));
  const auto table = shipped_table();
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const std::string one =
        random_output(compile(R"({"type":"string","pattern":"^([a-z]+ )+the end$","maxLength":60})"), table, seed);
    EXPECT_LE(one.size(), 62u) << one;
    EXPECT_TRUE(one.ends_with(" the end\"")) << one;
  }
}

TEST(Grammar, TextsThatAreNotJson) {
  const auto matches = [](Constraint::Kind kind, const std::string& rule, std::string_view text) {
    GrammarMatcher matcher(compile_grammar({kind, rule}), make_table({"yes", "es or", "no\""}));
    for (const char byte : text) matcher.accept(static_cast<std::uint8_t>(byte));
    return matcher.complete();
  };
  const auto regex = [&](const std::string& rule, std::string_view text) {
    return matches(Constraint::Kind::kRegex, rule, text);
  };
  EXPECT_TRUE(regex("yes|no", "yes"));
  EXPECT_FALSE(regex("yes|no", "yes "));
  EXPECT_FALSE(regex("yes|no", " yes"));
  EXPECT_FALSE(regex("yes|no", "ye"));
  EXPECT_TRUE(regex("^a$", "a"));
  EXPECT_TRUE(regex("\"[^\"]*\"\n", "\"a\\b\xc3\xa9\"\n"));  // nothing is escaped
  EXPECT_FALSE(regex("\"[^\"]*\"", "\"a\"b\""));
  EXPECT_TRUE(regex("[\\s\\S]{2}", "\t\""));
  EXPECT_TRUE(regex("a*", ""));
  const auto choice = [&](std::string_view text) {
    return matches(Constraint::Kind::kChoice, R"(["yes", "yes or no", "n\"\n", "é"])", text);
  };
  for (const char* text : {"yes", "yes or no", "n\"\n", "\xc3\xa9"}) EXPECT_TRUE(choice(text)) << text;
  for (const char* text : {"", "ye", "yes or", "n", "\xc3"}) EXPECT_FALSE(choice(text)) << text;
}

TEST(Grammar, SchemasAreMergedWhereThatIsPlain) {
  expect_texts(R"({"allOf":[{"$ref":"#/$defs/a"}],"description":"x","$defs":{"a":{"const":1}}})", {"1"}, {"2"});
  expect_texts(R"({"allOf":[{"minimum":1},{"minimum":3,"maximum":9},{"type":"integer"}]})", {"3"}, {"2", "10", "4.5"});
  expect_texts(R"({"type":"object","properties":{"k":{"type":"string"}},"required":["k"],
                   "anyOf":[{"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]})",
               {R"({"k":"","a":1})", R"({"k":"","b":null})"}, {R"({"k":""})", R"({"k":"","b":1})"});
  expect_texts(R"({"type":"string","anyOf":[{"enum":["a",1]},{"minLength":3}]})", {R"("a")", R"("abc")"},
               {"1", R"("b")"});
  expect_texts(R"({"oneOf":[{"type":"object","properties":{"t":{"const":"x"}},"required":["t"]},
                            {"type":"object","properties":{"t":{"const":"y"},"u":{"type":"null"}},"required":["t"]},
                            {"type":"array"},{"enum":["a",null]}]})",
               {R"({"t":"x"})", R"({"t":"y","u":null})", "[]", "null"}, {R"({"t":"z"})", R"({"t":"y","u":1})", "1"});
  expect_texts(R"({"enum":["a","b",1],"const":"b","type":"string"})", {R"("b")"}, {R"("a")"});
}

TEST(Grammar, Multiples) {
  expect_texts(R"({"type":"integer","multipleOf":7,"minimum":-20,"maximum":700})", {"0", "7", "-14", "693", "700"},
               {"8", "-21", "707", "00", "7.0", ""});
  expect_texts(R"({"type":"integer","multipleOf":1200})", {"0", "1200", "-2400", "120000"},
               {"600", "1000", "12", "-0"});
  expect_texts(R"({"type":"number","multipleOf":0.01,"minimum":0})", {"0", "0.2", "12.34", "5"},
               {"0.001", "-1", "12.345"});
  expect_texts(R"({"multipleOf":2.5})", {"2.5", "-7.5", "5", "10.0"}, {"2", "2.50", "1e1", "0.5"});
  expect_texts(R"({"multipleOf":0.75,"maximum":3})", {"0.75", "1.5", "2.25", "3", "1.50", "-0.75"},
               {"0.5", "3.75", "1.7"});
  expect_texts(R"({"type":"integer","allOf":[{"multipleOf":4},{"multipleOf":6}]})", {"12", "-24", "0"},
               {"4", "6", "18"});
}

TEST(Grammar, SeveralPatternsHoldTogether) {
  expect_texts(R"({"pattern":"^[a-d]+$","allOf":[{"pattern":"b.*c"},{"maxLength":4}]})", {R"("bc")", R"("abdc")"},
               {R"("cb")", R"("bcaaa")", R"("bec")"});
  expect_texts(R"({"format":"date","pattern":"^2024-02"})", {R"("2024-02-28")"},
               {R"("2024-03-01")", R"("2024-02-30")"});
  expect_texts(R"({"pattern":"^a","format":"password"})", {R"("a!")"}, {R"("b")"});
  const std::string both = R"({"type":"string","pattern":"^é","allOf":[{"pattern":"x$"}],"maxLength":40})";
  std::string longest = "é";
  for (int i = 0; i < 38; ++i) longest += "ü";
  expect_texts(both, {"\"" + longest + "x\"", R"("éx")"}, {"\"" + longest + "üx\"", R"("é")", R"("x")"});
}

TEST(Grammar, MoreFormats) {
  expect_texts(R"({"format":"uri-template"})", {R"("http://a.org/b/{id}/c")", R"("http://a")"}, {R"("http://a/{")"});
  expect_texts(R"({"format":"regex"})", {R"("^a+\\d?\\.b$")", R"("")"}, {R"("a++")", R"("(")", R"("[a]")"});
  expect_texts(R"({"format":"byte"})", {R"("")", R"("Zm9v")", R"("Zg==")"}, {R"("Zg")", R"("Zg=a")"});
  expect_texts(R"({"format":"binary"})", {R"("any")"}, {"1"});
}

TEST(Grammar, NamesOfProperties) {
  expect_texts(R"({"type":"object","propertyNames":{"pattern":"^[a-z]+$"},"additionalProperties":{"type":"integer"}})",
               {"{}", R"({"ab":1,"c":2})"}, {R"({"A":1})", R"({"a":"x"})", R"({"a":1,"a":2})", R"({"":1})"});
  expect_texts(R"({"propertyNames":{"enum":["b","a",3]},"required":["a"]})", {R"({"b":1,"a":[]})", R"({"a":1})"},
               {"{}", R"({"b":1})", R"({"a":1,"c":1})"});
  expect_texts(R"({"properties":{"id":{"type":"null"},"No":{}},"propertyNames":{"pattern":"^[a-z]"},
                   "additionalProperties":true})",
               {R"({"id":null,"x":1})", "{}"}, {R"({"No":1})", R"({"id":1})", R"({"X":1})"});
  expect_texts(R"({"type":"object","propertyNames":false})", {"{}"}, {R"({"a":1})"});
  expect_texts(
      R"({"patternProperties":{"^x-":{"type":"string"},"^y-":{"type":"string"}},"additionalProperties":false})",
      {"{}", R"({"x-a":"1","y-":""})"}, {R"({"z":"1"})", R"({"x-a":1})"});
  // A listed property whose name a pattern matches satisfies both.
  expect_texts(R"({"properties":{"x-a":{"maxLength":2},"b":{}},"patternProperties":{"^x-":{"type":"string"}}})",
               {R"({"x-a":"12","b":1,"x-c":"long"})"}, {R"({"x-a":"123"})", R"({"x-a":1})", R"({"c":"1"})"});
}

TEST(Grammar, DependenciesOfProperties) {
  const std::string card = R"({"type":"object","additionalProperties":false,
      "properties":{"name":{"type":"string"},"card":{"type":"integer"},"address":{"type":"string"}},"required":["name"],)";
  for (const char* words : {R"("dependentRequired":{"card":["address"]}})", R"("dependencies":{"card":["address"]}})"})
    expect_texts(card + words,
                 {R"({"name":"a"})", R"({"name":"a","address":"b"})", R"({"name":"a","card":1,"address":"b"})"},
                 {R"({"name":"a","card":1})", R"({"card":1,"address":"b"})"});
  expect_texts(
      card + R"("dependentSchemas":{"card":{"properties":{"address":{"maxLength":1}},"required":["address"]}}})",
      {R"({"name":"a","address":"bb"})", R"({"name":"a","card":1,"address":"b"})"},
      {R"({"name":"a","card":1,"address":"bb"})", R"({"name":"a","card":1})"});
}

// What is merged with a schema again and again leads back to the same.
TEST(Grammar, DependenciesMayContainThemselves) {
  expect_texts(R"({"properties":{"a":{"type":"null"},"n":{"$ref":"#"}},"dependentSchemas":{"a":{
                   "properties":{"n":{"type":"object","required":["n"]}},"required":["n"]}}})",
               {R"({"n":{"n":{}}})", R"({"a":null,"n":{"n":{}}})", R"({"a":null,"n":{"a":null,"n":{"n":{}}}})"},
               {R"({"a":null})", R"({"a":null,"n":{}})", R"({"a":null,"n":{"a":null,"n":{}}})"});
}

TEST(Grammar, UnevaluatedProperties) {
  expect_texts(R"({"allOf":[{"properties":{"a":{}}},{"$ref":"#/$defs/b"}],"unevaluatedProperties":false,
                   "anyOf":[{"properties":{"c":{"const":1}},"required":["c"]},{"required":["b"]}],
                   "$defs":{"b":{"properties":{"b":{}}}}})",
               {R"({"a":1,"b":2,"c":1})", R"({"b":2})"}, {R"({"a":1})", R"({"b":1,"d":1})", R"({"b":1,"c":2})"});
  expect_texts(R"({"properties":{"a":{}},"unevaluatedProperties":{"type":"null"}})", {R"({"a":1,"b":null})"},
               {R"({"b":1})"});
}

TEST(Grammar, PropertiesAndItemsAreMerged) {
  expect_texts(R"({"allOf":[{"properties":{"a":{"type":"integer"}}},{"properties":{"a":{"minimum":3},"b":{}}}]})",
               {R"({"a":3,"b":0})", "{}"}, {R"({"a":2})", R"({"a":"3"})"});
  expect_texts(R"({"allOf":[{"properties":{"a":{"prefixItems":[true],"items":false}}},
                            {"properties":{"a":{"prefixItems":[true],"items":false}}}]})",
               {R"({"a":[1]})"}, {R"({"a":[1,2]})"});
  expect_texts(R"({"type":"array","items":{"type":"integer"},"allOf":[{"items":{"maximum":5}},{"minItems":1}]})",
               {"[5,-3]"}, {"[6]", "[]", "[\"a\"]"});
  // Schemas that contain themselves, merged with each other.
  expect_texts(R"({"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}],"$defs":{
                   "a":{"properties":{"n":{"type":"integer"},"next":{"$ref":"#/$defs/a"}}},
                   "b":{"properties":{"n":{"minimum":1},"next":{"$ref":"#/$defs/b"}}}}})",
               {R"({"n":1,"next":{"n":2,"next":{}}})"}, {R"({"n":1,"next":{"n":0}})", R"({"next":{"n":1.5}})"});
}

// Words of older drafts and of OpenAPI, anchors, and references with escapes.
TEST(Grammar, OtherWordsForTheSame) {
  expect_texts(R"({"type":"array","items":[{"type":"integer"},{"type":"null"}],"additionalItems":false})",
               {"[1,null]", "[1]"}, {"[null]", "[1,null,1]"});
  expect_texts(R"({"type":"array","items":[{"type":"integer"}],"additionalItems":{"type":"null"}})", {"[1,null,null]"},
               {"[1,1]"});
  expect_texts(R"({"type":"array","items":{"type":"integer"},"additionalItems":false})", {"[1,1]"}, {"[null]"});
  expect_texts(R"({"type":"string","nullable":true,"maxLength":1})", {"null", R"("a")"}, {R"("ab")", "1"});
  expect_texts(R"({"type":["integer"],"nullable":false})", {"1"}, {"null"});
  expect_texts(R"({"type":"integer","minimum":1,"exclusiveMinimum":true,"maximum":3,"exclusiveMaximum":false})",
               {"2", "3"}, {"1", "4"});
  expect_texts(R"({"$ref":"#word","$defs":{"a":{"$anchor":"word","type":"null"}}})", {"null"}, {"1"});
  expect_texts(R"({"$ref":"#/$defs/a%20%25b","$defs":{"a %b":{"type":"null"}}})", {"null"}, {"1"});
  expect_texts(R"({"type":"string","contentSchema":{"type":"object"},"contentMediaType":"application/json"})",
               {R"("a")"}, {"1"});
}

TEST(Grammar, RecursionEndsInTime) {
  const std::string list = R"({"$ref":"#/$defs/l","$defs":{"l":{"type":"object","properties":
      {"v":{"type":"integer"},"next":{"$ref":"#/$defs/l"}},"required":["v"],"additionalProperties":false}}})";
  std::string text, close;
  for (int i = 0; i < 63; ++i) text += R"({"v":1,"next":)", close += "}";
  expect_texts(list, {R"({"v":1})", text + R"({"v":1})" + close}, {});
  // No key may come whose value would not fit any more.
  EXPECT_TRUE(after(list, text + R"({"v":1,)").dead());
  expect_texts(R"({"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#"}}]})", {"[null,[[]]]"}, {"[1]"});
}

}  // namespace
}  // namespace foe

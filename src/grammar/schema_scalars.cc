#include "grammar/schema_scalars.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/automaton_product.h"
#include "grammar/json_characters.h"
#include "grammar/number_pattern.h"
#include "grammar/pattern.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

const std::set<std::string> kAllTypes = {"array", "boolean", "integer", "null", "number", "object", "string"};

// Dates and times of RFC 3339 from year 1 on, without leap seconds and February 29, which not every minute and year
// has; durations of its appendix A; UUIDs of RFC 4122; IPv4 addresses as dotted quads, IPv6 of RFC 4291 without them.
constexpr std::string_view kDate =
    "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|"
    "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kDurationTime =
    "T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)";
constexpr std::string_view kDurationDate =
    "[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D";
constexpr std::string_view kByteInDecimal = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
// A label of a host's name, without the length that DNS allows it.
constexpr std::string_view kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?";
// The characters of paths, queries and fragments that RFC 3986 allows in all of them.
constexpr std::string_view kUriCharacter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
constexpr std::string_view kPointer = "(?:/(?:[^~/]|~[01])*)*";

std::string ipv6_pattern() {
  constexpr std::string_view kPart = "[0-9a-fA-F]{1,4}";
  std::string result = fmt::format("^(?:(?:{0}:){{7}}{0}|:(?::{0}){{1,7}}|::", kPart);
  for (int before = 1; before <= 7; ++before)  // parts before ::, and at most 7 - before behind it
    result += fmt::format("|(?:{0}:){{{1}}}(?::{0}){{0,{2}}}{3}", kPart, before, 7 - before, before == 7 ? ":" : "");
  return result + ")$";
}

// Where a format has names for more than ASCII can write, the pattern allows the ASCII ones.
// Without one it says nothing of the text.
std::optional<std::string> format_pattern(const SchemaPlace& format) {
  const std::string& name = format.string();
  const std::string host = fmt::format("{0}(?:\\.{0}){{0,5}}", kLabel);
  const std::string path = fmt::format("(?:/{0}*)*(?:\\?(?:{0}|[/?])*)?(?:#(?:{0}|[/?])*)?", kUriCharacter);
  const std::string site = fmt::format("[A-Za-z][A-Za-z0-9+.-]{{1,15}}://{}(?::[1-9][0-9]{{0,3}})?", host);
  const std::string uri = site + path;
  if (name == "date") return fmt::format("^{}$", kDate);
  if (name == "time") return fmt::format("^{}$", kTime);
  if (name == "date-time") return fmt::format("^{}T{}$", kDate, kTime);
  if (name == "duration") return fmt::format("^P(?:[0-9]{{1,4}}W|(?:{0})(?:{1})?|{1})$", kDurationDate, kDurationTime);
  if (name == "uuid") return "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
  if (name == "ipv4") return fmt::format("^(?:{0}\\.){{3}}{0}$", kByteInDecimal);
  if (name == "ipv6") return ipv6_pattern();
  if (name == "hostname" || name == "idn-hostname") return fmt::format("^{}$", host);
  if (name == "email" || name == "idn-email")
    return fmt::format("^[A-Za-z0-9_+-]{{1,24}}(?:\\.[A-Za-z0-9_+-]{{1,24}}){{0,2}}@(?:{}\\.){{1,3}}[A-Za-z]{{2,12}}$",
                       kLabel);
  if (name == "uri" || name == "iri") return fmt::format("^{}$", uri);
  if (name == "uri-reference" || name == "iri-reference")
    return fmt::format("^(?:{0}|(?:/{1}*)+(?:\\?(?:{1}|[/?])*)?(?:#(?:{1}|[/?])*)?)$", uri, kUriCharacter);
  if (name == "json-pointer") return fmt::format("^{}$", kPointer);
  if (name == "relative-json-pointer") return fmt::format("^(?:0|[1-9][0-9]{{0,4}})(?:#|{})$", kPointer);
  if (name == "uri-template")
    return fmt::format("^{}(?:/(?:{}*|\\{{[A-Za-z0-9_]{{1,20}}\\}})){{0,5}}$", site, kUriCharacter);
  if (name == "regex") return "^\\^?(?:(?:[A-Za-z0-9 _,:;=@#%&<>~'\"!/-]|\\\\[dwsDWS.])[*+?]?)*\\$?$";
  if (name == "byte") return "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";
  if (name == "password" || name == "binary") return std::nullopt;  // OpenAPI's, as is byte
  format.wrong(
      "date, time, date-time, duration, uuid, ipv4, ipv6, hostname, email, uri, uri-reference (idn- and iri- too), "
      "uri-template, json-pointer, relative-json-pointer, regex, byte, binary or password");
}

// OpenAPI's formats of numbers are bounds.
void add_format(const SchemaPlace& format, NumberBounds& bounds) {
  const std::string& name = format.string();
  if (name == "float" || name == "double") return;
  const bool is_signed = name == "int32" || name == "int64";
  if (!is_signed && name != "uint32" && name != "uint64")
    format.wrong("int32, int64, uint32, uint64, float or double for numbers");
  const int bits = name.ends_with("32") ? 32 : 64;
  const WideInteger values = WideInteger{1} << bits, least = is_signed ? -values / 2 : 0, most = least + values - 1;
  bounds.low.push_back({static_cast<double>(least), false, least});
  bounds.high.push_back({static_cast<double>(most), false, most});
}

// Until draft 6, exclusiveMinimum and exclusiveMaximum said of the bound beside them whether it is one.
bool is_exclusive(const Keyword& bound, const char* name) {
  const auto found = bound.owner->find(name);
  return found != bound.owner->end() && *found == true;
}

NumberBound bound_of(const SchemaPlace& place, bool exclusive) {
  NumberBound bound{place.number(), exclusive, {}};
  if (place.value->is_number_unsigned())
    bound.integer = place.value->get<std::uint64_t>();
  else if (place.value->is_number_integer())
    bound.integer = place.value->get<std::int64_t>();
  return bound;
}

void add_exclusive(const Keyword& mention, const char* bound, std::vector<NumberBound>& bounds) {
  if (!mention.place.value->is_boolean()) return bounds.push_back(bound_of(mention.place, true));
  if (*mention.place.value == true && !mention.owner->contains(bound))
    mention.place.wrong(fmt::format("a number, as there is no {} beside it", bound));
}

NumberBounds bounds_of(const Keywords& keywords) {
  NumberBounds bounds;
  for (const Keyword& mention : keywords.all("minimum"))
    bounds.low.push_back(bound_of(mention.place, is_exclusive(mention, "exclusiveMinimum")));
  for (const Keyword& mention : keywords.all("maximum"))
    bounds.high.push_back(bound_of(mention.place, is_exclusive(mention, "exclusiveMaximum")));
  for (const Keyword& mention : keywords.all("exclusiveMinimum")) add_exclusive(mention, "minimum", bounds.low);
  for (const Keyword& mention : keywords.all("exclusiveMaximum")) add_exclusive(mention, "maximum", bounds.high);
  for (const Keyword& mention : keywords.all("format")) add_format(mention.place, bounds);
  return bounds;
}

std::set<std::string> named_types(const SchemaPlace& place) {
  const json names = place.value->is_array() ? *place.value : json::array({*place.value});
  std::set<std::string> result;
  for (const json& name : names) {
    if (!name.is_string() || !kAllTypes.contains(name.get<std::string>())) {
      place.wrong("a type of JSON (null, boolean, integer, number, string, array, object), or a list of them");
    }
    result.insert(name.get<std::string>());
  }
  if (result.contains("number")) result.insert("integer");
  return result;
}

std::set<std::string> implied_types(const Keywords& keywords) {
  std::set<char> about;
  for (const auto& [name, mentions] : keywords.mentions()) about.insert(keyword_type(name, mentions.front().place));
  if (about == std::set<char>{'s'}) return {"string"};
  if (about == std::set<char>{'n'}) return {"integer", "number"};
  if (about == std::set<char>{'a'}) return {"array"};
  if (about == std::set<char>{'o'}) return {"object"};
  return kAllTypes;
}

bool has_type(const json& value, const std::set<std::string>& types) {
  if (value.is_null()) return types.contains("null");
  if (value.is_boolean()) return types.contains("boolean");
  if (value.is_string()) return types.contains("string");
  if (value.is_array()) return types.contains("array");
  if (value.is_object()) return types.contains("object");
  const bool whole = value.is_number_integer() || std::trunc(value.get<double>()) == value.get<double>();
  return types.contains(whole ? "integer" : "number");
}

// Returns the text of a listed value. An integer beyond 64 bits has been rounded when the schema was read, so that it
// cannot be told from others.
std::string literal_text(const SchemaPlace& place, const json& value) {
  constexpr double kMost = 0x1p63;  // -2^63 is an integer, and the doubles up to 2^64 may be rounded ones
  const auto check = [&](const auto& self, const json& part) -> void {
    if (part.is_number_float() && std::abs(part.get<double>()) >= kMost) place.wrong("numbers within 64 bits");
    if (part.is_structured())
      for (const json& inner : part) self(self, inner);
  };
  check(check, value);
  return value.dump();
}

}  // namespace

std::set<std::string> allowed_types(const Keywords& keywords) {
  if (!keywords.has("type")) return implied_types(keywords);
  std::set<std::string> result = kAllTypes;
  for (const Keyword& mention : keywords.all("type")) {
    const std::set<std::string> allowed = named_types(mention.place);
    std::erase_if(result, [&](const std::string& type) { return !allowed.contains(type); });
  }
  return result;
}

CountRange count_range(const Keywords& keywords, std::string_view min, std::string_view max) {
  CountRange result;
  for (const Keyword& mention : keywords.all(min)) result.min = std::max(result.min, mention.place.count());
  for (const Keyword& mention : keywords.all(max)) result.max = std::min(result.max, mention.place.count());
  return result;
}

std::vector<std::string> literal_texts(const Keywords& keywords, const std::set<std::string>& types) {
  for (const auto& [name, mentions] : keywords.mentions()) {
    if (name == "type" || name == "enum" || name == "const") continue;
    fail("{}: expected no keyword but type beside enum and const, got \"{}\"", mentions.front().place.path, name);
  }
  std::optional<std::set<std::string>> result;
  const auto intersect = [&](std::set<std::string> texts) {
    if (result) std::erase_if(texts, [&](const std::string& text) { return !result->contains(text); });
    result = std::move(texts);
  };
  for (const Keyword& mention : keywords.all("const")) {
    intersect(has_type(*mention.place.value, types) ? std::set{literal_text(mention.place, *mention.place.value)}
                                                    : std::set<std::string>());
  }
  for (const Keyword& mention : keywords.all("enum")) {
    std::set<std::string> texts;
    for (const json& value : mention.place.array()) {
      if (has_type(value, types)) texts.insert(literal_text(mention.place, value));
    }
    intersect(std::move(texts));
  }
  return {result->begin(), result->end()};
}

Scalar describe_scalar(const std::string& type, const Keywords& keywords) {
  Scalar result{type};
  const auto add = [&](std::string pattern) {
    if (std::ranges::find(result.patterns, pattern) == result.patterns.end())
      result.patterns.push_back(std::move(pattern));
  };
  if (type == "string") {
    result.characters = count_range(keywords, "minLength", "maxLength");
    for (const Keyword& mention : keywords.all("pattern")) add(mention.place.string());
    for (const Keyword& mention : keywords.all("format"))
      if (const auto pattern = format_pattern(mention.place)) add(*pattern);
  } else if (type == "integer" || type == "number") {
    const NumberBounds bounds = bounds_of(keywords);
    add(type == "integer" ? integer_pattern(bounds) : number_pattern(bounds));
    for (const Keyword& mention : keywords.all("multipleOf")) result.multiples.push_back(multiple_of(mention.place));
  }
  return result;
}

ScalarCompiler::ScalarCompiler(GrammarProgram& program) : program_(program) {
  static const auto kStrings = std::make_shared<const ByteAutomaton>(make_string_automaton());
  program_.automata = {kStrings};
}

decltype(GrammarNode::body) ScalarCompiler::make(const Scalar& scalar) {
  if (scalar.type == "null") return LiteralsNode{{"null"}};
  if (scalar.type == "boolean") return LiteralsNode{{"false", "true"}};
  if (scalar.patterns.empty()) return StringNode{scalar.characters};
  // A long text has many states if they count its characters; the most characters can be counted beside them.
  constexpr std::uint32_t kCountedByStates = 32;
  const bool beside = scalar.characters.max != kNoLimit && scalar.characters.max > kCountedByStates;
  const CountRange characters{scalar.characters.min, beside ? kNoLimit : scalar.characters.max};
  ByteAutomaton automaton = automaton_of(scalar, characters);
  if (beside) add_distances(automaton);
  return AutomatonNode{add(std::move(automaton)), beside ? scalar.characters.max : kNoLimit};
}

std::uint32_t ScalarCompiler::add_string(const Scalar& scalar) {
  Scalar any = scalar;
  if (any.patterns.empty()) any.patterns.emplace_back();
  return add(automaton_of(any, scalar.characters));
}

std::uint32_t ScalarCompiler::both(std::uint32_t a, std::uint32_t b) {
  return add(intersection(*program_.automata[a], *program_.automata[b], budget_));
}

std::uint32_t ScalarCompiler::add(ByteAutomaton automaton) {
  program_.automata.push_back(std::make_shared<const ByteAutomaton>(std::move(automaton)));
  return static_cast<std::uint32_t>(program_.automata.size() - 1);
}

ByteAutomaton ScalarCompiler::automaton_of(const Scalar& scalar, CountRange characters) {
  const PatternUse use = scalar.type == "string" ? PatternUse::kJsonString : PatternUse::kWhole;
  std::optional<ByteAutomaton> result;
  for (const std::string& pattern : scalar.patterns)
    result = result ? intersection(*result, compile_pattern(pattern, use, {}, budget_), budget_)
                    : compile_pattern(pattern, use, characters, budget_);
  for (const Multiple& multiple : scalar.multiples)
    result = intersection(*result, multiples_automaton(multiple, budget_), budget_);
  return std::move(*result);
}

}  // namespace foe

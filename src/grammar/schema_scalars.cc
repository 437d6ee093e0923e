#include "grammar/schema_scalars.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/json_characters.h"
#include "grammar/number_pattern.h"
#include "grammar/pattern.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

const std::set<std::string> kAllTypes = {"array", "boolean", "integer", "null", "number", "object", "string"};

// Dates and times of RFC 3339, without leap seconds and February 29, which not every minute and year has; UUIDs of RFC
// 4122; IPv4 addresses as dotted quads.
constexpr std::string_view kDate =
    "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    "02-(?:0[1-9]|1[0-9]|2[0-8]))";
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kByteInDecimal = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

std::string format_pattern(const SchemaPlace& format) {
  const std::string& name = format.string();
  if (name == "date") return fmt::format("^{}$", kDate);
  if (name == "time") return fmt::format("^{}$", kTime);
  if (name == "date-time") return fmt::format("^{}T{}$", kDate, kTime);
  if (name == "uuid") return "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
  if (name == "ipv4") return fmt::format("^(?:{0}\\.){{3}}{0}$", kByteInDecimal);
  format.wrong("date, time, date-time, uuid or ipv4");
}

std::optional<NumberBound> bound(const Keywords& keywords, std::string_view inclusive, std::string_view exclusive,
                                 bool low) {
  std::optional<NumberBound> result;
  const auto add = [&](std::string_view name, bool excludes) {
    for (const Keyword& mention : keywords.all(name)) {
      const NumberBound next{mention.place.number(), excludes};
      const bool stricter = result && (low ? next.value > result->value : next.value < result->value);
      if (!result || stricter || (next.value == result->value && excludes)) result = next;
    }
  };
  add(inclusive, false);
  add(exclusive, true);
  return result;
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
    intersect(has_type(*mention.place.value, types) ? std::set{mention.place.value->dump()} : std::set<std::string>());
  }
  for (const Keyword& mention : keywords.all("enum")) {
    std::set<std::string> texts;
    for (const json& value : mention.place.array()) {
      if (has_type(value, types)) texts.insert(value.dump());
    }
    intersect(std::move(texts));
  }
  return {result->begin(), result->end()};
}

Scalar describe_scalar(const std::string& type, const Keywords& keywords) {
  Scalar result{type, {}, std::nullopt};
  if (type == "string") {
    result.characters = count_range(keywords, "minLength", "maxLength");
    if (const Keyword* pattern = keywords.one("pattern")) result.pattern = pattern->place.string();
    const Keyword* format = keywords.one("format");
    if (format && result.pattern) format->place.wrong("no format beside a pattern");
    if (format) result.pattern = format_pattern(format->place);
  } else if (type == "integer" || type == "number") {
    const auto low = bound(keywords, "minimum", "exclusiveMinimum", /*low=*/true);
    const auto high = bound(keywords, "maximum", "exclusiveMaximum", /*low=*/false);
    result.pattern = type == "integer" ? integer_pattern(low, high) : number_pattern(low, high);
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
  if (!scalar.pattern) return StringNode{scalar.characters};
  const PatternUse use = scalar.type == "string" ? PatternUse::kJsonString : PatternUse::kWhole;
  program_.automata.push_back(
      std::make_shared<const ByteAutomaton>(compile_pattern(*scalar.pattern, use, scalar.characters, budget_)));
  return AutomatonNode{static_cast<std::uint32_t>(program_.automata.size() - 1)};
}

}  // namespace foe

#include "grammar/schema_keywords.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr int kMaxGatherDepth = 32;
constexpr std::size_t kMaxGathered = 10'000;  // the most schemas that are gathered

const json& no_type() {
  static const json value = json::array();
  return value;
}

}  // namespace

const std::vector<Keyword>& Keywords::all(std::string_view name) const {
  static const std::vector<Keyword> kNone;
  const auto found = mentions_.find(name);
  return found == mentions_.end() ? kNone : found->second;
}

const Keyword* Keywords::one(std::string_view name) const {
  const std::vector<Keyword>& mentions = all(name);
  for (const Keyword& keyword : mentions) {
    if (*keyword.place.value != *mentions.front().place.value) {
      keyword.place.wrong(
          fmt::format("the same value as {} (different ones cannot be merged)", mentions.front().place.path));
    }
  }
  return mentions.empty() ? nullptr : &mentions.front();
}

std::vector<Keyword> Keywords::take(std::string_view name) {
  auto found = mentions_.find(name);
  if (found == mentions_.end()) return {};
  std::vector<Keyword> result = std::move(found->second);
  mentions_.erase(found);
  return result;
}

namespace {

// Why a keyword of JSON Schema is refused. None of these can be said of a text while it is written from left to right
// by an automaton with a stack, or only by one that is far too large.
std::string_view reason_against(std::string_view name) {
  static const std::map<std::string_view, std::string_view> kReasons = {
      {"not", "what must not be has no grammar of its own"},
      {"if", "it depends on a whole value whether another holds; use anyOf"},
      {"then", "it depends on a whole value whether it holds; use anyOf"},
      {"else", "it depends on a whole value whether it holds; use anyOf"},
      {"contains", "any item may be the one; use prefixItems"},
      {"minContains", "any items may be the ones; use prefixItems"},
      {"maxContains", "any items may be the ones; use prefixItems"},
      {"unevaluatedItems", "items that others look at cannot be told; use items"},
      {"$dynamicRef", "what it means depends on where one came from; use $ref"},
      {"$recursiveRef", "what it means depends on where one came from; use $ref"},
  };
  const auto found = kReasons.find(name);
  return found == kReasons.end() ? std::string_view() : found->second;
}

}  // namespace

char keyword_type(const std::string& name, const SchemaPlace& keyword) {
  static const std::map<std::string_view, char> kTypes = {
      {"type", '*'},
      {"enum", '*'},
      {"const", '*'},
      {"anyOf", '*'},
      {"oneOf", '*'},
      {"minLength", 's'},
      {"maxLength", 's'},
      {"pattern", 's'},
      {"format", 's'},
      {"minimum", 'n'},
      {"maximum", 'n'},
      {"exclusiveMinimum", 'n'},
      {"exclusiveMaximum", 'n'},
      {"multipleOf", 'n'},
      {"items", 'a'},
      {"prefixItems", 'a'},
      {"minItems", 'a'},
      {"maxItems", 'a'},
      {"uniqueItems", 'a'},
      {"properties", 'o'},
      {"required", 'o'},
      {"minProperties", 'o'},
      {"maxProperties", 'o'},
      {"additionalProperties", 'o'},
      {"unevaluatedProperties", 'o'},
      {"patternProperties", 'o'},
      {"propertyNames", 'o'},
      {"dependentRequired", 'o'},
      {"dependentSchemas", 'o'},
  };
  const auto found = kTypes.find(name);
  if (found != kTypes.end()) return found->second;
  const std::string_view reason = reason_against(name);
  fail("{}: expected a keyword that is supported, got \"{}\"{}{}", keyword.path, shorten(name),
       reason.empty() ? "" : ": ", reason);
}

bool is_annotation(const std::string& name) {
  // From "discriminator" to "xml" they are OpenAPI's; "strict" belongs beside a tool's schema, and is often within it.
  constexpr std::string_view kNames[] = {"title",
                                         "description",
                                         "default",
                                         "examples",
                                         "$schema",
                                         "$id",
                                         "$defs",
                                         "definitions",
                                         "$comment",
                                         "deprecated",
                                         "readOnly",
                                         "writeOnly",
                                         "contentMediaType",
                                         "contentEncoding",
                                         "contentSchema",
                                         "$anchor",
                                         "$vocabulary",
                                         "$dynamicAnchor",
                                         "discriminator",
                                         "example",
                                         "externalDocs",
                                         "xml",
                                         "strict"};
  return name.starts_with("x-") || std::ranges::find(kNames, name) != std::end(kNames);
}

void KeywordGatherer::gather(const SchemaPlace& place, Keywords& out, int depth, bool alone) {
  const SchemaPlace schema = named(place);
  if (depth > kMaxGatherDepth) {
    fail("{}: expected allOf and $ref nested at most {} deep, got deeper nesting, or a schema that contains itself",
         schema.path, kMaxGatherDepth);
  }
  if (++gathered_ > kMaxGathered)
    fail("{}: expected at most {} schemas merged by allOf and $ref, got more", schema.path, kMaxGathered);
  if (schema.value->is_boolean()) {
    if (!schema.value->get<bool>()) out.add("type", {{&no_type(), schema.path}, schema.value});
    return;
  }
  if (!schema.value->is_object()) schema.wrong("a schema (an object, true or false)");
  for (const auto& [name, value] : schema.value->items()) {
    if (is_annotation(name)) continue;
    const SchemaPlace keyword = named(schema.member(name));
    if (name == "$ref") {
      gather(whole_.resolve(keyword), out, depth + 1, false);
    } else if (name == "allOf") {
      for (std::size_t i = 0; i < keyword.array().size(); ++i) gather(keyword.element(i), out, depth + 1, false);
    } else {
      add(name, {keyword, schema.value}, out, alone);
    }
  }
}

void KeywordGatherer::add(const std::string& name, const Keyword& keyword, Keywords& out, bool alone) {
  const json& value = *keyword.place.value;
  const json& schema = *keyword.owner;
  const bool has_list = schema.contains("items") && schema["items"].is_array();
  const bool nullable = schema.contains("nullable") && schema["nullable"] == true;
  if (name == "items" && value.is_array()) return out.add("prefixItems", keyword);
  if (name == "additionalItems") {  // says nothing without a list of items
    if (has_list) out.add("items", keyword);
  } else if (name == "nullable") {
    if (!value.is_boolean()) keyword.place.wrong("true or false");
    if (nullable && !schema.contains("type")) keyword.place.wrong("a type beside it");
  } else if (name == "type" && nullable) {
    json types = value.is_array() ? value : json::array({value});
    types.push_back("null");
    out.add("type", {made(types, keyword.place.path), keyword.owner});
  } else if (name == "dependencies") {
    for (const auto& [property, what] : keyword.place.object().items())
      out.add(what.is_array() ? "dependentRequired" : "dependentSchemas",
              {made({{property, what}}, keyword.place.path), keyword.owner});
  } else {
    if (name == "unevaluatedProperties" && !alone)
      keyword.place.wrong("it beside all that it is about, and not within allOf, anyOf, oneOf or what $ref points to");
    keyword_type(name, keyword.place);
    out.add(name, keyword);
  }
}

SchemaPlace KeywordGatherer::made(const json& schema, const std::string& path) {
  std::shared_ptr<const json>& known = made_[schema.dump()];
  if (!known) known = std::make_shared<const json>(schema);
  return {known.get(), path};
}

void KeywordGatherer::write_dependencies(Keywords& keywords) {
  for (const char* name : {"dependentRequired", "dependentSchemas"})
    for (const Keyword& mention : keywords.take(name))
      for (const auto& [property, what] : mention.place.object().items()) {
        const SchemaPlace place = mention.place.member(property);
        const bool listed = std::ranges::any_of(keywords.all("properties"), [&, &key = property](const Keyword& other) {
          return other.place.object().contains(key);
        });
        if (!listed) place.wrong("it only of a property that properties lists");
        const bool names_others = name == std::string_view("dependentRequired");
        const json there = {{"required", json::array({property})}};
        const json then = names_others ? json{{"required", place.array()}} : what;
        const json absent = {{"properties", {{property, false}}}}, both = {{"allOf", json::array({there, then})}};
        const SchemaPlace either = made({{"anyOf", json::array({absent, both})}}, place.path);
        const json &alternatives = either.value->at("anyOf"), &given = alternatives[1].at("allOf")[1];
        write_for(place.path, alternatives, names_others ? given.at("required") : given);
        keywords.add("anyOf", {{&alternatives, place.path}, either.value});
      }
}

void KeywordGatherer::write_for(const std::string& path, const json& schema, const json& given) {
  paths_.try_emplace(&schema, path);
  if (&schema == &given || !schema.is_structured()) return;
  for (const json& part : schema) write_for(path, part, given);
}

SchemaPlace KeywordGatherer::named(SchemaPlace place) const {
  const auto found = paths_.find(place.value);
  if (found != paths_.end()) place.path = found->second;
  return place;
}

}  // namespace foe

#include "grammar/schema_keywords.h"

#include <algorithm>
#include <array>
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

char keyword_type(const std::string& name, const SchemaPlace& keyword) {
  static const std::map<std::string_view, char> kTypes = {
      {"type", '*'},        {"enum", '*'},          {"const", '*'},
      {"anyOf", '*'},       {"oneOf", '*'},         {"minLength", 's'},
      {"maxLength", 's'},   {"pattern", 's'},       {"format", 's'},
      {"minimum", 'n'},     {"maximum", 'n'},       {"exclusiveMinimum", 'n'},
      {"items", 'a'},       {"prefixItems", 'a'},   {"exclusiveMaximum", 'n'},
      {"minItems", 'a'},    {"maxItems", 'a'},      {"properties", 'o'},
      {"required", 'o'},    {"minProperties", 'o'}, {"additionalProperties", 'o'},
      {"uniqueItems", 'a'}, {"maxProperties", 'o'},
  };
  const auto found = kTypes.find(name);
  if (found == kTypes.end()) fail("{}: expected a keyword that is supported, got \"{}\"", keyword.path, shorten(name));
  return found->second;
}

bool is_annotation(const std::string& name) {
  // From "discriminator" to "xml" they are OpenAPI's; "strict" belongs beside a tool's schema, and is often within it.
  constexpr std::array<std::string_view, 19> kNames = {"title",
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
                                                       "discriminator",
                                                       "example",
                                                       "externalDocs",
                                                       "xml",
                                                       "strict"};
  return name.starts_with("x-") || std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

void KeywordGatherer::gather(const SchemaPlace& schema, Keywords& out, int depth) {
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
    const SchemaPlace place = schema.member(name);
    if (name == "$ref") {
      gather(resolve(root_, place), out, depth + 1);
    } else if (name == "allOf") {
      for (std::size_t i = 0; i < place.array().size(); ++i) gather(place.element(i), out, depth + 1);
    } else {
      keyword_type(name, place);
      out.add(name, {place, schema.value});
    }
  }
}

}  // namespace foe

#include "grammar/schema_compiler.h"

#include <algorithm>
#include <deque>
#include <set>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "grammar/schema_exclusion.h"
#include "grammar/schema_keywords.h"
#include "grammar/schema_scalars.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t kMaxBytes = 128 * 1024;
constexpr std::size_t kMaxNodes = 20'000;
constexpr std::size_t kMaxProperties = 10'000;

class SchemaCompiler {
 public:
  SchemaCompiler(const json& root, bool open_objects)
      : root_(root), open_objects_(open_objects), gatherer_(root), scalars_(program_) {}

  GrammarProgram compile() {
    program_.root = value({&root_, "#"});
    while (!queue_.empty()) {
      const auto [place, id] = queue_.front();
      queue_.pop_front();
      Keywords keywords;
      gatherer_.gather(place, keywords);
      add_values(std::move(keywords), place.path, id);
    }
    finish_program(program_);
    check_exclusion(program_, one_ofs_);
    if (program_.nodes[program_.root].height == kUnreachable) {
      fail(
          "#: expected a schema that some value satisfies, nested at most {} deep, got one that none does (objects "
          "have "
          "only the properties that it lists, unless it says additionalProperties; numbers with bounds have 6 digits "
          "behind the point)",
          kMaxNesting);
    }
    return std::move(program_);
  }

 private:
  NodeId add_node(decltype(GrammarNode::body) body) {
    if (program_.nodes.size() >= kMaxNodes)
      fail("#: expected a schema of at most {} values and choices, got a larger one", kMaxNodes);
    program_.nodes.push_back({std::move(body), kUnreachable});
    return static_cast<NodeId>(program_.nodes.size() - 1);
  }

  void add_alternative(NodeId choice, NodeId id) {
    std::get<ChoiceNode>(program_.nodes[choice].body).alternatives.push_back(id);
  }

  // Returns the choice of a schema's values, which is filled later from the queue.
  NodeId value(SchemaPlace place) {
    for (int links = 0; place.value->is_object() && is_plain_ref(*place.value); ++links) {
      if (links == kMaxLinks)
        fail("{}: expected a $ref that leads to a schema, got one that leads to itself", place.path);
      place = resolve(root_, place.member("$ref"));
    }
    const auto [known, added] = values_.try_emplace(place.value, 0);
    if (added) {
      known->second = add_node(ChoiceNode{});
      queue_.emplace_back(std::move(place), known->second);
    }
    return known->second;
  }

  static bool is_plain_ref(const json& schema) {
    return schema.contains("$ref") && std::all_of(schema.items().begin(), schema.items().end(), [](const auto& item) {
             return item.key() == "$ref" || is_annotation(item.key());
           });
  }

  // Adds the values that satisfy all keywords to the choice.
  void add_values(Keywords keywords, const std::string& path, NodeId choice) {
    for (const char* name : {"anyOf", "oneOf"}) {
      std::vector<Keyword> mentions = keywords.take(name);
      if (mentions.empty()) continue;
      const Keyword of = std::move(mentions.back());
      mentions.pop_back();
      for (Keyword& other : mentions) keywords.add(name, std::move(other));
      return add_alternatives(keywords, of, std::string_view(name) == "oneOf", choice);
    }
    const std::set<std::string> types = allowed_types(keywords);
    if (keywords.has("enum") || keywords.has("const")) {
      add_alternative(choice, add_node(LiteralsNode{literal_texts(keywords, types)}));
      return;
    }
    for (const std::string& type : types) {
      if (type == "object") {
        add_alternative(choice, add_node(object(keywords)));
      } else if (type == "array") {
        add_alternative(choice, add_node(array(keywords)));
      } else if (type != "integer" || !types.contains("number")) {
        add_alternative(choice, scalar(type, keywords, path));
      }
    }
  }

  void add_alternatives(const Keywords& keywords, const Keyword& of, bool exclusive, NodeId choice) {
    OneOf one_of{of.place.path, {}};
    if (of.place.array().empty()) of.place.wrong("at least one schema");
    for (std::size_t i = 0; i < of.place.array().size(); ++i) {
      const SchemaPlace place = of.place.element(i);
      one_of.choices.push_back(keywords.empty() ? value(place) : merged(keywords, place));
      add_alternative(choice, one_of.choices.back());
    }
    if (exclusive) one_ofs_.push_back(std::move(one_of));
  }

  NodeId merged(Keywords keywords, const SchemaPlace& place) {
    if (merging_ == kMaxMerging)
      fail("{}: expected anyOf and oneOf beside other keywords nested at most {} deep, got deeper nesting", place.path,
           kMaxMerging);
    if (++merges_ > kMaxMerges)
      fail("{}: expected at most {} alternatives of anyOf and oneOf beside other keywords, got more", place.path,
           kMaxMerges);
    ++merging_;
    const NodeId id = add_node(ChoiceNode{});
    gatherer_.gather(place, keywords);
    add_values(std::move(keywords), place.path, id);
    --merging_;
    return id;
  }

  NodeId scalar(const std::string& type, const Keywords& keywords, const std::string& path) {
    try {
      const auto [known, added] = scalar_ids_.try_emplace(describe_scalar(type, keywords), 0);
      if (added) known->second = add_node(scalars_.make(known->first));
      return known->second;
    } catch (const Error& error) {
      if (std::string_view(error.what()).starts_with('#')) throw;
      const Keyword* pattern = type == "string" ? keywords.one("pattern") : nullptr;
      fail("{}: {}", pattern ? pattern->place.path : path, error.what());
    }
  }

  ArrayNode array(const Keywords& keywords) {
    ArrayNode node;
    if (const Keyword* unique = keywords.one("uniqueItems"); unique && *unique->place.value != false) {
      unique->place.wrong("false (others are not supported)");
    }
    node.count = count_range(keywords, "minItems", "maxItems");
    if (const Keyword* prefix = keywords.one("prefixItems")) {
      for (std::size_t i = 0; i < prefix->place.array().size(); ++i)
        node.prefix.push_back(value(prefix->place.element(i)));
    }
    const Keyword* items = keywords.one("items");
    if (items && items->place.value->is_array()) items->place.wrong("a schema (prefixItems has a list)");
    node.items = value(items ? items->place : anything());
    // Both are about later items, and would have to be merged.
    const auto mentions = std::max(keywords.all("items").size(), keywords.all("prefixItems").size());
    if (mentions > 1 && items && keywords.has("prefixItems")) items->place.wrong("items and prefixItems in one schema");
    return node;
  }

  ObjectNode object(const Keywords& keywords) {
    ObjectNode node;
    node.count = count_range(keywords, "minProperties", "maxProperties");
    node.additional = additional_properties(keywords);
    std::unordered_map<std::string, std::size_t> places;  // by name
    std::vector<const json*> schemas;
    const auto add = [&](const std::string& name, NodeId id, const json* schema) {
      if (++properties_ > kMaxProperties) fail("#: expected at most {} properties, got more", kMaxProperties);
      places.emplace(name, node.properties.size());
      node.properties.push_back({json(name).dump(), id, false});
      schemas.push_back(schema);
    };
    for (const Keyword& mention : keywords.all("properties")) {
      for (const auto& [name, schema] : mention.place.object().items()) {
        const auto known = places.find(name);
        if (known == places.end()) {
          add(name, value(mention.place.member(name)), &schema);
        } else if (*schemas[known->second] != schema) {
          mention.place.member(name).wrong("the same property in all schemas that are merged");
        }
      }
    }
    for (const Keyword& mention : keywords.all("required")) {
      for (std::size_t i = 0; i < mention.place.array().size(); ++i) {
        const std::string& name = mention.place.element(i).string();
        if (!places.contains(name)) add(name, unlisted_value(keywords, node), nullptr);
        node.properties[places.at(name)].required = true;
      }
    }
    index_properties(node);
    return node;
  }

  // Returns the value of a property that is required and not listed.
  NodeId unlisted_value(const Keywords& keywords, const ObjectNode& node) {
    if (node.additional) return *node.additional;
    return value(keywords.has("additionalProperties") ? nothing() : anything());
  }

  // Returns the value of additional properties, or nothing if there must be none. Where a schema does not say, what it
  // lists is what is meant: a model could go on with further properties for ever.
  std::optional<NodeId> additional_properties(const Keywords& keywords) {
    const Keyword* additional = keywords.one("additionalProperties");
    if (!additional && keywords.has("properties") && !open_objects_) return std::nullopt;
    if (!additional || *additional->place.value == true) return value(anything());
    for (const Keyword& mention : keywords.all("additionalProperties")) {
      for (const Keyword& properties : keywords.all("properties")) {
        if (properties.owner != mention.owner) mention.place.wrong("true where properties are merged");
      }
    }
    if (*additional->place.value == false) return std::nullopt;
    return value(additional->place);
  }

  static void index_properties(ObjectNode& node) {
    const auto size = static_cast<std::uint32_t>(node.properties.size());
    node.required.resize(size + 1);
    for (std::uint32_t i = size; i-- > 0;) {
      node.by_key.push_back(i);
      node.required[i] = node.required[i + 1] + (node.properties[i].required ? 1 : 0);
    }
    std::sort(node.by_key.begin(), node.by_key.end(),
              [&](std::uint32_t a, std::uint32_t b) { return node.properties[a].key < node.properties[b].key; });
  }

  static SchemaPlace anything() {
    static const json schema = true;
    return {&schema, "#"};
  }
  static SchemaPlace nothing() {
    static const json schema = false;
    return {&schema, "#"};
  }

  static constexpr int kMaxLinks = 100;  // the most $ref that only lead to another $ref
  static constexpr int kMaxMerging = 32;
  static constexpr int kMaxMerges = 1000;

  const json& root_;
  const bool open_objects_;
  KeywordGatherer gatherer_;
  GrammarProgram program_;
  ScalarCompiler scalars_;
  std::unordered_map<const json*, NodeId> values_;  // the choice of each schema
  std::map<Scalar, NodeId> scalar_ids_;
  std::deque<std::pair<SchemaPlace, NodeId>> queue_;  // schemas whose choices are still empty
  std::vector<OneOf> one_ofs_;
  int merging_ = 0;  // the depth of nested merges
  int merges_ = 0;   // the number of all merges
  std::size_t properties_ = 0;
};

}  // namespace

GrammarProgram compile_schema(std::string_view schema, bool open_objects) {
  try {
    if (schema.size() > kMaxBytes) fail("expected a schema of at most {} bytes, got {}", kMaxBytes, schema.size());
    const json root = parse_ordered_json(schema, "#");
    return SchemaCompiler(root, open_objects).compile();
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with('#')) throw;
    fail("#: {}", error.what());
  }
}

}  // namespace foe

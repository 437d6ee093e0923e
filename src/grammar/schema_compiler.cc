#include "grammar/schema_compiler.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "grammar/automaton_product.h"
#include "grammar/pattern_syntax.h"
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
      : whole_(root), open_objects_(open_objects), gatherer_(whole_), scalars_(program_) {}

  GrammarProgram compile() {
    program_.root = value({&whole_.root(), "#"});
    while (!queue_.empty()) {
      const auto [places, id] = queue_.front();
      queue_.pop_front();
      Keywords keywords;
      for (const SchemaPlace& place : places) gatherer_.gather(place, keywords, /*alone=*/places.size() == 1);
      add_values(std::move(keywords), places.front().path, id);
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
  NodeId value(const SchemaPlace& place) { return value_of_all({place}); }

  // Returns the choice of the values that satisfy all of several schemas.
  NodeId value_of_all(const std::vector<SchemaPlace>& places) {
    std::vector<const json*> schemas;
    std::vector<SchemaPlace> distinct;
    for (const SchemaPlace& place : places) {
      SchemaPlace target = target_of(place);
      if (std::ranges::any_of(schemas, [&](const json* other) { return *other == *target.value; })) continue;
      schemas.push_back(target.value);
      distinct.push_back(std::move(target));
    }
    const auto [known, added] = values_.try_emplace(schemas, 0);
    if (added) {
      known->second = add_node(ChoiceNode{});
      queue_.emplace_back(std::move(distinct), known->second);
    }
    return known->second;
  }

  SchemaPlace target_of(SchemaPlace place) const {
    for (int links = 0; place.value->is_object() && is_plain_ref(*place.value); ++links) {
      if (links == kMaxLinks)
        fail("{}: expected a $ref that leads to a schema, got one that leads to itself", place.path);
      place = whole_.resolve(place.member("$ref"));
    }
    return place;
  }

  static bool is_plain_ref(const json& schema) {
    return schema.contains("$ref") && std::all_of(schema.items().begin(), schema.items().end(), [](const auto& item) {
             return item.key() == "$ref" || is_annotation(item.key());
           });
  }

  // Adds the values that satisfy all keywords to the choice.
  void add_values(Keywords keywords, const std::string& path, NodeId choice) {
    gatherer_.write_dependencies(keywords);
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
      const SchemaPlace place = gatherer_.named(of.place.element(i));
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
    gatherer_.gather(place, keywords, /*alone=*/false);
    add_values(std::move(keywords), place.path, id);
    --merging_;
    return id;
  }

  NodeId scalar(const std::string& type, const Keywords& keywords, const std::string& path) {
    const SchemaPlace place =
        type == "string" ? place_of_pattern(keywords, {nullptr, path}) : SchemaPlace{nullptr, path};
    return place.blamed_for([&] {
      const auto [known, added] = scalar_ids_.try_emplace(describe_scalar(type, keywords), 0);
      if (added) known->second = add_node(scalars_.make(known->first));
      return known->second;
    });
  }

  // Returns what is to blame if a string cannot be compiled.
  static SchemaPlace place_of_pattern(const Keywords& keywords, const SchemaPlace& otherwise) {
    const std::vector<Keyword>& patterns = keywords.all("pattern");
    return patterns.empty() ? otherwise : patterns.front().place;
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
    const std::vector<Keyword>& items = keywords.all("items");
    std::vector<SchemaPlace> places;
    for (const Keyword& mention : items) places.push_back(mention.place);
    if (items.empty()) places.push_back(anything());
    node.items = value_of_all(places);
    // Both are about later items, and would have to be merged.
    const auto mentions = std::max(items.size(), keywords.all("prefixItems").size());
    if (mentions > 1 && !items.empty() && keywords.has("prefixItems"))
      items.front().place.wrong("items and prefixItems in one schema");
    return node;
  }

  // What is said of the properties of an object: the schemas of those that are listed, in the order in which they come.
  struct Listed {
    std::vector<std::string> names;
    std::map<std::string, std::vector<SchemaPlace>, std::less<>> schemas;

    void add(const std::string& name, const SchemaPlace& schema) {
      if (!schemas.contains(name)) names.push_back(name);
      schemas[name].push_back(schema);
    }
  };

  ObjectNode object(const Keywords& keywords) {
    ObjectNode node;
    node.count = count_range(keywords, "minProperties", "maxProperties");
    Listed listed;
    for (const Keyword& mention : keywords.all("properties"))
      for (const auto& [name, schema] : mention.place.object().items()) listed.add(name, mention.place.member(name));
    std::optional<SchemaPlace> others = other_properties(keywords);
    limit_names(keywords, listed, others, node);
    std::set<std::string> required;
    for (const Keyword& mention : keywords.all("required")) {
      for (std::size_t i = 0; i < mention.place.array().size(); ++i) {
        const std::string& name = mention.place.element(i).string();
        required.insert(name);
        if (!listed.schemas.contains(name)) listed.add(name, unlisted_value(keywords, name, others, node));
      }
    }
    if (others) node.additional = value(*others);
    for (const std::string& name : listed.names) {
      if (++properties_ > kMaxProperties) fail("#: expected at most {} properties, got more", kMaxProperties);
      node.properties.push_back({json(name).dump(), value_of_all(listed.schemas.at(name)), required.contains(name)});
    }
    index_properties(node);
    return node;
  }

  // Returns the schema of a property that is required and not listed.
  SchemaPlace unlisted_value(const Keywords& keywords, const std::string& name,
                             const std::optional<SchemaPlace>& others, const ObjectNode& node) const {
    if (node.names != kStringAutomaton && !accepts(*program_.automata[node.names], json(name).dump())) return nothing();
    if (others) return *others;
    for (const char* closing : {"additionalProperties", "unevaluatedProperties", "propertyNames", "patternProperties"})
      if (keywords.has(closing)) return nothing();
    return anything();
  }

  // Returns the schema of additional properties, or nothing if there must be none. Where a schema does not say, what it
  // lists is what is meant: a model could go on with further properties for ever.
  std::optional<SchemaPlace> other_properties(const Keywords& keywords) {
    const Keyword* additional = keywords.one("additionalProperties");
    for (const Keyword& mention : keywords.all("additionalProperties"))
      if (*mention.place.value != true) check_listed(keywords, mention);
    if (!additional) additional = keywords.one("unevaluatedProperties");
    const bool lists = keywords.has("properties") || keywords.has("patternProperties");
    if (!additional && lists && !open_objects_) return std::nullopt;
    if (!additional || *additional->place.value == true) return anything();
    if (*additional->place.value == false) return std::nullopt;
    return additional->place;
  }

  // additionalProperties is about what the schema that it is in does not list, which others must not list either.
  static void check_listed(const Keywords& keywords, const Keyword& additional) {
    const json& schema = *additional.owner;
    for (const char* list : {"properties", "patternProperties"})
      for (const Keyword& mention : keywords.all(list))
        for (const auto& [name, value] : mention.place.object().items())
          if (!schema.contains(list) || !schema[list].contains(name))
            additional.place.wrong(fmt::format("true where properties are merged, as {}", mention.place.path));
  }

  // Limits the names of properties as propertyNames and patternProperties say.
  void limit_names(const Keywords& keywords, Listed& listed, std::optional<SchemaPlace>& others, ObjectNode& node) {
    limit_by_patterns(keywords, listed, others, node);
    for (const Keyword& mention : keywords.all("propertyNames")) {
      Keywords about;
      gatherer_.gather(mention.place, about, /*alone=*/true);
      const std::set<std::string> types = allowed_types(about);
      if (!types.contains("string")) {  // then no property has a name
        drop_others(listed, [](const std::string&) { return false; });
        others.reset();
      } else if (about.has("enum") || about.has("const")) {
        const std::vector<std::string> texts = literal_texts(about, {"string"});
        drop_others(listed, [&](const std::string& text) { return std::ranges::find(texts, text) != texts.end(); });
        const Keyword& source = about.all(about.has("enum") ? "enum" : "const").front();
        for (const json& name : about.has("enum") ? source.place.array() : json::array({*source.place.value}))
          if (others && std::ranges::find(texts, name.dump()) != texts.end() &&
              !listed.schemas.contains(name.get<std::string>()))
            listed.add(name, *others);
        others.reset();
      } else {
        for (const char* name : {"anyOf", "oneOf"})
          if (about.has(name)) about.one(name)->place.wrong("no alternatives of names (write one pattern)");
        const std::uint32_t automaton = place_of_pattern(about, mention.place).blamed_for([&] {
          return scalars_.add_string(describe_scalar("string", about));
        });
        add_names(automaton, mention.place, node);
        const ByteAutomaton& names = *program_.automata[node.names];
        drop_others(listed, [&](const std::string& text) { return accepts(names, text); });
      }
    }
  }

  // Of patternProperties those can be held whose names are the only others, and have one schema.
  void limit_by_patterns(const Keywords& keywords, Listed& listed, std::optional<SchemaPlace>& others,
                         ObjectNode& node) {
    std::string pattern;
    std::vector<std::pair<std::string, SchemaPlace>> places;
    for (const Keyword& mention : keywords.all("patternProperties"))
      for (const auto& [text, schema] : mention.place.object().items()) {
        const SchemaPlace place = mention.place.member(text);
        // Joined with others, half a pattern may become a whole one.
        place.blamed_for([text = std::string_view(text)] { return parse_pattern(text); });
        if (!places.empty() && *places[0].second.value != schema)
          place.wrong(fmt::format("the same schema as {}", places[0].second.path));
        pattern = places.empty() ? text : pattern + "|" + text;
        places.emplace_back(text, place);
      }
    if (places.empty()) return;
    const SchemaPlace& first = places[0].second;
    if (others && (keywords.has("additionalProperties") || keywords.has("unevaluatedProperties")))
      first.wrong("it beside additionalProperties that is false");
    others = first;
    const auto names = [&](const std::string& text) { return scalars_.add_string({"string", {}, {text}}); };
    const auto used_up = [&](std::uint32_t id) { return !goes_on_for_ever(*program_.automata[id]); };
    const std::uint32_t id = first.blamed_for([&] { return names(pattern); });
    auto blamed = places.begin();
    if (used_up(id)) blamed = std::ranges::find_if(places, [&](const auto& one) { return used_up(names(one.first)); });
    add_names(id, blamed == places.end() ? first : blamed->second, node);
    const ByteAutomaton& automaton = *program_.automata[node.names];
    for (auto& [name, schemas] : listed.schemas)
      if (accepts(automaton, json(name).dump())) schemas.push_back(first);
  }

  void add_names(std::uint32_t automaton, const SchemaPlace& place, ObjectNode& node) {
    if (node.names != kStringAutomaton)
      automaton = place.blamed_for([&] { return scalars_.both(node.names, automaton); });
    node.names = automaton;
    if (!goes_on_for_ever(*program_.automata[automaton]))
      place.wrong(
          "names of which any beginning goes on in infinitely many ways, as those of ^[a-z]+$ (others may be used up; "
          "list them in enum or properties)");
  }

  // Leaves of the listed properties those whose names, as JSON strings, may be there.
  static void drop_others(Listed& listed, const auto& may_be) {
    for (auto& [name, schemas] : listed.schemas)
      if (!may_be(json(name).dump())) schemas.push_back(nothing());
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

  const WholeSchema whole_;
  const bool open_objects_;
  KeywordGatherer gatherer_;
  GrammarProgram program_;
  ScalarCompiler scalars_;
  std::map<std::vector<const json*>, NodeId> values_;  // the choice of each schema, or of several together
  std::map<Scalar, NodeId> scalar_ids_;
  std::deque<std::pair<std::vector<SchemaPlace>, NodeId>> queue_;  // schemas whose choices are still empty
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

// Gathers the keywords of a schema and of what it refers to. Private to this folder.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/schema_place.h"

namespace foe {

// One mention of a keyword.
struct Keyword {
  SchemaPlace place;                    // the value of the keyword
  const nlohmann::ordered_json* owner;  // the schema in which it is
};

// All mentions of each keyword. A value must satisfy all of them.
class Keywords {
 public:
  bool has(std::string_view name) const { return mentions_.contains(name); }
  const std::vector<Keyword>& all(std::string_view name) const;
  // Returns the only mention, or the first of equal ones; null if there is none. Throws Error if they differ.
  const Keyword* one(std::string_view name) const;
  void add(const std::string& name, Keyword keyword) { mentions_[name].push_back(std::move(keyword)); }
  std::vector<Keyword> take(std::string_view name);
  const std::map<std::string, std::vector<Keyword>, std::less<>>& mentions() const { return mentions_; }
  bool empty() const { return mentions_.empty(); }

 private:
  std::map<std::string, std::vector<Keyword>, std::less<>> mentions_;
};

// Returns the type that a keyword is about: 's'tring, 'n'umber, 'a'rray, 'o'bject, or '*' for any type. Throws Error if
// the keyword is not supported.
char keyword_type(const std::string& name, const SchemaPlace& keyword);
bool is_annotation(const std::string& name);  // whether the keyword by itself says nothing about values

// Adds the keywords of a schema, of all schemas in its allOf, and of what its $ref points to. The schema `false` adds
// an empty list of types. What older drafts and OpenAPI write in other words is added in those of draft 2020-12: lists
// of items, additionalItems, nullable, dependencies.
class KeywordGatherer {
 public:
  explicit KeywordGatherer(const WholeSchema& whole) : whole_(whole) {}
  // `alone`: whether these are all the keywords of a value.
  void gather(const SchemaPlace& schema, Keywords& out, bool alone) { gather(schema, out, 0, alone); }
  // Writes dependentRequired and dependentSchemas as anyOf: either the property is not there, or what it asks for is.
  void write_dependencies(Keywords& keywords);
  // Returns the place with the path of what it was written for, if write_dependencies() has written it.
  SchemaPlace named(SchemaPlace place) const;

 private:
  // `alone`: whether the keywords of this schema itself are beside all others.
  void gather(const SchemaPlace& place, Keywords& out, int depth, bool alone);
  void add(const std::string& name, const Keyword& keyword, Keywords& out, bool alone);
  // Returns a place for a schema that is written here. Equal ones are the same one, so that schemas that contain
  // themselves lead back to it.
  SchemaPlace made(const nlohmann::ordered_json& schema, const std::string& path);
  // Says that all parts of a schema are written for `path`, and that `given`, one of them, is what stands there.
  void write_for(const std::string& path, const nlohmann::ordered_json& schema, const nlohmann::ordered_json& given);

  const WholeSchema& whole_;
  std::map<std::string, std::shared_ptr<const nlohmann::ordered_json>> made_;  // by its text
  std::map<const nlohmann::ordered_json*, std::string> paths_;                 // what parts are written for
  std::size_t gathered_ = 0;
};

}  // namespace foe

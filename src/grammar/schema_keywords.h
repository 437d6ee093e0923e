// Gathers the keywords of a schema and of what it refers to. Private to this folder.
#pragma once

#include <map>
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
// an empty list of types.
class KeywordGatherer {
 public:
  explicit KeywordGatherer(const nlohmann::ordered_json& root) : root_(root) {}
  void gather(const SchemaPlace& schema, Keywords& out, int depth = 0);

 private:
  const nlohmann::ordered_json& root_;
  std::size_t gathered_ = 0;
};

}  // namespace foe

// The names of a grammar of rules: its rules by number, and Lark's templates, of which every use with other arguments
// is a rule of its own. Private to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/rule_parser.h"
#include "grammar/rule_reader.h"

namespace foe {

class RuleNames {
 public:
  explicit RuleNames(const RuleReader& reader) : reader_(reader) {}

  // Returns the number of a rule, which may be defined later. In a template's body the name may be a parameter.
  std::uint32_t id_of(std::string_view name, std::size_t place);
  // Returns the number of a new rule without a name that others could use. It is a terminal if `terminal`.
  std::uint32_t add(std::string shown, std::size_t place, bool terminal);
  // Returns the number of the terminal that is written like `source` in the argument of a template.
  std::uint32_t argument(std::string_view source, std::size_t place, PatternNode body);
  // Returns the number of a template with these arguments. Its body is to be read later, see next_use().
  std::uint32_t use(std::string_view name, const std::vector<std::uint32_t>& arguments, std::size_t place);

  void define(std::string_view name, std::size_t place, PatternNode body);
  bool defined(std::string_view name) const;
  PatternNode& body(std::uint32_t rule) { return result_.rules[rule].body; }
  void set_body(std::uint32_t rule, std::size_t place, PatternNode body);
  void set_terminal(std::uint32_t rule) { terminals_[rule] = true; }
  // Whether it is a terminal: in Lark those whose names have no small letters, and texts in arguments.
  bool is_terminal(std::uint32_t rule) const { return terminals_[rule]; }

  // A template whose body is in the text from `begin` to `end`.
  struct Template {
    std::vector<std::string> parameters;
    std::size_t begin = 0, end = 0;
  };
  void define_template(std::string_view name, std::size_t place, Template one);

  // Binds the parameters of the next template whose body is to be read for its arguments, and returns the rule that it
  // is to be the body of, and where it begins; false if there is none, and then no parameters are bound.
  bool next_use(std::uint32_t& rule, std::size_t& begin);

  // Names that %declare says others give a meaning to.
  void declare(std::string_view name) { declared_.emplace(name); }

  // Returns the rules. Throws Error if one is used and not defined.
  RuleSet take();

 private:
  struct Use {
    std::string name;
    std::vector<std::uint32_t> arguments;
    std::uint32_t rule;
    std::size_t place;
  };

  const RuleReader& reader_;
  RuleSet result_;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::vector<std::size_t> places_;  // by rule: the first place that names it
  std::vector<bool> terminals_;      // by rule
  std::map<std::string, Template, std::less<>> templates_;
  std::map<std::pair<std::string, std::vector<std::uint32_t>>, std::uint32_t> instances_;
  std::map<std::string, std::uint32_t, std::less<>> arguments_;  // by their source
  std::vector<Use> uses_;                                        // the first `done_` of which have been read
  std::size_t done_ = 0, expanded_ = 0;
  std::map<std::string, std::uint32_t, std::less<>> bound_;  // the parameters of the template that is being read
  std::set<std::string, std::less<>> declared_;
};

}  // namespace foe

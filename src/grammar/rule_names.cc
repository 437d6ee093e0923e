#include "grammar/rule_names.h"

#include <algorithm>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxRules = 2000;
constexpr std::size_t kMaxExpandedBytes = 128 * 1024;  // of the bodies of templates, each as often as it is used

bool has_letter(std::string_view name, char first, char last) {
  return std::any_of(name.begin(), name.end(), [&](char c) { return c >= first && c <= last; });
}

}  // namespace

std::uint32_t RuleNames::add(std::string shown, std::size_t place, bool terminal) {
  if (result_.rules.size() >= kMaxRules)
    reader_.bad_at(place, fmt::format("at most {} rules, with those that templates make", kMaxRules));
  result_.rules.push_back({std::move(shown), {}, {}});
  places_.push_back(place);
  terminals_.push_back(terminal);
  return static_cast<std::uint32_t>(result_.rules.size() - 1);
}

std::uint32_t RuleNames::id_of(std::string_view name, std::size_t place) {
  if (const auto bound = bound_.find(name); bound != bound_.end()) return bound->second;
  const auto found = ids_.find(std::string(name));
  if (found != ids_.end()) return found->second;
  const std::uint32_t rule = add(std::string(name), place, has_letter(name, 'A', 'Z') && !has_letter(name, 'a', 'z'));
  ids_.emplace(name, rule);
  return rule;
}

std::uint32_t RuleNames::argument(std::string_view source, std::size_t place, PatternNode body) {
  const auto found = arguments_.find(source);
  if (found != arguments_.end()) return found->second;
  const std::uint32_t rule = add(std::string(source), place, /*terminal=*/true);
  set_body(rule, place, std::move(body));
  arguments_.emplace(source, rule);
  return rule;
}

std::uint32_t RuleNames::use(std::string_view name, const std::vector<std::uint32_t>& arguments, std::size_t place) {
  const auto [found, added] = instances_.try_emplace({std::string(name), arguments}, 0);
  if (!added) return found->second;
  found->second = add(fmt::format("{}{{...}}", name), place, /*terminal=*/false);
  uses_.push_back({std::string(name), arguments, found->second, place});
  return found->second;
}

bool RuleNames::next_use(std::uint32_t& rule, std::size_t& begin) {
  bound_.clear();
  if (done_ == uses_.size()) return false;
  const Use& use = uses_[done_++];
  const auto found = templates_.find(use.name);
  if (found == templates_.end()) reader_.bad_at(use.place, fmt::format("a template {}", use.name));
  const Template& one = found->second;
  if (one.parameters.size() != use.arguments.size())
    reader_.bad_at(use.place, fmt::format("{} arguments for the template", one.parameters.size()));
  expanded_ += one.end - one.begin;
  if (expanded_ > kMaxExpandedBytes)
    reader_.bad_at(use.place,
                   fmt::format("templates of at most {} bytes, as often as they are used", kMaxExpandedBytes));
  for (std::size_t i = 0; i < use.arguments.size(); ++i) bound_[one.parameters[i]] = use.arguments[i];
  rule = use.rule;
  begin = one.begin;
  return true;
}

bool RuleNames::defined(std::string_view name) const {
  const auto found = ids_.find(std::string(name));
  return found != ids_.end() && !result_.rules[found->second].where.empty();
}

void RuleNames::define(std::string_view name, std::size_t place, PatternNode body) {
  if (defined(name) || templates_.contains(name)) reader_.bad_at(place, fmt::format("one rule for {}", name));
  set_body(id_of(name, place), place, std::move(body));
}

void RuleNames::set_body(std::uint32_t rule, std::size_t place, PatternNode body) {
  result_.rules[rule].where = reader_.where(place);
  result_.rules[rule].body = std::move(body);
}

void RuleNames::define_template(std::string_view name, std::size_t place, Template one) {
  if (defined(name) || !templates_.emplace(name, std::move(one)).second)
    reader_.bad_at(place, fmt::format("one rule for {}", name));
}

RuleSet RuleNames::take() {
  for (std::uint32_t i = 0; i < result_.rules.size(); ++i) {
    const RuleSet::Rule& rule = result_.rules[i];
    if (!rule.where.empty()) continue;
    reader_.bad_at(places_[i],
                   declared_.contains(rule.name)
                       ? fmt::format("a rule for {} (%declare leaves it to a lexer, which is not here)", rule.name)
                       : fmt::format("a rule for {}", rule.name));
  }
  return std::move(result_);
}

}  // namespace foe

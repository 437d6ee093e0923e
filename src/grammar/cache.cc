#include "grammar/cache.h"

#include <algorithm>
#include <utility>

namespace foe {

std::shared_ptr<const Grammar> GrammarCache::get(const Constraint& constraint) {
  auto grammar = find(constraint);
  if (!grammar) grammar = compile_grammar(constraint);  // without the lock, so that others do not wait
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const Grammar>& place = grammars_of(constraint)[constraint.schema];
  if (auto known = place.lock()) grammar = known;  // another thread may have been faster
  place = grammar;
  std::erase(recent_, grammar);
  recent_.push_front(grammar);
  if (recent_.size() > kept_) recent_.pop_back();
  forget_unused();
  return grammar;
}

std::shared_ptr<const Grammar> GrammarCache::find(const Constraint& constraint) {
  const std::lock_guard lock(mutex_);
  const Grammars& grammars = grammars_of(constraint);
  const auto place = grammars.find(constraint.schema);
  return place == grammars.end() ? nullptr : place->second.lock();
}

std::size_t GrammarCache::size() {
  const std::lock_guard lock(mutex_);
  forget_unused();
  return schemas_.size() + any_object_.size();
}

GrammarCache::Grammars& GrammarCache::grammars_of(const Constraint& constraint) {
  return constraint.kind == Constraint::Kind::kJsonObject ? any_object_ : schemas_;
}

void GrammarCache::forget_unused() {
  const auto unused = [](const auto& entry) { return entry.second.expired(); };
  std::erase_if(schemas_, unused);
  std::erase_if(any_object_, unused);
}

}  // namespace foe

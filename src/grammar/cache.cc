#include "grammar/cache.h"

#include <algorithm>
#include <utility>

namespace foe {

std::shared_ptr<const Grammar> GrammarCache::get(const Constraint& constraint) {
  auto grammar = find(constraint);
  if (!grammar) grammar = compile_grammar(constraint);  // without the lock, so that others do not wait
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const Grammar>& place = grammars_[{constraint.kind, constraint.open_objects}][constraint.rule];
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
  const auto grammars = grammars_.find({constraint.kind, constraint.open_objects});
  if (grammars == grammars_.end()) return nullptr;
  const auto place = grammars->second.find(constraint.rule);
  return place == grammars->second.end() ? nullptr : place->second.lock();
}

std::size_t GrammarCache::size() {
  const std::lock_guard lock(mutex_);
  forget_unused();
  std::size_t size = 0;
  for (const auto& [kind, grammars] : grammars_) size += grammars.size();
  return size;
}

void GrammarCache::forget_unused() {
  for (auto& [kind, grammars] : grammars_)
    std::erase_if(grammars, [](const auto& entry) { return entry.second.expired(); });
}

}  // namespace foe

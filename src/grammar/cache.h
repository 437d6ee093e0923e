// Keeps compiled grammars by their constraints, so that requests with the same constraint share one.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/request.h"
#include "grammar/grammar.h"

namespace foe {

// Any thread may call these functions. (A grammar itself may be used by one thread at a time.)
class GrammarCache {
 public:
  // Besides the grammars that are in use, the last `kept` ones are kept.
  explicit GrammarCache(std::size_t kept) : kept_(kept) {}

  // Returns a grammar. If it is not here, this thread compiles it, while others may use the cache. Throws what
  // compile_grammar() throws.
  std::shared_ptr<const Grammar> get(const Constraint& constraint);
  // Returns null if the grammar is not here. Allocates no memory.
  std::shared_ptr<const Grammar> find(const Constraint& constraint);
  // Returns how many grammars are in use or kept.
  std::size_t size();

 private:
  using Grammars = std::unordered_map<std::string, std::weak_ptr<const Grammar>>;  // by the constraint's rule

  void forget_unused();

  std::size_t kept_;
  std::mutex mutex_;
  std::map<std::pair<Constraint::Kind, bool>, Grammars> grammars_;  // by kind, and whether objects are open
  std::deque<std::shared_ptr<const Grammar>> recent_;               // the last one first
};

}  // namespace foe

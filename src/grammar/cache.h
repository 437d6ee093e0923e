// Keeps compiled grammars by their schemas, so that requests with the same schema share one.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

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
  using Grammars = std::unordered_map<std::string, std::weak_ptr<const Grammar>>;  // by the text of the schema

  Grammars& grammars_of(const Constraint& constraint);
  void forget_unused();

  std::size_t kept_;
  std::mutex mutex_;
  Grammars schemas_, any_object_;                      // any_object_ has one with an empty text
  std::deque<std::shared_ptr<const Grammar>> recent_;  // the last one first
};

}  // namespace foe

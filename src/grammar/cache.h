// Grammars by the schemas they were compiled from: requests with one schema share one.
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

// Any thread. (A grammar itself is for one thread at a time.)
class GrammarCache {
 public:
  // Besides those that someone uses, the last `kept` ones stay.
  explicit GrammarCache(std::size_t kept) : kept_(kept) {}

  // Compiles what is not there. Throws as compile_grammar() does.
  std::shared_ptr<const Grammar> get(const Constraint& constraint);
  // Null if it is not there. Takes no memory.
  std::shared_ptr<const Grammar> find(const Constraint& constraint);
  // How many there are, in use or kept.
  std::size_t size();

 private:
  using Grammars = std::unordered_map<std::string, std::weak_ptr<const Grammar>>;  // by the text of the schema

  Grammars& grammars_of(const Constraint& constraint);
  void forget_unused();

  std::size_t kept_;
  std::mutex mutex_;
  Grammars schemas_, any_object_;                      // the latter has an empty text
  std::deque<std::shared_ptr<const Grammar>> recent_;  // the last one first
};

}  // namespace foe

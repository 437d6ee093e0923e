// Constrained decoding (structured output): says which tokens may come next so that the output will be JSON that a
// schema allows, a text that a regular expression matches as a whole, one of some texts, or a text of a context-free
// grammar.
//
// A grammar is a pushdown automaton over bytes. Of JSON it allows less than the standard, where several texts mean the
// same or a model could go on for ever. docs/structured_output.md says what it leaves out, and lists the keywords of
// schemas that are supported; any other keyword is an Error. Besides:
// - If a schema has several of anyOf, oneOf, allOf and $ref, or others beside them, they are merged if it is plain how.
// - A schema without a type whose keywords are all about one type means that type.
// - The texts of enum and const, listed keys, and strings with a pattern or a format are written without escapes where
//   JSON needs none.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/request.h"
#include "grammar/token_table.h"

namespace foe {

// Immutable, except for a cache of masks: so it may be used by one thread at a time, also if several matchers share it.
class Grammar;

// Compiles a constraint, whose kind must not be kNone. Throws Error naming the place in the schema, such as
// "#/properties/a/type: expected ..., got ...", if the schema is not valid or not supported. Takes
// milliseconds, whatever the schema.
std::shared_ptr<const Grammar> compile_grammar(const Constraint& constraint);

// Follows one output. Cheap to copy. It knows the tokens of the table; the caller decides on stop ids, which may come
// when the text is complete().
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTable> table);
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher(GrammarMatcher&& other) noexcept;
  GrammarMatcher& operator=(GrammarMatcher other) noexcept;

  // Sets the bits of the tokens after which the text is still the beginning of an allowed text, and clears all others.
  // `bits` must have at least TokenTable::mask_words() words, one bit for each id.
  void fill_mask(std::span<std::uint64_t> bits) const;

  // Appends the token's bytes to the text. After a token that the mask forbids, nothing can follow.
  void accept(std::int32_t token);

  bool complete() const;  // whether the text is allowed as it is
  bool dead() const;      // whether the text is not the beginning of any allowed text

 private:
  struct State;
  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTable> table_;
  std::unique_ptr<State> state_;
};

}  // namespace foe

// Constrained decoding: which tokens may come next so that the output will be JSON, and what a schema allows.
//
// A grammar is a pushdown automaton over bytes. What it allows is narrower than JSON where several texts mean the same,
// or a model could go on for ever:
// - Whitespace: before a value, a key or a closing bracket, one space, or a line end and at most 64 spaces and tabs.
// - At most 64 arrays and objects are open at once.
// - Integers have at most 18 digits; numbers 18 before and behind the point, and 2 of an exponent. With bounds, numbers
//   have no exponent and 6 digits behind the point.
// - Properties come in the order of the schema, those it does not list behind them. No key comes twice.
// - The texts of enum and const, keys that are listed, and strings with a pattern or a format are spelled without
//   escapes where JSON needs none.
//
// Schemas (draft 2020-12; what is not here is an Error, not ignored):
// - any value: type, enum, const, anyOf, oneOf (of alternatives that plainly exclude each other), allOf and $ref (to
// "#"
//   or a pointer below it, recursion included), true, false. Several of these and the keywords below on one schema are
//   merged, if that is plain.
// - strings: minLength, maxLength, pattern (see pattern.h), format (date, time, date-time, uuid, ipv4)
// - numbers: minimum, maximum, exclusiveMinimum, exclusiveMaximum, within 10^15
// - arrays: items, prefixItems, minItems, maxItems
// - objects: properties, required, additionalProperties, minProperties, maxProperties
// - annotations say nothing: title, description, default, examples, $schema, $id, $comment, deprecated, readOnly,
//   writeOnly
// Without a type, keywords of one type only mean that type.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/request.h"
#include "grammar/token_table.h"

namespace foe {

// Immutable but for a memory of masks: one thread at a time, also when matchers share one.
class Grammar;

// Throws Error that names the place in the schema: "response_format: #/properties/a/type: expected ..., got ...". Takes
// milliseconds, whatever the schema. `constraint` must be one.
std::shared_ptr<const Grammar> compile_grammar(const Constraint& constraint);

// Follows one output. Cheap to copy. The tokens are those of the table; the caller decides on stop ids, which fit where
// the text is complete.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTable> table);
  ~GrammarMatcher();
  GrammarMatcher(const GrammarMatcher& other);
  GrammarMatcher(GrammarMatcher&& other) noexcept;
  GrammarMatcher& operator=(GrammarMatcher other) noexcept;

  // Sets exactly the bits of the tokens with which the text is still the beginning of one that is allowed, and clears
  // all others. Needs one bit per id: TokenTable::mask_words() words, or more.
  void fill_mask(std::span<std::uint64_t> bits) const;

  // Appends the token's bytes to the text. A token that the mask forbids leaves nothing that can follow.
  void accept(std::int32_t token);

  bool complete() const;  // the text is allowed as it is
  bool dead() const;      // the text is the beginning of no allowed one

 private:
  struct State;
  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTable> table_;
  std::unique_ptr<State> state_;
};

}  // namespace foe

// Constrained decoding (structured output): says which tokens may come next so that the output will be JSON that a
// schema allows.
//
// A grammar is a pushdown automaton over bytes. It allows less than JSON does, where several texts mean the same or a
// model could go on for ever:
// - Whitespace: before a value, a key or a closing bracket inside of the text there may be one space or, but for values
//   behind a key, a line end and at most 4 spaces and tabs for each array and object that is open.
// - At most 64 arrays and objects are open at once.
// - Integers have at most 18 digits, and other numbers 18 before and after the point and 2 in the exponent. Numbers
// with
//   bounds have no exponent and at most 6 digits after the point.
// - Properties come in the order of the schema, and those that it does not list after them. No key comes twice.
// - The texts of enum and const, listed keys, and strings with a pattern or a format are written without escapes where
//   JSON needs none.
//
// Supported in schemas (draft 2020-12); any other keyword is an Error:
// - any value: type, enum, const, anyOf, oneOf (if its alternatives plainly exclude each other), allOf, $ref (to "#" or
// a
//   pointer below it, also recursive), true, false. If a schema has several of these, or others beside them, they are
//   merged if it is plain how.
// - strings: minLength, maxLength, pattern (see pattern.h), format (date, time, date-time, uuid, ipv4)
// - numbers: minimum, maximum, exclusiveMinimum, exclusiveMaximum, within 10^15
// - arrays: items, prefixItems, minItems, maxItems
// - objects: properties, required, additionalProperties, minProperties, maxProperties
// - annotations, which have no effect: title, description, default, examples, $schema, $id, $comment, deprecated,
//   readOnly, writeOnly
// A schema without a type whose keywords are all about one type means that type.
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

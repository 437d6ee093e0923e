// The syntax tree of a regular expression, and of the right side of a rule. Private to this folder.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/json_characters.h"

namespace foe {

struct PatternNode {
  enum class Kind : std::uint8_t { kCharacters, kSequence, kAlternatives, kRepeat, kBegin, kEnd, kRule };
  Kind kind = Kind::kSequence;
  CodePoints characters = {};              // kCharacters
  CountRange times = {};                   // kRepeat
  std::vector<PatternNode> children = {};  // kSequence (empty: the empty text), kAlternatives, kRepeat (one)
  std::uint32_t rule = 0;                  // kRule, in grammars with rules: a text of this rule
};

// Parses a pattern. Throws Error, with the byte, where it is wrong or not supported.
PatternNode parse_pattern(std::string_view pattern);

}  // namespace foe

// The syntax tree of a regular expression. Private to this folder.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/json_characters.h"

namespace foe {

struct PatternNode {
  enum class Kind : std::uint8_t { kCharacters, kSequence, kAlternatives, kRepeat, kBegin, kEnd };
  Kind kind = Kind::kSequence;
  CodePoints characters;              // kCharacters
  CountRange times;                   // kRepeat
  std::vector<PatternNode> children;  // kSequence (empty: the empty text), kAlternatives, kRepeat (one)
};

// Parses a pattern. Throws Error, with the byte, where it is wrong or not supported.
PatternNode parse_pattern(std::string_view pattern);

}  // namespace foe

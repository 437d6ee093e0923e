// Normalisation: what is rewritten in a text before it is cut into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/charsmap.h"
#include "tokenizer/normal_form.h"
#include "tokenizer/regex.h"
#include "tokenizer/trie.h"

namespace foe {

using TextPattern = std::variant<Regex, std::string>;  // a regular expression, or a text to find, which is not empty

// Appends where the pattern matches in `text`, from left to right.
void find_pattern(const TextPattern& pattern, std::string_view text, RegexScratch& scratch, std::vector<Span>& out);

struct ReplaceText {
  TextPattern pattern;
  std::string content;
};
struct PrependText {  // unless the text is empty
  std::string text;
};
struct Lowercase {};  // each character by itself
struct StripSpaces {
  bool left = false, right = false;
};
// The charsmap as the `tokenizers` library applies it: a grapheme cluster of less than six bytes becomes what the rule
// for its shortest beginning says; other clusters are mapped character by character.
struct MapGraphemes {
  std::shared_ptr<const Charsmap> charsmap;
};
// All that SentencePiece does, from left to right with the longest rules. Spaces become U+2581.
struct SentencePieceRules {
  std::shared_ptr<const Charsmap> charsmap;  // may be null
  std::shared_ptr<const Trie> kept;          // texts that the charsmap does not change
  bool add_prefix = true;                    // a space, unless the text is empty
  bool prefix_inside = true;                 // also after an added token
  bool prefix_is_suffix = false;             // the space goes to the end
  bool remove_extra_spaces = true;           // leading, trailing and repeated ones
  bool escape_spaces = true;
};
using NormalizerStep =
    std::variant<NormalForm, ReplaceText, PrependText, Lowercase, StripSpaces, MapGraphemes, SentencePieceRules>;

// Returns the most bytes that all steps together may make of a text. No real tokenizer makes a text much longer: U+FDFA
// becomes eleven times longer, more than any other character. What steps write multiplies, so each by itself may not
// have this much.
constexpr std::size_t most_rewritten_bytes(std::size_t bytes) {
  return 64 * bytes + 65536;
}

// Returns the text after all steps in order. `at_start` says whether it is the beginning of what is encoded, and not a
// piece behind an added token. `text` must be valid UTF-8. Throws Error if a regular expression takes too many steps,
// or the text becomes longer than most_rewritten_bytes. Any thread may call this.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text, bool at_start);

// Returns how many times longer than its result a text can be; 0 if there is no limit.
std::size_t most_shrinking(const std::vector<NormalizerStep>& steps);

inline constexpr std::string_view kSpaceSymbol = "\xe2\x96\x81";  // U+2581, which stands for a space

}  // namespace foe

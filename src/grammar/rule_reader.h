// Reads the words of a grammar of rules, GBNF or Lark's: blanks and comments, names, numbers, texts and classes of
// characters. Private to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "grammar/pattern_syntax.h"

namespace foe {

class RuleReader {
 public:
  // The text must be UTF-8. Lark's comments begin with // as well as with #.
  RuleReader(std::string_view text, bool lark) : text_(text), lark_(lark) {}

  bool done() const { return at_ == text_.size(); }
  std::size_t place() const { return at_; }
  void go_to(std::size_t place) { at_ = place; }
  char next() const { return done() ? '\0' : text_[at_]; }
  std::string_view rest() const { return text_.substr(at_); }
  // What has been taken since `place`, without blanks behind it.
  std::string_view text_from(std::size_t place) const;

  bool starts_with(std::string_view word) const { return rest().starts_with(word); }
  // Takes the word, and the blanks behind it, if it is next.
  bool accept(std::string_view word);
  // Skips blanks, line ends and comments.
  void skip_blanks();

  // A name and the blanks behind it; empty if there is none here.
  std::string_view name();
  // A decimal number of at most `most`, and nothing behind it.
  std::uint32_t number(std::uint32_t most);
  // The text in quotes that begins here, as code points. Takes its quotes, and nothing behind them.
  std::u32string quoted();
  // The class in brackets that begins here.
  CodePoints character_class();
  // The source of the regular expression between slashes that begins here.
  std::string_view regex();

  [[noreturn]] void bad(std::string_view expected) const { bad_at(at_, expected); }
  [[noreturn]] void bad_at(std::size_t place, std::string_view expected) const;
  // Says where a place is: "line 2, column 7: ".
  std::string where(std::size_t place) const;

 private:
  char32_t character();  // one that may be written with an escape

  std::string_view text_;
  bool lark_;
  std::size_t at_ = 0;
};

}  // namespace foe

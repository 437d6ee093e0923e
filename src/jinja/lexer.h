// Cuts templates into tokens, and removes white space as Jinja's options say. Private to this folder.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace foe::jinja {

struct Token {
  enum Kind {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  std::string text;  // of a string: its decoded value
  int line;

  bool is(Kind a_kind, std::string_view a_text) const { return kind == a_kind && text == a_text; }
};

// Returns the tokens of a template; the last one is kEnd. As in transformers, trim_blocks and lstrip_blocks are on, and
// the template's last newline is dropped. Throws Error with the line.
std::vector<Token> tokenize(std::string_view source);

// A position in a template's tokens.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(position_ + ahead, tokens_.size() - 1)]; }
  Token next() { return tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]; }
  bool accept(Token::Kind kind, std::string_view text);
  bool accept_word(std::string_view word) { return accept(Token::kName, word); }
  bool accept_sign(std::string_view sign) { return accept(Token::kOperator, sign); }
  void expect_sign(std::string_view sign);
  void expect(Token::Kind kind, std::string_view what);
  std::string expect_name(std::string_view what);
  // The names of the variables that expressions have read so far, or since it was cleared.
  std::set<std::string, std::less<>>& variables_read() { return variables_read_; }
  [[noreturn]] void refuse(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  std::size_t position_ = 0;
  std::set<std::string, std::less<>> variables_read_;
};

}  // namespace foe::jinja

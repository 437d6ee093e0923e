// The parser of expressions, which the parser of statements builds on. Private to this folder.
#pragma once

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace foe::jinja {

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
  [[noreturn]] void refuse(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  std::size_t position_ = 0;
};

// `expression`, or more with commas between them: a tuple.
ExprPtr parse_expression(TokenStream& tokens);
ExprPtr parse_tuple(TokenStream& tokens);
// Where an inline "if" would be read as the statement's: no conditional at the outermost level.
ExprPtr parse_plain_tuple(TokenStream& tokens);
ExprPtr parse_plain_expression(TokenStream& tokens);

}  // namespace foe::jinja

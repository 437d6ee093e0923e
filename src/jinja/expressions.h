// The parser of expressions, which the parser of statements calls. Its functions throw Error with the line. Private to
// this folder.
#pragma once

#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace foe::jinja {

// parse_expression() reads one expression; parse_tuple() one, or several with commas between them, which make a tuple.
ExprPtr parse_expression(TokenStream& tokens);
ExprPtr parse_tuple(TokenStream& tokens);
// The same without a conditional at the outermost level, where "if" belongs to the statement.
ExprPtr parse_plain_tuple(TokenStream& tokens);
ExprPtr parse_plain_expression(TokenStream& tokens);
// Reads the filters of a filter block, which apply to a variable: `trim|indent(2)`.
ExprPtr parse_filters(TokenStream& tokens, const std::string& variable);

}  // namespace foe::jinja

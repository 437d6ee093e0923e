// The parser of expressions, which the parser of statements builds on. Private to this folder.
#pragma once

#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace foe::jinja {

// `expression`, or more with commas between them: a tuple.
ExprPtr parse_expression(TokenStream& tokens);
ExprPtr parse_tuple(TokenStream& tokens);
// Where an inline "if" would be read as the statement's: no conditional at the outermost level.
ExprPtr parse_plain_tuple(TokenStream& tokens);
ExprPtr parse_plain_expression(TokenStream& tokens);

}  // namespace foe::jinja

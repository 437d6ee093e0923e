// Templates cut into tokens, white space control done. Private to this folder.
#pragma once

#include <string>
#include <string_view>
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
  std::string text;  // a string's is decoded
  int line;

  bool is(Kind a_kind, std::string_view a_text) const { return kind == a_kind && text == a_text; }
};

// With trim_blocks and lstrip_blocks, and without the template's last newline, as transformers has it. The last token
// is kEnd. Throws Error with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace foe::jinja

// Finds the calls that a model has decided on in the text of its answer. Private to this folder's .cc files.
#pragma once

#include <string>
#include <string_view>

#include "server/api/answer_reader.h"
#include "server/api/json_scanner.h"
#include "server/api/tool_syntax.h"

namespace foe {

// Content goes out as it comes, except for what may be the beginning of a call. A call goes out when it has been read
// to its end. What does not parse, has arguments that are no object, or calls what is no tool, is content. White space
// before a call is left out, and so is what ends an answer behind one.
class AutoCallReader : public AnswerReader {
 public:
  // `use` must outlive this.
  explicit AutoCallReader(const ToolUse& use) : use_(use), syntax_(*use.syntax) {}

  AnswerPart push(std::string_view text) override;
  AnswerPart finish() override;
  bool complete() const override { return calls_ > 0; }

 private:
  bool find_begin(AnswerPart& part);
  bool find_end(AnswerPart& part, bool last);
  bool may_be_whole_call();
  std::size_t call_size(bool last);
  bool take_calls(std::string_view text, AnswerPart& part);
  void give(std::size_t bytes, AnswerPart& part);

  const ToolUse& use_;
  const ToolSyntax& syntax_;
  std::string held_;          // what has not gone out
  bool in_call_ = false;      // whether held_ has the beginning of a call, perhaps behind white space
  std::size_t text_at_ = 0;   // in a call: where in held_ the text behind its beginning is
  std::size_t searched_ = 0;  // in a call: before this place in held_ it does not end
  JsonScanner scanner_;       // in a call that ends itself: has taken what is before searched_
  std::size_t look_at_ = 0;   // with so many bytes held, it is looked whether they may still be a call
  std::size_t calls_ = 0;
  int failures_ = 0;
  bool content_ = false;  // whether content has gone out behind the last call
};

}  // namespace foe

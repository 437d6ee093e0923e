// Reads the text of an answer, which comes in pieces: its reasoning, the calls of tools, and its content.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/api/reasoning.h"
#include "server/api/tool_request.h"

namespace foe {

// A call, or a piece of it: of one call the arguments of all pieces are joined.
struct ToolCallPiece {
  std::size_t index = 0;       // which call of the answer it is
  std::string id = {};         // in the first piece of a call
  std::string name = {};       // likewise
  std::string arguments = {};  // JSON
};

// What a piece of text adds to an answer.
struct AnswerPart {
  std::string reasoning = {};
  std::string content = {};
  std::vector<ToolCallPiece> calls = {};  // without ids
};

// Appends what comes behind a part.
void append(AnswerPart& part, AnswerPart more);

// The bytes [begin, end) of a text.
struct TextSpan {
  std::size_t begin, end;
};

// One thread. The parts that push() and finish() return are, joined, the same however the text was cut.
class AnswerReader {
 public:
  virtual ~AnswerReader() = default;
  virtual AnswerPart push(std::string_view text) = 0;
  // Takes the end of the text, which may be anywhere.
  virtual AnswerPart finish() = 0;
  // Whether the answer so far has calls, and the last one has been read to its end.
  virtual bool complete() const = 0;
  // Returns which bytes of the text so far are reasoning, with its marks. A part that has not ended ends at npos.
  virtual std::vector<TextSpan> reasoning_spans() const { return {}; }
};

// Returns a reader of answers; null if all of the text is content. `tools` and what `reasoning` points to must outlive
// it.
std::unique_ptr<AnswerReader> make_answer_reader(const ToolUse& tools, const ReasoningUse& reasoning);

}  // namespace foe

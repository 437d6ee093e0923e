// Reads the calls of tools in the text of an answer, which comes in pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

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
  std::string content = {};
  std::vector<ToolCallPiece> calls = {};  // without ids
};

// One thread. The parts that push() and finish() return are, joined, the same however the text was cut.
class ToolCallReader {
 public:
  virtual ~ToolCallReader() = default;
  virtual AnswerPart push(std::string_view text) = 0;
  // Takes the end of the text, which may be anywhere.
  virtual AnswerPart finish() = 0;
  // Whether the answer so far has calls, and the last one has been read to its end.
  virtual bool complete() const = 0;
};

// Returns a reader for the choice of tools; null if all of the text is content. `use` must outlive it.
std::unique_ptr<ToolCallReader> make_tool_call_reader(const ToolUse& use);

// Appends a part of the calls to `calls`. A piece that goes on with the last call there is joined with it.
void append_calls(std::vector<ToolCallPiece>& calls, std::vector<ToolCallPiece> more);

// Returns an id that no other call is likely to have, as templates of models that write so want it.
std::string new_call_id(const ToolSyntax* syntax);

}  // namespace foe

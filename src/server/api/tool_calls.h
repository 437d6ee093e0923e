// Reads the calls of tools in the text of an answer, which comes in pieces.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/api/answer_reader.h"

namespace foe {

// Returns a reader for the choice of tools; null if all of the text is content. `use` must outlive it.
std::unique_ptr<AnswerReader> make_tool_call_reader(const ToolUse& use);

// Appends a part of the calls to `calls`. A piece that goes on with the last call there is joined with it.
void append_calls(std::vector<ToolCallPiece>& calls, std::vector<ToolCallPiece> more);

// Returns an id that no other call is likely to have, as templates of models that write so want it.
std::string new_call_id(const ToolSyntax* syntax);

}  // namespace foe

#include "server/api/block_writer.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "server/api/json_text.h"

namespace foe {

std::string BlockWriter::event(const nlohmann::ordered_json& data, const std::string& receipt) {
  return "event: " + data.at("type").get<std::string>() + "\ndata: " + with_receipt(json_text(data), receipt) + "\n\n";
}

std::string BlockWriter::piece(const ChoicePiece& piece) {
  std::string events = add(AnswerBlock::Kind::kReasoning, piece.reasoning, {});
  events += add(AnswerBlock::Kind::kText, piece.text, piece.logprobs.value_or(std::vector<TokenReport>()));
  for (const ToolCallPiece& call : piece.calls) {
    if (!call.name.empty()) events += begin_block({.kind = AnswerBlock::Kind::kCall, .id = call.id, .name = call.name});
    FOE_CHECK(in_block_ && blocks_.back().kind == AnswerBlock::Kind::kCall, "arguments of no call");
    if (!call.arguments.empty()) events += grow(call.arguments, {});
  }
  if (!piece.finish) return events;
  last_ = {.text = "", .ends_in_calls = piece.ends_in_calls, .finish = piece.finish, .stopped_by = piece.stopped_by};
  last_.receipt = piece.receipt;
  const bool cut = *piece.finish == FinishReason::kLength;
  return events + end_block(!cut);
}

std::string BlockWriter::begin_block(AnswerBlock block) {
  std::string events = end_block(true);
  block.index = blocks_.size();
  blocks_.push_back(std::move(block));
  in_block_ = true;
  return stream_ ? events + block_begins(blocks_.back()) : events;
}

// Adds text to the last block, or to a new one if that is of another kind.
std::string BlockWriter::add(AnswerBlock::Kind kind, const std::string& text,
                             const std::vector<TokenReport>& logprobs) {
  if (text.empty()) return "";
  std::string events;
  if (!in_block_ || blocks_.back().kind != kind) events = begin_block({.kind = kind});
  return events + grow(text, logprobs);
}

std::string BlockWriter::grow(const std::string& text, const std::vector<TokenReport>& logprobs) {
  AnswerBlock& block = blocks_.back();
  block.text += text;
  block.logprobs.insert(block.logprobs.end(), logprobs.begin(), logprobs.end());
  return stream_ ? block_grows(block, text, logprobs) : "";
}

std::string BlockWriter::end_block(bool complete) {
  if (!std::exchange(in_block_, false)) return "";
  blocks_.back().complete = complete;
  return stream_ ? block_ends(blocks_.back()) : "";
}

}  // namespace foe

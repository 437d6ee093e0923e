#include "server/api/messages_writer.h"

#include <nlohmann/json.hpp>

#include "server/api/json_text.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;
using BlockKind = AnswerBlock::Kind;

// Tokens that came from the prefix cache are not among the input tokens.
json message_usage(const AnswerUsage& usage) {
  json counts{{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
              {"cache_creation_input_tokens", 0},
              {"cache_read_input_tokens", usage.cached_tokens},
              {"output_tokens", usage.completion_tokens}};
  if (usage.reasoning_tokens) counts["output_tokens_details"] = {{"thinking_tokens", *usage.reasoning_tokens}};
  return counts;
}

json empty_message(const AnswerHeader& header) {
  return {{"id", header.id},          {"type", "message"},      {"role", "assistant"},     {"model", header.model},
          {"content", json::array()}, {"stop_reason", nullptr}, {"stop_sequence", nullptr}};
}

// Puts into an object why the answer has ended.
void set_stop_reason(json& object, const ChoicePiece& last) {
  const auto* stop = std::get_if<std::string>(&last.stopped_by);
  object["stop_reason"] = *last.finish == FinishReason::kLength ? "max_tokens"
                          : stop                                ? "stop_sequence"
                          : last.ends_in_calls                  ? "tool_use"
                                                                : "end_turn";
  object["stop_sequence"] = stop ? json(*stop) : json(nullptr);
}

// Returns the arguments as an object: as they are written, or an empty one for a call that was cut.
std::string input_of(const AnswerBlock& call) {
  const json input = json::parse(call.text, nullptr, false);
  return input.is_object() ? call.text : "{}";
}

// Returns a block with its text, but for that of a call.
json block_with(const AnswerBlock& block, const std::string& text) {
  switch (block.kind) {
    case BlockKind::kReasoning:
      return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
    case BlockKind::kText:
      return {{"type", "text"}, {"text", text}};
    case BlockKind::kCall:
      break;
  }
  return {{"type", "tool_use"}, {"id", block.id}, {"name", block.name}, {"input", json::object()}};
}

json delta_in(const AnswerBlock& block, json delta) {
  return {{"type", "content_block_delta"}, {"index", block.index}, {"delta", std::move(delta)}};
}

// A call's arguments stay as the model has written them.
std::string block_text(const AnswerBlock& block, const std::string& signature) {
  json whole = block_with(block, block.text);
  if (block.kind == BlockKind::kReasoning) whole["signature"] = signature;
  if (block.kind != BlockKind::kCall) return json_text(whole);
  whole.erase("input");
  std::string text = json_text(whole);
  text.pop_back();
  return text + ",\"input\":" + input_of(block) + '}';
}

}  // namespace

std::string MessagesWriter::begin(const ChoicePiece&, const AnswerUsage& usage) {
  json message = empty_message(header_);
  message["usage"] = message_usage(usage);
  return event({{"type", "message_start"}, {"message", std::move(message)}}) + silence();
}

std::string MessagesWriter::end(const AnswerUsage& usage) {
  json delta = json::object();
  set_stop_reason(delta, last());
  return event({{"type", "message_delta"}, {"delta", std::move(delta)}, {"usage", message_usage(usage)}},
               last().receipt) +
         event({{"type", "message_stop"}});
}

std::string MessagesWriter::failure(int status, const std::string& message) {
  return "event: error\ndata: " + error_body(status, message, "", ErrorForm::kAnthropic) + "\n\n";
}

std::string MessagesWriter::silence() {
  return event({{"type", "ping"}});
}

std::string MessagesWriter::body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) {
  json message = empty_message(header_);
  set_stop_reason(message, last());
  message["usage"] = message_usage(usage);
  message.erase("content");
  std::string text = json_text(message);
  text.pop_back();
  text += ",\"content\":[";
  for (const AnswerBlock& block : blocks()) text += (block.index > 0 ? "," : "") + block_text(block, signature());
  return with_receipt(text + "]}", choices.back().receipt);
}

std::string MessagesWriter::block_begins(const AnswerBlock& block) {
  return event({{"type", "content_block_start"}, {"index", block.index}, {"content_block", block_with(block, "")}});
}

std::string MessagesWriter::block_grows(const AnswerBlock& block, const std::string& text,
                                        const std::vector<TokenReport>&) {
  json delta{{"type", "text_delta"}, {"text", text}};
  if (block.kind == BlockKind::kReasoning) delta = {{"type", "thinking_delta"}, {"thinking", text}};
  if (block.kind == BlockKind::kCall) delta = {{"type", "input_json_delta"}, {"partial_json", text}};
  return event(delta_in(block, std::move(delta)));
}

std::string MessagesWriter::block_ends(const AnswerBlock& block) {
  std::string events;
  if (block.kind == BlockKind::kReasoning)
    events = event(delta_in(block, {{"type", "signature_delta"}, {"signature", signature()}}));
  return events + event({{"type", "content_block_stop"}, {"index", block.index}});
}

}  // namespace foe

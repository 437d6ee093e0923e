#include "server/api/responses_writer.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/json_text.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

json response_usage(const AnswerUsage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens.value_or(0)}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

// What texts of a kind are called: their part in an item, and the events about them.
struct TextKind {
  const char *part, *delta, *done, *id;
};

// Returns null for a call.
const TextKind* text_kind(const AnswerBlock& block) {
  static constexpr TextKind kText{"output_text", "response.output_text.delta", "response.output_text.done", "msg"};
  static constexpr TextKind kReasoning{"reasoning_text", "response.reasoning_text.delta",
                                       "response.reasoning_text.done", "rs"};
  switch (block.kind) {
    case AnswerBlock::Kind::kReasoning:
      return &kReasoning;
    case AnswerBlock::Kind::kText:
      return &kText;
    case AnswerBlock::Kind::kCall:
      break;
  }
  return nullptr;
}

bool is_text(const AnswerBlock& block) {
  return block.kind == AnswerBlock::Kind::kText;
}

json part_of(const AnswerBlock& block, const std::string& text, const std::vector<TokenReport>& logprobs) {
  json part{{"type", text_kind(block)->part}, {"text", text}};
  if (!is_text(block)) return part;
  part["annotations"] = json::array();
  part["logprobs"] = chat_token_reports(logprobs);
  return part;
}

const char* status_of(const AnswerBlock& block) {
  return block.complete ? "completed" : "incomplete";
}

}  // namespace

std::string ResponsesWriter::begin(const ChoicePiece&, const AnswerUsage&) {
  const std::string started = response("in_progress", nullptr, nullptr);
  std::string events = response_event("response.created", started);  // their numbers are in this order
  events += response_event("response.in_progress", started);
  return events;
}

std::string ResponsesWriter::end(const AnswerUsage& usage) {
  const bool cut = *last().finish == FinishReason::kLength;
  return response_event(cut ? "response.incomplete" : "response.completed", body({last()}, usage));
}

std::string ResponsesWriter::failure(int, const std::string& message) {
  const json error{{"code", "server_error"}, {"message", shorten(message, kMaxMessageBytes)}};
  return response_event("response.failed", response("failed", nullptr, error));
}

std::string ResponsesWriter::body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) {
  const bool cut = *last().finish == FinishReason::kLength;
  return with_receipt(response(cut ? "incomplete" : "completed", response_usage(usage), nullptr),
                      choices.back().receipt);
}

std::string ResponsesWriter::block_begins(const AnswerBlock& block) {
  json item = item_of(block, "in_progress");
  if (text_kind(block)) item["content"] = json::array();
  std::string events = item_event("response.output_item.added", block, {{"item", std::move(item)}});
  if (text_kind(block))
    events +=
        item_event("response.content_part.added", block, {{"content_index", 0}, {"part", part_of(block, "", {})}});
  return events;
}

std::string ResponsesWriter::block_grows(const AnswerBlock& block, const std::string& text,
                                         const std::vector<TokenReport>& logprobs) {
  const TextKind* kind = text_kind(block);
  if (!kind) return item_event("response.function_call_arguments.delta", block, {{"delta", text}});
  json members{{"content_index", 0}, {"delta", text}};
  if (is_text(block)) members["logprobs"] = chat_token_reports(logprobs);
  return item_event(kind->delta, block, std::move(members));
}

std::string ResponsesWriter::block_ends(const AnswerBlock& block) {
  std::string events;
  if (const TextKind* kind = text_kind(block)) {
    json members{{"content_index", 0}, {"text", block.text}};
    if (is_text(block)) members["logprobs"] = chat_token_reports(block.logprobs);
    events = item_event(kind->done, block, std::move(members));
    events += item_event("response.content_part.done", block,
                         {{"content_index", 0}, {"part", part_of(block, block.text, block.logprobs)}});
  } else {
    events =
        item_event("response.function_call_arguments.done", block, {{"name", block.name}, {"arguments", block.text}});
  }
  events += item_event("response.output_item.done", block, {{"item", item_of(block, status_of(block))}});
  return events;
}

std::string ResponsesWriter::block_id(const AnswerBlock& block) const {
  const std::size_t prefix = std::string_view("resp_").size();
  const TextKind* kind = text_kind(block);
  return fmt::format("{}_{}_{}", kind ? kind->id : "fc", header_.id.substr(prefix), block.index);
}

json ResponsesWriter::item_of(const AnswerBlock& block, const char* status) const {
  const char* type = is_text(block) ? "message" : text_kind(block) ? "reasoning" : "function_call";
  json item{{"id", block_id(block)}, {"type", type}, {"status", status}};
  if (!text_kind(block)) {
    item["call_id"] = block.id;
    item["name"] = block.name;
    item["arguments"] = block.text;
    return item;
  }
  if (is_text(block))
    item["role"] = "assistant";
  else
    item["summary"] = json::array();
  item["content"] = json::array({part_of(block, block.text, block.logprobs)});
  return item;
}

// As a JSON value a text takes many times the memory that it takes as text, so only one item at a time is made.
std::string ResponsesWriter::response(const char* status, const json& usage, const json& error) const {
  const bool cut = status == std::string_view("incomplete");
  json head{{"id", header_.id},
            {"object", "response"},
            {"created_at", header_.created},
            {"status", status},
            {"background", false},
            {"error", error},
            {"incomplete_details", cut ? json{{"reason", "max_output_tokens"}} : json(nullptr)},
            {"model", header_.model}};
  std::string text = json_text(head);
  text.back() = ',';
  text += repeated_ + "\"output\":[";
  for (const AnswerBlock& block : blocks())
    text += (block.index > 0 ? "," : "") + json_text(item_of(block, status_of(block)));
  return text + "],\"usage\":" + json_text(usage) + '}';
}

std::string ResponsesWriter::response_event(const char* type, const std::string& response) {
  return fmt::format("event: {0}\ndata: {{\"type\":\"{0}\",\"sequence_number\":{1},\"response\":{2}}}\n\n", type,
                     events_++, response);
}

std::string ResponsesWriter::item_event(const char* type, const AnswerBlock& block, json members) {
  json data{{"type", type}, {"sequence_number", events_++}, {"output_index", block.index}};
  if (!members.contains("item")) data["item_id"] = block_id(block);
  data.update(members);
  return event(data);
}

}  // namespace foe

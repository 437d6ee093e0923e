#include "load/completion_stream.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "text/utf8.h"

namespace foe {

using nlohmann::json;

namespace {

constexpr std::size_t kErrorBytes = 16 << 10;  // how much of an error's body is kept
constexpr std::size_t kMostText = 16 << 20;    // bytes of an answer whose text is kept

// Returns the member of an object, or null.
const json& member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

// Returns text that people can read: servers may send any bytes.
std::string one_line(std::string_view bytes) {
  std::string text;
  append_lossy_utf8(text, bytes, true);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return shorten(std::move(text));
}

std::string message_of(const json& error) {
  const json& message = member(error, "message");
  if (message.is_string()) return one_line(message.get_ref<const std::string&>());
  return error.is_string() ? one_line(error.get_ref<const std::string&>()) : excerpt(error);
}

// Whether a choice has tokens, or an empty text for tokens that have no text yet. The first chunk of a chat has only a
// role.
bool has_tokens(const json& choice) {
  const json& delta = member(choice, "delta");
  if (!delta.is_object() || member(delta, "role").is_null()) return true;
  const json& content = member(delta, "content");
  return !content.is_null() && content != "";
}

std::optional<int> count_of(const json& value) {
  constexpr int kMost = 1 << 30;
  if (!value.is_number_integer() || value < 0 || value > kMost) return {};
  return value.get<int>();
}

}  // namespace

bool SseParser::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event) {
  while (!bytes.empty()) {
    if (std::exchange(after_cr_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const std::size_t end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    if (line_.size() + data_.size() > max_event_bytes_) return false;
    if (end == bytes.npos) return true;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  return true;
}

void SseParser::end_line(const std::function<void(std::string_view)>& on_event) {
  const std::string line = std::exchange(line_, {});
  if (line.empty()) {
    if (std::exchange(has_data_, false)) on_event(std::exchange(data_, {}));
    return;
  }
  const std::size_t colon = line.find(':');  // a line that begins with one is a comment
  if (std::string_view(line).substr(0, colon) != "data") return;
  std::string_view value = colon == line.npos ? std::string_view() : std::string_view(line).substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (std::exchange(has_data_, true)) data_ += '\n';
  data_ += value;
}

std::string CompletionStream::feed(int status, std::string_view bytes, double at) {
  if (status != 200) {
    error_body_ += bytes.substr(0, kErrorBytes - std::min(kErrorBytes, error_body_.size()));
    return {};
  }
  if (!events_.feed(bytes, [&](std::string_view data) { take_event(data, at); }))
    completion_.error = "expected events of at most 1 MiB, got a longer one";
  return completion_.error;
}

void CompletionStream::take_event(std::string_view data, double at) {
  if (!completion_.ok()) return;
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  const json chunk = json::parse(data, nullptr, false);
  if (!chunk.is_object()) {
    completion_.error = fmt::format("expected a JSON object in an event, got {}", one_line(data));
    return;
  }
  if (const json& error = member(chunk, "error"); !error.is_null()) {
    completion_.error = message_of(error);
    return;
  }
  const json& usage = member(chunk, "usage");
  if (const auto tokens = count_of(member(usage, "prompt_tokens"))) completion_.prompt_tokens = tokens;
  if (const auto tokens = count_of(member(usage, "completion_tokens"))) completion_.completion_tokens = tokens;
  const json& choices = member(chunk, "choices");
  if (!choices.is_array() || choices.empty()) return;
  if (member(choices[0], "finish_reason").is_string()) done_ = true;
  if (!has_tokens(choices[0])) return;
  if (keep_text_) take_text(choices[0]);
  if (completion_.chunks++ == 0)
    completion_.ttft = at;
  else
    completion_.itls.push_back(at - completion_.latency);
  completion_.latency = at;
}

void CompletionStream::take_text(const json& choice) {
  if (const json& index = member(choice, "index"); !index.is_null() && index != 0) return;
  const json& delta = member(choice, "delta");
  const json& text = delta.is_null() ? member(choice, "text") : member(delta, "content");
  if (!text.is_string()) return;
  completion_.text += text.get_ref<const std::string&>();
  if (completion_.text.size() > kMostText)
    completion_.error = fmt::format("expected a text of at most {} MiB, got a longer one", kMostText >> 20);
}

Completion CompletionStream::finish(int status, const std::string& error, const std::string& retry_after) {
  completion_.status = status;
  completion_.retry_after = one_line(retry_after);
  if (status != 0 && status != 200)
    completion_.error = fmt::format("status {}: {}", status, error_message(error_body_));
  else if (completion_.ok() && !error.empty())
    completion_.error = error;
  else if (completion_.ok() && !done_)
    completion_.error = "the stream ended without a finish_reason or [DONE]";
  else if (completion_.ok() && completion_.chunks == 0)
    completion_.error = "the stream had no tokens";
  return std::move(completion_);
}

std::string error_message(const std::string& body) {
  const json parsed = json::parse(body, nullptr, false);
  if (const json& error = member(parsed, "error"); !error.is_null()) return message_of(error);
  return one_line(body);
}

}  // namespace foe

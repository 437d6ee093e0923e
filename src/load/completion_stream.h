// Reads a streamed completion as its client sees it: parses its server-sent events, and notes when tokens came.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace foe {

// Parses server-sent events, as the HTML standard defines them, from bytes in any pieces. Only their data is of
// interest.
class SseParser {
 public:
  explicit SseParser(std::size_t max_event_bytes = 1 << 20) : max_event_bytes_(max_event_bytes) {}
  // Calls on_event with the data of each event that these bytes complete. Returns false if an event is too long; then
  // the parser must not be used any more.
  bool feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event);

 private:
  void end_line(const std::function<void(std::string_view)>& on_event);

  std::size_t max_event_bytes_;
  std::string line_, data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // the last byte was a carriage return: a line feed now belongs to the same line end
};

// The result of one request. Times are in seconds since it was sent.
struct Completion {
  int status = 0;          // the HTTP status; 0: no reply came
  std::string error = "";  // empty: it was answered completely
  std::string retry_after = "";
  double ttft = 0;                                                // time to the first token
  double latency = 0;                                             // time to the last token
  std::vector<double> itls = {};                                  // times between events with tokens
  int chunks = 0;                                                 // how many events had tokens
  std::optional<int> prompt_tokens = {}, completion_tokens = {};  // from the stream's usage, if it has one
  std::string text = "";                                          // of the first choice, if it is kept

  bool ok() const { return error.empty(); }
  // Returns the tokens that usage reports or, without it, the number of events: most servers send one token in each.
  int output_tokens() const { return completion_tokens.value_or(chunks); }
};

// Takes a reply, which is a stream or an error with a body.
class CompletionStream {
 public:
  explicit CompletionStream(bool keep_text = false) : keep_text_(keep_text) {}

  // Takes bytes of the body, which came `at` seconds after the request was sent. Returns an error message if the reply
  // is invalid, otherwise an empty string.
  std::string feed(int status, std::string_view bytes, double at);
  // Takes the end of the reply and returns the result. `error`, unless it is empty, says why the reply ended too early.
  Completion finish(int status, const std::string& error, const std::string& retry_after);

 private:
  void take_event(std::string_view data, double at);
  void take_text(const nlohmann::json& choice);

  bool keep_text_;
  SseParser events_;
  Completion completion_;
  std::string error_body_;
  bool done_ = false;  // whether [DONE] or a finish_reason has come
};

// Returns the message in an error's JSON, or the body itself if it is not such JSON, as one line, shortened.
std::string error_message(const std::string& body);

}  // namespace foe

// A streamed completion as its client sees it: server-sent events, what they say, and when they came.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Server-sent events as the HTML standard has them, of which only the data is of interest, from bytes in any pieces.
class SseParser {
 public:
  explicit SseParser(std::size_t max_event_bytes = 1 << 20) : max_event_bytes_(max_event_bytes) {}
  // Calls on_event with the data of each event that these bytes complete. False: an event is too long, and this parser
  // of no use any more.
  bool feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event);

 private:
  void end_line(const std::function<void(std::string_view)>& on_event);

  std::size_t max_event_bytes_;
  std::string line_, data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // a line feed would be a part of the line's end
};

// What came of one request. Seconds count from when it was sent.
struct Completion {
  int status = 0;          // of HTTP; 0: there was none
  std::string error = "";  // empty: it was answered to the end
  std::string retry_after = "";
  double ttft = 0;                                                // until the first token
  double latency = 0;                                             // until the last one
  std::vector<double> itls = {};                                  // between events with tokens
  int chunks = 0;                                                 // events with tokens
  std::optional<int> prompt_tokens = {}, completion_tokens = {};  // as the stream's usage has them

  bool ok() const { return error.empty(); }
  // By usage, or else by events, each of which is a token in most servers.
  int output_tokens() const { return completion_tokens.value_or(chunks); }
};

// Takes a reply in: a stream, or an error with its body.
class CompletionStream {
 public:
  // Bytes of the body, so many seconds after the request was sent. Returns why the reply is no good, or nothing.
  std::string feed(int status, std::string_view bytes, double at);
  // The end of the reply, which `error` explains if it came too early.
  Completion finish(int status, const std::string& error, const std::string& retry_after);

 private:
  void take_event(std::string_view data, double at);

  SseParser events_;
  Completion completion_;
  std::string error_body_;
  bool done_ = false;  // [DONE], or a reason why it finished
};

// The message in an error's JSON, or the text itself: one line, shortened.
std::string error_message(const std::string& body);

}  // namespace foe

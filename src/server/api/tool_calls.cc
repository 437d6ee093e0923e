#include "server/api/tool_calls.h"

#include <random>
#include <utility>

#include <fmt/core.h>

#include "server/api/auto_calls.h"
#include "server/api/json_scanner.h"

namespace foe {
namespace {

// A text that is the arguments of one call.
class NamedCallReader : public AnswerReader {
 public:
  explicit NamedCallReader(std::string name) : name_(std::move(name)) {}

  AnswerPart push(std::string_view text) override {
    std::string arguments;
    for (const char c : text) {
      if (complete_) break;  // what ends the text may be part of it, if a request asks for that
      arguments += c;
      complete_ = scanner_.ends_with(c);
    }
    if (arguments.empty()) return {};
    return {.calls = {{.name = std::exchange(name_, {}), .arguments = std::move(arguments)}}};
  }

  // The call is known even if nothing of its arguments has come.
  AnswerPart finish() override {
    if (name_.empty()) return {};
    return {.calls = {{.name = std::exchange(name_, {})}}};
  }

  bool complete() const override { return complete_; }

 private:
  std::string name_;  // empty once a piece of the call has it
  JsonScanner scanner_;
  bool complete_ = false;
};

// A text that is an array of {"name": ..., "parameters": {...}}, as calls_constraint() has it: with the members in this
// order, and names without escapes. Arguments go out as they come.
class RequiredCallsReader : public AnswerReader {
 public:
  AnswerPart push(std::string_view text) override {
    AnswerPart part;
    for (const char c : text) take(c, part);
    return part;
  }

  AnswerPart finish() override { return {}; }
  bool complete() const override { return place_ == Place::kEnd; }

 private:
  enum class Place { kBetween, kHead, kArguments, kTail, kEnd };

  void take(char c, AnswerPart& part) {
    switch (place_) {
      case Place::kBetween:
        if (c == ']') place_ = Place::kEnd;
        if (c == '{') place_ = Place::kHead;
        break;
      case Place::kHead:
        take_head(c, part);
        break;
      case Place::kArguments:
        if (part.calls.empty()) part.calls.push_back({.index = calls_ - 1});
        part.calls.back().arguments += c;
        if (scanner_.ends_with(c)) place_ = Place::kTail;
        break;
      case Place::kTail:
        if (c == '}') place_ = Place::kBetween;
        break;
      case Place::kEnd:
        break;
    }
  }

  // Before the arguments there are the quotes of three strings: "name", the name, and "parameters".
  void take_head(char c, AnswerPart& part) {
    constexpr std::size_t kNameQuotes = 4, kAllQuotes = 6;
    if (c == '"') {
      if (++quotes_ == kNameQuotes) part.calls.push_back({.index = calls_++, .name = std::exchange(name_, {})});
    } else if (quotes_ == kNameQuotes - 1) {
      name_ += c;
    } else if (quotes_ == kAllQuotes && c == '{') {
      quotes_ = 0;
      scanner_ = {};
      place_ = Place::kArguments;
      take(c, part);
    }
  }

  Place place_ = Place::kBetween;
  std::size_t calls_ = 0;
  int quotes_ = 0;
  std::string name_;
  JsonScanner scanner_;
};

}  // namespace

std::unique_ptr<AnswerReader> make_tool_call_reader(const ToolUse& use) {
  switch (use.choice) {
    case ToolChoice::kNamed:
      return std::make_unique<NamedCallReader>(use.names.front());
    case ToolChoice::kRequired:
      return std::make_unique<RequiredCallsReader>();
    case ToolChoice::kAuto:
      return use.syntax ? std::make_unique<AutoCallReader>(use) : nullptr;
    case ToolChoice::kNone:
      break;
  }
  return nullptr;
}

void append_calls(std::vector<ToolCallPiece>& calls, std::vector<ToolCallPiece> more) {
  for (ToolCallPiece& piece : more)
    if (piece.name.empty() && !calls.empty() && calls.back().index == piece.index)
      calls.back().arguments += piece.arguments;
    else
      calls.push_back(std::move(piece));
}

std::string new_call_id(const ToolSyntax* syntax) {
  constexpr std::string_view kCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  const bool is_short = syntax && syntax->short_ids;
  std::random_device random;
  std::uniform_int_distribution<std::size_t> any(0, kCharacters.size() - 1);
  std::string id = is_short ? "" : "call_";
  for (int i = 0; i < (is_short ? 9 : 24); ++i) id += kCharacters[any(random)];
  return id;
}

}  // namespace foe

#include "server/api/harmony.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "server/api/json_scanner.h"
#include "server/api/stop_strings.h"
#include "server/api/tool_syntax.h"

namespace foe {
namespace {

constexpr std::string_view kStartTag = "<|start|>", kChannelTag = "<|channel|>", kMessageTag = "<|message|>";
// What ends a message. The last two begin another one, if a model leaves out the end.
constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>", kStartTag, kChannelTag};
constexpr std::string_view kMessages[] = {kMessageTag};
constexpr std::size_t kMaxMarkerBytes = 13;  // <|constrain|>

// Returns what comes behind `begin` in the header of a message, up to white space or a marker; empty if nothing does.
std::string_view word_behind(std::string_view header, std::string_view begin) {
  const std::size_t at = header.find(begin);
  if (at == header.npos) return {};
  header.remove_prefix(at + begin.size());
  return header.substr(0, header.find_first_of(" \t\r\n<"));
}

class HarmonyReader : public AnswerReader {
 public:
  HarmonyReader(const ToolUse& tools, const ReasoningUse& reasoning) : tools_(tools), include_(reasoning.include) {
    const bool begun = reasoning.syntax && reasoning.syntax->harmony && reasoning.start == ReasoningStart::kAtOnce;
    if (begun) begin_body(Kind::kReasoning);
  }

  AnswerPart push(std::string_view text) override {
    AnswerPart part;
    taken_ += text.size();
    held_ += text;
    while (step(part)) {
    }
    return part;
  }

  // A message that is not over is there as far as it came. The header of one that has no text yet is dropped, and so is
  // a call that was cut: what has come of its arguments says nothing without its header.
  AnswerPart finish() override {
    AnswerPart part;
    const bool is_text = place_ == Place::kStart || (place_ == Place::kHeader && held_.find("<|") == held_.npos);
    if (is_text && first_) give(part.content, held_.size());
    if (place_ == Place::kBody && !is_cut_call()) give_body(held_.size(), true, part);
    return part;
  }

  bool complete() const override { return calls_ > 0; }
  std::vector<TextSpan> reasoning_spans() const override { return spans_; }

 private:
  enum class Place { kStart, kHeader, kBody, kText };  // kText: the answer is not of this format
  enum class Kind { kReasoning, kContent, kCall };

  struct Found {
    std::size_t at = std::string::npos;
    std::string_view text = {};
  };

  // Returns whether there is more to do.
  bool step(AnswerPart& part) {
    switch (place_) {
      case Place::kStart:
        return find_format();
      case Place::kHeader:
        return find_body();
      case Place::kBody:
        return find_end(part);
      case Place::kText:
        give(part.content, held_.size());
        return false;
    }
    return false;
  }

  bool find_format() {
    const std::size_t at = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    const std::string_view text = std::string_view(held_).substr(at);
    bool may_be = false;
    for (const std::string_view begin : {kStartTag, kChannelTag, kMessageTag, std::string_view("to=")}) {
      if (text.starts_with(begin)) place_ = Place::kHeader;
      may_be |= begin.starts_with(text);
    }
    if (place_ == Place::kStart && !may_be) place_ = Place::kText;
    return place_ != Place::kStart;
  }

  bool find_body() {
    const Found found = find_first(kMessages);
    if (found.at == held_.npos) return false;
    const std::string_view header = std::string_view(held_).substr(0, found.at);
    const std::string_view recipient = word_behind(header, "to=");
    constexpr std::string_view kFunctions = "functions.";
    name_ = recipient.starts_with(kFunctions) ? recipient.substr(kFunctions.size()) : "";
    const bool may_call = tools_.choice == ToolChoice::kAuto && tools_.syntax && tools_.syntax->harmony;
    Kind kind = word_behind(header, kChannelTag) == "analysis" ? Kind::kReasoning : Kind::kContent;
    if (may_call && std::ranges::find(tools_.names, name_) != tools_.names.end()) kind = Kind::kCall;
    begin_body(kind);
    erase(found.at + kMessageTag.size());
    return true;
  }

  void begin_body(Kind kind) {
    kind_ = kind;
    if (kind == Kind::kReasoning) spans_.push_back({taken_ - held_.size(), std::string::npos});
    place_ = Place::kBody;
    first_ = false;
    begun_ = false;
  }

  bool find_end(AnswerPart& part) {
    const Found found = find_first(kEnds);
    if (found.at == held_.npos) {
      std::size_t kept = 0;
      for (const std::string_view end : kEnds) kept = std::max(kept, overlap(held_, end));
      if (kind_ != Kind::kCall) give_body(held_.size() - kept, false, part);
      return false;
    }
    give_body(found.at, true, part);
    if (found.text != kStartTag && found.text != kChannelTag) erase(found.text.size());
    if (kind_ == Kind::kReasoning) spans_.back().end = taken_ - held_.size();
    place_ = Place::kHeader;
    return true;
  }

  bool is_cut_call() const {
    const std::string_view text = trim(held_);
    JsonScanner scanner;
    const auto ends = [&](char c) { return scanner.ends_with(c); };
    return kind_ == Kind::kCall && text.starts_with('{') && std::ranges::none_of(text, ends);
  }

  // Gives the front of what is held as what it is.
  void give_body(std::size_t bytes, bool last, AnswerPart& part) {
    if (kind_ == Kind::kCall && last && take_call(std::string_view(held_).substr(0, bytes), part)) return erase(bytes);
    const bool reasons = kind_ == Kind::kReasoning;
    bool& any = reasons ? any_reasoning_ : any_content_;
    std::string& text = reasons ? part.reasoning : part.content;
    if (reasons && !include_) return erase(bytes);
    if (bytes > 0 && !std::exchange(begun_, true) && std::exchange(any, true)) text += '\n';  // between messages
    give(text, bytes);
  }

  bool take_call(std::string_view text, AnswerPart& part) {
    const std::optional<std::string> arguments = arguments_in(trim(text));
    if (!arguments) return false;
    if (calls_ == 0 || tools_.parallel)
      part.calls.push_back({.index = calls_++, .name = name_, .arguments = *arguments});
    return true;
  }

  // Finds the first of the texts in what is held. There is none before searched_.
  Found find_first(std::span<const std::string_view> texts) {
    Found found;
    for (const std::string_view text : texts)
      if (const std::size_t at = held_.find(text, searched_); at < found.at) found = {at, text};
    if (found.at == held_.npos) searched_ = held_.size() - std::min(held_.size(), kMaxMarkerBytes - 1);
    return found;
  }

  void give(std::string& text, std::size_t bytes) {
    text += held_.substr(0, bytes);
    erase(bytes);
  }

  void erase(std::size_t bytes) {
    held_.erase(0, bytes);
    searched_ = 0;
  }

  const ToolUse& tools_;
  bool include_;  // whether the client wants to have the reasoning
  Place place_ = Place::kStart;
  Kind kind_ = Kind::kContent;  // of the message
  std::string name_;            // of the function that it is to, if it is to one
  std::string held_;            // what has not been given
  std::size_t taken_ = 0;       // bytes of the text so far
  std::size_t searched_ = 0;
  std::size_t calls_ = 0;
  std::vector<TextSpan> spans_;
  bool first_ = true;                                 // whether no message has come yet
  bool begun_ = false;                                // whether text of the message has been given
  bool any_reasoning_ = false, any_content_ = false;  // whether any has been given
};

}  // namespace

const std::vector<std::string_view>& harmony_markers() {
  static const std::vector<std::string_view> kMarkers = {kStartTag,  kChannelTag,  kMessageTag,    "<|end|>",
                                                         "<|call|>", "<|return|>", "<|constrain|>"};
  return kMarkers;
}

std::unique_ptr<AnswerReader> make_harmony_reader(const ToolUse& tools, const ReasoningUse& reasoning) {
  return std::make_unique<HarmonyReader>(tools, reasoning);
}

}  // namespace foe

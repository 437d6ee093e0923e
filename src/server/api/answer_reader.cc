#include "server/api/answer_reader.h"

#include <algorithm>
#include <utility>

#include "server/api/harmony.h"
#include "server/api/json_scanner.h"
#include "server/api/stop_strings.h"
#include "server/api/tool_calls.h"
#include "server/api/tool_syntax.h"

namespace foe {
namespace {

class ContentReader : public AnswerReader {
 public:
  AnswerPart push(std::string_view text) override { return {.content = std::string(text)}; }
  AnswerPart finish() override { return {}; }
  bool complete() const override { return false; }
};

// Takes the reasoning from the beginning of an answer, and gives what comes behind it to another reader. White space
// beside the marks is left out.
class ReasoningReader : public AnswerReader {
 public:
  ReasoningReader(const ReasoningUse& use, std::unique_ptr<AnswerReader> rest)
      : syntax_(*use.syntax),
        include_(use.include),
        rest_(std::move(rest)),
        reasons_(use.start == ReasoningStart::kAtOnce) {}

  AnswerPart push(std::string_view text) override {
    AnswerPart part;
    taken_ += text.size();
    held_ += text;
    if (place_ == Place::kStart) find_begin();
    if (place_ == Place::kReasoning) find_end(part);
    if (place_ == Place::kGap) {
      drop_blanks();
      if (!held_.empty()) place_ = Place::kBehind;
    }
    if (place_ == Place::kBehind) append(part, rest_->push(std::exchange(held_, {})));
    return part;
  }

  // What may be the beginning of a mark is text, as nothing more comes.
  AnswerPart finish() override {
    AnswerPart part;
    if (place_ == Place::kReasoning || (place_ == Place::kStart && reasons_))
      give(held_.size(), part);
    else if (place_ == Place::kStart)
      append(part, rest_->push(std::exchange(held_, {})));
    append(part, rest_->finish());
    return part;
  }

  bool complete() const override { return rest_->complete(); }

  std::vector<TextSpan> reasoning_spans() const override {
    if (!reasons_) return {};
    return {{0, end_}};
  }

 private:
  enum class Place { kStart, kReasoning, kGap, kBehind };  // kGap: white space behind the reasoning

  void find_begin() {
    const std::size_t at = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    const std::string_view text = std::string_view(held_).substr(at);
    if (text.size() < syntax_.begin.size() && syntax_.begin.starts_with(text)) return;
    if (text.starts_with(syntax_.begin)) {
      held_.erase(0, at + syntax_.begin.size());
      reasons_ = true;
    }
    place_ = reasons_ ? Place::kReasoning : Place::kBehind;
  }

  void find_end(AnswerPart& part) {
    if (!begun_) drop_blanks();
    const std::size_t at = held_.find(syntax_.end);
    const std::size_t size = at != held_.npos ? at : held_.size() - overlap(held_, syntax_.end);
    const std::size_t given = trimmed_size(std::string_view(held_).substr(0, size));
    give(given, part);
    if (at == held_.npos) return;
    held_.erase(0, size - given + syntax_.end.size());
    end_ = taken_ - held_.size();
    place_ = Place::kGap;
  }

  void give(std::size_t bytes, AnswerPart& part) {
    if (!begun_) bytes -= drop_blanks();
    begun_ |= bytes > 0;
    if (include_) part.reasoning += held_.substr(0, bytes);
    held_.erase(0, bytes);
  }

  // Drops white space from the front of what is held. Returns how many bytes that were.
  std::size_t drop_blanks() {
    const std::size_t blanks = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    held_.erase(0, blanks);
    return blanks;
  }

  const ReasoningSyntax& syntax_;
  bool include_;
  std::unique_ptr<AnswerReader> rest_;
  Place place_ = Place::kStart;
  bool reasons_;                         // whether the answer has reasoning, as far as is known
  bool begun_ = false;                   // whether some of it has been given
  std::string held_;                     // what has not been given
  std::size_t taken_ = 0;                // bytes of the text so far
  std::size_t end_ = std::string::npos;  // where the reasoning ends in the text
};

}  // namespace

void append(AnswerPart& part, AnswerPart more) {
  part.reasoning += more.reasoning;
  part.content += more.content;
  append_calls(part.calls, std::move(more.calls));
}

std::unique_ptr<AnswerReader> make_answer_reader(const ToolUse& tools, const ReasoningUse& reasoning) {
  const bool reasons = reasoning.syntax && reasoning.start != ReasoningStart::kNowhere;
  const bool may_call = tools.choice == ToolChoice::kAuto && tools.syntax;
  if ((reasons && reasoning.syntax->harmony) || (may_call && tools.syntax->harmony))
    return make_harmony_reader(tools, reasoning);
  std::unique_ptr<AnswerReader> reader = make_tool_call_reader(tools);
  if (!reasons) return reader;
  if (!reader) reader = std::make_unique<ContentReader>();
  return std::make_unique<ReasoningReader>(reasoning, std::move(reader));
}

}  // namespace foe

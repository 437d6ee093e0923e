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

using Texts = std::vector<std::string_view>;

// Takes what is between two marks from the beginning of an answer, and gives what comes behind it to another reader.
// White space beside the marks is left out.
class MarkedReader : public AnswerReader {
 public:
  // `inside`: whether the text begins inside, with or without the first mark.
  MarkedReader(Texts begins, Texts ends, bool inside, std::unique_ptr<AnswerReader> rest)
      : rest_(std::move(rest)), inside_(inside), begins_(std::move(begins)), ends_(std::move(ends)) {}

  AnswerPart push(std::string_view text) override {
    AnswerPart part;
    taken_ += text.size();
    held_ += text;
    if (place_ == Place::kStart) find_begin();
    if (place_ == Place::kInside) find_end(part);
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
    if (place_ == Place::kInside || (place_ == Place::kStart && inside_))
      give(held_.size(), part);
    else if (place_ == Place::kStart)
      append(part, rest_->push(std::exchange(held_, {})));
    append(part, rest_->finish());
    return part;
  }

  bool complete() const override { return rest_->complete(); }

 protected:
  // Adds a piece of what is between the marks.
  virtual void add(std::string_view text, AnswerPart& part) = 0;

  // Returns which bytes of the text so far are between the marks, with these.
  std::vector<TextSpan> marked() const {
    if (!inside_) return {};
    return {{0, end_}};
  }

  std::unique_ptr<AnswerReader> rest_;

 private:
  enum class Place { kStart, kInside, kGap, kBehind };  // kGap: white space behind the last mark

  void find_begin() {
    const std::size_t at = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    const std::string_view text = std::string_view(held_).substr(at);
    for (const std::string_view begin : begins_)
      if (text.size() < begin.size() && begin.starts_with(text)) return;
    for (const std::string_view begin : begins_) {
      if (!text.starts_with(begin)) continue;
      held_.erase(0, at + begin.size());
      inside_ = true;
      break;
    }
    place_ = inside_ ? Place::kInside : Place::kBehind;
  }

  void find_end(AnswerPart& part) {
    if (!begun_) drop_blanks();
    std::size_t at = held_.npos, mark = 0, kept = 0;
    for (const std::string_view end : ends_) {
      const std::size_t found = held_.find(end);
      if (found < at) at = found, mark = end.size();
      kept = std::max(kept, overlap(held_, end));
    }
    const std::size_t size = at != held_.npos ? at : held_.size() - kept;
    const std::size_t given = trimmed_size(std::string_view(held_).substr(0, size));
    give(given, part);
    if (at == held_.npos) return;
    held_.erase(0, size - given + mark);
    end_ = taken_ - held_.size();
    place_ = Place::kGap;
  }

  void give(std::size_t bytes, AnswerPart& part) {
    if (!begun_) bytes -= drop_blanks();
    begun_ |= bytes > 0;
    add(std::string_view(held_).substr(0, bytes), part);
    held_.erase(0, bytes);
  }

  // Drops white space from the front of what is held. Returns how many bytes that were.
  std::size_t drop_blanks() {
    const std::size_t blanks = std::min(held_.find_first_not_of(kWhiteSpace), held_.size());
    held_.erase(0, blanks);
    return blanks;
  }

  Place place_ = Place::kStart;
  bool inside_;  // whether the answer has something between marks, as far as is known
  Texts begins_, ends_;
  bool begun_ = false;                   // whether some of it has been given
  std::string held_;                     // what has not been given
  std::size_t taken_ = 0;                // bytes of the text so far
  std::size_t end_ = std::string::npos;  // where the last mark ends in the text
};

class ReasoningReader : public MarkedReader {
 public:
  ReasoningReader(const ReasoningUse& use, std::unique_ptr<AnswerReader> rest)
      : MarkedReader(both(use.syntax->begin, use.syntax->also_begin), both(use.syntax->end, use.syntax->also_end),
                     use.start == ReasoningStart::kAtOnce, std::move(rest)),
        include_(use.include) {}

  std::vector<TextSpan> reasoning_spans() const override { return marked(); }

 private:
  static Texts both(std::string_view text, std::string_view also) {
    return also.empty() ? Texts{text} : Texts{text, also};
  }

  void add(std::string_view text, AnswerPart& part) override {
    if (include_) part.reasoning += text;
  }

  bool include_;
};

// Content that is between marks, and which another reader reads as if it had none.
class MarkedContentReader : public MarkedReader {
 public:
  MarkedContentReader(const ReasoningSyntax& syntax, std::unique_ptr<AnswerReader> rest)
      : MarkedReader(syntax.content_begins, syntax.content_ends, /*inside=*/false, std::move(rest)) {}

 private:
  void add(std::string_view text, AnswerPart& part) override { append(part, rest_->push(text)); }
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
  const bool marks = reasoning.syntax && !reasoning.syntax->content_begins.empty();
  std::unique_ptr<AnswerReader> reader = make_tool_call_reader(tools);
  if (!reader && (reasons || marks)) reader = std::make_unique<ContentReader>();
  if (marks) reader = std::make_unique<MarkedContentReader>(*reasoning.syntax, std::move(reader));
  if (!reasons) return reader;
  return std::make_unique<ReasoningReader>(reasoning, std::move(reader));
}

}  // namespace foe

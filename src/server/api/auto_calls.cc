#include "server/api/auto_calls.h"

#include <algorithm>

#include "server/api/json_scanner.h"
#include "server/api/stop_strings.h"

namespace foe {
namespace {

// After so many texts that were no calls, all of an answer is content: each takes the time of parsing what follows.
constexpr int kMaxFailures = 128;

bool ends_in_string(std::string_view text) {
  JsonScanner scanner;
  for (const char c : text) scanner.ends_with(c);
  return scanner.in_string();
}

}  // namespace

AnswerPart AutoCallReader::push(std::string_view text) {
  AnswerPart part;
  held_ += text;
  if (syntax_.begin.empty()) {
    if (!may_be_whole_call()) give(held_.size(), part);
    return part;
  }
  while (in_call_ ? find_end(part, false) : find_begin(part)) {
  }
  return part;
}

AnswerPart AutoCallReader::finish() {
  AnswerPart part;
  if (syntax_.begin.empty()) {
    if (may_be_whole_call() && take_calls(held_, part)) held_.clear();
  } else {
    while (in_call_ ? find_end(part, true) : find_begin(part)) {
    }
  }
  if (calls_ > 0 && !content_ && trimmed_size(held_) == 0) held_.clear();
  give(held_.size(), part);
  return part;
}

// Gives what comes before the next call. Returns whether one begins.
bool AutoCallReader::find_begin(AnswerPart& part) {
  std::size_t at = held_.npos, size = 0, kept = 0;
  for (const std::string_view begin : {syntax_.begin, syntax_.also_begin}) {
    if (begin.empty()) continue;
    const std::size_t found = failures_ < kMaxFailures ? held_.find(begin) : held_.npos;
    if (found < at) at = found, size = begin.size();
    kept = std::max(kept, overlap(held_, begin));
  }
  in_call_ = at != held_.npos;
  const std::size_t content = in_call_ ? at : held_.size() - kept;
  const std::size_t given = trimmed_size(std::string_view(held_).substr(0, content));
  give(given, part);
  text_at_ = searched_ = content - given + size;
  scanner_ = {};
  return in_call_;
}

// Returns where the JSON ends that comes behind the beginning of a call; npos if it has not ended, and 0 if what comes
// is none.
std::size_t AutoCallReader::call_size(bool last) {
  for (; searched_ < held_.size(); ++searched_) {
    const char c = held_[searched_];
    if (scanner_.depth() == 0 && kWhiteSpace.find(c) != kWhiteSpace.npos) continue;
    if (scanner_.depth() == 0 && c != '[' && c != '{') return 0;
    if (scanner_.ends_with(c)) return searched_ + 1;
  }
  return last ? 0 : held_.npos;
}

// Takes the calls up to the end, or gives the beginning as content if there are none. Returns whether to go on.
bool AutoCallReader::find_end(AnswerPart& part, bool last) {
  if (syntax_.ends_itself) {
    const std::size_t at = call_size(last);
    if (at == held_.npos) return false;
    in_call_ = false;
    if (at > 0 && take_calls(std::string_view(held_).substr(text_at_, at - text_at_), part)) {
      held_.erase(0, at);
      content_ = false;
    } else {
      ++failures_;
      give(text_at_, part);
    }
    return true;
  }
  const std::string_view end = syntax_.end.empty() ? syntax_.begin : syntax_.end;
  const std::size_t at = held_.find(end, searched_);
  if (at == held_.npos && !last) {
    searched_ = std::max(text_at_, held_.size() - std::min(held_.size(), end.size() - 1));
    return false;
  }
  const std::string_view text = std::string_view(held_).substr(text_at_, at == held_.npos ? at : at - text_at_);
  if ((at != held_.npos || !syntax_.needs_end) && take_calls(text, part)) {
    held_.erase(0, at == held_.npos ? at : syntax_.end.empty() ? at : at + end.size());
    in_call_ = content_ = false;
    return true;
  }
  ++failures_;
  if (at != held_.npos && failures_ < kMaxFailures && ends_in_string(text)) {  // the end is a part of an argument
    searched_ = at + 1;
    return true;
  }
  give(text_at_, part);
  in_call_ = false;
  return true;
}

bool AutoCallReader::may_be_whole_call() {
  if (content_) return false;
  const std::string_view text = trim(held_);
  const auto may_begin_with = [&](std::string_view begin) {
    return text.size() < begin.size() ? begin.starts_with(text) : text.starts_with(begin);
  };
  if (!may_begin_with(syntax_.whole) && !std::ranges::any_of(syntax_.markers, may_begin_with)) return false;
  // A look reads all of the text, so long texts are looked at when they have doubled.
  constexpr std::size_t kShort = 256;
  if (!syntax_.may_begin || held_.size() < look_at_) return true;
  look_at_ = held_.size() < kShort ? 0 : 2 * held_.size();
  return syntax_.may_begin(held_);
}

bool AutoCallReader::take_calls(std::string_view text, AnswerPart& part) {
  const auto calls = syntax_.parse(text, use_);
  if (!calls) return false;
  for (const WrittenCall& call : *calls)
    if (std::ranges::find(use_.names, call.name) == use_.names.end()) return false;
  for (const WrittenCall& call : *calls) {
    if (calls_ > 0 && !use_.parallel) break;
    part.calls.push_back({.index = calls_++, .name = call.name, .arguments = call.arguments});
  }
  return true;
}

void AutoCallReader::give(std::size_t bytes, AnswerPart& part) {
  part.content += held_.substr(0, bytes);
  held_.erase(0, bytes);
  content_ |= bytes > 0;
}

}  // namespace foe

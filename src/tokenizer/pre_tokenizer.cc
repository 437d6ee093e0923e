#include "tokenizer/pre_tokenizer.h"

#include <algorithm>

namespace foe {
namespace {

struct Part {
  Span span;
  bool delimiter = false;
};

void find_text(std::string_view needle, std::string_view text, std::vector<Span>& out) {
  for (std::size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + needle.size())) {
    out.push_back({at, at + needle.size()});
  }
}

// Returns parts that cover `text` without gaps, in order.
std::vector<Part> find_parts(const SplitStep& step, std::string_view text, RegexScratch& scratch) {
  std::vector<Span> matches;
  if (const auto* regex = std::get_if<Regex>(&step.pattern)) {
    regex->find_all(text, scratch, matches);
  } else {
    find_text(std::get<std::string>(step.pattern), text, matches);
  }
  std::vector<Part> parts;
  parts.reserve(matches.size() + 1);
  std::size_t end = 0;
  for (const Span match : matches) {
    if (match.begin > end) parts.push_back({{end, match.begin}, step.invert});
    parts.push_back({match, !step.invert});
    end = match.end;
  }
  if (end < text.size()) parts.push_back({{end, text.size()}, step.invert});
  return parts;
}

// Joins each part to the one before it if `joins(previous, part)` is true.
template <typename Joins>
void join_parts(std::vector<Part>& parts, Joins joins) {
  if (parts.empty()) return;
  std::size_t last = 0;
  bool previous = parts[0].delimiter;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const bool delimiter = parts[i].delimiter;
    if (joins(previous, delimiter)) {
      parts[last].span.end = parts[i].span.end;
    } else {
      parts[++last] = parts[i];
    }
    previous = delimiter;
  }
  parts.resize(last + 1);
}

// If several delimiters follow each other, only the one next to a word joins it.
void apply(SplitBehavior behavior, std::vector<Part>& parts) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kRemoved:
      std::erase_if(parts, [](const Part& part) { return part.delimiter; });
      break;
    case SplitBehavior::kContiguous:
      join_parts(parts, [](bool a, bool b) { return a == b; });
      break;
    case SplitBehavior::kMergedWithPrevious:
      join_parts(parts, [](bool a, bool b) { return !a && b; });
      break;
    case SplitBehavior::kMergedWithNext:
      join_parts(parts, [](bool a, bool b) { return a && !b; });
      break;
  }
}

void split(const SplitStep& step, std::string_view text, RegexScratch& scratch, std::vector<std::string_view>& words) {
  std::vector<Part> parts = find_parts(step, text, scratch);
  apply(step.behavior, parts);
  for (const Part& part : parts) {
    if (part.span.end > part.span.begin) words.push_back(text.substr(part.span.begin, part.span.end - part.span.begin));
  }
}

}  // namespace

SplitStep gpt2_split() {
  return {Regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)")};
}

void pre_tokenize(const PreTokenizer& rules, std::string_view text, RegexScratch& scratch,
                  const std::function<void(std::string_view)>& word) {
  std::vector<std::string_view> words;
  if (!text.empty()) words.push_back(text);
  for (const SplitStep& step : rules.steps) {
    std::vector<std::string_view> cut;
    for (const std::string_view part : words) split(step, part, scratch, cut);
    words = std::move(cut);
  }
  std::string prefixed;
  std::vector<std::string_view> last;
  for (std::string_view part : words) {
    if (rules.add_prefix_space && !part.starts_with(' ')) {
      prefixed.assign(1, ' ').append(part);
      part = prefixed;
    }
    if (!rules.after_prefix) {
      word(part);
      continue;
    }
    last.clear();
    split(*rules.after_prefix, part, scratch, last);
    for (const std::string_view piece : last) word(piece);
  }
}

}  // namespace foe

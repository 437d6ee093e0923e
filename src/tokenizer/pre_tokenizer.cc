#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

struct Part {
  Span span;
  bool delimiter = false;
};

// Returns parts that cover `text` without gaps, in order.
std::vector<Part> find_parts(const SplitStep& step, std::string_view text, RegexScratch& scratch) {
  std::vector<Span> matches;
  find_pattern(step.pattern, text, scratch, matches);
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

// Words that follow each other in one text.
class Words {
 public:
  Words(std::string_view text, bool at_start, RegexScratch& scratch)
      : text_(text),
        words_{{0, text.size()}},
        limit_(most_rewritten_bytes(text.size())),
        at_start_(at_start),
        scratch_(scratch) {}

  void operator()(const SplitStep& step) {
    std::vector<Span> cut;
    for (const Span word : words_) split(step, word, cut);
    words_ = std::move(cut);
  }

  void operator()(PrefixSpaceStep) {
    rewrite([](std::string_view word, bool, std::string& out) {
      if (!word.starts_with(' ')) out += ' ';
      out += word;
    });
  }

  void operator()(const MetaspaceStep& step) {
    using enum MetaspaceStep::Prepend;
    rewrite([&](std::string_view word, bool first, std::string& out) {
      const bool prepends = step.prepend == kAlways || (step.prepend == kFirst && first);
      if (prepends && !word.starts_with(' ') && !word.starts_with(step.replacement)) out += step.replacement;
      for (const char& c : word) out += c == ' ' ? std::string_view(step.replacement) : std::string_view(&c, 1);
    });
    if (step.split) (*this)(SplitStep{step.replacement, SplitBehavior::kMergedWithNext, false});
  }

  void for_each(const std::function<void(std::string_view)>& visit) const {
    for (const Span word : words_) visit(text(word));
  }

 private:
  std::string_view text(Span span) const { return text_.substr(span.begin, span.end - span.begin); }

  void split(const SplitStep& step, Span word, std::vector<Span>& cut) {
    std::vector<Part> parts = find_parts(step, text(word), scratch_);
    apply(step.behavior, parts);
    for (const Part& part : parts)
      if (part.span.end > part.span.begin) cut.push_back({word.begin + part.span.begin, word.begin + part.span.end});
  }

  // Replaces each word by what `write(word, first, out)` appends to `out`.
  template <typename Write>
  void rewrite(const Write& write) {
    std::string rewritten;
    rewritten.reserve(text_.size() + words_.size());
    for (Span& word : words_) {
      const Span old = std::exchange(word, {rewritten.size(), 0});
      write(text(old), at_start_ && old.begin == 0, rewritten);
      word.end = rewritten.size();
      if (word.end > limit_) fail("pre_tokenizer: expected at most {} bytes for this text, got more", limit_);
    }
    own_ = std::move(rewritten);
    text_ = own_;
  }

  std::string own_;  // the text, once it has been rewritten
  std::string_view text_;
  std::vector<Span> words_;
  std::size_t limit_;  // of the bytes of the rewritten text
  bool at_start_;
  RegexScratch& scratch_;
};

}  // namespace

SplitStep gpt2_split() {
  return {Regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)")};
}

void pre_tokenize(const PreTokenizer& steps, std::string_view text, bool at_start, RegexScratch& scratch,
                  const std::function<void(std::string_view)>& word) {
  if (text.empty()) return;
  Words words(text, at_start, scratch);
  for (const PreTokenizerStep& step : steps) std::visit(words, step);
  words.for_each(word);
}

}  // namespace foe

#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

void check_size(std::size_t bytes, std::size_t limit) {
  if (bytes > limit) fail("normalizer: expected at most {} bytes for this text, got more", limit);
}

// Writes a text of at most `limit` bytes.
class Output {
 public:
  Output(std::size_t limit, std::size_t likely_bytes) : limit_(limit) { text_.reserve(likely_bytes); }
  void append(std::string_view piece) {
    check_size(text_.size() + piece.size(), limit_);
    text_ += piece;
  }
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }
  void drop_last(std::size_t bytes) { text_.resize(text_.size() - bytes); }

 private:
  std::size_t limit_;
  std::string text_;
};

// Where U+0130, the only character whose lower case is two characters, is found; utf8proc has single ones.
constexpr char32_t kCapitalDottedI = 0x130;

class Normalizing {
 public:
  Normalizing(std::string_view text, bool at_start)
      : text_(text), limit_(most_rewritten_bytes(text.size())), at_start_(at_start) {}

  void operator()(NormalForm form) {
    text_ = normalize(text_, form);
    check_size(text_.size(), limit_);
  }

  void operator()(const ReplaceText& step) {
    std::vector<Span> matches;
    find_pattern(step.pattern, text_, scratch_, matches);
    if (matches.empty()) return;
    Output out(limit_, text_.size());
    std::size_t end = 0;
    for (const Span match : matches) {
      out.append(std::string_view(text_).substr(end, match.begin - end));
      out.append(step.content);
      end = match.end;
    }
    out.append(std::string_view(text_).substr(end));
    text_ = out.take();
  }

  void operator()(const PrependText& step) {
    if (!text_.empty()) text_.insert(0, step.text);
    check_size(text_.size(), limit_);
  }

  void operator()(Lowercase) {
    std::string out;
    for (std::size_t i = 0; i < text_.size();) {
      const Utf8Step step = read_utf8(text_, i);
      i += step.size;
      append_utf8(out, step.code == kCapitalDottedI
                           ? U'i'
                           : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(step.code))));
      if (step.code == kCapitalDottedI) append_utf8(out, 0x307);
    }
    text_ = std::move(out);
    check_size(text_.size(), limit_);
  }

  void operator()(StripSpaces step) {
    std::size_t begin = 0, end = text_.size();
    while (step.left && begin < end) {
      const Utf8Step first = read_utf8(text_, begin);
      if (!is_space(first.code)) break;
      begin += first.size;
    }
    while (step.right && begin < end) {
      std::size_t last = end - 1;
      while ((static_cast<std::uint8_t>(text_[last]) & 0xc0) == 0x80) --last;
      if (!is_space(read_utf8(text_, last).code)) break;
      end = last;
    }
    text_ = text_.substr(begin, end - begin);
  }

  void operator()(const MapGraphemes& step) {
    constexpr std::size_t kShortCluster = 6;
    Output out(limit_, text_.size());
    for (std::size_t begin = 0; begin < text_.size();) {
      const std::string_view cluster = std::string_view(text_).substr(begin, grapheme_size(begin));
      begin += cluster.size();
      if (cluster.size() < kShortCluster) {
        if (const auto rule = step.charsmap->shortest(cluster)) {
          out.append(rule->text);
          continue;
        }
      }
      for (std::size_t i = 0; i < cluster.size();) {
        const std::string_view character = cluster.substr(i, read_utf8(cluster, i).size);
        const auto rule = step.charsmap->shortest(character);
        out.append(rule ? rule->text : character);
        i += character.size();
      }
    }
    text_ = out.take();
  }

  void operator()(const SentencePieceRules& rules) {
    const std::string_view space = rules.escape_spaces ? kSpaceSymbol : " ";
    std::string_view rest = text_;
    if (rules.remove_extra_spaces) {
      for (auto [size, piece] = mapped(rules, rest); !rest.empty() && piece == " ";
           std::tie(size, piece) = mapped(rules, rest))
        rest.remove_prefix(size);
    }
    if (rest.empty()) return text_.clear();
    const bool prefixed = rules.add_prefix && (rules.prefix_inside || at_start_);
    Output out(limit_, text_.size());
    if (prefixed && !rules.prefix_is_suffix) out.append(space);
    bool after_space = rules.remove_extra_spaces;
    while (!rest.empty()) {
      auto [size, piece] = mapped(rules, rest);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      for (const char& c : piece) out.append(c == ' ' ? space : std::string_view(&c, 1));
      if (!piece.empty()) after_space = rules.remove_extra_spaces && piece.ends_with(' ');
      rest.remove_prefix(size);
    }
    while (rules.remove_extra_spaces && out.text().ends_with(space)) out.drop_last(space.size());
    if (prefixed && rules.prefix_is_suffix) out.append(space);
    text_ = out.take();
  }

  std::string take() { return std::move(text_); }

 private:
  std::size_t grapheme_size(std::size_t begin) const {
    Utf8Step last = read_utf8(text_, begin);
    std::size_t end = begin + last.size;
    for (utf8proc_int32_t state = 0; end < text_.size();) {
      const Utf8Step next = read_utf8(text_, end);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.code),
                                           static_cast<utf8proc_int32_t>(next.code), &state))
        break;
      end += next.size;
      last = next;
    }
    return end - begin;
  }

  // Returns how many bytes of a text, which may be empty, the next rule takes, and what they become.
  static std::pair<std::size_t, std::string_view> mapped(const SentencePieceRules& rules, std::string_view text) {
    if (text.empty()) return {};
    if (rules.kept) {
      if (const Trie::Match match = rules.kept->longest_prefix(text); match.value >= 0)
        return {match.size, text.substr(0, match.size)};
    }
    if (rules.charsmap) {
      if (const auto rule = rules.charsmap->longest(text)) return {rule->size, rule->text};
    }
    const std::size_t size = read_utf8(text, 0).size;
    return {size, text.substr(0, size)};
  }

  std::string text_;
  std::size_t limit_;
  bool at_start_;
  RegexScratch scratch_;
};

// Returns how many times longer than its result a text can be after one step; 0 if there is no limit.
struct Shrinking {
  std::size_t operator()(NormalForm) const { return 4; }  // four bytes become one: U+1D400 is a letter A
  std::size_t operator()(const ReplaceText& step) const {
    const auto* text = std::get_if<std::string>(&step.pattern);
    return text && step.content.size() >= text->size() ? 1 : 0;
  }
  std::size_t operator()(const PrependText&) const { return 1; }
  std::size_t operator()(Lowercase) const { return 3; }  // U+212A, the sign of Kelvin, is a letter k
  std::size_t operator()(StripSpaces) const { return 0; }
  std::size_t operator()(const MapGraphemes&) const { return 0; }
  std::size_t operator()(const SentencePieceRules& rules) const {
    return !rules.charsmap && !rules.remove_extra_spaces ? 1 : 0;
  }
};

}  // namespace

void find_pattern(const TextPattern& pattern, std::string_view text, RegexScratch& scratch, std::vector<Span>& out) {
  if (const auto* regex = std::get_if<Regex>(&pattern)) return regex->find_all(text, scratch, out);
  const auto& needle = std::get<std::string>(pattern);
  for (std::size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + needle.size()))
    out.push_back({at, at + needle.size()});
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text, bool at_start) {
  if (steps.empty()) return std::string(text);
  Normalizing normalizing(text, at_start);
  for (const NormalizerStep& step : steps) std::visit(normalizing, step);
  return normalizing.take();
}

std::size_t most_shrinking(const std::vector<NormalizerStep>& steps) {
  std::size_t times = 1;
  for (const NormalizerStep& step : steps) times *= std::visit(Shrinking(), step);
  return times;
}

}  // namespace foe

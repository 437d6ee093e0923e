#include "tokenizer/unigram.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

// The best way to cut a word up to one of its bytes: its last token, and where that begins (-1: there is no way).
struct Path {
  double score = 0;
  std::int32_t begin = -1;
  std::int32_t id = -1;
};

std::vector<Path> best_paths(const Unigram& unigram, std::string_view word) {
  std::vector<Path> paths(word.size() + 1);
  for (std::size_t at = 0; at < word.size();) {
    const double here = paths[at].score;
    const auto offer = [&](std::size_t size, std::int32_t id, double score) {
      Path& path = paths[at + size];
      const double sum = score + here;
      if (path.begin >= 0 && sum <= path.score) return;
      path = {unigram.single_precision ? static_cast<float>(sum) : sum, static_cast<std::int32_t>(at), id};
    };
    const std::size_t character = read_utf8(word, at).size;
    bool known = false;
    unigram.words.for_each_prefix(word.substr(at), [&](Trie::Match match) {
      offer(match.size, match.value, unigram.scores[static_cast<std::size_t>(match.value)]);
      known = known || match.size == character;
    });
    if (!known) {
      if (unigram.unknown_id < 0)
        fail("text: expected characters of the vocabulary, as the tokenizer has no unknown token, got '{}'",
             word.substr(at, character));
      offer(character, unigram.unknown_id, unigram.unknown_score);
    }
    at += character;
  }
  return paths;
}

// Appends the ids of a run of unknown characters.
void append_unknown(const Unigram& unigram, std::string_view run, std::vector<std::int32_t>& ids) {
  const auto id_of = [&](char c) { return unigram.byte_ids[static_cast<std::uint8_t>(c)]; };
  if (const std::int32_t token = unigram.words.find(run); token >= 0) {
    ids.push_back(token);
  } else if (std::none_of(run.begin(), run.end(), [&](char c) { return id_of(c) < 0; })) {
    for (const char c : run) ids.push_back(id_of(c));
  } else {
    ids.push_back(unigram.unknown_id);
  }
}

}  // namespace

void encode_word(const Unigram& unigram, std::string_view word, std::vector<std::int32_t>& ids) {
  FOE_CHECK(word.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), "{}", word.size());
  const std::vector<Path> paths = best_paths(unigram, word);
  std::vector<std::size_t> ends;  // of the tokens, the last one first
  for (std::size_t end = word.size(); end > 0; end = static_cast<std::size_t>(paths[end].begin)) ends.push_back(end);
  std::size_t run = 0;  // where the current run of unknown characters begins
  bool in_run = false;
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Path& path = paths[*end];
    const auto begin = static_cast<std::size_t>(path.begin);
    if (path.id == unigram.unknown_id) {
      if (!in_run) run = begin;
      in_run = true;
      continue;
    }
    if (in_run) append_unknown(unigram, word.substr(run, begin - run), ids);
    in_run = false;
    ids.push_back(path.id);
  }
  if (in_run) append_unknown(unigram, word.substr(run), ids);
}

}  // namespace foe

#include "tokenizer/model.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/utf8.h"
#include "tokenizer/byte_level.h"

namespace foe {
namespace {

using Kind = VocabEntry::Kind;
using Names = std::unordered_map<std::string_view, std::int32_t>;

bool byte_is_in_utf8(std::size_t byte) {
  return byte < 0xf5 && byte != 0xc0 && byte != 0xc1;
}

// Returns the bytes that an entry is in a word; nothing if no part of a word becomes it.
std::optional<std::string> word_of(const TokenizerSpec& spec, const VocabEntry& entry) {
  if (entry.kind == Kind::kNotText) return std::nullopt;
  return spec.byte_level ? from_byte_level(entry.name) : entry.name;
}

void check_scored(const std::string& word, const VocabEntry& entry) {
  if (word.size() > kMaxScoredTokenBytes)
    fail("expected tokens of at most {} bytes, got {}: '{}...'", kMaxScoredTokenBytes, word.size(),
         entry.name.substr(0, 40));
}

std::array<std::int32_t, 256> named_bytes(const TokenizerSpec& spec, const Names& names) {
  std::array<std::int32_t, 256> ids = no_byte_ids();
  for (unsigned byte = 0; spec.byte_fallback && byte < 256; ++byte)
    if (const auto found = names.find(byte_name(byte)); found != names.end()) ids[byte] = found->second;
  return ids;
}

// -- BPE ------------------------------------------------------------------------------------------------------------

std::int32_t merge_token(const Names& names, const std::string& name, std::size_t rank) {
  const auto found = names.find(name);
  if (found == names.end())
    fail("model.merges[{}]: expected tokens of the vocabulary, got '{}'", rank, name.substr(0, 100));
  return found->second;
}

MergeTable listed_merges(const std::vector<std::pair<std::string, std::string>>& merges, const Names& names) {
  MergeTable table(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::int32_t result = merge_token(names, left + right, rank);
    table.insert(merge_token(names, left, rank), merge_token(names, right, rank),
                 {static_cast<std::uint32_t>(rank), result});
  }
  return table;
}

// Makes all merges whose result is a token. The limits are far above what real vocabularies need.
class MergeFinder {
 public:
  MergeFinder(const TokenizerSpec& spec, Bpe& bpe) : spec_(spec), bpe_(bpe), most_(65536 + 32 * spec.vocab.size()) {
    std::int32_t largest = -1;
    for (const VocabEntry& entry : spec.vocab) {
      largest = std::max(largest, entry.id);
      if (entry.kind == Kind::kWord) add_word(entry);
    }
    for (const AddedToken& token : spec.added_tokens) largest = std::max(largest, token.id);
    bpe.first_part = largest + 1;
    std::uint32_t rank = 0;
    for (auto& [score, its_rank] : ranks_) its_rank = rank++;
  }

  void run() {
    for (const auto& [word, entry] : words_) {
      const std::uint32_t rank = ranks_.at(entry->score);
      for (std::size_t cut = step(word, 0); cut < word.size(); cut += step(word, cut)) {
        const std::string_view whole = word;
        const std::int32_t left = symbol(whole.substr(0, cut)), right = symbol(whole.substr(cut));
        if (left < 0 || right < 0) continue;
        bpe_.merges.insert(left, right, {rank, entry->id});
        if (++count_ > most_)
          fail("expected at most {} merges in a vocabulary of {} tokens, got more", most_, spec_.vocab.size());
      }
    }
  }

 private:
  void add_word(const VocabEntry& entry) {
    const auto word = word_of(spec_, entry);
    if (!word) return;
    check_scored(*word, entry);
    if (!words_.emplace(*word, &entry).second) fail("expected every token once, got '{}' twice", entry.name);
    ranks_.emplace(entry.score, 0);
  }

  std::size_t step(std::string_view word, std::size_t at) const {
    return bpe_.symbols_are_bytes ? 1 : read_utf8(word, at).size;
  }

  // Returns the id of a token, or of a character that is only part of tokens; -1 for anything else.
  std::int32_t symbol(std::string_view text) {
    if (const auto found = words_.find(text); found != words_.end()) return found->second->id;
    if (bpe_.symbols_are_bytes || read_utf8(text, 0).size != text.size()) return -1;
    const char32_t character = read_utf8(text, 0).code;
    const auto next = bpe_.first_part + static_cast<std::int32_t>(bpe_.parts.size());
    const auto [place, is_new] = bpe_.character_ids.try_emplace(character, next);
    if (is_new) bpe_.parts.push_back(character);
    return place->second;
  }

  const TokenizerSpec& spec_;
  Bpe& bpe_;
  std::size_t most_, count_ = 0;
  TextMap<const VocabEntry*> words_;
  std::map<double, std::uint32_t, std::greater<>> ranks_;  // of scores, the highest one first
};

void add_word(const std::string& word, const VocabEntry& entry, Bpe& bpe) {
  if (entry.kind == Kind::kWhole) return bpe.whole.insert(word, entry.id);
  if (bpe.symbols_are_bytes) {
    if (word.size() == 1) bpe.byte_ids[static_cast<std::uint8_t>(word[0])] = entry.id;
  } else if (const Utf8Step first = read_utf8(word, 0); first.size == word.size()) {
    bpe.character_ids.emplace(first.code, entry.id);
  }
}

Bpe make_bpe(const TokenizerSpec& spec, const Names& names) {
  Bpe bpe;
  bpe.symbols_are_bytes = spec.byte_level;
  bpe.byte_ids = named_bytes(spec, names);
  for (const VocabEntry& entry : spec.vocab)
    if (const auto word = word_of(spec, entry)) add_word(*word, entry, bpe);
  bpe.unknown_id = spec.unknown_id.value_or(-1);
  bpe.fuse_unknown = spec.fuse_unknown;
  if (spec.merges) {
    bpe.merges = listed_merges(*spec.merges, names);
  } else {
    MergeFinder(spec, bpe).run();
  }
  return bpe;
}

// -- Unigram --------------------------------------------------------------------------------------------------------

Unigram make_unigram(const TokenizerSpec& spec, const Names& names) {
  Unigram unigram;
  unigram.scores.resize(spec.vocab.size());
  for (const VocabEntry& entry : spec.vocab) {  // ids are indices
    unigram.scores[static_cast<std::size_t>(entry.id)] = entry.score;
    if (entry.kind != Kind::kWord) continue;
    check_scored(entry.name, entry);
    unigram.words.insert(entry.name, entry.id);
  }
  unigram.unknown_score = spec.unknown_score;
  unigram.unknown_id = spec.unknown_id.value_or(-1);
  unigram.byte_ids = named_bytes(spec, names);
  unigram.single_precision = spec.single_precision;
  return unigram;
}

bool has_all_bytes(const std::array<std::int32_t, 256>& ids) {
  for (std::size_t byte = 0; byte < ids.size(); ++byte)
    if (byte_is_in_utf8(byte) && ids[byte] < 0) return false;
  return true;
}

}  // namespace

WordModel::WordModel(const TokenizerSpec& spec, const Names& names) {
  if (spec.model == TokenizerSpec::Model::kUnigram) {
    Unigram unigram = make_unigram(spec, names);
    knows_all_ = keeps_all_ = has_all_bytes(unigram.byte_ids);
    model_ = std::move(unigram);
    return;
  }
  Bpe bpe = make_bpe(spec, names);
  knows_all_ = has_all_bytes(bpe.byte_ids);
  keeps_all_ = knows_all_ || (bpe.unknown_id >= 0 && !bpe.fuse_unknown);
  model_ = std::move(bpe);
  if (!spec.ignore_merges) return;
  for (const VocabEntry& entry : spec.vocab)
    if (auto word = word_of(spec, entry)) words_.emplace(std::move(*word), entry.id);
}

void WordModel::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (!words_.empty()) {
    if (const auto whole = words_.find(word); whole != words_.end()) return ids.push_back(whole->second);
  }
  std::visit([&](const auto& model) { encode_word(model, word, ids); }, model_);
}

}  // namespace foe

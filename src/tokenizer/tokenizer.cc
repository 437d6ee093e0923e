#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/text_file.h"
#include "text/utf8.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace foe {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

struct TokenEntry {
  std::string name;   // its name in the file
  std::string bytes;  // the bytes that it decodes to
  bool exists = false;
  bool special = false;
};

std::string normalize_all(std::string_view text, const std::vector<NormalForm>& forms) {
  std::string result(text);
  for (const NormalForm form : forms) result = normalize(result, form);
  return result;
}

std::size_t table_size(const TokenizerSpec& spec) {
  std::int32_t largest = -1;
  for (const VocabEntry& entry : spec.vocab) largest = std::max(largest, entry.id);
  for (const AddedToken& token : spec.added_tokens) largest = std::max(largest, token.id);
  return static_cast<std::size_t>(largest + 1);
}

// Returns a matcher of the added tokens that match before (or after) normalisation.
AddedTokenMatcher make_matcher(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized) token.content = normalize_all(token.content, spec.normal_forms);
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(std::move(tokens));
}

bool is_lossless(const TokenizerSpec& spec) {
  const auto& steps = spec.pre_tokenizer.steps;
  return spec.normal_forms.empty() && !spec.pre_tokenizer.add_prefix_space &&
         std::none_of(steps.begin(), steps.end(), [](auto& s) { return s.behavior == SplitBehavior::kRemoved; }) &&
         std::none_of(spec.added_tokens.begin(), spec.added_tokens.end(), [](auto& t) { return t.lstrip || t.rstrip; });
}

}  // namespace

struct Tokenizer::Tables {
  std::vector<TokenEntry> tokens;                            // by id; never resized, so that views stay valid
  std::unordered_map<std::string_view, std::int32_t> names;  // name -> id
  std::unordered_map<std::string_view, std::int32_t> words;  // bytes -> id, if ignore_merges
  Bpe bpe;
  AddedTokenMatcher raw_added, normalized_added;
  std::vector<NormalForm> normal_forms;
  PreTokenizer pre_tokenizer;
  std::vector<std::int32_t> prefix_ids, suffix_ids;
  bool lossless = false;
  std::size_t longest = 1;  // bytes of the longest token

  explicit Tables(TokenizerSpec spec);
  void add(std::string name, std::string bytes, std::int32_t id);
  void add_vocab(TokenizerSpec& spec);
  void add_added_tokens(const TokenizerSpec& spec);
  void check_bytes() const;
  void add_merges(const TokenizerSpec& spec);
  void check_added_ids(const std::vector<std::int32_t>& ids) const;
  std::int32_t merge_token(const std::string& name, std::size_t rank) const;
  const TokenEntry* find(std::int32_t id) const;
  void encode_text(std::string_view text, RegexScratch& scratch, std::vector<std::int32_t>& ids) const;
  void append(std::string& out, std::int32_t id, bool skip_special_tokens) const;
};

Tokenizer::Tables::Tables(TokenizerSpec spec)
    : tokens(table_size(spec)),
      raw_added(make_matcher(spec, false)),
      normalized_added(make_matcher(spec, true)),
      normal_forms(spec.normal_forms),
      pre_tokenizer(spec.pre_tokenizer),
      prefix_ids(spec.prefix_ids),
      suffix_ids(spec.suffix_ids),
      lossless(is_lossless(spec)) {
  add_vocab(spec);
  check_bytes();
  add_merges(spec);
  add_added_tokens(spec);
  check_added_ids(prefix_ids);
  check_added_ids(suffix_ids);
  for (const TokenEntry& token : tokens) longest = std::max(longest, token.bytes.size());
}

void Tokenizer::Tables::add(std::string name, std::string bytes, std::int32_t id) {
  TokenEntry& entry = tokens[static_cast<std::size_t>(id)];
  if (entry.exists) fail("id {}: expected one token, got '{}' and '{}'", id, entry.name, name);
  entry = {std::move(name), std::move(bytes), true, false};
  names.emplace(entry.name, id);
}

void Tokenizer::Tables::add_vocab(TokenizerSpec& spec) {
  bpe.byte_ids.fill(-1);
  // Control tokens may be in the vocabulary, too, spelt with characters outside the byte-level alphabet.
  std::unordered_map<std::string_view, std::int32_t> added;
  for (const AddedToken& token : spec.added_tokens) added.emplace(token.content, token.id);
  for (VocabEntry& entry : spec.vocab) {
    const bool listed = added.contains(entry.token);
    std::optional<std::string> bytes = from_byte_level(entry.token);
    if (!bytes && !listed) {
      fail("model.vocab: '{}' (id {}) has characters outside the byte-level alphabet", entry.token, entry.id);
    }
    if (bytes && listed && *bytes != entry.token) {
      fail("added_tokens: '{}' is ambiguous: the vocabulary has it for other bytes", entry.token);
    }
    if (!bytes) {
      add(entry.token, entry.token, entry.id);
      continue;
    }
    add(entry.token, std::move(*bytes), entry.id);
    const std::string& word = tokens[static_cast<std::size_t>(entry.id)].bytes;
    if (word.size() == 1) bpe.byte_ids[static_cast<std::uint8_t>(word[0])] = entry.id;
    if (spec.ignore_merges) words.emplace(word, entry.id);
  }
}

void Tokenizer::Tables::add_added_tokens(const TokenizerSpec& spec) {
  for (const AddedToken& token : spec.added_tokens) {
    const auto known = names.find(token.content);
    if (known == names.end()) {
      // A token that is looked for in normalised text decodes to its normalised form.
      add(token.content, token.normalized ? normalize_all(token.content, spec.normal_forms) : token.content, token.id);
    } else if (known->second != token.id) {
      fail("added_tokens: '{}' has id {}, but {} in the vocabulary", token.content, token.id, known->second);
    }
    tokens[static_cast<std::size_t>(token.id)].special = token.special;
  }
}

void Tokenizer::Tables::check_bytes() const {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool in_utf8 = byte < 0xf5 && byte != 0xc0 && byte != 0xc1;
    if (in_utf8 && bpe.byte_ids[byte] < 0) {
      fail("model.vocab: expected a token for every byte, got none for {:#04x}", byte);
    }
  }
}

std::int32_t Tokenizer::Tables::merge_token(const std::string& name, std::size_t rank) const {
  const auto found = names.find(name);
  if (found == names.end()) {
    fail("model.merges[{}]: expected tokens of the vocabulary, got '{}'", rank, name.substr(0, 100));
  }
  return found->second;
}

void Tokenizer::Tables::add_merges(const TokenizerSpec& spec) {
  bpe.merges = MergeTable(spec.merges.size());
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const std::int32_t result = merge_token(left + right, rank);
    bpe.merges.insert(merge_token(left, rank), merge_token(right, rank), {static_cast<std::uint32_t>(rank), result});
  }
}

void Tokenizer::Tables::check_added_ids(const std::vector<std::int32_t>& ids) const {
  for (const std::int32_t id : ids) {
    if (!find(id)) fail("post_processor.special_tokens: expected ids of tokens, got {}", id);
  }
}

const TokenEntry* Tokenizer::Tables::find(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= tokens.size()) return nullptr;
  const TokenEntry& entry = tokens[static_cast<std::size_t>(id)];
  return entry.exists ? &entry : nullptr;
}

void Tokenizer::Tables::encode_text(std::string_view text, RegexScratch& scratch,
                                    std::vector<std::int32_t>& ids) const {
  pre_tokenize(pre_tokenizer, text, scratch, [&](std::string_view word) {
    if (const auto whole = words.find(word); whole != words.end()) {
      ids.push_back(whole->second);
    } else {
      encode_word(bpe, word, ids);
    }
  });
}

void Tokenizer::Tables::append(std::string& out, std::int32_t id, bool skip_special_tokens) const {
  const TokenEntry* token = find(id);
  if (token && !(skip_special_tokens && token->special)) out += token->bytes;
}

Tokenizer Tokenizer::load(const std::string& path) {
  const std::string json = read_text_file(path, kMaxTokenizerFileBytes);
  try {
    return from_json(json);
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
}

Tokenizer Tokenizer::from_json(std::string_view json) {
  return Tokenizer(std::make_shared<const Tables>(parse_tokenizer_json(json)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() >= kMaxTextBytes) fail("text: expected fewer than {} bytes, got {}", kMaxTextBytes, text.size());
  check_utf8(text, "text");
  const Tables& t = *tables_;
  RegexScratch scratch;
  std::vector<std::int32_t> ids;
  if (options.add_special_tokens) ids = t.prefix_ids;
  const auto push_id = [&](std::int32_t id) { ids.push_back(id); };
  const auto push_normalized = [&](std::string_view piece) {
    t.normalized_added.split(piece, options.parse_special, push_id,
                             [&](std::string_view rest) { t.encode_text(rest, scratch, ids); });
  };
  t.raw_added.split(text, options.parse_special, push_id, [&](std::string_view piece) {
    if (t.normal_forms.empty()) return push_normalized(piece);
    push_normalized(normalize_all(piece, t.normal_forms));
  });
  if (options.add_special_tokens) ids.insert(ids.end(), t.suffix_ids.begin(), t.suffix_ids.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const std::int32_t id : ids) tables_->append(bytes, id, skip_special_tokens);
  std::string text;
  text.reserve(bytes.size());
  append_lossy_utf8(text, bytes, /*last=*/true);
  return text;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  const TokenEntry* token = tables_->find(id);
  return token ? std::string_view(token->bytes) : std::string_view();
}

std::size_t Tokenizer::longest_token() const {
  return tables_->longest;
}

int Tokenizer::vocab_size() const {
  return static_cast<int>(tables_->tokens.size());
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view name) const {
  const auto found = tables_->names.find(name);
  if (found == tables_->names.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(std::int32_t id) const {
  const TokenEntry* token = tables_->find(id);
  return token && token->special;
}

bool Tokenizer::lossless() const {
  return tables_->lossless;
}

std::string StreamDecoder::push(std::int32_t id) {
  if (!(skip_special_tokens_ && tokenizer_.is_special(id))) pending_ += tokenizer_.token_bytes(id);
  std::string text;
  pending_.erase(0, append_lossy_utf8(text, pending_, /*last=*/false));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_lossy_utf8(text, pending_, /*last=*/true);
  pending_.clear();
  return text;
}

}  // namespace foe

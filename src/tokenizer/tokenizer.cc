#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/text_file.h"
#include "text/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/model.h"
#include "tokenizer/model_files.h"
#include "tokenizer/tokenizer_json.h"

namespace foe {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;
// The bytes of all tokens together. A decoder may make them longer than their names.
constexpr std::size_t kMaxBytesOfTokens = std::size_t{256} << 20;

struct TokenEntry {
  std::string name;   // its name in the file
  std::string bytes;  // the bytes that it decodes to, unless it begins a text
  bool exists = false;
  bool special = false;
  bool byte = false;  // a byte that an unknown character consists of
};

std::size_t table_size(const TokenizerSpec& spec) {
  std::int32_t largest = -1;
  for (const VocabEntry& entry : spec.vocab) largest = std::max(largest, entry.id);
  for (const AddedToken& token : spec.added_tokens) largest = std::max(largest, token.id);
  return static_cast<std::size_t>(largest + 1);
}

// Returns the text that an added token is looked for as.
std::string sought_text(const TokenizerSpec& spec, const AddedToken& token) {
  if (!token.normalized) return token.content;
  std::string text = normalize(spec.normalizer, token.content, /*at_start=*/false);
  if (text.empty()) fail("added_tokens: expected a text after normalisation, got nothing of '{}'", token.content);
  return text;
}

bool has_regex(const NormalizerStep& step) {
  const auto* replace = std::get_if<ReplaceText>(&step);
  return replace && std::holds_alternative<Regex>(replace->pattern);
}

// A regular expression may take a long time for each text.
void check_normalized(const TokenizerSpec& spec) {
  constexpr std::ptrdiff_t kMost = 1024;
  const auto count =
      std::count_if(spec.added_tokens.begin(), spec.added_tokens.end(), [](auto& t) { return t.normalized; });
  if (count > kMost && std::any_of(spec.normalizer.begin(), spec.normalizer.end(), has_regex))
    fail("added_tokens: expected at most {} that a regular expression normalises, got {}", kMost, count);
}

// Returns a matcher of the added tokens that match before (or after) normalisation.
AddedTokenMatcher make_matcher(const TokenizerSpec& spec, bool normalized) {
  check_normalized(spec);
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    token.content = sought_text(spec, token);
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(std::move(tokens));
}

bool removes_delimiters(const PreTokenizerStep& step) {
  const auto* split = std::get_if<SplitStep>(&step);
  return split && split->behavior == SplitBehavior::kRemoved;
}

bool strips_spaces(const AddedToken& token) {
  return token.lstrip || token.rstrip;
}

// Whether every part of a normalised text is in a word or an added token.
bool covers_text(const TokenizerSpec& spec) {
  return std::none_of(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(), removes_delimiters) &&
         std::none_of(spec.added_tokens.begin(), spec.added_tokens.end(), strips_spaces);
}

bool is_lossless(const TokenizerSpec& spec, const WordModel& model) {
  const auto rewrites = [](const PreTokenizerStep& step) { return !std::holds_alternative<SplitStep>(step); };
  return spec.byte_level && spec.normalizer.empty() && covers_text(spec) && model.knows_all() &&
         std::none_of(spec.pre_tokenizer.begin(), spec.pre_tokenizer.end(), rewrites);
}

}  // namespace

struct Tokenizer::Tables {
  std::vector<TokenEntry> tokens;                            // by id; never resized, so that views stay valid
  std::unordered_map<std::string_view, std::int32_t> names;  // name -> id
  AddedTokenMatcher raw_added, normalized_added;
  std::vector<NormalizerStep> normalizer;
  PreTokenizer pre_tokenizer;
  DecoderSpec decoder;
  std::vector<std::int32_t> prefix_ids, suffix_ids;
  std::optional<std::int32_t> end_id;
  std::vector<std::string> notes;
  std::string digest;
  std::optional<WordModel> model;
  bool lossless = false;
  std::size_t bytes_per_token = 0;
  std::size_t total_bytes = 0;

  explicit Tables(const TokenizerSpec& spec);
  void add(std::string name, std::string bytes, std::int32_t id);
  void add_vocab(const TokenizerSpec& spec);
  void add_added_tokens(const TokenizerSpec& spec);
  void set_texts(const TokenizerSpec& spec);
  void check_added_ids(const std::vector<std::int32_t>& ids) const;
  const TokenEntry* find(std::int32_t id) const;
  std::size_t most_bytes_per_token(const TokenizerSpec& spec) const;
  void encode_piece(std::string_view text, bool at_start, bool parse_special, RegexScratch& scratch,
                    std::vector<std::int32_t>& ids) const;
};

Tokenizer::Tables::Tables(const TokenizerSpec& spec)
    : tokens(table_size(spec)),
      raw_added(make_matcher(spec, false)),
      normalized_added(make_matcher(spec, true)),
      normalizer(spec.normalizer),
      pre_tokenizer(spec.pre_tokenizer),
      decoder(spec.decoder),
      prefix_ids(spec.prefix_ids),
      suffix_ids(spec.suffix_ids),
      end_id(spec.end_id),
      notes(spec.notes),
      digest(spec.digest) {
  add_vocab(spec);
  model.emplace(spec, names);
  add_added_tokens(spec);
  set_texts(spec);
  check_added_ids(prefix_ids);
  check_added_ids(suffix_ids);
  lossless = is_lossless(spec, *model);
  bytes_per_token = most_bytes_per_token(spec);
}

void Tokenizer::Tables::add(std::string name, std::string bytes, std::int32_t id) {
  TokenEntry& entry = tokens[static_cast<std::size_t>(id)];
  if (entry.exists) fail("id {}: expected one token, got '{}' and '{}'", id, entry.name, name);
  total_bytes += bytes.size();
  if (total_bytes > kMaxBytesOfTokens) fail("expected tokens of {} bytes in all, got more", kMaxBytesOfTokens);
  const bool byte = decoder.byte_fallback && bytes.size() == 1 && named_byte(name).has_value();
  entry = {std::move(name), std::move(bytes), true, false, byte};
  names.insert_or_assign(entry.name, id);
}

void Tokenizer::Tables::add_vocab(const TokenizerSpec& spec) {
  // Control tokens may be in the vocabulary, too, spelt with characters outside the byte-level alphabet.
  std::unordered_map<std::string_view, std::int32_t> added;
  if (spec.byte_level)
    for (const AddedToken& token : spec.added_tokens) added.emplace(token.content, token.id);
  for (const VocabEntry& entry : spec.vocab) {
    if (!spec.byte_level) {
      add(entry.name, decode_name(decoder, entry.name, /*first=*/false), entry.id);
      continue;
    }
    const bool listed = added.contains(entry.name);
    std::optional<std::string> bytes = from_byte_level(entry.name);
    if (!bytes && !listed)
      fail("model.vocab: '{}' (id {}) has characters outside the byte-level alphabet", entry.name, entry.id);
    if (bytes && listed && *bytes != entry.name)
      fail("added_tokens: '{}' is ambiguous: the vocabulary has it for other bytes", entry.name);
    add(entry.name, bytes ? std::move(*bytes) : entry.name, entry.id);
  }
}

void Tokenizer::Tables::add_added_tokens(const TokenizerSpec& spec) {
  for (const AddedToken& token : spec.added_tokens) {
    const auto known = names.find(token.content);
    if (known == names.end()) {
      // A token that is looked for in normalised text decodes to its normalised form.
      const std::string text = sought_text(spec, token);
      add(token.content, spec.byte_level ? text : decode_name(decoder, text, /*first=*/false), token.id);
    } else if (known->second != token.id) {
      fail("added_tokens: '{}' has id {}, but {} in the vocabulary", token.content, token.id, known->second);
    }
    tokens[static_cast<std::size_t>(token.id)].special = token.special;
  }
}

void Tokenizer::Tables::set_texts(const TokenizerSpec& spec) {
  for (const auto& [id, text] : spec.texts) tokens[static_cast<std::size_t>(id)].bytes = text;
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

std::size_t Tokenizer::Tables::most_bytes_per_token(const TokenizerSpec& spec) const {
  if (!covers_text(spec) || !model->keeps_all()) return 0;
  std::size_t longest = 4;  // an unknown character
  // Names that are not in the byte-level alphabet are longer than their bytes where a symbol stands for a space.
  for (const TokenEntry& token : tokens)
    longest = std::max({longest, token.bytes.size(), spec.byte_level ? 0 : token.name.size()});
  return longest * most_shrinking(spec.normalizer);
}

// Appends the ids of a text between added tokens that are looked for before normalisation.
void Tokenizer::Tables::encode_piece(std::string_view text, bool at_start, bool parse_special, RegexScratch& scratch,
                                     std::vector<std::int32_t>& ids) const {
  const std::string own = normalizer.empty() ? std::string() : normalize(normalizer, text, at_start);
  const std::string_view normalized = normalizer.empty() ? text : own;
  const auto push_id = [&](std::int32_t id) { ids.push_back(id); };
  normalized_added.split(normalized, parse_special, push_id, [&](std::string_view rest) {
    pre_tokenize(pre_tokenizer, rest, at_start && rest.data() == normalized.data(), scratch,
                 [&](std::string_view word) { model->encode(word, ids); });
  });
}

bool Tokenizer::exists(const std::string& model_dir) {
  return !find_tokenizer_file(model_dir).empty();
}

Tokenizer Tokenizer::of_model(const std::string& model_dir) {
  const std::string path = find_tokenizer_file(model_dir);
  const TokenizerSpec spec = load_tokenizer_spec(model_dir);
  try {
    return from_spec(spec);
  } catch (const Error& error) {
    fail("{}: {}", path, error.what());
  }
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
  return from_spec(parse_tokenizer_json(json));
}

Tokenizer Tokenizer::from_spec(const TokenizerSpec& spec) {
  return Tokenizer(std::make_shared<const Tables>(spec));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() >= kMaxTextBytes) fail("text: expected fewer than {} bytes, got {}", kMaxTextBytes, text.size());
  check_utf8(text, "text");
  const Tables& t = *tables_;
  RegexScratch scratch;
  std::vector<std::int32_t> ids;
  if (options.add_special_tokens) ids = t.prefix_ids;
  const auto push_id = [&](std::int32_t id) { ids.push_back(id); };
  t.raw_added.split(text, options.parse_special, push_id, [&](std::string_view piece) {
    t.encode_piece(piece, piece.data() == text.data(), options.parse_special, scratch, ids);
  });
  if (options.add_special_tokens) ids.insert(ids.end(), t.suffix_ids.begin(), t.suffix_ids.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  StreamDecoder decoder(*this, skip_special_tokens);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  const TokenEntry* token = tables_->find(id);
  return token ? std::string_view(token->bytes) : std::string_view();
}

std::string_view Tokenizer::token_name(std::int32_t id) const {
  const TokenEntry* token = tables_->find(id);
  return token ? std::string_view(token->name) : std::string_view();
}

std::size_t Tokenizer::bytes_per_token() const {
  return tables_->bytes_per_token;
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

std::vector<std::int32_t> Tokenizer::end_ids(std::vector<std::int32_t> of_model) const {
  const auto& end = tables_->end_id;
  if (end && std::find(of_model.begin(), of_model.end(), *end) == of_model.end()) of_model.push_back(*end);
  return of_model;
}

std::vector<std::string> Tokenizer::notes(int model_vocab_size) const {
  std::vector<std::string> notes = tables_->notes;
  if (vocab_size() > model_vocab_size)
    notes.push_back(
        fmt::format("the tokenizer has ids up to {}, but the model only has {}: texts that need others are "
                    "refused",
                    vocab_size() - 1, model_vocab_size));
  return notes;
}

const std::string& Tokenizer::digest() const {
  return tables_->digest;
}

void Tokenizer::check_ids(std::span<const std::int32_t> ids, int model_vocab_size) const {
  for (const std::int32_t id : ids) {
    if (id >= model_vocab_size)
      fail("expected tokens of the model, which has {}, got {} ('{}')", model_vocab_size, id,
           tables_->find(id) ? tables_->find(id)->name : "");
  }
}

void StreamDecoder::append(std::int32_t id) {
  const TokenEntry* token = tokenizer_.tables_->find(id);
  if (!token || (skip_special_tokens_ && token->special)) return;
  start_.append(tokenizer_.tables_->decoder, {token->name, token->bytes, token->special, token->byte}, pending_);
}

void StreamDecoder::begin_after(std::span<const std::int32_t> ids) {
  for (auto id = ids.begin(); id != ids.end() && !start_.over(); ++id) append(*id);
  pending_.clear();
}

std::string StreamDecoder::push(std::int32_t id) {
  append(id);
  std::string text;
  pending_.erase(0, append_lossy_utf8(text, pending_, /*last=*/false, tokenizer_.tables_->decoder.byte_fallback));
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  append_lossy_utf8(text, pending_, /*last=*/true, tokenizer_.tables_->decoder.byte_fallback);
  pending_.clear();
  start_ = {};
  return text;
}

}  // namespace foe

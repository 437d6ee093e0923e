#include "tokenizer/tiktoken_file.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "text/base64.h"
#include "tokenizer/byte_level.h"

namespace foe {
namespace {

// moonshotai/Kimi-K2-Instruct, tokenization_kimi.py
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// tencent/Hunyuan-A13B-Instruct, tokenization_hy.py
constexpr std::string_view kHunyuanPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Line {
  std::string bytes;
  std::int32_t rank = -1;  // -1: this is no such line
};

Line read_line(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return {};
  const auto bytes = decode_base64(line.substr(0, space));
  std::int32_t rank = -1;
  const char* end = line.data() + line.size();
  const auto [stopped, error] = std::from_chars(line.data() + space + 1, end, rank);
  if (!bytes || bytes->empty() || error != std::errc() || stopped != end || rank < 0) return {};
  return {*bytes, rank};
}

std::string_view next_line(std::string_view& rest) {
  const std::size_t size = std::min(rest.find('\n'), rest.size());
  std::string_view line = rest.substr(0, size);
  rest.remove_prefix(std::min(size + 1, rest.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

bool is_tiktoken_file(std::string_view text) {
  return read_line(next_line(text)).rank >= 0;
}

TiktokenRules tiktoken_rules(std::string_view tokenizer_class) {
  if (tokenizer_class == "TikTokenTokenizer") return {std::string(kKimiPattern)};
  if (tokenizer_class == "HYTokenizer") return {std::string(kHunyuanPattern), {NormalForm::kNfc}};
  return {};
}

TokenizerSpec parse_tiktoken_file(std::string_view text, const TiktokenRules& rules) {
  TokenizerSpec spec;
  spec.byte_level = true;
  spec.decoder.byte_level = true;
  spec.ignore_merges = true;
  spec.normalizer = rules.normalizer;
  spec.pre_tokenizer.push_back(SplitStep{Regex(rules.pattern), SplitBehavior::kIsolated, false});
  std::array<bool, 256> known{};
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = next_line(text);
    if (line.empty()) continue;
    const Line read = read_line(line);
    if (read.rank < 0 || read.rank > max_token_id(lines) || read.bytes.size() > kMaxTokenBytes)
      fail("line {}: expected a token of 1 to {} bytes in base64 and its rank from 0 to {}, got '{}'", number,
           kMaxTokenBytes, max_token_id(lines), line.substr(0, 100));
    if (read.bytes.size() == 1) known[static_cast<std::uint8_t>(read.bytes[0])] = true;
    spec.vocab.push_back({to_byte_level(read.bytes), read.rank, -static_cast<double>(read.rank)});
  }
  const auto missing = std::find(known.begin(), known.end(), false);
  if (missing != known.end()) fail("expected a token for every byte, got none for {:#04x}", missing - known.begin());
  return spec;
}

}  // namespace foe

#include "tokenizer/unigram.h"

#include <algorithm>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"

namespace foe {
namespace {

using Ids = std::vector<std::int32_t>;

// Tokens of up to four of the letters a to c, of which all but c are tokens alone, with random scores.
Unigram random_unigram(std::uint64_t seed, int tokens) {
  Unigram unigram;
  unigram.unknown_id = 0;
  unigram.scores = {-9};
  for (int i = 1; i <= tokens; ++i) {
    std::string token = i == 1 ? "a" : i == 2 ? "b" : "";
    const std::uint64_t bits = random_bits(seed, static_cast<std::uint64_t>(i));
    for (std::uint64_t n = 0; i > 2 && n < 2 + bits % 3; ++n)
      token += static_cast<char>('a' + (bits >> (8 + 4 * n)) % 3);
    if (unigram.words.find(token) < 0) {
      unigram.words.insert(token, static_cast<std::int32_t>(unigram.scores.size()));
      unigram.scores.push_back(-static_cast<double>(bits >> 40 & 0xffff) / 4096);  // distinct sums are far apart
    }
  }
  unigram.unknown_score = -30;
  return unigram;
}

// The definition: of all cuts, the one with the largest sum.
double best_score(const Unigram& unigram, std::string_view word) {
  if (word.empty()) return 0;
  double best =
      unigram.words.find(word.substr(0, 1)) < 0 ? unigram.unknown_score + best_score(unigram, word.substr(1)) : -1e9;
  for (std::size_t size = 1; size <= std::min<std::size_t>(4, word.size()); ++size) {
    const std::int32_t id = unigram.words.find(word.substr(0, size));
    if (id < 0) continue;
    best = std::max(best, unigram.scores[static_cast<std::size_t>(id)] + best_score(unigram, word.substr(size)));
  }
  return best;
}

TEST(Unigram, FindsTheBestCut) {
  int compared = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Unigram unigram = random_unigram(seed, 4 + static_cast<int>(seed % 20));
    std::string word;
    for (std::uint64_t i = 0; i < 10; ++i) word += static_cast<char>('a' + random_bits(seed + 1000, i) % 3);
    Ids ids;
    encode_word(unigram, word, ids);
    double score = 0;
    for (const std::int32_t id : ids)
      if (id != 0) score += unigram.scores[static_cast<std::size_t>(id)];
    // A run of unknown characters is one token: only words without any can be compared by their sum.
    if (std::count(ids.begin(), ids.end(), 0) > 0) continue;
    EXPECT_NEAR(score, best_score(unigram, word), 1e-9) << word;
    ++compared;
  }
  EXPECT_GT(compared, 50);
}

TEST(Unigram, JoinsUnknownCharactersOrWritesTheirBytes) {
  Unigram unigram = random_unigram(1, 2);
  Ids ids;
  encode_word(unigram, "a\u00e9cb", ids);
  EXPECT_EQ(ids, (Ids{1, 0, 2}));
  for (int byte = 0; byte < 256; ++byte) unigram.byte_ids[static_cast<std::size_t>(byte)] = 1000 + byte;
  encode_word(unigram, "\u00e9c", ids);
  EXPECT_EQ(ids, (Ids{1, 0, 2, 1000 + 0xc3, 1000 + 0xa9, 1000 + 'c'}));
  unigram.unknown_id = -1;
  EXPECT_THAT([&] { encode_word(unigram, "c", ids); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("has no unknown token, got 'c'")));
}

// A megabyte takes minutes if anything is quadratic.
TEST(Unigram, CutsLongWords) {
  const Unigram unigram = random_unigram(3, 20);
  std::string word;
  while (word.size() < (1u << 20)) word += "abacabb";
  Ids ids;
  encode_word(unigram, word, ids);
  EXPECT_GT(ids.size(), word.size() / 8);
}

TEST(Trie, FindsTheBeginningsOfATextAndGrows) {
  Trie trie;
  EXPECT_TRUE(trie.empty());
  for (std::int32_t i = 0; i < 5000; ++i) trie.insert(std::to_string(i) + ".", i);
  trie.insert("12", 7000);
  EXPECT_EQ(trie.find("4999."), 4999);
  EXPECT_EQ(trie.find("4999"), -1);
  EXPECT_EQ(trie.longest_prefix("123.4").value, 123);
  EXPECT_EQ(trie.longest_prefix("123.4").size, 4u);
  EXPECT_EQ(trie.longest_prefix("124").value, 7000);
  EXPECT_EQ(trie.longest_prefix("x").value, -1);
}

}  // namespace
}  // namespace foe

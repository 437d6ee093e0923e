#include "tokenizer/bpe.h"

#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace foe {
namespace {

using Ids = std::vector<std::int32_t>;

// Bytes have their own value as id. Each token may merge with each other: `merges` random pairs, in random order.
Bpe random_bpe(std::uint64_t seed, int merges, int alphabet) {
  Bpe bpe;  // of bytes
  for (int byte = 0; byte < 256; ++byte) bpe.byte_ids[static_cast<std::size_t>(byte)] = byte;
  bpe.merges = MergeTable(static_cast<std::size_t>(merges));
  for (int i = 0; i < merges; ++i) {
    const auto pick = [&](std::uint64_t counter) {
      const auto known = static_cast<std::uint64_t>(alphabet + i);
      const auto index = static_cast<std::int32_t>(random_bits(seed, counter) % known);
      return index < alphabet ? 'a' + index : 256 + index - alphabet;
    };
    const auto n = static_cast<std::uint64_t>(i);
    const auto rank =
        static_cast<std::uint32_t>(random_bits(seed, 3 * n) % 1000) * 1000 + static_cast<std::uint32_t>(i);
    bpe.merges.insert(pick(3 * n + 1), pick(3 * n + 2), {rank, 256 + i});
  }
  return bpe;
}

// The definition: over and over, the leftmost pair of the lowest rank.
Ids encode_by_definition(const Bpe& bpe, const std::string& word) {
  Ids ids;
  for (const char c : word) ids.push_back(bpe.byte_ids[static_cast<std::uint8_t>(c)]);
  while (true) {
    std::uint32_t rank = std::numeric_limits<std::uint32_t>::max();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const BpeMerge* merge = bpe.merges.find(ids[i], ids[i + 1]);
      if (merge && merge->rank < rank) rank = merge->rank, at = i;
    }
    if (rank == std::numeric_limits<std::uint32_t>::max()) return ids;
    ids[at] = bpe.merges.find(ids[at], ids[at + 1])->result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, MergesAsDefined) {
  int merged = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const int alphabet = 1 + static_cast<int>(seed % 4);
    const Bpe bpe = random_bpe(seed, 1 + static_cast<int>(seed % 60), alphabet);
    // Lengths on both sides of the switch from scanning to a heap.
    for (const std::size_t length : {1u, 2u, 3u, 7u, 47u, 48u, 49u, 50u, 130u}) {
      std::string word;
      for (std::size_t i = 0; i < length; ++i) {
        word += static_cast<char>('a' + random_bits(seed + 1000, i) % static_cast<unsigned>(alphabet));
      }
      Ids ids;
      encode_word(bpe, word, ids);
      ASSERT_EQ(ids, encode_by_definition(bpe, word)) << word;
      merged += ids.size() < length;
    }
  }
  EXPECT_GT(merged, 1000);
}

TEST(Bpe, AppendsAndTakesEmptyWords) {
  const Bpe bpe = random_bpe(1, 1, 1);
  Ids ids = {7};
  encode_word(bpe, "", ids);
  encode_word(bpe, "z", ids);
  EXPECT_EQ(ids, (Ids{7, 'z'}));
}

TEST(MergeTable, FindsWhatWasInserted) {
  constexpr std::int32_t kIds = 40;
  MergeTable table(kIds * kIds);
  for (std::int32_t a = 0; a < kIds; ++a) {
    for (std::int32_t b = 0; b < kIds; ++b) table.insert(a, b * 1000, {static_cast<std::uint32_t>(a), b});
  }
  for (std::int32_t a = 0; a < kIds; ++a) {
    for (std::int32_t b = 0; b < kIds; ++b) {
      const BpeMerge* merge = table.find(a, b * 1000);
      ASSERT_NE(merge, nullptr);
      EXPECT_EQ(merge->rank, static_cast<std::uint32_t>(a));
      EXPECT_EQ(merge->result, b);
      EXPECT_EQ(table.find(a, b * 1000 + 1), nullptr);
    }
  }
  table.insert(1, 1000, {5, 6});
  EXPECT_EQ(table.find(1, 1000)->rank, 5u);
  EXPECT_EQ(MergeTable().find(0, 0), nullptr);
}

}  // namespace
}  // namespace foe

#include "train/data.h"

#include <cmath>
#include <set>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tiny_run.h"

namespace foe::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Permute, IsABijectionThatDependsOnItsKey) {
  for (const std::uint64_t count : {1u, 2u, 3u, 16u, 17u, 1000u}) {
    std::set<std::uint64_t> a, moved;
    for (std::uint64_t i = 0; i < count; ++i) {
      a.insert(permute(i, count, 1));
      if (permute(i, count, 1) != permute(i, count, 2)) moved.insert(i);
    }
    EXPECT_EQ(a.size(), count);
    EXPECT_EQ(*a.rbegin(), count - 1);
    // Of 1000 places, two unrelated permutations agree in about one.
    if (count == 1000) {
      EXPECT_GT(moved.size(), 950u);
    }
  }
}

TEST(WindowStart, VisitsEveryTokenOnceInAnEpoch) {
  constexpr std::size_t kTokens = 1000;
  constexpr int kLength = 24;
  constexpr std::uint64_t kWindows = (kTokens - kLength) / kLength;
  std::set<std::size_t> offsets;
  for (std::uint64_t epoch = 0; epoch < 5; ++epoch) {
    std::set<std::size_t> starts;
    for (std::uint64_t i = 0; i < kWindows; ++i) starts.insert(window_start(kTokens, kLength, 7, epoch * kWindows + i));
    EXPECT_EQ(starts.size(), kWindows);
    EXPECT_LE(*starts.rbegin() + kLength, kTokens - 1) << "the last target is past the end";
    EXPECT_EQ(*starts.rbegin() - *starts.begin(), (kWindows - 1) * kLength) << "windows overlap or leave gaps";
    offsets.insert(*starts.begin());
  }
  EXPECT_GT(offsets.size(), 1u) << "every epoch cuts at the same places";
}

TEST(FillBatch, TargetsAreTheNextTokens) {
  TemporaryDir dir;
  const TrainConfig config = tiny_run(dir);
  const TokenData data = load_token_data(config.tokens, config.sequence_length);
  std::vector<std::int32_t> in(96), out(96), in2(48), out2(48);
  fill_batch(data.train, config, 5, 0, 4, in, out);
  fill_batch(data.train, config, 5, 2, 2, in2, out2);  // a shard sees its part of the same batch
  EXPECT_TRUE(std::equal(in2.begin(), in2.end(), in.begin() + 48));
  for (int s = 0; s < 4; ++s)
    for (int t = 0; t + 1 < 24; ++t) EXPECT_EQ(out[s * 24 + t], in[s * 24 + t + 1]);
}

TEST(TokenFile, BitsPerByte) {
  TokenFile file;
  file.tokens.resize(10);
  file.bytes = 40;
  EXPECT_DOUBLE_EQ(file.bits_per_byte(std::log(2.0)), 0.25);
}

struct WrongTokens {
  std::string meta, message;
};

void PrintTo(const WrongTokens& wrong, std::ostream* out) {
  *out << wrong.meta;
}

class WrongData : public testing::TestWithParam<WrongTokens> {};

TEST_P(WrongData, SaysWhatWasExpected) {
  TemporaryDir dir;
  const TrainConfig config = tiny_run(dir);
  write_all(dir / "tokens/meta.json", GetParam().meta);
  EXPECT_THAT([&] { load_token_data(config.tokens, 24); }, ThrowsMessage<Error>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongData,
    testing::Values(
        WrongTokens{"[]", "expected an object, got []"},
        WrongTokens{R"({"end_of_text": 0})", "vocab_size: expected an integer, found none"},
        WrongTokens{R"({"vocab_size": 65537})", "vocab_size: expected an integer from 1 to 65536, got 65537"},
        WrongTokens{R"({"vocab_size": 61, "end_of_text": 61})",
                    "end_of_text: expected an integer from 0 to 60, got 61"},
        WrongTokens{R"({"vocab_size": 61, "end_of_text": 0})", "train: expected an object, got nothing"},
        WrongTokens{R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "../x"}})",
                    "file: expected a name in this folder, got \"../x\""},
        WrongTokens{R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 48, "bytes": 9}})",
                    "tokens: expected an integer from 49"},
        WrongTokens{
            R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 2001, "bytes": 9}})",
            "expected 4002 bytes (two for each token of meta.json), got 4000"},
        WrongTokens{R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "none", "tokens": 2000, "bytes": 9}})",
                    "No such file"},
        WrongTokens{
            R"({"vocab_size": 61, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 2000, "bytes": 0}})",
            "bytes: expected an integer from 1"},
        WrongTokens{
            R"({"vocab_size": 5, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 2000, "bytes": 9}})",
            "expected an id below 5, got"}));

}  // namespace
}  // namespace foe::train

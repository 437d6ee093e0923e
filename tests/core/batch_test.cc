#include "core/batch.h"

#include <functional>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"

namespace foe {
namespace {

using testing::HasSubstr;

constexpr int kLayers = 5;
constexpr int kVocab = 100;
constexpr int kBlocks = 8;
constexpr int kOwners = 4;
constexpr int kLargest = std::numeric_limits<std::int32_t>::max();

// A sequence that decodes its 20th token, a whole prompt, and one in the middle of its prompt; the first on rank 0, the
// others on rank 2.
Batch three_sequences() {
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast);
  batch.add_sequence(std::vector<std::int32_t>{1, 2, 3}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2);
  batch.add_sequence(std::vector<std::int32_t>{99, 0}, 15, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 2);
  EXPECT_EQ(batch.candidates, std::vector<std::int32_t>(4));  // all logits are wanted, unless somebody says otherwise
  batch.candidates = {1, 0, kMaxCandidates, 7};
  return batch;
}

void expect_equal(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.layers.begin, b.layers.begin);
  EXPECT_EQ(a.layers.end, b.layers.end);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.sequence_begin, b.sequence_begin);
  EXPECT_EQ(a.sequence_owner, b.sequence_owner);
  EXPECT_EQ(a.block_table, b.block_table);
  EXPECT_EQ(a.table_begin, b.table_begin);
  EXPECT_EQ(a.sampled_rows, b.sampled_rows);
  EXPECT_EQ(a.candidates, b.candidates);
  EXPECT_EQ(a.route_rows, b.route_rows);
  EXPECT_EQ(a.route.layers, b.route.layers);
  EXPECT_EQ(a.route.entries, b.route.entries);
  EXPECT_EQ(a.route.experts_TLK, b.route.experts_TLK);
  EXPECT_EQ(a.route.weights_TLK, b.route.weights_TLK);
}

// A route of so many positions through two layers of one expert each, which names its positions.
Route route_of(int positions) {
  Route route{.layers = 2, .entries = 1, .experts_TLK = {}, .weights_TLK = {}};
  for (int p = 0; p < positions; ++p)
    for (const int layer : {0, 1}) {
      route.experts_TLK.push_back(10 * p + layer);
      route.weights_TLK.push_back(0.1f * static_cast<float>(p));
    }
  return route;
}

// Of three_sequences(): the second is routed as far as its second token, the third by a route that ends before it.
Batch routed_sequences() {
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast);
  batch.add_sequence(std::vector<std::int32_t>{1, 2, 3}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2);
  batch.route_last_sequence(route_of(2));
  batch.add_sequence(std::vector<std::int32_t>{99, 0}, 15, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 2);
  batch.route_last_sequence(route_of(15));
  return batch;
}

// The second of three_sequences() has a long prompt.
Batch long_second_sequence() {
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast);
  batch.add_sequence(std::vector<std::int32_t>{1, 2, 3}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2, 500);
  batch.add_sequence(std::vector<std::int32_t>{99, 0}, 15, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 2);
  return batch;
}

TEST(Batch, KeepsLengthsOfPrompts) {
  EXPECT_TRUE(three_sequences().prompt_lengths.empty());
  const Batch batch = long_second_sequence();
  using Lengths = std::vector<std::int32_t>;
  EXPECT_EQ(batch.prompt_lengths, (Lengths{0, 500, 0}));
  EXPECT_EQ(decode(encode(batch), kLayers, kVocab, kBlocks, kOwners).prompt_lengths, batch.prompt_lengths);
  EXPECT_EQ(part_of(batch, 2).prompt_lengths, (Lengths{500, 0}));
  EXPECT_EQ(rows_of(batch, 2, 5).prompt_lengths, (Lengths{500, 0}));
  EXPECT_EQ(encode(batch).size(), encode(three_sequences()).size() + 4);
  EXPECT_EQ(encode(batch).size(), encoded_words(batch));
  auto message = encode(batch);
  message.back() = -1;
  EXPECT_THROW(decode(message, kLayers, kVocab, kBlocks, kOwners), Error);
}

TEST(Batch, AppendsSequences) {
  const Batch batch = three_sequences();
  EXPECT_EQ(batch.num_sequences(), 3);
  EXPECT_EQ(batch.num_tokens(), 6);
  EXPECT_EQ(batch.num_sampled(), 4);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{7, 1, 2, 3, 99, 0}));
  EXPECT_EQ(batch.positions, (std::vector<std::int32_t>{19, 0, 1, 2, 15, 16}));
  EXPECT_EQ(batch.sequence_begin, (std::vector<std::int32_t>{0, 1, 4, 6}));
  EXPECT_EQ(batch.sequence_owner, (std::vector<std::int32_t>{0, 2, 2}));
  EXPECT_EQ(batch.block_table, (std::vector<std::int32_t>{5, 0, 7, 1, 2, 3}));
  EXPECT_EQ(batch.table_begin, (std::vector<std::int32_t>{0, 2, 3, 6}));
  EXPECT_EQ(batch.sampled_rows, (std::vector<std::int32_t>{0, 1, 2, 3}));
}

TEST(BatchDeathTest, OwnersAscend) {
  Batch batch = three_sequences();
  EXPECT_DEATH(
      batch.add_sequence(std::vector<std::int32_t>{1}, 0, std::vector<std::int32_t>{4}, Batch::Sample::kNone, 1),
      "owner 1 after 2");
  EXPECT_DEATH(Batch().add_sequence({}, 0, {}, Batch::Sample::kNone, -1), "owner -1 after 0");
}

TEST(BatchDeathTest, APieceIsOfOneSequence) {
  EXPECT_DEATH(pieces_of(three_sequences(), std::vector<Piece>{{2, 5, 0}}), "of a sequence that ends at 4");
}

// Each owner's part is the batch that its sequences alone would make.
TEST(Batch, PartsAreTheOwnersSequences) {
  const Batch batch = three_sequences();
  Batch first, last;
  first.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast);
  last.add_sequence(std::vector<std::int32_t>{1, 2, 3}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2);
  last.add_sequence(std::vector<std::int32_t>{99, 0}, 15, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 2);
  first.candidates = {1};
  last.candidates = {0, kMaxCandidates, 7};
  expect_equal(part_of(batch, 0), first);
  expect_equal(part_of(batch, 1), Batch());
  expect_equal(part_of(batch, 2), last);
  expect_equal(part_of(batch, 3), Batch());
  expect_equal(part_of(Batch(), 0), Batch());
}

TEST(Batch, PartsRunThroughItsLayers) {
  Batch batch = three_sequences();
  batch.layers = {1, 4};
  for (const Batch& part : {part_of(batch, 2), part_of(batch, 3), rows_of(batch, 1, 3),
                            decode(encode(batch), kLayers, kVocab, kBlocks, kOwners)}) {
    EXPECT_EQ(part.layers.begin, 1);
    EXPECT_EQ(part.layers.end, 4);
  }
}

TEST(Batch, RowsCutSequences) {
  const Batch batch = three_sequences();  // of 1, 3 and 2 tokens; sampled: the first and all of the second
  Batch head, middle;
  head.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast);
  head.add_sequence(std::vector<std::int32_t>{1, 2}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2);
  middle.add_sequence(std::vector<std::int32_t>{3}, 2, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 2);
  middle.add_sequence(std::vector<std::int32_t>{99}, 15, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 2);
  head.candidates = {1, 0, kMaxCandidates};
  middle.candidates = {7};
  expect_equal(rows_of(batch, 0, 3), head);
  expect_equal(rows_of(batch, 3, 5), middle);
  expect_equal(rows_of(batch, 0, 6), batch);
  expect_equal(rows_of(batch, 4, 4), Batch());
}

// Pieces may come in any order of rows, and each keeps the KV blocks, the samples and the route of its sequence.
TEST(Batch, PiecesAreSequencesOfTheirOwn) {
  Batch batch = three_sequences();
  batch.route = {.layers = 1, .entries = 1, .experts_TLK = {4, 5, 6}, .weights_TLK = {1, 1, 1}};
  batch.route_rows = {-1, 0, 1, 2, -1, -1};
  Batch expected;
  expected.add_sequence(std::vector<std::int32_t>{3}, 2, std::vector<std::int32_t>{7}, Batch::Sample::kLast);
  expected.add_sequence(std::vector<std::int32_t>{7}, 19, std::vector<std::int32_t>{5, 0}, Batch::Sample::kLast, 1);
  expected.add_sequence(std::vector<std::int32_t>{1, 2}, 0, std::vector<std::int32_t>{7}, Batch::Sample::kAll, 1);
  expected.add_sequence(std::vector<std::int32_t>{0}, 16, std::vector<std::int32_t>{1, 2, 3}, Batch::Sample::kNone, 3);
  expected.candidates = {7, 1, 0, kMaxCandidates};
  expected.route = batch.route;
  expected.route_rows = {2, -1, 0, 1, -1};
  expect_equal(pieces_of(batch, std::vector<Piece>{{3, 4, 0}, {0, 1, 1}, {1, 3, 1}, {5, 6, 3}}), expected);
  EXPECT_TRUE(pieces_of(batch, {}).empty());
}

// Random batches: the parts one after the other are the whole, and each is a batch that its rank can run.
TEST(Batch, PartsMakeUpTheWhole) {
  for (int trial = 0; trial < 500; ++trial) {
    std::uint64_t draw = 0;
    const auto random = [&](int n) { return static_cast<int>(random_bits(trial, draw++) % n); };
    Batch batch;
    for (int owner = 0; owner < kOwners; ++owner)
      for (int s = random(4); s > 0; --s) {
        std::vector<std::int32_t> tokens(1 + random(20)), blocks(3);
        for (std::int32_t& token : tokens) token = random(kVocab);
        for (std::int32_t& block : blocks) block = random(kBlocks);
        batch.add_sequence(tokens, random(20), blocks, static_cast<Batch::Sample>(random(3)), owner);
      }
    for (std::int32_t& count : batch.candidates) count = random(kMaxCandidates + 1);
    Batch whole;
    std::vector<std::int32_t> rows, candidates;
    for (int owner = 0; owner < kOwners; ++owner) {
      const Batch part = decode(encode(part_of(batch, owner)), kLayers, kVocab, kBlocks, kOwners);
      for (const std::int32_t row : part.sampled_rows) rows.push_back(whole.num_tokens() + row);
      candidates.insert(candidates.end(), part.candidates.begin(), part.candidates.end());
      for (int s = 0; s < part.num_sequences(); ++s) {
        EXPECT_EQ(part.sequence_owner[s], owner);
        const int t = part.sequence_begin[s], b = part.table_begin[s];
        whole.add_sequence(std::span(part.tokens).subspan(t, part.sequence_begin[s + 1] - t), part.positions[t],
                           std::span(part.block_table).subspan(b, part.table_begin[s + 1] - b), Batch::Sample::kNone,
                           owner);
      }
    }
    whole.sampled_rows = rows;
    whole.candidates = candidates;
    expect_equal(whole, batch);
  }
}

TEST(Batch, RoutesThePositionsThatARouteHas) {
  Batch batch = routed_sequences();
  EXPECT_EQ(batch.route_rows, (std::vector<std::int32_t>{-1, 0, 1, -1, -1, -1}));
  EXPECT_EQ(batch.route.experts_TLK, (std::vector<std::int32_t>{0, 1, 10, 11}));
  batch.add_sequence(std::vector<std::int32_t>{4, 5}, 1, std::vector<std::int32_t>{4}, Batch::Sample::kNone, 3);
  EXPECT_EQ(batch.route_rows, (std::vector<std::int32_t>{-1, 0, 1, -1, -1, -1, -1, -1}));
  batch.route_last_sequence(route_of(9));
  EXPECT_EQ(batch.route_rows, (std::vector<std::int32_t>{-1, 0, 1, -1, -1, -1, 2, 3}));
  EXPECT_EQ(batch.route.experts_TLK, (std::vector<std::int32_t>{0, 1, 10, 11, 10, 11, 20, 21}));
  EXPECT_EQ(part_of(batch, 2).route_rows, (std::vector<std::int32_t>{0, 1, -1, -1, -1}));
  EXPECT_EQ(part_of(batch, 3).route_rows, (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(part_of(batch, 3).route.experts_TLK, batch.route.experts_TLK);
  EXPECT_EQ(rows_of(batch, 2, 7).route_rows, (std::vector<std::int32_t>{1, -1, -1, -1, 2}));
}

TEST(Batch, RoundTrip) {
  for (const Batch& batch : {Batch(), three_sequences(), routed_sequences()}) {
    expect_equal(decode(encode(batch), kLayers, kVocab, kBlocks, kOwners), batch);
    EXPECT_EQ(encode(batch).size(), encoded_words(batch));
  }
}

// A way to spoil a batch, and what the error must say.
struct Spoiled {
  std::function<void(Batch&)> spoil;
  const char* message;
};

TEST(Batch, DecodeNamesWhatIsWrong) {
  const Spoiled cases[] = {
      {[](Batch& b) {
         b.layers = {-1, 2};
       },
       "expected layers in [0, 5), got [-1, 2)"},
      {[](Batch& b) {
         b.layers = {5, 6};
       },
       "expected layers in [0, 5), got [5, 6)"},
      {[](Batch& b) {
         b.layers = {2, 2};
       },
       "expected layers in [0, 5), got [2, 2)"},
      {[](Batch& b) {
         b.layers = {3, 1};
       },
       "expected layers in [0, 5), got [3, 1)"},
      {[](Batch& b) { b.positions.pop_back(); }, "expected 6 positions, got 5"},
      {[](Batch& b) { b.positions.push_back(0); }, "expected 6 positions, got 7"},
      {[](Batch& b) { b.sequence_begin.clear(); }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.sequence_begin[0] = 1; }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.sequence_begin[1] = 5; }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.sequence_begin[1] = -1; }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.sequence_begin[3] = 5; }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.sequence_begin[3] = kLargest; }, "expected sequence_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.table_begin.clear(); }, "expected table_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.table_begin[0] = -1; }, "expected table_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.table_begin[2] = 1; }, "expected table_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.table_begin[3] = 7; }, "expected table_begin to ascend from 0 to 6"},
      {[](Batch& b) { b.table_begin.push_back(6); }, "expected 3 block tables, got 4"},
      {[](Batch& b) { b.sequence_owner.pop_back(); }, "expected 3 owners of sequences, got 2"},
      {[](Batch& b) { b.sequence_owner.push_back(3); }, "expected 3 owners of sequences, got 4"},
      {[](Batch& b) { b.sequence_owner[0] = -1; }, "expected an owner in [0, 4), got -1"},
      {[](Batch& b) { b.sequence_owner[2] = kOwners; }, "expected an owner in [0, 4), got 4"},
      {[](Batch& b) { b.sequence_owner[2] = 1; }, "expected owners to ascend, got 1 after 2"},
      {[](Batch& b) { b.tokens[2] = -1; }, "expected a token in [0, 100), got -1"},
      {[](Batch& b) { b.tokens[2] = kVocab; }, "expected a token in [0, 100), got 100"},
      {[](Batch& b) { b.block_table[4] = -1; }, "expected a KV block in [0, 8), got -1"},
      {[](Batch& b) { b.block_table[4] = kBlocks; }, "expected a KV block in [0, 8), got 8"},
      {[](Batch& b) { b.sampled_rows[0] = -1; }, "expected a sampled row in [0, 6), got -1"},
      {[](Batch& b) { b.sampled_rows[3] = 6; }, "expected a sampled row in [0, 6), got 6"},
      {[](Batch& b) { b.sampled_rows[2] = 0; }, "expected sampled rows to ascend, got 0 after 1"},
      {[](Batch& b) { b.sampled_rows[2] = 1; }, "expected sampled rows to ascend, got 1 after 1"},
      {[](Batch& b) { b.candidates.pop_back(); }, "expected 4 numbers of candidates, got 3"},
      {[](Batch& b) { b.candidates.push_back(0); }, "expected 4 numbers of candidates, got 5"},
      {[](Batch& b) { b.candidates[3] = -2; }, "expected a number of candidates in [0, 64], or -1 for a state, got -2"},
      {[](Batch& b) { b.candidates[0] = 65; }, "expected a number of candidates in [0, 64], or -1 for a state, got 65"},
      {[](Batch& b) { b.positions[2] = 2; }, "expected position 1 of sequence 1 within its 16 KV slots, got 2"},
      {[](Batch& b) { b.positions[1] = -1; }, "expected position -1 of sequence 1 within its 16 KV slots, got -1"},
      {[](Batch& b) { b.positions[0] = 32; }, "expected position 32 of sequence 0 within its 32 KV slots, got 32"},
      {[](Batch& b) { b.positions[4] = kLargest; }, "of sequence 2 within its 48 KV slots, got 2147483647"},
      {[](Batch& b) { b.table_begin[1] = 1; }, "expected position 19 of sequence 0 within its 16 KV slots, got 19"},
      {[](Batch& b) {
         b.table_begin = {0, 2, 2, 6};
       },
       "of sequence 1 within its 0 KV slots, got 0"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route_rows.pop_back();
       },
       "expected a row of the route for each of 6 tokens, got 5"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route_rows[0] = -2;
       },
       "expected a row of the route in [-1, 2), got -2"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route_rows[5] = 2;
       },
       "expected a row of the route in [-1, 2), got 2"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route.layers = 0;
       },
       "expected a route of at most 16777216 entries of a token, got 0 layers of 1"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route.layers = b.route.entries = 1 << 13;
       },
       "got 8192 layers of 8192"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route.weights_TLK.pop_back();
       },
       "expected weights for 2 layers of 1 experts each, got 3 weights for 4"},
      {[](Batch& b) {
         b = routed_sequences();
         b.route.entries = 3;
       },
       "expected weights for 2 layers of 3 experts each, got 4 weights for 4"},
  };
  for (const Spoiled& c : cases) {
    Batch batch = three_sequences();
    c.spoil(batch);
    try {
      decode(encode(batch), kLayers, kVocab, kBlocks, kOwners);
      ADD_FAILURE() << "accepted; expected: " << c.message;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("batch message: "));
      EXPECT_THAT(e.what(), HasSubstr(c.message));
    }
  }
}

void expect_decode_error(const std::vector<std::int32_t>& message, const std::string& text) {
  try {
    decode(message, kLayers, kVocab, kBlocks, kOwners);
    ADD_FAILURE() << "accepted; expected: " << text;
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(text));
  }
}

TEST(Batch, DecodeChecksLengthsBeforeItAllocates) {
  const auto message = encode(three_sequences());
  const int words = static_cast<int>(message.size());
  constexpr int kFirst = 2;  // behind the layers
  auto spoiled = message;
  spoiled[kFirst] = kLargest;
  const std::string expected = "expected a length of at most " + std::to_string(words - kFirst - 1) + ", got ";
  expect_decode_error(spoiled, expected + "2147483647");
  spoiled[kFirst] = -1;
  expect_decode_error(spoiled, expected + "-1");
  spoiled = message;
  spoiled.push_back(0);
  expect_decode_error(spoiled, "expected the end, or lengths of ");
  expect_decode_error({}, "expected a range of layers, got 0 words");
  expect_decode_error({0, 1}, "expected a length, got the end");
  for (int length = 1; length < words; ++length)
    EXPECT_THROW(decode(std::span(message).first(length), kLayers, kVocab, kBlocks, kOwners), Error)
        << length << " words";
}

// Whatever a peer sends is refused, or is a batch within the model's bounds that encodes to the same message.
TEST(Batch, DecodeSurvivesRandomChanges) {
  const std::vector<std::int32_t> messages[] = {encode(three_sequences()), encode(routed_sequences())};
  int accepted = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    auto changed = messages[trial % 2];
    for (std::uint64_t i = 0; i <= random_bits(trial, 0) % 3; ++i) {
      const std::uint64_t r = random_bits(trial, i + 1);
      const std::int32_t values[] = {0, 1, 2, -1, 6, 7, kLargest, -kLargest - 1};
      changed[r % changed.size()] = values[(r >> 32) % 8];
    }
    try {
      const Batch batch = decode(changed, kLayers, kVocab, kBlocks, kOwners);
      EXPECT_EQ(encode(batch), changed);
      ++accepted;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 20000);
}

}  // namespace
}  // namespace foe

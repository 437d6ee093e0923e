#include "placement/deal.h"

#include <string>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "core/configs.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::FieldsAre;

// A batch of sequences with so many tokens, from these positions on.
Batch batch_to_deal(const std::vector<std::pair<int, int>>& positions_and_tokens) {
  Batch batch;
  for (const auto& [first, count] : positions_and_tokens)
    batch.add_sequence(std::vector<std::int32_t>(count), first, {}, Batch::Sample::kNone);
  return batch;
}

std::int64_t cost_of(const Batch& batch, const std::vector<Piece>& pieces, int member, std::int64_t row_cost) {
  std::int64_t cost = 0;
  for (const Piece& piece : pieces)
    for (int row = piece.begin; row < piece.end && piece.owner == member; ++row)
      cost += row_cost + batch.positions[row] + 1;
  return cost;
}

TEST(DealRows, APromptGoesRoundAndBack) {
  const Batch batch = batch_to_deal({{0, 4096}});
  EXPECT_THAT(deal_rows(batch, {0, 4096}, 2, 1000), ElementsAre(FieldsAre(0, 1024, 0), FieldsAre(3072, 4096, 0),
                                                                FieldsAre(1024, 2048, 1), FieldsAre(2048, 3072, 1)));
  for (const int members : {2, 3, 4, 8}) {
    const std::vector<Piece> pieces = deal_rows(batch, {0, 4096}, members, 1000);
    std::vector<double> costs;
    for (int m = 0; m < members; ++m) costs.push_back(static_cast<double>(cost_of(batch, pieces, m, 1000)));
    EXPECT_LT(std::ranges::max(costs), 1.02 * std::ranges::min(costs)) << members;
  }
}

TEST(DealRows, DecodingSequencesAreDealtByWhatTheyAttendTo) {
  EXPECT_THAT(
      deal_rows(batch_to_deal({{9, 1}, {9, 1}, {9, 1}, {9, 1}, {9, 1}}), {0, 5}, 2, 100),
      ElementsAre(FieldsAre(0, 1, 0), FieldsAre(2, 3, 0), FieldsAre(4, 5, 0), FieldsAre(1, 2, 1), FieldsAre(3, 4, 1)));
  // One that attends to as much as all others.
  EXPECT_THAT(deal_rows(batch_to_deal({{0, 1}, {329, 1}, {9, 1}, {9, 1}}), {0, 4}, 2, 100),
              ElementsAre(FieldsAre(1, 2, 0), FieldsAre(0, 1, 1), FieldsAre(2, 3, 1), FieldsAre(3, 4, 1)));
}

TEST(DealRows, AFewRowsStayTogether) {
  EXPECT_THAT(deal_rows(batch_to_deal({{5, 31}}), {0, 31}, 4, 100), ElementsAre(FieldsAre(0, 31, 0)));
  EXPECT_TRUE(deal_rows(Batch(), {0, 0}, 4, 100).empty());
}

// Every row has one owner, and no KV block has two.
TEST(DealRows, CoversRowsInPiecesOfWholeBlocks) {
  for (int trial = 0; trial < 300; ++trial) {
    std::uint64_t draw = 0;
    const auto random = [&](int n) { return static_cast<int>(random_bits(trial, draw++) % n); };
    std::vector<std::pair<int, int>> sequences;
    for (int s = random(6); s >= 0; --s) sequences.push_back({random(100), 1 + (random(2) ? random(400) : random(3))});
    const Batch batch = batch_to_deal(sequences);
    const int begin = random(batch.num_tokens()), end = begin + 1 + random(batch.num_tokens() - begin);
    const int members = 2 + random(4);
    const std::vector<Piece> pieces = deal_rows(batch, {begin, end}, members, random(1000));
    std::vector<int> owners(batch.num_tokens(), -1);
    for (const Piece& piece : pieces) {
      EXPECT_LT(piece.owner, members);
      for (int row = piece.begin; row < piece.end; ++row) {
        EXPECT_EQ(owners[row], -1);
        owners[row] = piece.owner;
      }
    }
    for (int row = 0; row < batch.num_tokens(); ++row) EXPECT_EQ(owners[row] >= 0, row >= begin && row < end);
    for (int row = begin + 1; row < end; ++row) {
      const bool first = std::ranges::find(batch.sequence_begin, row) != batch.sequence_begin.end();
      EXPECT_TRUE(first || owners[row] == owners[row - 1] || batch.positions[row] % kKvBlock == 0) << row;
    }
    EXPECT_TRUE(std::ranges::is_sorted(pieces, {}, [](const Piece& p) { return std::pair(p.owner, p.begin); }));
  }
}

// What a rank holds is the same, whether members split sequences or own them.
TEST(SplitSequencesPlacement, ChangesOnlyWhoRunsRows) {
  const std::tuple<ModelConfig, PlanChoice, int> jobs[] = {{small_config(), {Plan::kEp, {}, 0, true}, 3},
                                                           {small_config(), {Plan::kEp, {}, 2, true}, 4},
                                                           {small_federated(2), {Plan::kFoe, {}, 0, true}, 5}};
  for (const auto& [config, choice, ranks] : jobs) {
    const Placement split = make_placement(config, choice, ranks);
    PlanChoice owned = choice;
    owned.split_sequences = false;
    const Placement whole = make_placement(config, owned, ranks);
    EXPECT_TRUE(split.split_sequences);
    EXPECT_FALSE(whole.split_sequences);
    EXPECT_EQ(split.owners(), 1);
    EXPECT_EQ(whole.owners(), whole.members);
    EXPECT_EQ(split.members, whole.members);
    for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(split.ranks[rank].member, whole.ranks[rank].member);
  }
  // Alone, or with a group of its own, a rank has no one to split with.
  EXPECT_FALSE(make_placement(small_config(), {Plan::kEp, {}, 0, true}, 1).split_sequences);
  EXPECT_FALSE(make_placement(small_federated(2), {Plan::kFoe, {}, 0, true}, 3).split_sequences);
  for (const Plan plan : {Plan::kTp, Plan::kPp})
    EXPECT_THAT(
        [&] {
          make_placement(small_config(), {plan, {}, 0, true}, 2);
        },
        testing::ThrowsMessage<Error>(std::string("ep-attention split: expected plan ep or foe, where ranks that"
                                                  " share a group have sequences of their own, got plan ") +
                                      to_string(plan)));
}

TEST(DealRows, ARowCostsWhatItsProjectionsTake) {
  ModelConfig config = small_config();  // 48 wide
  const AttentionConfig& a = config.heads();
  EXPECT_EQ(row_cost_in_keys(config), config.hidden_size * (a.query_heads + a.kv_heads) / a.query_heads);
}

}  // namespace
}  // namespace foe

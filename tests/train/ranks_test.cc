// What ranks share: that the bits of a run do not depend on how many there are.
#include <atomic>
#include <memory>
#include <thread>

#include <gmock/gmock.h>

#include "base/error.h"
#include "comm/rank_lost.h"
#include "tiny_model.h"
#include "tiny_run.h"
#include "train/parts.h"
#include "train/run.h"
#include "train/split.h"
#include "train/sums.h"

namespace foe::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// Calls body(communicator) on so many ranks, which are threads.
template <typename Body>
void on_ranks(std::vector<std::unique_ptr<Communicator>> ranks, const Body& body) {
  std::vector<std::thread> threads;
  for (auto& comm : ranks)
    threads.emplace_back([&body, own = std::move(comm)]() mutable {
      EXPECT_NO_THROW(body(*own)) << "rank " << own->rank();
      own.reset();
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(TreeSum, AddsByTheBitsOfTheIndex) {
  const std::vector<double> x = {1, 0x1p-53, 0x1p-53, 3, 5, -0x1p-52, 0x1p52};
  EXPECT_EQ(tree_sum({}), 0);
  EXPECT_EQ(tree_sum(std::span(x).first(1)), x[0]);
  EXPECT_EQ(tree_sum(std::span(x).first(3)), (x[0] + x[1]) + x[2]);
  EXPECT_EQ(tree_sum(x), ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + x[6]));
}

// Every float of a parameter is in one piece, every piece has one owner, which has its parameters, and moments of a
// rank do not overlap.
TEST(Parts, HaveEveryParameterOnce) {
  const Layout layout(tiny_config(tiny_cases()[5]));
  for (const auto& [ranks, group_ranks] : {std::pair{1, 1}, {2, 1}, {3, 1}, {5, 1}, {2, 2}, {3, 3}, {4, 2}, {6, 3}}) {
    const Split split(ranks, layout.dims.streams, ranks, group_ranks);
    const Parts parts(layout, split);
    std::vector<int> covered(layout.size);
    std::vector<std::size_t> moments(ranks);
    int next = 0;
    for (const Bucket& bucket : parts.buckets())
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(bucket.begin[r], next);
        next = bucket.begin[r + 1];
        for (const Piece& piece : parts.pieces_of(bucket, r)) {
          EXPECT_EQ(piece.owner, r);
          EXPECT_TRUE(piece.everywhere || split.place_of(r) == piece.place);
          moments[r] += (piece.size + 15) / 16 * 16;
          EXPECT_LE(piece.moment + piece.size, parts.moments(r));
          EXPECT_TRUE(ranks > 1 || piece.moment == piece.offset);
          for (std::size_t i = 0; i < piece.size; ++i) ++covered[piece.offset + i];
        }
      }
    EXPECT_EQ(next, static_cast<int>(parts.pieces().size()));
    for (int r = 0; r < ranks; ++r) EXPECT_EQ(parts.moments(r), ranks == 1 ? layout.size : moments[r]);
    for (const TensorSlot& tensor : layout.tensors)
      for (std::size_t i = 0; i < tensor.size; ++i) ASSERT_EQ(covered[tensor.offset + i], 1) << tensor.name;
  }
}

// The parts of shards, of their ends and of groups that each rank has.
TEST(Split, GivesEachRankItsPartOfShardsAndGroups) {
  const Split split(5, 4, 6, 3);
  EXPECT_EQ(split.sets(), 2);
  std::vector<std::vector<int>> parts;
  for (int r = 0; r < 6; ++r)
    parts.push_back({split.shards(r).begin, split.shards(r).end, split.ends(r).begin, split.ends(r).end,
                     split.streams(r).begin, split.streams(r).end});
  EXPECT_THAT(parts, testing::ElementsAreArray<std::vector<int>>({{0, 2, 0, 0, 0, 1},
                                                                  {0, 2, 0, 1, 1, 2},
                                                                  {0, 2, 1, 2, 2, 4},
                                                                  {2, 5, 2, 3, 0, 1},
                                                                  {2, 5, 3, 4, 1, 2},
                                                                  {2, 5, 4, 5, 2, 4}}));
  EXPECT_EQ(split.place_with(3), 2);
  EXPECT_EQ(split.place_with_ends(0), 1);
  EXPECT_EQ(split.place_with_ends(4), 2);
}

TEST(Split, RefusesRanksThatCannotShare) {
  const auto refused = [](int shards, int streams, int ranks, int group_ranks, const char* message) {
    EXPECT_THAT([&] { Split(shards, streams, ranks, group_ranks); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  refused(2, 4, 3, 1, "train.shards: expected at least one shard for each of the 3 ranks, got 2");
  refused(1, 4, 4, 2, "train.shards: expected at least one shard for each of the 2 sets of ranks that share groups");
  refused(4, 1, 2, 2, "--group-ranks: expected 1 for a model whose groups have no updates of their own");
  refused(4, 2, 4, 4, "--group-ranks: expected 1 to 2, the groups of the model, got 4");
  refused(4, 4, 3, 2, "--group-ranks: expected a divisor of the 3 ranks, got 2");
}

class Ranks : public testing::TestWithParam<std::tuple<int, const char*>> {
 protected:
  // Trains on so many ranks, which stop after each step if `stop` is set. Returns whether the run has ended.
  static bool train(const TrainConfig& config, int ranks, int threads, bool stop, int group_ranks = 1) {
    const std::atomic<bool> stopped{stop};
    std::atomic<bool> ended{false};
    on_ranks(make_local_comms(ranks), [&](Communicator& comm) {
      RunOptions options{threads, &stopped, false, true};
      options.group_ranks = group_ranks;
      const bool end = run_training(config, options, comm);
      if (comm.rank() == 0) ended = end;
    });
    return ended;
  }

  static std::string files_of(const TrainConfig& config) {
    return read_all(config.run_dir + "/checkpoint.safetensors") + read_all(config.run_dir + "/model/model.safetensors");
  }

  static std::string toml(const std::string& precision = "f32") {
    std::string toml = with_train_key(kTinyToml, "precision = \"" + precision + "\"");
    toml.replace(toml.find("steps = 40"), 10, "steps = 12");
    toml.replace(toml.find("shards = 2"), 10, "shards = 4");
    return toml;
  }
};

TEST_P(Ranks, GiveTheBitsOfOne) {
  const auto& [ranks, precision] = GetParam();
  TemporaryDir alone, shared;
  const TrainConfig expected = tiny_run(alone, toml(precision)), config = tiny_run(shared, toml(precision));
  ASSERT_TRUE(run_training(expected, kQuiet));
  ASSERT_TRUE(train(config, ranks, 2, false));
  EXPECT_EQ(files_of(config), files_of(expected));
}

INSTANTIATE_TEST_SUITE_P(All, Ranks, testing::Combine(testing::Values(1, 2, 3, 4), testing::Values("f32", "bf16")));

// Every step on another number of ranks than the one before.
TEST_F(Ranks, ResumeOnOthersToTheSameBits) {
  for (const char* precision : {"f32", "bf16"}) {
    TemporaryDir alone, shared;
    const TrainConfig expected = tiny_run(alone, toml(precision)), config = tiny_run(shared, toml(precision));
    ASSERT_TRUE(run_training(expected, kQuiet));
    int step = 1;
    for (; !train(config, 1 + step % 4, 1 + step % 2, true); ++step) ASSERT_LE(step, config.steps);
    EXPECT_EQ(step, config.steps);
    EXPECT_EQ(files_of(config), files_of(expected)) << precision;
  }
}

TEST_F(Ranks, OnSeveralNodesGiveTheBitsOfOne) {
  TemporaryDir alone, shared;
  const TrainConfig expected = tiny_run(alone, toml()), config = tiny_run(shared, toml());
  ASSERT_TRUE(run_training(expected, kQuiet));
  on_ranks(make_local_comms(std::vector<int>{0, 0, 1}),
           [&](Communicator& comm) { run_training(config, kQuiet, comm); });
  EXPECT_EQ(files_of(config), files_of(expected));
}

TEST_F(Ranks, RefuseOtherTokensThanThoseOfRank0) {
  TemporaryDir one, other;
  const TrainConfig config = tiny_run(one, toml()), others = tiny_run(other, toml());
  write_all(other / "tokens/train.u16", u16_bytes(tiny_text(2000, 61, 9)));
  on_ranks(make_local_comms(2, 10), [&](Communicator& comm) {
    if (comm.rank() == 0) {
      EXPECT_THROW(run_training(config, kQuiet, comm), RankLost);
    } else {
      EXPECT_THAT([&] { run_training(others, kQuiet, comm); },
                  ThrowsMessage<Error>(HasSubstr("rank 1: data.train: expected the tokens of rank 0")));
    }
  });
}

}  // namespace
}  // namespace foe::train

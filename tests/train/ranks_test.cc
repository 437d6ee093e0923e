// What ranks share: that the bits of a run do not depend on how many there are.
#include <atomic>
#include <memory>
#include <thread>

#include <gmock/gmock.h>

#include "base/error.h"
#include "comm/rank_lost.h"
#include "tiny_model.h"
#include "tiny_run.h"
#include "train/exchange.h"
#include "train/run.h"

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

// Every float of a parameter is in one piece, every piece has one owner, and moments of a rank do not overlap.
TEST(Parts, HaveEveryParameterOnce) {
  const Layout layout(tiny_config(tiny_cases()[4]));
  for (const int ranks : {1, 2, 3, 5}) {
    const Parts parts(layout, ranks);
    std::vector<int> covered(layout.size);
    std::vector<std::size_t> moments(ranks);
    int next = 0;
    for (const Bucket& bucket : parts.buckets())
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(bucket.begin[r], next);
        next = bucket.begin[r + 1];
        for (const Piece& piece : parts.pieces_of(bucket, r)) {
          EXPECT_EQ(piece.owner, r);
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

class Ranks : public testing::TestWithParam<std::tuple<int, const char*>> {
 protected:
  // Trains on so many ranks, which stop after each step if `stop` is set. Returns whether the run has ended.
  static bool train(const TrainConfig& config, int ranks, int threads, bool stop) {
    const std::atomic<bool> stopped{stop};
    std::atomic<bool> ended{false};
    on_ranks(make_local_comms(ranks), [&](Communicator& comm) {
      const bool end = run_training(config, {threads, &stopped, false, true}, comm);
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
  on_ranks(make_local_comms(std::vector<int>{0, 0, 1}), [&](Communicator& comm) {
    run_training(config, kQuiet, comm);
  });
  EXPECT_EQ(files_of(config), files_of(expected));
}

TEST_F(Ranks, AreAtMostAsManyAsShards) {
  const Layout layout(tiny_config(tiny_cases()[0]));
  on_ranks(make_local_comms(3), [&](Communicator& comm) {
    EXPECT_THAT(
        [&] { Exchange(layout, 2, comm); },
        ThrowsMessage<Error>(HasSubstr("train.shards: expected at least one shard for each of the 3 ranks, got 2")));
  });
}

TEST_F(Ranks, RefuseOtherTokensThanThoseOfRank0) {
  TemporaryDir one, other;
  const TrainConfig config = tiny_run(one, toml()), others = tiny_run(other, toml());
  write_all(other / "tokens/train.u16", u16_bytes(tiny_text(2000, 61, 9)));
  on_ranks(make_local_comms(2, 10), [&](Communicator& comm) {
    if (comm.rank() == 0) {
      EXPECT_THROW(run_training(config, kQuiet, comm), RankLost);
    } else {
      EXPECT_THAT(
          [&] {
            run_training(others, kQuiet, comm);
          },
          ThrowsMessage<Error>(HasSubstr("rank 1: data.train: expected the tokens of rank 0")));
    }
  });
}

}  // namespace
}  // namespace foe::train

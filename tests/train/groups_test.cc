// Ranks that share the groups of a federated model: the bits are those of one rank, and what they send is known.
#include <atomic>
#include <memory>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>

#include "costs/sum_traffic.h"
#include "tiny_run.h"
#include "train/run.h"
#include "train/trainer.h"
#include "train/turns.h"

namespace foe::train {
namespace {

struct Arm {
  const char* name;
  const char* keys;  // in [model]
  int shards;
  const char* precision;
};

// All ways to federate, with four groups.
const Arm kArms[] = {
    {"Sum", "group_sync = 'sum'\nqk_norm = 'head'", 4, "f32"},
    {"SumInBf16", "group_sync = 'sum'\nqk_norm = 'head'", 3, "bf16"},
    {"MeanWithFullNorms", "group_sync = 'mean'\nqk_norm = 'full'\nnorm_topk_prob = true", 3, "f32"},
    {"SyncsEverySecond", "group_sync = 'sum'\nqk_norm = 'head'\ngroup_sync_every = 2", 2, "f32"},
    {"Parallel",
     "group_sync = 'mean'\nlayers = [{ blocks = [{ attention = {} }, { experts = { router = { across_groups = true } "
     "}, "
     "parallel = true }] }]",
     2, "f32"},
    {"Delayed",
     "group_sync = 'sum'\nqk_norm = 'head'\nlayers = [{ blocks = [{ attention = {} }, { experts = { router = { "
     "across_groups = true } } }] }, { blocks = [{ attention = {}, parallel = true, residual_factor = 0.5 }, { experts "
     "= "
     "{ router = { across_groups = true } }, residual_factor = 0.7 }] }]",
     2, "f32"},
};

std::string toml_of_arm(const Arm& arm) {
  std::string toml = with_train_key(kTinyToml, std::string("precision = '") + arm.precision + "'");
  const auto replace = [&](const std::string& from, const std::string& to) {
    toml.replace(toml.find(from), from.size(), to);
  };
  replace("num_key_value_heads = 2", "num_key_value_heads = 4");
  replace("num_experts_per_tok = 2", "num_experts_per_tok = 4");
  replace("expert_groups = 2", "expert_groups = 4");
  replace("group_sync = \"sum\"\nqk_norm = \"head\"", arm.keys);
  replace("batch_sequences = 4", "batch_sequences = 12");
  replace("shards = 2", "shards = " + std::to_string(arm.shards));
  replace("sequence_length = 24", "sequence_length = 12");
  replace("steps = 40", "steps = 5");
  replace("decay_steps = 10", "decay_steps = 2");
  return toml;
}

// Calls body(communicator) on so many ranks, which are threads.
template <typename Body>
void on_threads(int ranks, const Body& body) {
  std::vector<std::thread> threads;
  for (auto& comm : make_local_comms(ranks))
    threads.emplace_back([&body, own = std::move(comm)]() mutable {
      EXPECT_NO_THROW(body(*own)) << "rank " << own->rank();
      own.reset();
    });
  for (std::thread& thread : threads) thread.join();
}

struct Way {
  int ranks, group_ranks, threads;
};

bool train_in(const TrainConfig& config, const Way& way, bool stop = false) {
  const std::atomic<bool> stopped{stop};
  std::atomic<bool> ended{false};
  on_threads(way.ranks, [&](Communicator& comm) {
    RunOptions options{way.threads, &stopped, false, true};
    options.group_ranks = way.group_ranks;
    const bool end = run_training(config, options, comm);
    if (comm.rank() == 0) ended = end;
  });
  return ended;
}

// All that a run leaves, but for how fast it was.
std::string files_of_run(const TrainConfig& config) {
  std::string metrics = read_all(config.run_dir + "/metrics.jsonl");
  for (std::size_t at; (at = metrics.find(",\"tokens_per_s\"")) != std::string::npos;)
    metrics.erase(at, metrics.find('}', at) - at);
  return metrics + read_all(config.run_dir + "/checkpoint.safetensors") +
         read_all(config.run_dir + "/model/model.safetensors");
}

class GroupRanks : public testing::TestWithParam<Arm> {};

TEST_P(GroupRanks, GiveTheBitsOfOne) {
  TemporaryDir alone;
  const TrainConfig expected = tiny_run(alone, toml_of_arm(GetParam()));
  ASSERT_TRUE(train_in(expected, {1, 1, 1}));
  for (const Way& way : {Way{2, 2, 1}, {3, 3, 2}, {4, 4, 1}, {4, 2, 2}, {2, 1, 1}}) {
    TemporaryDir shared;
    const TrainConfig config = tiny_run(shared, toml_of_arm(GetParam()));
    ASSERT_TRUE(train_in(config, way));
    EXPECT_EQ(files_of_run(config), files_of_run(expected))
        << way.ranks << " ranks, " << way.group_ranks << " share groups";
  }
}

// Every step on another number of ranks, which share other things, than the one before.
TEST_P(GroupRanks, ResumeInOtherWaysToTheSameBits) {
  TemporaryDir alone, shared;
  const TrainConfig expected = tiny_run(alone, toml_of_arm(GetParam())),
                    config = tiny_run(shared, toml_of_arm(GetParam()));
  ASSERT_TRUE(train_in(expected, {1, 1, 1}));
  const std::vector<Way> ways = {{2, 2, 2}, {2, 1, 1}, {4, 2, 1}, {3, 3, 1}, {1, 1, 2}};
  int step = 0;
  for (; !train_in(config, ways[step % ways.size()], true); ++step) ASSERT_LE(step, config.steps);
  EXPECT_EQ(step + 1, config.steps);
  EXPECT_EQ(files_of_run(config), files_of_run(expected));
}

INSTANTIATE_TEST_SUITE_P(All, GroupRanks, testing::ValuesIn(kArms),
                         [](const auto& instance) { return instance.param.name; });

// One shard: the second rank computes no ends.
TEST(GroupRanks, AreAsManyAsGroupsWithFewerShards) {
  TemporaryDir alone, shared;
  Arm arm = kArms[0];
  arm.shards = 1;
  const TrainConfig expected = tiny_run(alone, toml_of_arm(arm)), config = tiny_run(shared, toml_of_arm(arm));
  ASSERT_TRUE(train_in(expected, {1, 1, 1}));
  ASSERT_TRUE(train_in(config, {3, 3, 1}));
  EXPECT_EQ(files_of_run(config), files_of_run(expected));
}

// What a rank sends in a step, as docs/training.md says.
struct Sent {
  std::uint64_t bytes = 0, calls = 0;
  bool operator==(const Sent&) const = default;
};

Sent expected_of_groups(const TrainConfig& config, const Layout& layout, const Split& split, int rank) {
  const Dims& d = layout.dims;
  const SumPlan& plan = split.over_streams();
  const std::vector<int> nodes(split.ranks());
  const std::uint64_t peers = split.ranks() - 1, shards = config.shards, L = d.layers;
  const std::uint64_t tokens = config.batch_tokens() / shards, row = tokens * d.hidden;
  const std::uint64_t partial = plan.partials(rank) * row * sizeof(float), ends = split.ends(rank).size();
  Sent sent;
  const auto add = [&](std::uint64_t bytes, std::uint64_t calls) { sent.bytes += bytes, sent.calls += calls; };
  // Each shard: a sum over groups in each layer and pass; the last one of each pass, at the owner of the ends; its
  // gradient to the others; what the router's softmax needs; norms.
  const std::uint64_t common = 2 * d.hidden + 2 * d.head_dim;
  add(shards * 2 * L * sum_traffic(plan, nodes, rank, row).bytes, shards * 2 * L);
  add((shards - ends) * 2 * partial, shards * 2);
  add(ends * row * sizeof(float) * peers, shards);
  add(shards * L * tokens * d.top_k * split.streams(rank).size() / d.streams * sizeof(float) * peers, shards * L);
  add(shards * sum_traffic(plan, nodes, rank, L * common).bytes, shards);
  // The step: gradients of the ends, parameters that all have, losses, and norms of pieces.
  const Parts parts(layout, split);
  std::uint64_t pieces = 0, ends_buckets = 0, shared_buckets = 0;
  for (const Bucket& bucket : parts.buckets()) {
    bool of_ends = false, everywhere = false;
    for (const Piece& piece : parts.pieces_of(bucket)) {
      of_ends |= piece.ends;
      everywhere |= piece.everywhere;
      pieces += piece.owner == rank;
      if (piece.ends && piece.owner != rank) add(split.over_ends().partials(rank) * piece.size * sizeof(float), 0);
      if (piece.everywhere && piece.owner == rank) add(piece.size * sizeof(float) * peers, 0);
    }
    ends_buckets += of_ends;
    shared_buckets += everywhere;
  }
  add(0, ends_buckets + shared_buckets);
  add((4 * ends + pieces) * sizeof(double) * peers, 2);
  return sent;
}

Sent expected_of_shards(const Layout& layout, const Split& split, int rank) {
  const Parts parts(layout, split);
  const std::uint64_t peers = split.ranks() - 1;
  Sent sent;
  std::uint64_t pieces = 0;
  for (const Piece& piece : parts.pieces()) {
    const bool own = piece.owner == rank;
    pieces += own;
    sent.bytes += (own ? peers : split.over_ends().partials(rank)) * piece.size * sizeof(float);
  }
  sent.bytes += (4 * split.shards(rank).size() + pieces) * sizeof(double) * peers;
  sent.calls = 2 * parts.buckets().size() + 2;
  return sent;
}

TEST(GroupRanks, SendWhatIsExpected) {
  TemporaryDir dir;
  const TrainConfig config = tiny_run(dir, toml_of_arm(kArms[0]));
  const TokenData data = load_token_data(config.tokens, config.sequence_length);
  for (const auto& [ranks, group_ranks] : {std::pair{2, 1}, {2, 2}, {3, 3}, {4, 4}})
    on_threads(ranks, [&, r = ranks, g = group_ranks](Communicator& comm) {
      ThreadPool pool(1);
      Trainer trainer(config, data, pool, comm, g);
      const CommCounters before = comm.counters();
      trainer.step();
      const CommCounter counted = (comm.counters() - before).total();
      const Split split(config.shards, trainer.layout().dims.streams, r, g);
      const Sent expected = g == 1 ? expected_of_shards(trainer.layout(), split, comm.rank())
                                   : expected_of_groups(config, trainer.layout(), split, comm.rank());
      EXPECT_EQ(counted.bytes, expected.bytes) << "rank " << comm.rank() << " of " << r;
      EXPECT_EQ(counted.calls, expected.calls) << "rank " << comm.rank() << " of " << r;
    });
}

// Exchanges run in one order, with fewer threads than shards and with more.
TEST(Turns, RunTheExchangesOfShardsInTurn) {
  for (const int threads : {1, 2, 8}) {
    Turns turns(3, threads);
    for (int time = 0; time < 2; ++time) {
      std::vector<int> order;
      std::atomic<int> computing{0}, most{0};
      turns.run([&](int shard) {
        for (int i = 0; i < 4; ++i) {
          const int now = ++computing;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) continue;
          --computing;
          turns.exchange(shard, [&] { order.push_back(10 * i + shard); });
        }
      });
      EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32));
      EXPECT_LE(most, threads);
    }
  }
}

TEST(Turns, EndAllShardsWithTheErrorOfOne) {
  Turns turns(3, 1);
  const auto failing = [&](int at, bool in_exchange) {
    turns.run([&](int shard) {
      for (int i = 0; i < 3; ++i) {
        if (shard == 1 && i == at && !in_exchange) throw std::runtime_error("a shard's");
        turns.exchange(shard, [&] {
          if (shard == 1 && i == at && in_exchange) throw std::runtime_error("an exchange's");
        });
      }
    });
  };
  for (const int at : {0, 2}) {
    EXPECT_THAT([&] { failing(at, false); }, testing::ThrowsMessage<std::runtime_error>("a shard's"));
    EXPECT_THAT([&] { failing(at, true); }, testing::ThrowsMessage<std::runtime_error>("an exchange's"));
  }
  EXPECT_NO_THROW(failing(3, false));
}

}  // namespace
}  // namespace foe::train

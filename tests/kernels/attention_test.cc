#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

#include <gtest/gtest.h>

#include "attention_check.h"
#include "base/sanitized.h"

namespace foe {
namespace {

constexpr int kHeadDims[] = {1, 3, 16, 17, 24, 64, 96, 100, 128};
constexpr Heads kHeads[] = {{1, 1}, {2, 2}, {4, 2}, {3, 1}, {4, 1}, {7, 1}};

// For the i-th head dimension: over six dimensions, all numbers of heads twice.
std::array<Heads, 2> two_heads(std::size_t i) {
  return {kHeads[i % std::size(kHeads)], kHeads[(i + 3) % std::size(kHeads)]};
}

class AttentionOf : public testing::TestWithParam<Types> {};

INSTANTIATE_TEST_SUITE_P(KvTypes, AttentionOf, testing::ValuesIn(kAllTypes),
                         [](const auto& types) { return name_of(types.param); });

TEST_P(AttentionOf, MatchesReference) {
  const auto pools = thread_pools();
  for (std::size_t i = 0; i < std::size(kHeadDims); ++i)
    for (const Heads heads : two_heads(i))
      for (const int length : {1, 2, 15, 16, 17, 127, 128, 129, 256, 257, 400}) {
        const int head_dim = kHeadDims[i];
        SCOPED_TRACE(testing::Message() << heads.query << " heads over " << heads.kv << " of " << head_dim << ", "
                                        << length << " positions");
        Layer layer(heads, head_dim, GetParam(), {length}, length);
        const int queries = std::min(length, 5);
        for_each_target_of(GetParam(), [&] {
          layer.run(*pools[length % 3], {{0, 0, length - queries}});
          layer.run(*pools[length % 3], {{0, length - queries, queries}});
          check(layer, layer.sequences[0], queries);
        });
        if (testing::Test::HasFailure()) return;
      }
}

TEST_P(AttentionOf, WholePrefillMatchesReference) {
  ThreadPool pool(2);
  Layer layer({4, 2}, 16, GetParam(), {300}, 1);
  for_each_target_of(GetParam(), [&] {
    layer.run_whole(pool);
    check(layer, layer.sequences[0], 300);
  });
}

// Scores so far apart that most weights vanish, in one span or in all but one.
TEST_P(AttentionOf, LargeScoresMatchReference) {
  ThreadPool pool(2);
  Layer layer({2, 1}, 24, GetParam(), {290}, 2);
  for (float& q : layer.sequences[0].q_SnC) q *= 60;
  for_each_target_of(GetParam(), [&] {
    layer.run_whole(pool);
    check(layer, layer.sequences[0], 290);
  });
}

// The promise "Bits" (docs/architecture.md): prefill = chunks of any size = token by token, which is every context from
// 1 to `length` as a prefill of its own; on every instruction set, with any number of threads.
TEST_P(AttentionOf, BitsDependOnNeitherChunksNorTargetNorThreads) {
  for (std::size_t i = 0; i < std::size(kHeadDims); ++i)
    for (const Heads heads : two_heads(i)) {
      const int head_dim = kHeadDims[i];
      SCOPED_TRACE(testing::Message() << heads.query << " heads over " << heads.kv << " of " << head_dim);
      const int length = kSanitized ? kAttentionSpan + 17 : 400;
      Layer layer(heads, head_dim, GetParam(), {length}, head_dim);
      check_chunks(layer, GetParam(), {1, 7, 16, 100, 127, length - 1});
      if (testing::Test::HasFailure()) return;
    }
}

// The logarithm of the sum of e^score. A term errs as a weight does (attention_check.h), and a relative error of the
// sum is an absolute one of its logarithm, which is rounded itself and when the largest score is added to it.
TEST(Attention, LogSumsMatchReference) {
  constexpr int kLength = 300, kHeadDim = 24, kSpans = 3;
  constexpr Heads kTwo{2, 1};
  const auto pools = thread_pools();
  Layer layer(kTwo, kHeadDim, {}, {kLength}, 6);
  const auto q = to_double(layer.sequences[0].q_SnC), k = to_double(layer.sequences[0].k_SmC);
  for_each_target([&] {
    for (const auto& pool : pools)
      for (const int queries : {kLength, 1}) {  // one query's spans are shared by threads
        layer.run(*pool, {{0, kLength - queries, queries}});
        for (int i = 0; i < queries * kTwo.query; ++i) {
          const int token = kLength - queries + i / kTwo.query, head = i % kTwo.query;
          const double* q_C = q.data() + (token * kTwo.query + head) * kHeadDim;
          const Scores scores = scores_of(layer, q_C, k, 0, token + 1, head);
          double sum = 0;
          for (const double s : ref::scores({}, q_C, k, token + 1, 1, 0, kHeadDim)) sum += std::exp(s);
          const double expected = std::log(sum), score_error = gamma(kHeadDim + 3) * scores.magnitude;
          ASSERT_NEAR(layer.log_sum_Tn[i], expected,
                      score_error + kUnitRoundoff * (scores.largest - scores.smallest + 2 * score_error) +
                          gamma(4 * (1 + kSpans) + kAttentionSpan + 4 * kSpans + 1) +
                          kUnitRoundoff * (2 * std::abs(expected) + 2 * std::abs(scores.largest)))
              << "token " << token << ", head " << head << ", " << pool->threads() << " threads";
        }
      }
  });
}

// Few queries over many positions: threads share their spans. One thread takes them as they come.
TEST_P(AttentionOf, BitsDependNotOnWhoTakesWhichSpans) {
  const std::vector<int> lengths = {kSanitized ? 600 : 3000, 40, 700, 1};
  for (const Heads heads : {Heads{1, 1}, Heads{7, 1}, Heads{4, 2}}) {
    Layer layer(heads, 17, GetParam(), lengths, 5);
    ThreadPool one(1);
    for_each_target_of(GetParam(), [&] {
      layer.run_whole(one);
      const auto expected = layer.results();
      for (const int threads : {2, 3, 8}) {
        ThreadPool pool(threads);
        for (const int tokens : {1, 3}) {
          std::vector<Layer::Chunk> last = last_chunks(lengths, tokens);
          for (std::size_t begin = 0; begin < last.size(); ++begin) {
            for (Sequence& s : layer.sequences) std::fill(s.out_SnW.end() - heads.query * 17, s.out_SnW.end(), -7.0f);
            layer.run(pool, last);
            ASSERT_EQ(layer.results(), expected) << threads << " threads, " << tokens << " tokens";
            std::rotate(last.begin(), last.begin() + 1, last.end());
          }
          layer.run(pool, {last.front()});
          ASSERT_EQ(layer.results(), expected) << threads << " threads, alone";
        }
      }
    });
  }
}

TEST_P(AttentionOf, BitsDependNotOnWhereBlocksLie) {
  ThreadPool pool(2);
  Layer shuffled({4, 2}, 24, GetParam(), {400}, 3), ordered({4, 2}, 24, GetParam(), {400}, 3);
  std::iota(ordered.sequences[0].blocks.begin(), ordered.sequences[0].blocks.end(), 0);
  ASSERT_NE(shuffled.sequences[0].blocks, ordered.sequences[0].blocks);
  shuffled.run_whole(pool);
  ordered.run_whole(pool);
  EXPECT_EQ(shuffled.results(), ordered.results());
}

// Sequences that decode, prefill and sit in the middle of their prompt, together and alone.
TEST_P(AttentionOf, BitsDependNotOnTheBatch) {
  const std::vector<int> lengths = {1, 400, 37, 128, 129, 16, 250};
  for (const auto& pool : thread_pools())
    for (const Heads heads : kHeads)
      for_each_target_of(GetParam(), [&] {
        Layer alone(heads, 10, GetParam(), lengths, 4), together(heads, 10, GetParam(), lengths, 4);
        alone.run_in_chunks(*pool, 400);

        std::vector<int> done(lengths.size(), 0);
        for (int step = 0; done != lengths; ++step) {
          std::vector<Layer::Chunk> chunks;
          for (int s = 0; s < static_cast<int>(lengths.size()); ++s) {
            const int wanted = (s + step) % 3 == 0 ? 1 : static_cast<int>(random_bits(step, s) % 60);
            const int count = std::min(wanted, lengths[s] - done[s]);
            if (count > 0 || step % 2) chunks.push_back({s, done[s], count});  // with and without empty ones
            done[s] += count;
          }
          together.run(*pool, chunks);
        }
        ASSERT_EQ(together.results(), alone.results());
      });
}

TEST(Attention, ARankWithoutHeadsDoesNothing) {
  ThreadPool pool(1);
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>(3), 0, std::vector<std::int32_t>{0}, Batch::Sample::kNone);
  write_kv(pool, batch, {0, 16, 16}, nullptr, nullptr, nullptr);
  attention(pool, batch, {0, 16, 16}, 0, {}, nullptr, nullptr, nullptr);
}

TEST(AttentionDeathTest, HeadsMustDivide) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ThreadPool pool(1);
  EXPECT_DEATH(attention(pool, Batch(), {2, 16, 16}, 3, {}, nullptr, nullptr, nullptr), "3 query heads, 2 KV heads");
}

}  // namespace
}  // namespace foe

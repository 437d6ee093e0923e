// Attention with a scale, a soft-cap, a window, sinks, and values of another width than keys.
#include <tuple>

#include <gtest/gtest.h>

#include "attention_check.h"
#include "base/sanitized.h"

namespace foe {
namespace {

struct Case {
  const char* name;
  Widths widths;
  Rule rule;
};

const Case kCases[] = {
    {"scale", 24, {.scale = 0.07}},
    {"softcap", 16, {.softcap = 1.5}},
    {"softcap_and_scale", 34, {.scale = 0.5, .softcap = 2}},
    {"wide_softcap", 64, {.softcap = 50}},
    {"window_1", 16, {.window = 1}},
    {"window_17", 17, {.window = 17}},
    {"window_127", 24, {.window = 127}},
    {"window_128", 16, {.window = 128}},
    {"window_129", 32, {.window = 129}},
    {"window_300", 16, {.window = 300}},
    {"sinks", 24, {.sinks = true}},
    {"narrow_values", {40, 16}, {}},
    {"wide_values", {16, 70}, {}},
    {"all", {48, 33}, {.scale = 0.2, .softcap = 3, .window = 150, .sinks = true}},
};

class AttentionWith : public testing::TestWithParam<std::tuple<Types, Case>> {
 protected:
  Types types() const { return std::get<Types>(GetParam()); }
  const Case& rule() const { return std::get<Case>(GetParam()); }
  Layer layer(Heads heads, const std::vector<int>& lengths, std::uint64_t seed) const {
    return {heads, rule().widths, types(), lengths, seed, rule().rule};
  }
};

INSTANTIATE_TEST_SUITE_P(Rules, AttentionWith,
                         testing::Combine(testing::ValuesIn(kAllTypes), testing::ValuesIn(kCases)),
                         [](const auto& test) {
                           return name_of(std::get<Types>(test.param)) + "_" + std::get<Case>(test.param).name;
                         });

TEST_P(AttentionWith, MatchesReference) {
  const auto pools = thread_pools();
  for (const Heads heads : {Heads{4, 2}, Heads{7, 1}})
    for (const int length : {1, 17, 129, 300}) {
      SCOPED_TRACE(testing::Message() << heads.query << " heads over " << heads.kv << ", " << length << " positions");
      Layer l = layer(heads, {length}, length);
      const int queries = std::min(length, 5);
      for_each_target_of(types(), [&] {
        l.run(*pools[length % 3], {{0, 0, length - queries}});
        l.run(*pools[length % 3], {{0, length - queries, queries}});
        check(l, l.sequences[0], queries);
        l.run_whole(*pools[length % 3]);
        check(l, l.sequences[0], length);
      });
      if (testing::Test::HasFailure()) return;
    }
}

TEST_P(AttentionWith, BitsDependOnNeitherChunksNorTargetNorThreads) {
  const int length = kSanitized ? kAttentionSpan + 17 : 300;
  for (const Heads heads : {Heads{1, 1}, Heads{7, 1}}) {
    Layer l = layer(heads, {length}, 11);
    check_chunks(l, types(), {1, 7, 100, length - 1});
    if (testing::Test::HasFailure()) return;
  }
}

// Few queries over many positions: threads share the spans that their windows leave.
TEST_P(AttentionWith, BitsDependNotOnWhoTakesWhichSpans) {
  const std::vector<int> lengths = {kSanitized ? 600 : 1500, 40, 700, 1};
  Layer l = layer({7, 1}, lengths, 5);
  const std::size_t width = std::size_t{7} * l.shape.value_width;
  ThreadPool one(1);
  for_each_target_of(types(), [&] {
    l.run_whole(one);
    const auto expected = l.results();
    for (const int threads : {2, 8}) {
      ThreadPool pool(threads);
      for (const int tokens : {1, 3, 20}) {
        for (Sequence& s : l.sequences) std::fill(s.out_SnW.end() - width, s.out_SnW.end(), -7.0f);
        l.run(pool, last_chunks(lengths, tokens));
        ASSERT_EQ(l.results(), expected) << threads << " threads, " << tokens << " tokens";
      }
    }
  });
}

// What a window hides is not read, unless it is in a span that the query sees: it may be gone.
TEST(AttentionWindow, ReadsNoSpanThatIsHidden) {
  constexpr int kLength = 3 * kAttentionSpan + 20, kWindow = 60;
  ThreadPool pool(2);
  for (const Types types : kAllTypes)
    for_each_target_of(types, [&] {
      Layer l({4, 2}, 16, types, {kLength}, 1, {.window = kWindow});
      l.run_whole(pool);
      const auto expected = l.results();
      for (int b = 0; b < 2 * kAttentionSpan / kKvBlock; ++b)
        std::fill_n(l.kv.begin() + l.sequences[0].blocks[b] * l.shape.block_bytes(), l.shape.block_bytes(),
                    std::byte{0xff});  // NaN
      l.run(pool, {{0, kLength - 20, 20}});
      EXPECT_EQ(l.results(), expected) << name_of(types);
    });
}

class AttentionOfType : public testing::TestWithParam<Types> {};
INSTANTIATE_TEST_SUITE_P(KvTypes, AttentionOfType, testing::ValuesIn(kAllTypes),
                         [](const auto& types) { return name_of(types.param); });

// Written out, each default has the bits of attention without it: a window that hides nothing, the scale.
TEST_P(AttentionOfType, DefaultsWrittenOutChangeNoBit) {
  ThreadPool pool(2);
  for_each_target_of(GetParam(), [&] {
    for (const int width : {64, 24, 128}) {
      Layer plain({4, 2}, width, GetParam(), {300}, 1);
      plain.run_whole(pool);
      for (const Rule& rule : {Rule{.window = 300}, Rule{.window = 1 << 30}, Rule{.scale = 1 / std::sqrt(width)}}) {
        Layer written({4, 2}, width, GetParam(), {300}, 1, rule);
        written.run_whole(pool);
        EXPECT_EQ(written.results(), plain.results()) << "window " << rule.window << ", scale " << rule.scale;
      }
    }
  });
}

TEST(AttentionParamsDeathTest, SinksAreOfAllHeads) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ThreadPool pool(1);
  const float sink = 0;
  EXPECT_DEATH(attention(pool, Batch(), {2, 16, 16}, 4, {.sinks_n = {&sink, 1}}, nullptr, nullptr, nullptr),
               "1 sinks, 4 query heads");
  EXPECT_DEATH(attention(pool, Batch(), {2, 16, 16}, 4, {.window = -1}, nullptr, nullptr, nullptr), "window -1");
}

}  // namespace
}  // namespace foe

#include "load/spec_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace foe {
namespace {

using nlohmann::json;

constexpr const char* kText = R"(# HELP vllm:spec_decode_num_drafts_total Drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="a b"} 10.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="a b"} 2.0
vllm:spec_decode_num_drafts_created{engine="0"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0"} 4e1
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 15.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 9.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 6.0
vllm:generation_tokens_total 77
)";

TEST(SpecDecode, ReadsTheCountersOfVllmAndFoe) {
  const auto counts = read_spec_decode(kText);
  ASSERT_TRUE(counts);
  EXPECT_EQ(counts->drafts, 12);
  EXPECT_EQ(counts->draft_tokens, 40);
  EXPECT_EQ(counts->accepted_tokens, 15);
  EXPECT_EQ(counts->by_position, (std::map<int, double>{{0, 9}, {1, 6}}));
  EXPECT_EQ(read_spec_decode("foe:spec_decode_num_drafts_total{model_name=\"m\"} 3")->drafts, 3);
  EXPECT_FALSE(read_spec_decode(""));
  EXPECT_FALSE(read_spec_decode("vllm:generation_tokens_total 77\n"));
}

TEST(SpecDecode, SkipsWhatIsNoCounter) {
  for (const char* line : {"vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_drafts_total ",
                           "vllm:spec_decode_num_drafts_total{} x", "vllm:spec_decode_num_drafts_total{} nan",
                           "vllm:spec_decode_num_drafts_total{} 1x", ":spec_decode_", "{", " ",
                           "# vllm:spec_decode_num_drafts_total 3", "x{a=\"vllm:spec_decode_num_drafts_total\"} 1"})
    EXPECT_FALSE(read_spec_decode(line)) << line;
  const auto counts = read_spec_decode(
      "v:spec_decode_num_accepted_tokens_per_pos_total{position=\"-1\"} 1\n"
      "v:spec_decode_num_accepted_tokens_per_pos_total{position=\"99999999999\"} 1\n"
      "v:spec_decode_num_accepted_tokens_per_pos_total{position=\"\"} 1\n"
      "v:spec_decode_num_accepted_tokens_per_pos_total 1");
  EXPECT_TRUE(counts->by_position.empty());
}

TEST(SpecDecode, SaysWhatWasGuessedDuringARun) {
  const auto before = read_spec_decode(kText);
  auto after = before;
  EXPECT_FALSE(counted_between(before, after)) << "nothing was guessed";
  EXPECT_FALSE(counted_between(before, {}));
  EXPECT_FALSE(counted_between({}, after));
  after->drafts += 4;
  after->draft_tokens += 16;
  after->accepted_tokens += 12;
  after->by_position[0] += 4;
  after->by_position[2] = 1;
  const auto counts = counted_between(before, after);
  ASSERT_TRUE(counts);
  EXPECT_EQ(to_json(*counts), (json{{"spec_decode_acceptance_rate", 75.0},
                                    {"spec_decode_acceptance_length", 4.0},
                                    {"spec_decode_num_drafts", 4},
                                    {"spec_decode_draft_tokens", 16},
                                    {"spec_decode_accepted_tokens", 12},
                                    {"spec_decode_per_position_acceptance_rates", {1.0, 0.0, 0.25}}}));
}

}  // namespace
}  // namespace foe

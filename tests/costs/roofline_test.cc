#include "costs/roofline.h"

#include <bit>
#include <vector>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"

namespace foe {
namespace {

// Elements of a layer: attention 4 * (2 * 4 + 2 * 2) * 16 = 768, router 4 * 4 = 16, experts 4 * 3 * 5 * 4 = 240; head
// 10 * 4 = 40. Two layers.
ModelConfig tiny() {
  ModelConfig c = countable_config();
  set(c, &AttentionConfig::key_width, 16);
  set(c, &ExpertsConfig::per_token, 1);
  return c;
}

ModelConfig larger(int groups) {
  return groups > 1 ? small_federated(groups) : small_config();
}

StepWork on_one_rank(const ModelConfig& config, const DecodeStep& step) {
  return decode_work(config, make_placement(config, default_plan(config), 1), 0, step);
}

void expect_work(const Work& work, double bytes, double flops) {
  EXPECT_DOUBLE_EQ(work.bytes, bytes);
  EXPECT_DOUBLE_EQ(work.flops, flops);
}

TEST(Roofline, OneSequenceByHand) {
  const StepWork work = on_one_rank(tiny(), {.sequences = 1, .context = 7});
  expect_work(work.projections, 2 * 768 * 2, 2 * 2 * 768);
  // Two layers of 7 positions: two heads of 16 keys and 16 values of 2 bytes; four query heads.
  expect_work(work.attention, 2 * 7 * 2 * 32 * 2, 2 * 7 * 4 * 2 * (16 + 16));
  expect_work(work.router, 2 * 16 * 4, 2 * 2 * 16);
  expect_work(work.experts, 2 * (240 / 4) * 2, 2 * 2 * (240 / 4));
  expect_work(work.head, 40 * 2, 2 * 40);
  expect_work(work.total(), 3072 + 1792 + 128 + 240 + 80, 3072 + 3584 + 64 + 240 + 80);
}

TEST(Roofline, WindowsAndWidthsOfValues) {
  ModelConfig config = tiny();
  set(config, &AttentionConfig::value_width, 32);
  config.attention(1).window = 5;
  const StepWork work = on_one_rank(config, {.sequences = 1, .context = 7});
  const double elements = 4 * (4 + 2) * (16 + 32);
  expect_work(work.projections, 2 * elements * 2, 2 * 2 * elements);
  expect_work(work.attention, (7 + 5) * 2 * (16 + 32) * 2, (7 + 5) * 4 * 2 * (16 + 32));
}

TEST(Roofline, SequencesShareWeightsButNotPositions) {
  const DecodeStep one{.sequences = 1, .context = 7}, two{.sequences = 2, .context = 7};
  const StepWork a = on_one_rank(tiny(), one), b = on_one_rank(tiny(), two);
  expect_work(b.projections, a.projections.bytes, 2 * a.projections.flops);
  expect_work(b.attention, 2 * a.attention.bytes, 2 * a.attention.flops);
  expect_work(b.router, a.router.bytes, 2 * a.router.flops);
  expect_work(b.head, a.head.bytes, 2 * a.head.flops);
  // Of the second token's experts, one in four is the first's.
  expect_work(b.experts, 1.75 * a.experts.bytes, 2 * a.experts.flops);
}

TEST(Roofline, TypesCountTheirBytes) {
  const auto with = [](WeightFormat w, KvType kv) {
    return on_one_rank(tiny(), {.sequences = 1, .context = 16, .weights = {w, w, w}, .kv = kv});
  };
  const StepWork bf16 = with(WeightFormat::kBF16, KvType::kBF16), f32 = with(WeightFormat::kF32, KvType::kF32);
  EXPECT_EQ(f32.projections.bytes, 2 * bf16.projections.bytes);
  EXPECT_EQ(f32.experts.bytes, 2 * bf16.experts.bytes);
  EXPECT_EQ(f32.head.bytes, 2 * bf16.head.bytes);
  EXPECT_EQ(f32.router.bytes, bf16.router.bytes);
  EXPECT_EQ(f32.attention.bytes, 2 * bf16.attention.bytes);
  // A byte for each element, and two scales of 4 bytes for each position and head.
  EXPECT_EQ(with(WeightFormat::kBF16, KvType::kInt8).attention.bytes, 2 * 16 * 2 * (32 + 8));
  EXPECT_EQ(f32.total().flops, bf16.total().flops);
}

// Bits with their scales; their products are of integers, but for the router and attention.
TEST(Roofline, QuantisedWeights) {
  const auto with = [](const WeightFormats& weights) {
    return on_one_rank(tiny(), {.sequences = 1, .context = 16, .weights = weights});
  };
  const StepWork bf16 = with({}), int8 = with({WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4});
  expect_work(int8.projections, bf16.projections.bytes, bf16.projections.flops);
  expect_work(int8.experts, bf16.experts.bytes * 8.25 / 16, 0);
  expect_work(int8.head, bf16.head.bytes * 4.25 / 16, 0);
  EXPECT_EQ(int8.experts.dots, bf16.experts.flops);
  EXPECT_EQ(int8.total().dots, bf16.experts.flops + bf16.head.flops);
  const MachineLimits limits{.read_bytes_per_s = 100, .flops_per_s = 1000, .dots_per_s = 2000};
  EXPECT_EQ(arithmetic_seconds({.bytes = 50, .flops = 1000, .dots = 1000}, limits), 1.5);
  EXPECT_EQ(least_seconds({.bytes = 50, .flops = 1000, .dots = 1000}, limits), 1.5);
}

TEST(Roofline, TouchedExpertsAreTheMeanOverAllSelections) {
  ModelConfig config = tiny();
  set(config, &ExpertsConfig::per_token, 2);
  for (const int groups : {1, 2}) {
    config.expert_groups = groups;
    std::vector<unsigned> selections;
    for (unsigned mask = 0; mask < 16; ++mask)
      if (std::popcount(mask) == 2 && (groups == 1 || std::popcount(mask & 3u) == 1)) selections.push_back(mask);
    int one = 0, two = 0;
    for (const unsigned a : selections) {
      one += std::popcount(a);
      for (const unsigned b : selections) two += std::popcount(a | b);
    }
    const auto count = static_cast<double>(selections.size());
    EXPECT_DOUBLE_EQ(experts_touched(config, 0, 1), one / count);
    EXPECT_DOUBLE_EQ(experts_touched(config, 0, 2), two / (count * count));
  }
}

TEST(Roofline, TouchedExpertsAtTheirLimits) {
  ModelConfig config = larger(1);
  EXPECT_EQ(experts_touched(config, 0, 0), 0);
  EXPECT_DOUBLE_EQ(experts_touched(config, 0, 1), 4);
  EXPECT_EQ(experts_touched(config, 0, 10000), 16);
  set(config, &ExpertsConfig::per_token, 16);
  EXPECT_EQ(experts_touched(config, 0, 1), 16);
  make_dense(config);  // dense
  EXPECT_EQ(experts_touched(config, 0, 1), 1);
}

TEST(Roofline, ADenseModelReadsAllOfItsWeights) {
  ModelConfig config = tiny();
  make_dense(config);
  const StepWork work = on_one_rank(config, {.sequences = 3, .context = 1});
  expect_work(work.router, 0, 0);
  expect_work(work.experts, 2 * 60 * 2, 2 * 2 * 60 * 3);
}

// What is on one rank is all that there is in memory, once every expert is touched.
TEST(Roofline, EverythingTouchedIsEverythingHeld) {
  for (const int groups : {1, 4}) {
    const ModelConfig config = larger(groups);
    const Placement placement = make_placement(config, default_plan(config), 1);
    const Work all = on_one_rank(config, {.sequences = 10000, .context = 0}).total();
    EXPECT_EQ(all.bytes, matrix_elements(config, placement.ranks[0]).bytes({}));
  }
}

// Each layer has its own shape; a dense one is whole on every rank of plan ep, which runs its own sequences there.
TEST(Roofline, LayersOfDifferentShapes) {
  ModelConfig config = larger(1);
  config.experts(0) = dense_experts(100);
  config.experts(1).count = 8;
  const double D = config.hidden_size;
  const Placement one = make_placement(config, Plan::kTp, 1);
  const Work all = on_one_rank(config, {.sequences = 10000, .context = 0}).total();
  EXPECT_EQ(all.bytes, matrix_elements(config, one.ranks[0]).bytes({}));
  ModelConfig without = config;
  without.experts(0) = dense_experts(1);
  const DecodeStep step{.sequences = 5, .context = 3};
  const double dense = on_one_rank(config, step).experts.flops - on_one_rank(without, step).experts.flops;
  EXPECT_NEAR(dense, 2.0 * 3 * 99 * D * 5, 1e-6);
  const auto second_of_two = [&](const ModelConfig& c) {
    return decode_work(c, make_placement(c, Plan::kEp, 2), 1, step).experts.flops;
  };
  const double in_ep = second_of_two(config) - second_of_two(without);
  EXPECT_NEAR(in_ep, 2.0 * 3 * 99 * D * 2, 1e-6);
  EXPECT_EQ(experts_touched(config, 0, 4), 1);
  EXPECT_LT(experts_touched(config, 1, 4), experts_touched(config, 2, 4));
}

TEST(Roofline, RanksThatSplitHeadsAndExpertsAddUp) {
  const DecodeStep step{.sequences = 5, .context = 33};
  for (const int groups : {1, 4})
    for (const int ranks : {2, 3, 4}) {
      SCOPED_TRACE(testing::Message() << groups << " groups on " << ranks << " ranks");
      const ModelConfig config = larger(groups);
      const Placement placement = make_placement(config, default_plan(config), ranks);
      const StepWork alone = on_one_rank(config, step), all = decode_work(config, placement, step);
      expect_work(all.projections, alone.projections.bytes, alone.projections.flops);
      expect_work(all.attention, alone.attention.bytes, alone.attention.flops);
      expect_work(all.experts, alone.experts.bytes, alone.experts.flops);
      expect_work(all.head, alone.head.bytes, alone.head.flops);
      // Every rank routes every row.
      expect_work(all.router, ranks * alone.router.bytes, ranks * alone.router.flops);
    }
}

// Each stage has the work of its layers, the first ones more than the last, and only the last one the head.
TEST(Roofline, StagesAddUp) {
  const DecodeStep step{.sequences = 5, .context = 33};
  for (const int groups : {1, 4}) {
    const ModelConfig config = larger(groups);
    const Placement placement = make_placement(config, Plan::kPp, config.num_layers());
    const StepWork alone = on_one_rank(config, step), all = decode_work(config, placement, step);
    for (const auto part :
         {&StepWork::projections, &StepWork::attention, &StepWork::router, &StepWork::experts, &StepWork::head})
      expect_work(all.*part, (alone.*part).bytes, (alone.*part).flops);
    expect_work(decode_work(config, placement, 0, step).head, 0, 0);
    EXPECT_GT(decode_work(config, placement, 0, step).experts.bytes, 0);
  }
}

// The first of two ranks has three of five sequences.
TEST(Roofline, EpSplitsSequencesAndRepeatsTheRest) {
  const ModelConfig config = larger(1);
  const DecodeStep step{.sequences = 5, .context = 33};
  const Placement placement = make_placement(config, Plan::kEp, 2);
  const StepWork alone = on_one_rank(config, step), first = decode_work(config, placement, 0, step),
                 second = decode_work(config, placement, 1, step);
  for (const auto part : {&StepWork::projections, &StepWork::router, &StepWork::head}) {
    expect_work(first.*part, (alone.*part).bytes, (alone.*part).flops * 3 / 5);
    expect_work(second.*part, (alone.*part).bytes, (alone.*part).flops * 2 / 5);
  }
  expect_work(first.attention, alone.attention.bytes * 3 / 5, alone.attention.flops * 3 / 5);
  expect_work(second.attention, alone.attention.bytes * 2 / 5, alone.attention.flops * 2 / 5);
  for (const StepWork& rank : {first, second})
    expect_work(rank.experts, alone.experts.bytes / 2, alone.experts.flops / 2);
}

TEST(Roofline, ARankWithoutSequencesOnlyRunsExperts) {
  const ModelConfig config = larger(1);
  const DecodeStep step{.sequences = 1, .context = 8};
  const StepWork second = decode_work(config, make_placement(config, Plan::kEp, 2), 1, step);
  for (const Work& part : {second.projections, second.attention, second.router, second.head}) expect_work(part, 0, 0);
  EXPECT_GT(second.experts.bytes, 0);
}

TEST(Roofline, GroupsThatSpanRanks) {
  const ModelConfig config = larger(2);
  const DecodeStep step{.sequences = 4, .context = 8};
  const Placement placement = make_placement(config, Plan::kFoe, 5);  // two of them for each group, one idle
  const StepWork alone = on_one_rank(config, step), all = decode_work(config, placement, step);
  expect_work(all.experts, alone.experts.bytes, alone.experts.flops);
  expect_work(all.attention, alone.attention.bytes, alone.attention.flops);
  expect_work(all.projections, 2 * alone.projections.bytes, alone.projections.flops);
  expect_work(all.head, 2 * alone.head.bytes, alone.head.flops);
  expect_work(decode_work(config, placement, 4, step).total(), 0, 0);
}

TEST(Roofline, TheSlowerLimitCounts) {
  const MachineLimits limits{.read_bytes_per_s = 100, .flops_per_s = 1000};
  EXPECT_EQ(least_seconds({.bytes = 50, .flops = 100}, limits), 0.5);
  EXPECT_EQ(least_seconds({.bytes = 50, .flops = 2000}, limits), 2);
}

}  // namespace
}  // namespace foe

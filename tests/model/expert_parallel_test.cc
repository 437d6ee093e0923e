// Plan ep: ranks with sequences of their own give the bits of one rank, and send what placement/expert_nodes.h
// predicts.
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/sanitized.h"
#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "costs/expert_traffic.h"
#include "model/block_configs.h"
#include "model/expert_exchange.h"
#include "model/forward.h"
#include "random_model.h"

namespace foe {
namespace {

const std::vector<int> kRanks = kSanitized ? std::vector{2, 5} : std::vector{1, 2, 3, 5, 8};

// Sequences that decode, prefill, and one that several chunks make; `owner` says who runs the s-th of them.
constexpr int kLengths[] = {17, 1, 40, 3, 128, 65};

template <typename Owner>
Batch batch_of(int chunk, int vocab, const Owner& owner) {
  Batch batch;
  for (int s = 0, block = 0; s < static_cast<int>(std::size(kLengths)); ++s) {
    const std::vector<std::int32_t> tokens = random_tokens(kLengths[s], vocab, s);
    std::vector<std::int32_t> blocks((kLengths[s] + kKvBlock - 1) / kKvBlock);
    std::iota(blocks.begin(), blocks.end(), block);
    block += static_cast<int>(blocks.size());
    // The first chunk is the first half, the second the rest.
    const int half = kLengths[s] / 2, begin = chunk == 0 ? 0 : half, end = chunk == 0 ? half : kLengths[s];
    batch.add_sequence(std::span(tokens).subspan(begin, end - begin), begin, blocks, Batch::Sample::kAll, owner(s));
  }
  return batch;
}

template <typename Owner>
// Steps of 254 tokens in all, which run as two halves if `options` overlap them.
std::vector<float> run(const RandomModel& folder, Plan plan, const ExchangeOptions& options, Communicator& comm,
                       const Owner& owner) {
  const Model model = load_model(folder.path(), plan, comm);
  RankGrid grid(model.placement, comm, options.overlap);
  ThreadPool pool(2);
  KvCache kv(model.config.num_layers(), 32, model.kv_shape(KvType::kBF16));
  Activations a(model, grid.across_groups(), 256, 256, options);
  std::vector<float> all;
  for (const int chunk : {0, 1}) {
    const std::span<const float> logits =
        forward(model, batch_of(chunk, model.config.vocab_size, owner), kv, a, grid, pool).whole_SV;
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

struct RoutedVariant {
  std::string name;
  ModelConfig config;
  double router_bias = 0;
};

void PrintTo(const RoutedVariant& variant, std::ostream* out) {
  *out << variant.name;
}

std::vector<RoutedVariant> routed_variants() {
  ModelConfig moe = small_config(), full = small_config(), moge = small_config(), odd = small_config();
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);
  set(full, &RouterConfig::norm, RouterNorm::kSelected);
  full.tie_word_embeddings = true;
  moge.expert_groups = 4;
  set(moge, &ExpertsConfig::count, 12);  // groups of 3: the sum's tree has gaps
  set(odd, &ExpertsConfig::count, 13);
  set(odd, &ExpertsConfig::per_token, 5);
  std::vector<RoutedVariant> all{{"moe", moe}, {"full_norm_topk_tied", full}, {"moge_of_3", moge}, {"experts_13", odd}};
  for (const NamedConfig& routing : routing_configs())
    if (!routing.config.federated()) all.push_back({routing.name, routing.config});
  all.push_back({"every_parameter_of_attention", attention_configs()[7].config});
  for (const NamedConfig& blocks : block_configs())
    if (!blocks.config.federated() && !blocks.config.dense()) all.push_back({blocks.name, blocks.config});
  return all;
}

class ExpertParallel : public testing::TestWithParam<RoutedVariant> {};

TEST_P(ExpertParallel, AnyNumberOfRanksGivesTheBitsOfOne) {
  const RandomModel folder(GetParam().config);
  const auto self = make_self_comm();
  const std::vector<float> expected = run(folder, Plan::kTp, {}, *self, [](int) { return 0; });
  std::size_t turn = 0;  // each way of owning tokens runs with some ranks of each dispatch
  for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert})
    for (const int ranks : kRanks) {
      const std::function<int(int)> owners[] = {
          [&](int s) { return s * ranks / static_cast<int>(std::size(kLengths)); },
          [&](int) { return ranks - 1; },                            // one rank has all tokens, the others none
          [&](int s) { return s < 2 ? 0 : std::min(2, ranks - 1); }  // some ranks have none
      };
      const auto& owner = owners[turn++ % std::size(owners)];
      run_ranks(ranks, 60, [&](Communicator& comm) {
        const std::vector<float> logits = run(folder, Plan::kEp, {dispatch}, comm, owner);
        if (comm.rank() != 0) return;
        EXPECT_EQ(logits, expected) << ranks << " ranks, dispatch " << to_string(dispatch);
      });
    }
}

// What a peer sends is input: more than any could send, in a buffer that has room for it, is refused before it is read.
TEST(ExpertExchange, RefusesMoreThanThereIsRoomFor) {
  const ModelConfig config = small_config();
  ThreadPool pool(1);
  constexpr int kTokens = 8;
  const std::vector<std::vector<Range>> members(config.num_layers(), {{0, 8}, {8, 16}});
  for (const Wire wire : {Wire::kF32, Wire::kBF16})
    for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert}) {
      ExpertExchange x(config, members, 0, {dispatch, wire}, kTokens);
      std::fill(x.in.span().begin(), x.in.span().end(), std::byte{0});
      const std::size_t most = dispatch == Dispatch::kPerRank ? kTokens : kTokens * 4;
      EXPECT_EQ(x.most_in, most);
      const auto refusal_of_rows = [&](std::size_t from_0, std::size_t from_1) {
        x.unit_bytes = x.current().row_bytes;
        x.bytes_in = {from_0 * x.current().row_bytes, from_1 * x.current().row_bytes};
        return error_of([&] { take_rows(x, pool); });
      };
      EXPECT_EQ(refusal_of_rows(3, most - 2),
                fmt::format("rank 1 sent {0} rows or sums, expected at most {1}, of {2} from all ranks", most - 2,
                            most - 3, most));
      EXPECT_EQ(refusal_of_rows(std::size_t{1} << 40, 0),
                fmt::format("rank 0 sent {0} rows or sums, expected at most {1}, of {1} from all ranks",
                            std::size_t{1} << 40, most));
      x.bytes_in = {x.current().row_bytes + 1, 0};
      EXPECT_THAT(error_of([&] { take_rows(x, pool); }), testing::HasSubstr("expected a multiple of"));

      const Routing own(4, 16, kTokens);
      const std::size_t sum_bytes = wire_bytes(wire, config.hidden_size);
      x.unit_bytes = sum_bytes;
      x.bytes_in = {0, (x.sums_in + 1) * sum_bytes};
      std::vector<float> update(kTokens * config.hidden_size);
      EXPECT_EQ(error_of([&] { take_sums(x, pool, own, 0, update.data()); }),
                fmt::format("rank 1 sent {0} rows or sums, expected at most {1}, of {1} from all ranks", x.sums_in + 1,
                            x.sums_in));
    }
}

// One expert per row: a rank with one expert cannot be asked for more sums than there are tokens.
TEST(ExpertExchange, RefusesRowsForTooManySums) {
  const ModelConfig config = small_config();
  ThreadPool pool(1);
  constexpr int kTokens = 8;
  const std::vector<std::vector<Range>> members(config.num_layers(), {{0, 1}, {1, 16}});
  ExpertExchange x(config, members, 0, {Dispatch::kPerExpert, Wire::kF32}, kTokens);
  std::fill(x.in.span().begin(), x.in.span().end(), std::byte{0});  // rows of zeros, for expert 0
  x.unit_bytes = x.current().row_bytes;
  x.bytes_in = {0, (kTokens + 1) * x.current().row_bytes};
  take_rows(x, pool);
  const std::vector<float> outputs((kTokens + 1) * config.hidden_size);
  EXPECT_EQ(error_of([&] { pack_sums(x, pool, outputs.data()); }),
            "rank 0: 9 rows have arrived for 9 sums, expected at most 8");
}

// Plan foe with more ranks than groups: groups that span ranks, and idle ranks where their number is no multiple.
TEST(GroupsThatSpanRanks, GiveTheBitsOfOneRank) {
  ModelConfig four = small_federated(4), two = small_federated(2);
  set(four, &ExpertsConfig::count, 12);  // groups of 3: the sum's tree has gaps
  four.tie_word_embeddings = true;
  set(two, &AttentionConfig::qk_norm, QkNorm::kFull);
  set(two, &RouterConfig::norm, RouterNorm::kSelected);
  two.group_sync = GroupSync::kMean;
  std::vector<ModelConfig> configs{four, two};
  for (const NamedConfig& routing : routing_configs())
    if (routing.config.federated()) configs.push_back(routing.config);
  configs.push_back(attention_configs()[9].config);
  for (const NamedConfig& blocks : block_configs())
    if (blocks.config.federated()) configs.push_back(blocks.config);
  std::size_t turn = 0;  // each way of owning tokens runs with some ranks
  for (const ModelConfig& config : configs) {
    const RandomModel folder(config);
    const auto self = make_self_comm();
    const std::vector<float> expected = run(folder, Plan::kFoe, {}, *self, [](int) { return 0; });
    for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert})
      for (const int ranks : kSanitized ? std::vector{5} : std::vector{2, 3, 5, 8, 9}) {
        const int owners = std::max(1, ranks / config.expert_groups);
        const std::function<int(int)> of[] = {[&](int s) { return s * owners / static_cast<int>(std::size(kLengths)); },
                                              [&](int) { return owners - 1; }};
        const auto& owner = of[turn++ % std::size(of)];
        run_ranks(ranks, 60, [&](Communicator& comm) {
          const std::vector<float> logits = run(folder, Plan::kFoe, {dispatch}, comm, owner);
          if (comm.rank() != 0) return;
          EXPECT_EQ(logits, expected) << ranks << " ranks, " << config.expert_groups << " groups";
        });
      }
  }
}

// Halves of a step that overlap give the bits of the whole step, in every plan, and send as many bytes.
TEST(Overlap, GivesTheSameBitsAndBytes) {
  ModelConfig full = small_config();
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);  // plan tp: a sum amid attention
  const std::pair<ModelConfig, Plan> cases[] = {{full, Plan::kTp},
                                                {small_config(), Plan::kEp},
                                                {small_federated(4), Plan::kFoe},
                                                {small_federated(2), Plan::kFoe},
                                                {routing_configs()[8].config, Plan::kTp},
                                                {routing_configs()[8].config, Plan::kEp},
                                                {routing_configs()[10].config, Plan::kFoe},
                                                {attention_configs()[7].config, Plan::kTp},
                                                {attention_configs()[9].config, Plan::kFoe}};
  for (const auto& [config, config_plan] : cases) {
    const RandomModel folder(config);
    const Plan plan = config_plan;  // a lambda may capture it
    const auto self = make_self_comm();
    const std::vector<float> expected = run(folder, default_plan(config), {}, *self, [](int) { return 0; });
    for (const int ranks : {2, 3, 4}) {
      const int owners = plan == Plan::kEp ? ranks : std::max(1, ranks / config.expert_groups);
      const auto owner = [&](int s) {
        return plan == Plan::kTp ? 0 : s * owners / static_cast<int>(std::size(kLengths));
      };
      std::vector<float> apart, together;
      run_ranks(ranks, 60, [&](Communicator& comm) {
        const std::vector<float> whole = run(folder, plan, {}, comm, owner);
        const CommCounter once = comm.counters().total();
        const std::vector<float> halves = run(folder, plan, {.overlap = true}, comm, owner);
        const CommCounter again = comm.counters().total() - once;
        EXPECT_EQ(again.bytes, once.bytes);
        if (comm.rank() != 0) return;
        EXPECT_GT(again.calls, once.calls) << "there were no halves";
        apart = whole, together = halves;
      });
      EXPECT_EQ(apart, expected) << to_string(plan) << " on " << ranks << " ranks";
      EXPECT_EQ(together, expected) << to_string(plan) << " on " << ranks << " ranks, halves";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ExpertParallel, testing::ValuesIn(routed_variants()),
                         [](const auto& variant) { return variant.param.name; });

// One exchange with routing of our own making.
void check_exchange(const ModelConfig& c, int ranks, const ExchangeOptions& options,
                    const std::vector<int>& tokens_of_rank,
                    const std::function<std::vector<std::int32_t>(int rank, int token)>& select) {
  const Placement placement = make_placement(c, Plan::kEp, ranks);
  const std::vector<std::vector<Range>> members(c.num_layers(), experts_of_members(placement, 0, 0));
  const int most = std::accumulate(tokens_of_rank.begin(), tokens_of_rank.end(), 0);
  const std::size_t D = c.hidden_size, K = c.experts(0).per_token;
  run_ranks(ranks, 60, [&](Communicator& comm) {
    const int rank = comm.rank(), T = tokens_of_rank[rank];
    const Range local = placement.ranks[rank].experts(0);
    ThreadPool pool(2);
    Routing own(c.experts(0).per_token, local.size(), most);
    std::vector<float> x_TD(T * D);
    for (std::size_t i = 0; i < x_TD.size(); ++i) x_TD[i] = static_cast<float>(random_normal(rank, i));
    for (int t = 0; t < T; ++t) {
      int at = own.begin_T[t];
      for (const std::int32_t e : select(rank, t)) {
        own.experts_J[at] = e;
        own.weights_J[at++] = 0.25f + static_cast<float>(e);
      }
      own.begin_T[t + 1] = at;
    }
    ExpertExchange exchange(c, members, rank, options, most);
    const CommCounters before = comm.counters();
    pack_rows(exchange, 0, pool, own, x_TD.data(), T);
    exchange_messages(exchange, comm);
    take_rows(exchange, pool);
    // Expert e multiplies by e + 1.
    std::vector<float> y_RD(exchange.routing.token_R.size() * D);
    const auto& begin = exchange.routing.expert_begin;
    for (int e = 0; e < local.size(); ++e)
      for (int row = begin[e]; row < begin[e + 1]; ++row) {
        const float* x = exchange.arrived + exchange.routing.token_R[row] * exchange.arrived_stride;
        for (std::size_t i = 0; i < D; ++i) y_RD[row * D + i] = static_cast<float>(local.begin + e + 1) * x[i];
      }
    const CommCounters between = comm.counters();
    std::vector<float> update_TD(T * D);
    pack_sums(exchange, pool, y_RD.data());
    exchange_messages(exchange, comm);
    take_sums(exchange, pool, own, T, update_TD.data());

    for (int t = 0; t < T; ++t)
      for (std::size_t i = 0; i < D; ++i) {
        double sum = 0, magnitude = 0, weights = 0;
        for (const std::int32_t e : select(rank, t)) {
          sum += (0.25 + e) * (e + 1) * x_TD[t * D + i];
          magnitude += std::abs((0.25 + e) * (e + 1) * x_TD[t * D + i]);
          weights += (0.25 + e) * (e + 1);
        }
        // Two products and at most K additions, each rounded to 2^-24 of what is there. The wire rounds the row and the
        // sums: bf16 to 2^-8 of each number, int8 to half of 1/127 of the block's largest, here below 6.
        const double rounding = static_cast<double>(K + 2) * 0x1p-24 * 1.001 * magnitude;
        double sent = 0;
        if (options.wire == Wire::kBF16) sent = 2.01 * 0x1p-8 * magnitude;
        if (options.wire == Wire::kInt8) sent = 2.01 * 0.5 / 127 * 6 * weights;
        ASSERT_NEAR(update_TD[t * D + i], sum, rounding + sent);
      }

    // What each rank has sent is what the placement predicts from everyone's routing.
    std::int64_t rows = 0, sums = 0;
    for (int owner = 0; owner < ranks; ++owner) {
      std::vector<std::int32_t> begin_T{0}, experts_J;
      for (int t = 0; t < tokens_of_rank[owner]; ++t) {
        const auto experts = select(owner, t);
        experts_J.insert(experts_J.end(), experts.begin(), experts.end());
        begin_T.push_back(static_cast<std::int32_t>(experts_J.size()));
      }
      const ExpertTraffic traffic =
          expert_traffic(expert_table(c, 0), members[0], options.dispatch, begin_T, experts_J);
      if (owner == rank)
        rows = std::accumulate(traffic.rows.begin(), traffic.rows.end(), -traffic.rows[rank]);
      else
        sums += traffic.sums[rank];
    }
    EXPECT_EQ((between.all_to_all - before.all_to_all).bytes, rows * dispatched_row_bytes(c, 0, options));
    EXPECT_EQ((comm.counters().all_to_all - between.all_to_all).bytes, sums * wire_bytes(options.wire, D));
  });
}

TEST(ExpertExchange, SkewedAndDegenerateRouting) {
  ModelConfig c = small_config();
  set(c, &ExpertsConfig::count, 11);
  set(c, &ExpertsConfig::per_token, 3);
  const std::function<std::vector<std::int32_t>(int, int)> selections[] = {
      [](int, int) {
        return std::vector<std::int32_t>{0, 1, 2};
      },  // the first rank gets all
      [](int, int t) {
        return std::vector<std::int32_t>{t % 9, t % 9 + 1, t % 9 + 2};
      },  // in turn
      [](int rank, int t) {
        return std::vector<std::int32_t>{(rank + t) % 3, 4 + t % 3, 9 + t % 2};
      },  // spread
      [](int rank, int t) {
        const std::vector<std::int32_t> three{t % 4, 5, 7 + rank % 4};
        return std::vector<std::int32_t>(three.begin() + (t + rank) % 4, three.end());
      },  // three to none
  };
  for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert})
    for (const Wire wire : {Wire::kF32, Wire::kBF16, Wire::kInt8})
      for (const auto& select : selections) {
        const ExchangeOptions options{dispatch, wire};
        check_exchange(c, 1, options, {7}, select);
        check_exchange(c, 2, options, {0, 19}, select);
        check_exchange(c, 3, options, {5, 0, 40}, select);
        check_exchange(c, 5, options, {0, 0, 0, 0, 0}, select);
        check_exchange(c, 8, options, {1, 2, 3, 4, 5, 6, 7, 8}, select);
      }
}

// The expectation is the mean over all selections, each as likely as the other.
TEST(ExpertTraffic, ExpectationIsTheMeanOverAllSelections) {
  ModelConfig c = small_config();
  set(c, &ExpertsConfig::count, 6);
  set(c, &ExpertsConfig::per_token, 2);
  for (const int groups : {1, 2}) {
    c.expert_groups = groups;
    std::vector<std::int32_t> all;
    for (int a = 0; a < 6; ++a)
      for (int b = a + 1; b < 6; ++b)
        if (groups == 1 || (a < 3 && b >= 3)) all.insert(all.end(), {a, b});
    const double count = static_cast<double>(all.size()) / 2;
    std::vector<std::int32_t> begin;
    for (std::size_t i = 0; i <= all.size(); i += 2) begin.push_back(static_cast<std::int32_t>(i));
    for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert})
      for (const int ranks : {1, 2, 3, 4, 5}) {
        const Placement placement = make_placement(c, Plan::kEp, ranks);
        const std::vector<Range> members = experts_of_members(placement, 0, 0);
        const ExpertTraffic total = expert_traffic(expert_table(c, 0), members, dispatch, begin, all);
        const ExpectedTraffic mean = expected_traffic(c, 0, members, dispatch);
        for (int r = 0; r < ranks; ++r) {
          EXPECT_NEAR(mean.rows[r], static_cast<double>(total.rows[r]) / count, 1e-12);
          EXPECT_NEAR(mean.sums[r], static_cast<double>(total.sums[r]) / count, 1e-12);
        }
      }
  }
}

TEST(Dispatch, NamesAreTheFlagsValues) {
  for (const Dispatch dispatch : {Dispatch::kPerRank, Dispatch::kPerExpert})
    EXPECT_EQ(parse_dispatch(to_string(dispatch)), dispatch);
  EXPECT_THAT([] { parse_dispatch("all"); },
              testing::ThrowsMessage<Error>("dispatch: expected rank or expert, got all"));
}

}  // namespace
}  // namespace foe

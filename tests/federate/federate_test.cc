#include "federate/federate.h"

#include <map>
#include <numeric>

#include <gmock/gmock.h>

#include "base/rng.h"
#include "core/change_config.h"
#include "core/model_tensors.h"
#include "federate/deal.h"
#include "model/runner.h"
#include "weights/config_json.h"
#include "weights/tensor_folder.h"

namespace foe {
namespace {

using testing::HasSubstr;

constexpr int kExperts = 8, kPerToken = 4;

ModelConfig moe_config() {
  ModelConfig config = small_config();
  set(config, &ExpertsConfig::count, kExperts);
  set(config, &ExpertsConfig::per_token, kPerToken);
  return config;
}

std::vector<std::vector<int>> in_all_layers(const ModelConfig& config, const std::vector<int>& experts) {
  return std::vector(config.num_layers(), experts);
}

std::vector<int> in_order() {
  std::vector<int> experts(kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  return experts;
}

// A model whose routers' row of an expert's rival is the negative of its own. So of each such pair a token's score is
// positive for one expert, and its best four experts are these.
class ModelOfRivals {
 public:
  explicit ModelOfRivals(int (*rival)(int)) : config_(moe_config()), random_(config_) {
    folder_.write("config.json", model_config_json(config_));
    const TensorFolder from(random_.path());
    std::map<std::string, std::vector<float>> values;
    std::vector<TensorSource> sources;
    for_each_tensor(TensorTable(config_), [&](const ModelTensor& row, int index) {
      const std::string name = name_of(row, index);
      std::vector<float>& v = values[name];
      v.resize(static_cast<std::size_t>(row.size()));
      read_floats(from.tensor(name, row.shape), 0, v);
      const int D = config_.hidden_size;
      if (row.role == TensorRole::kRouter)
        for (int e = 0; e < kExperts; ++e)
          for (int d = 0; d < D; ++d)
            if (rival(e) < e) v[e * D + d] = -v[rival(e) * D + d];
      sources.push_back(float_source(name, DType::kF32, row.shape, v));
    });
    write_tensor_file(folder_ / "model.safetensors", std::move(sources));
  }

  const ModelConfig& config() const { return config_; }
  const std::string& path() const { return folder_.path(); }

 private:
  ModelConfig config_;
  RandomModel random_;
  TempFolder folder_;
};

std::string converted(const TempFolder& folder, const std::string& model, const ModelConfig& from,
                      const FederateOptions& options, const std::vector<std::vector<int>>& experts_LE) {
  static int count = 0;
  ThreadPool pool(1);
  const std::string out = folder / std::to_string(count++);
  write_federated(pool, model, from, federated_config(from, options), experts_LE, out, [](std::size_t, std::size_t) {});
  return out;
}

std::vector<float> logits_of(const std::string& path) {
  const auto comm = make_self_comm();
  Runner runner(path, default_plan(load_model_config(path)), *comm);
  return in_chunks(runner, random_tokens(40, 70, 3), 40);
}

TEST(Federate, ChangesNoBitWhereEveryTokenFindsItsChoicesInOrder) {
  const ModelOfRivals model([](int e) { return e ^ 1; });  // 0 and 1, 2 and 3, ...
  const TempFolder folder;
  const std::vector<float> original = logits_of(model.path());
  for (const int groups : {2, 4}) {
    const std::string out = converted(folder, model.path(), model.config(), {groups, Federation::kShared},
                                      in_all_layers(model.config(), in_order()));
    EXPECT_EQ(logits_of(out), original) << groups;
  }
}

// In another order the sums of E probabilities and of K outputs have other roundings: 12 of each layer, of which each
// moves the later layers by no more than a hundredfold.
TEST(Federate, ChangesRoundingsAloneWhereExpertsAreDealt) {
  const ModelOfRivals model([](int e) { return 7 - e; });
  Choices choices(kExperts, kPerToken);
  for (int t = 0; t < 100; ++t) {
    std::vector<std::int32_t> ids;
    for (int e = 0; e < kPerToken; ++e) ids.push_back(random_bits(t, e) % 2 ? e : 7 - e);
    std::ranges::sort(ids);
    choices.add(ids, std::vector<float>(kPerToken, 0.25f));
  }
  const TempFolder folder;
  const std::vector<float> original = logits_of(model.path());
  for (const int groups : {2, 4}) {
    const std::vector<int> dealt = deal_experts(choices, groups);
    EXPECT_EQ(lost(choices, dealt, groups), Lost{});
    const auto order = in_all_layers(model.config(), experts_by_group(dealt, groups));
    const std::vector<float> logits =
        logits_of(converted(folder, model.path(), model.config(), {groups, Federation::kShared}, order));
    const std::vector<float> zeros(original.size());
    EXPECT_LE(distance(logits, original), 3 * 12 * 100 * 0x1p-24 * distance(original, zeros));
    EXPECT_NE(logits, logits_of(converted(folder, model.path(), model.config(), {groups, Federation::kShared},
                                          in_all_layers(model.config(), in_order()))));
  }
}

TEST(Federate, PutsEachExpertAndItsRouterRowInItsPlace) {
  ModelConfig config = moe_config();
  for_each_experts(config, [](ExpertsConfig& e) { e.router->selection_bias = e.router->bias = e.bias = true; });
  const RandomModel model(config);
  const TempFolder folder;
  const std::vector<int> order = {3, 0, 7, 5, 1, 2, 6, 4};
  std::vector<std::vector<int>> experts_LE = in_all_layers(config, in_order());
  experts_LE[1] = order;
  const TensorFolder was(model.path()), is(converted(folder, model.path(), config, {2}, experts_LE));
  EXPECT_EQ(was.names(), is.names());
  for_each_tensor(TensorTable(config), [&](const ModelTensor& row, int index) {
    const bool moved = row.layer == 1, rows = row.shape[0] == kExperts && row.role != TensorRole::kQNorm;
    const Tensor a = was.tensor(name_of(row, moved && row.count > 1 ? order[index] : index), row.shape);
    const Tensor b = is.tensor(name_of(row, index), row.shape);
    const std::size_t size = moved && rows ? a.bytes.size() / kExperts : a.bytes.size();
    for (std::size_t i = 0; i * size < a.bytes.size(); ++i)
      EXPECT_TRUE(std::ranges::equal(b.bytes.subspan(i * size, size),
                                     a.bytes.subspan((moved && rows ? order[i] : i) * size, size)))
          << b.name;
  });
}

TEST(FederatedConfig, SaysWhatTheFederationIs) {
  const ModelConfig config = moe_config();
  const ModelConfig foe = federated_config(config, {4, Federation::kFederated});
  EXPECT_TRUE(foe.federated());
  EXPECT_TRUE(foe.reads_updates(1));
  EXPECT_EQ(foe.sync_scale(), 1);
  const ModelConfig moge = federated_config(config, {4, Federation::kShared});
  EXPECT_FALSE(moge.federated());
  EXPECT_EQ(moge.expert_groups, 4);
  const ModelConfig delayed = federated_config(config, {4, Federation::kDelayed});
  EXPECT_TRUE(delayed.experts(0).router->across_groups);
  EXPECT_FALSE(delayed.reads_updates(1));
  EXPECT_TRUE(delayed.sums_updates(1));
}

// Where attention reads r alone, dividing by four what was multiplied by four changes no bit.
TEST(FederatedConfig, AMeanAddsWhatTheSumAdds) {
  const RandomModel model(moe_config());
  const TempFolder folder;
  const auto order = in_all_layers(model.config(), in_order());
  const auto logits = [&](Federation federation, GroupSync sync) {
    return logits_of(converted(folder, model.path(), model.config(), {4, federation, sync}, order));
  };
  EXPECT_EQ(logits(Federation::kDelayed, GroupSync::kMean), logits(Federation::kDelayed, GroupSync::kSum));
  EXPECT_NE(logits(Federation::kFederated, GroupSync::kMean), logits(Federation::kFederated, GroupSync::kSum));
}

TEST(FederatedConfig, RefusesWhatGroupsDoNotDivide) {
  const auto refusal = [](const ModelConfig& config, const FederateOptions& options) {
    return error_of([&] { federated_config(config, options); });
  };
  const ModelConfig config = moe_config();
  EXPECT_THAT(refusal(small_federated(2), {2}), HasSubstr("expected a model with one group, got one with 2"));
  EXPECT_THAT(refusal(config, {1}), HasSubstr("--groups: expected at least 2, got 1"));
  EXPECT_THAT(refusal(config, {3}), HasSubstr("expected a divisor of num_key_value_heads = 4, got 3"));
  ModelConfig odd = config;
  set(odd, &ExpertsConfig::count, 10);
  EXPECT_THAT(refusal(odd, {4}), HasSubstr("expected a divisor of num_experts = 10, got 4"));
  odd = config;
  set(odd, &ExpertsConfig::per_token, 3);
  EXPECT_THAT(refusal(odd, {2}), HasSubstr("expected a divisor of num_experts_per_tok = 3, got 2"));
  EXPECT_EQ(refusal(odd, {2, Federation::kDelayed}), "no error");
  odd = config;
  set(odd, &ExpertsConfig::shared, 2);
  EXPECT_THAT(refusal(odd, {2}), HasSubstr("layer 0: expected routed experts alone, got 2 shared"));
  odd = config;
  make_dense(odd);
  EXPECT_THAT(refusal(odd, {2}), HasSubstr("expected a router in every layer, got none in layer 0"));
}

TEST(Federate, KeepsAFolderThatExists) {
  const RandomModel model(moe_config());
  ThreadPool pool(1);
  const TempFolder folder;
  EXPECT_THAT(error_of([&] {
                write_federated(pool, model.path(), model.config(), federated_config(model.config(), {2}),
                                in_all_layers(model.config(), in_order()), folder.path(),
                                [](std::size_t, std::size_t) {});
              }),
              HasSubstr("expected a folder that is not there yet"));
}

}  // namespace
}  // namespace foe

// What is measured of a model's inputs is what its weights say: each input is computed again from another one that was
// seen, with the weights of the folder.
#include "model/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"
#include "runner.h"
#include "weights/stored_tensors.h"

namespace foe {
namespace {

using testing::HasSubstr;
using RowList = std::vector<std::vector<float>>;

// Keeps all rows.
class InputRecorder final : public InputObserver {
 public:
  void see(const InputPlace& place, const SeenRows& seen) override {
    for (int i = 0; i < seen.count; ++i) {
      const float* x = seen.x + (seen.rows ? seen.rows[i] : i) * seen.stride;
      rows[place].emplace_back(x, x + seen.depth);
    }
  }
  std::map<InputPlace, RowList> rows;
};

// Sequences of one token: attention returns the value of the token itself.
struct SeenModel {
  RandomModel folder;
  std::unique_ptr<Communicator> comm = make_self_comm();
  Runner runner;
  InputRecorder recorder;
  std::vector<float> logits;
  TensorFolder tensors{folder.path()};
  StoredTensors stored{tensors, folder.config()};

  explicit SeenModel(const ModelConfig& config) : folder(config), runner(folder.path(), default_plan(config), *comm) {
    const std::vector<std::int32_t> tokens = random_tokens(kTokens, config.vocab_size, 5);
    Batch batch;
    for (int s = 0; s < kTokens; ++s)
      batch.add_sequence({&tokens[s], 1}, 0, std::vector<std::int32_t>{s}, Batch::Sample::kAll);
    const Logits all = forward(runner.model, batch, runner.kv, runner.a, runner.grid, runner.pool, &recorder);
    logits.assign(all.whole_SV.begin(), all.whole_SV.end());
  }

  static constexpr int kTokens = 24;

  // x times some rows of a matrix, of which it multiplies the columns from `column` on.
  std::vector<float> product(const std::vector<float>& x, const StoredTensor& matrix, Range rows) const {
    const auto columns = static_cast<std::size_t>(matrix.tensor.shape[1]);
    std::vector<float> all(matrix.tensor.size()), y;
    read_floats(matrix.tensor, 0, all);
    for (int row = rows.begin; row < rows.end; ++row) {
      double sum = 0;
      for (std::size_t k = 0; k < x.size(); ++k) sum += double{x[k]} * all[row * columns + matrix.column + k];
      y.push_back(static_cast<float>(sum));
    }
    return y;
  }
  std::vector<float> product(const std::vector<float>& x, const ModelTensor& row, Range rows, int index = 0) const {
    return product(x, stored.find(row, index), rows);
  }
};

void expect_close_rows(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  double squares = 0;
  for (const float x : b) squares += double{x} * x;
  EXPECT_LE(distance(a, b), 1e-5 * std::sqrt(squares));
}

ModelConfig dense_to_observe() {
  ModelConfig c = small_config();
  make_dense(c);
  set(c, &ExpertsConfig::width, 200);
  return c;
}
ModelConfig observed_with_syncs_every(int every) {
  ModelConfig c = small_federated(4);
  c.group_sync_every = every;
  return c;
}
ModelConfig observed_with_shared_experts() {
  ModelConfig c = small_config();
  for_each_experts(c, [](ExpertsConfig& e) { e.shared = 2, e.shared_width = 40; });
  return c;
}

std::vector<ModelConfig> configs_to_observe() {
  ModelConfig slices = small_config();
  set(slices, &ExpertsConfig::storage, ExpertStorage::kSlices);
  return {small_config(),
          dense_to_observe(),
          small_federated(2),
          observed_with_syncs_every(2),
          observed_with_shared_experts(),
          slices};
}

TEST(Observer, SeesWhatHeadsAttendToAndTheHead) {
  for (const ModelConfig& config : configs_to_observe()) {
    const SeenModel seen(config);
    const AttentionConfig& a = config.heads();
    const int groups = config.federated() ? config.expert_groups : 1, W = a.head_value_width();
    const int values = a.kv_heads / groups * W;  // of a group
    for (int l = 0; l < config.num_layers(); ++l) {
      const RowList& attended = seen.recorder.rows.at({ModelInput::kAttended, l});
      ASSERT_EQ(attended.size(), SeenModel::kTokens);
      for (int t = 0; t < SeenModel::kTokens; ++t) {
        std::vector<float> expected;
        for (int g = 0; g < groups; ++g) {
          const RowList& in = seen.recorder.rows.at({ModelInput::kAttention, l, g});
          ASSERT_EQ(in.size(), SeenModel::kTokens);
          const std::vector<float> v =
              seen.product(in[t], seen.stored.table().at(TensorRole::kVProj, l), {g * values, (g + 1) * values});
          for (int h = 0; h < a.kv_heads / groups; ++h)
            for (int q = 0; q < a.per_kv_head(); ++q)
              expected.insert(expected.end(), v.begin() + h * W, v.begin() + (h + 1) * W);
        }
        expect_close_rows(attended[t], expected);
      }
    }
    const RowList& head = seen.recorder.rows.at({ModelInput::kHead});
    ASSERT_EQ(head.size(), SeenModel::kTokens);
    for (int t = 0; t < SeenModel::kTokens; ++t)
      expect_close_rows(
          {seen.logits.begin() + t * config.vocab_size, seen.logits.begin() + (t + 1) * config.vocab_size},
          seen.product(head[t], StoredTensor{seen.stored.head()}, {0, config.vocab_size}));
  }
}

TEST(Observer, SeesWhatExpertsMultiply) {
  for (const ModelConfig& config : configs_to_observe()) {
    const SeenModel seen(config);
    for (int l = 0; l < config.num_layers(); ++l) {
      std::size_t rows = 0;
      for (int e = 0; e < expert_table(config, l).with_rows(); ++e) {
        const auto in = seen.recorder.rows.find({ModelInput::kExpert, l, e});
        if (in == seen.recorder.rows.end()) continue;
        const RowList& hidden = seen.recorder.rows.at({ModelInput::kHidden, l, e});
        ASSERT_EQ(hidden.size(), in->second.size());
        rows += hidden.size();
        const ExpertMatrices m = expert_matrices(seen.stored.table(), config, l, e);
        for (std::size_t i = 0; i < hidden.size(); ++i) {
          std::vector<float> expected = seen.product(in->second[i], m.gate, {0, m.gate.rows()}, m.index);
          const std::vector<float> up = seen.product(in->second[i], m.up, {0, m.up.rows()}, m.index);
          for (std::size_t f = 0; f < up.size(); ++f) expected[f] *= up[f] / (1 + std::exp(-expected[f]));
          expect_close_rows(hidden[i], expected);
        }
      }
      const ExpertsConfig& experts = config.experts(l);
      EXPECT_EQ(rows, SeenModel::kTokens * (experts.per_token + experts.shared));
    }
  }
}

TEST(InputMoments, MeanSquaresAndCorrelationsOfTheRowsThatCame) {
  ThreadPool pool(2);
  const ModelConfig config = small_config();
  InputMoments moments(config, pool);
  const float x[] = {1, 2, 9, 3, -4, 9};
  moments.see({ModelInput::kHead}, {x, 3, nullptr, 2, 2});
  const std::int32_t second[] = {1};
  moments.see({ModelInput::kHead}, {x, 3, second, 1, 2});
  const Importance found = moments.importance();
  ASSERT_EQ(found.channels.size(), 1u);
  EXPECT_THAT(found.channels.at({ModelInput::kHead}), testing::ElementsAre((1 + 9 + 9) / 3.0f, (4 + 16 + 16) / 3.0f));
  const float gram[] = {19, 0, 2 - 12 - 12, 36};
  EXPECT_EQ(found.correlations.at({ModelInput::kHead}).blocks, std::vector{correlate(gram, 0, 2, 3)});
  EXPECT_EQ(found.find({ModelInput::kHead, 3}).importance, nullptr);
  EXPECT_EQ(found.find({ModelInput::kHead}, 1).importance, found.channels.at({ModelInput::kHead}).data() + 1);
}

// Heads are correlated within the blocks of attention's sum, and wide inputs in parts.
TEST(InputMoments, BlocksOfCorrelations) {
  ThreadPool pool(2);
  ModelConfig config = small_config();
  set(config, &AttentionConfig::key_width, 3);
  InputMoments moments(config, pool);
  const std::vector<float> x = [] {
    std::vector<float> all(2 * 5000);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(random_normal(1, i));
    return all;
  }();
  moments.see({ModelInput::kAttended, 1}, {x.data(), 5000, nullptr, 2, 24});
  moments.see({ModelInput::kHidden, 1}, {x.data(), 5000, nullptr, 2, 5000});
  const Importance found = moments.importance();
  const auto begins = [&](const InputPlace& place) {
    std::vector<int> all;
    for (const Correlations::Block& block : found.correlations.at(place).blocks) all.push_back(block.begin);
    all.push_back(found.correlations.at(place).blocks.back().end);
    return all;
  };
  EXPECT_THAT(begins({ModelInput::kAttended, 1}), testing::ElementsAre(0, 6, 12, 18, 24));
  EXPECT_THAT(begins({ModelInput::kHidden, 1}), testing::ElementsAre(0, 2048, 4096, 5000));
}

// Shows a layer's experts so many rows of x each, and returns what is found of them.
struct ExpertRows {
  int expert, count;
  std::vector<float> x;  // one row for all
};
Importance importance_of_experts(const ModelConfig& config, ModelInput input, int layer,
                                 const std::vector<ExpertRows>& all) {
  ThreadPool pool(1);
  InputMoments moments(config, pool);
  for (const ExpertRows& e : all) {
    const std::vector<std::int32_t> first(e.count);
    moments.see({input, layer, e.expert}, {e.x.data(), 0, first.data(), e.count, static_cast<int>(e.x.size())});
  }
  return moments.importance();
}

ModelConfig two_channels() {
  ModelConfig c = small_config();
  c.hidden_size = 2;
  set(c, &ExpertsConfig::width, 2);
  return c;
}

TEST(InputMoments, ExpertsWithFewRowsAreLikeTheirLayer) {
  const Importance found = importance_of_experts(two_channels(), ModelInput::kExpert, 1,
                                                 {{0, kFewRows, {1, 0}}, {3, kFewRows / 2, {0, 4}}, {4, 1, {0, 0}}});
  const float all = kFewRows + kFewRows / 2 + 1;  // rows of the layer
  const float first = kFewRows / all, second = 16 * (kFewRows / 2) / all;
  EXPECT_THAT(found.channels.at({ModelInput::kExpert, 1, 0}), testing::ElementsAre(1, 0));
  EXPECT_THAT(found.channels.at({ModelInput::kExpert, 1, 3}),
              testing::ElementsAre(testing::FloatEq(first / 2), testing::FloatEq(8 + second / 2)));
  EXPECT_THAT(found.channels.at({ModelInput::kExpert, 1, 9}),
              testing::ElementsAre(testing::FloatEq(first), testing::FloatEq(second)));
  EXPECT_EQ(found.channels.size(), 16u);
}

// Hidden units of different experts have nothing in common.
TEST(InputMoments, HiddenUnitsOfExpertsWithFewRowsCountAlike) {
  const Importance found =
      importance_of_experts(two_channels(), ModelInput::kHidden, 0, {{0, kFewRows, {2, 0}}, {1, kFewRows / 2, {0, 2}}});
  EXPECT_THAT(found.channels.at({ModelInput::kHidden, 0, 0}), testing::ElementsAre(4, 0));
  EXPECT_THAT(found.channels.at({ModelInput::kHidden, 0, 1}), testing::ElementsAre(1, 3));
  EXPECT_THAT(found.channels.at({ModelInput::kHidden, 0, 2}), testing::ElementsAre(2, 2));
}

TEST(InputMoments, LayersWithTheSameExpertsAreMeasuredTogether) {
  ModelConfig config = two_channels();
  config.experts(2).of_layer = 0;
  ThreadPool pool(1);
  InputMoments moments(config, pool);
  const float x[] = {2, 0, 0, 4};
  const std::vector<std::int32_t> first(kFewRows), second(kFewRows, 1);
  moments.see({ModelInput::kExpert, 0, 5}, {x, 2, first.data(), kFewRows, 2});
  moments.see({ModelInput::kExpert, 2, 5}, {x, 2, second.data(), kFewRows, 2});
  const Importance found = moments.importance();
  EXPECT_THAT(found.channels.at({ModelInput::kExpert, 0, 5}), testing::ElementsAre(2, 8));
  EXPECT_FALSE(found.channels.contains({ModelInput::kExpert, 2, 5}));
  const float gram[] = {4 * kFewRows, 0, 0, 16 * kFewRows};
  EXPECT_EQ(found.correlations.at({ModelInput::kExpert, 0, 0}).blocks,
            std::vector{correlate(gram, 0, 2, 2 * kFewRows)});
}

TEST(InputMoments, RefusesWhatIsNotFinite) {
  EXPECT_THAT(error_of([] {
                importance_of_experts(two_channels(), ModelInput::kExpert, 1, {{0, 1, {1, std::nanf("")}}});
              }),
              HasSubstr("expected activations that are finite, got others in layer 1"));
}

Importance calibrated_importance(const std::string& path, const ModelConfig& config, int threads,
                                 const CalibrationText& text, std::vector<std::size_t>* done = nullptr) {
  const Model model = load_model(path, default_plan(config), *make_self_comm());
  ThreadPool pool(threads);
  return calibrate(model, pool, text, [&](std::size_t tokens, std::size_t) {
    if (done) done->push_back(tokens);
  });
}

TEST(Calibrate, MeasuresEveryMatrixWithTheSameBitsOnAnyThreads) {
  for (const ModelConfig& config : {small_config(), small_federated(4), dense_to_observe()}) {
    const RandomModel folder(config);
    const CalibrationText text{random_tokens(1100, config.vocab_size, 2), 1, 1024};
    const Importance one = calibrated_importance(folder.path(), config, 1, text);
    const Importance three = calibrated_importance(folder.path(), config, 3, text);
    EXPECT_EQ(one.channels, three.channels);
    EXPECT_EQ(one.correlations, three.correlations);
    std::size_t places = 1;
    for (int l = 0; l < config.num_layers(); ++l)
      places += 1 + (config.federated() ? 4 : 1) + 2 * expert_table(config, l).with_rows();
    EXPECT_EQ(one.channels.size(), places);
    for (const auto& [place, channels] : one.channels)
      for (const float x : channels) EXPECT_GT(x, 0);
  }
}

// The windows of a longer text are spread over it, each after the first token.
TEST(Calibrate, TakesWindowsFromTheWholeText) {
  ModelConfig config = small_config();
  config.max_position_embeddings = 32;
  const RandomModel folder(config);
  std::vector<std::int32_t> window(31, 7);
  CalibrationText text{{}, 3, 64};
  for (const int token : {7, 8, 9, 10, 7}) text.tokens.insert(text.tokens.end(), token == 10 ? 20 : 31, token);
  std::vector<std::size_t> done;
  const Importance two = calibrated_importance(folder.path(), config, 1, text, &done);  // of four whole windows
  EXPECT_THAT(done, testing::ElementsAre(32, 64));
  CalibrationText chosen{window, 3, 64};
  chosen.tokens.insert(chosen.tokens.end(), 31, 9);
  EXPECT_EQ(two.channels, calibrated_importance(folder.path(), config, 1, chosen).channels);
  text.most_tokens = 1;  // one is always run
  chosen.tokens = window;
  EXPECT_EQ(calibrated_importance(folder.path(), config, 1, text).channels,
            calibrated_importance(folder.path(), config, 1, chosen).channels);
}

TEST(Calibrate, RefusesLessThanAWindow) {
  const RandomModel folder(small_config());
  const auto refusal = [&](int tokens, std::optional<std::int32_t> first) {
    return error_of([&] {
      calibrated_importance(folder.path(), small_config(), 1, {random_tokens(tokens, 70, 1), first, 4096});
    });
  };
  EXPECT_EQ(refusal(511, {}), "expected a text of at least 512 tokens, got 511");
  EXPECT_EQ(refusal(510, 1), "expected a text of at least 511 tokens, got 510");
  EXPECT_EQ(refusal(0, {}), "expected a text of at least 512 tokens, got 0");
  EXPECT_EQ(refusal(511, 1), "no error");
}

}  // namespace
}  // namespace foe

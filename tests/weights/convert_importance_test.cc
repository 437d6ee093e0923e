// A converted folder whose matrices were rounded by what was measured of their inputs.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "core/sum_blocks.h"
#include "experts_of.h"
#include "model/random_model.h"
#include "weights/convert.h"
#include "weights/model_weights.h"
#include "weights/output_blocks.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

constexpr FormatChoice kAllInt4 = {WeightFormat::kInt4, WeightFormat::kInt4, WeightFormat::kInt4};

void expect_same_panels(const PackedMatrix& a, const PackedMatrix& b) {
  ASSERT_EQ(a.format, b.format);
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.depth, b.depth);
  for (int p = 0; p < a.panels(); ++p)
    ASSERT_EQ(std::memcmp(a.data + p * a.panel_stride, b.data + p * b.panel_stride, panel_bytes(a.format, a.depth)), 0);
}

// Correlations of channels in blocks that end here.
Correlations random_correlations_of(const std::vector<int>& begin, std::uint64_t seed) {
  Correlations all;
  for (std::size_t b = 0; b + 1 < begin.size(); ++b) {
    const int n = begin[b + 1] - begin[b];
    std::vector<float> gram(n * n);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j)
        gram[i * n + j] = i == j ? 1 : static_cast<float>(random_normal(seed, i * n + j) / n);
    all.blocks.push_back(correlate(gram.data(), begin[b], begin[b + 1], 1e6));
  }
  return all;
}

// Random channels for every matrix of the model, and correlations where `correlated` says so.
Importance random_importance_of(const ModelConfig& config, bool correlated) {
  Importance all;
  const auto add = [&](const InputPlace& place, std::int64_t channels) {
    for (std::int64_t k = 0; k < channels; ++k)
      all.channels[place].push_back(static_cast<float>(std::exp(2 * random_normal(all.channels.size(), k))));
    std::vector<int> begin = {0, static_cast<int>(channels)};
    if (place.input == ModelInput::kAttended) {
      begin = head_blocks(config).begin;
      for (int& head : begin) head *= config.heads().per_kv_head() * config.heads().head_value_width();
    }
    if (correlated)
      all.correlations[Importance::correlated(place)] = random_correlations_of(begin, all.channels.size());
  };
  add({ModelInput::kHead}, config.hidden_size);
  for (int l = 0; l < config.num_layers(); ++l) {
    for (int g = 0; g < (config.federated() ? config.expert_groups : 1); ++g)
      add({ModelInput::kAttention, l, g}, config.hidden_size);
    add({ModelInput::kAttended, l}, config.heads().query_heads * config.heads().head_value_width());
    for (int e = 0; e < expert_table(config, l).with_rows(); ++e) {
      add({ModelInput::kExpert, l, e}, config.hidden_size);
      add({ModelInput::kHidden, l, e}, expert_width(config, l, e));
    }
  }
  return all;
}

// Every matrix in int4 is what pack() makes of its part of the file with its own channels.
TEST(ConvertByImportance, RoundsEachMatrixByItsImportance) {
  ModelConfig federated = whole_block_config(1), slices = whole_block_config(1), dense = whole_block_config(1);
  federated.expert_groups = 4;
  federated.residual = Residual::kFederated;
  set(slices, &ExpertsConfig::storage, ExpertStorage::kSlices);
  make_dense(dense);
  set(dense, &ExpertsConfig::width, 200);
  for (const ModelConfig& config : {whole_block_config(1), federated, slices, dense}) {
    const RandomModel original(config);
    const Importance importance = random_importance_of(config, config.expert_groups == 4 || config.experts(0).dense());
    const TempFolder folder;
    ThreadPool pool(2);
    convert_model(
        pool, original.path(), config, kAllInt4, folder / "converted", [](auto, auto) {}, {}, importance);
    const Weights weights = load_weights(pool, folder / "converted", config, whole_share(config), {});
    const TensorFolder tensors(original.path());
    const StoredTensors stored(tensors, config);
    const auto packed = [&](const StoredTensor& from, Range rows, Range columns, const InputPlace& place) {
      const StoredMatrix part =
          matrix(from.tensor).slice(rows.begin, rows.size(), from.column + columns.begin, columns.size());
      return pack(pool, {&part, 1}, WeightFormat::kInt4, nullptr, importance.find(place, columns.begin));
    };
    const int groups = config.federated() ? 4 : 1;
    for (int l = 0; l < config.num_layers(); ++l) {
      for (int g = 0; g < groups; ++g) {
        const StreamWeights& stream = weights.layers[l].streams[g];
        const InputPlace place{ModelInput::kAttention, l, g};
        const int n = stream.q.rows, m = stream.k.rows, D = config.hidden_size;
        const TensorTable& table = stored.table();
        expect_same_panels(stream.q,
                           packed(stored.find(table.at(TensorRole::kQProj, l)), {g * n, (g + 1) * n}, {0, D}, place));
        expect_same_panels(stream.k,
                           packed(stored.find(table.at(TensorRole::kKProj, l)), {g * m, (g + 1) * m}, {0, D}, place));
        expect_same_panels(stream.v,
                           packed(stored.find(table.at(TensorRole::kVProj, l)), {g * m, (g + 1) * m}, {0, D}, place));
        // Blocks of heads are filled up to whole blocks of the format.
        const std::vector<OutputBlock> blocks =
            output_blocks(config, WeightFormat::kInt4, {g * 4 / groups, (g + 1) * 4 / groups});
        for (const OutputBlock& block : blocks) {
          const int column = g * n + block.column;
          PackedMatrix part = packed(stored.find(table.at(TensorRole::kOProj, l)), {0, D},
                                     {column, column + block.columns}, {ModelInput::kAttended, l});
          part.depth = block.depth;
          expect_same_panels(stream.o.view(0, D, block.at, block.depth), part);
        }
      }
      const auto experts = experts_of(weights, l);
      for (int e = 0; e < static_cast<int>(experts.size()); ++e) {
        const ExpertMatrices m = expert_matrices(stored.table(), config, l, e);
        const StoredMatrix gate = matrix(stored.find(m.gate, m.index).tensor),
                           up = matrix(stored.find(m.up, m.index).tensor);
        expect_same_panels(experts[e].gate_up, pack_gate_up(pool, gate, up, WeightFormat::kInt4, nullptr,
                                                            importance.find({ModelInput::kExpert, l, e})));
        expect_same_panels(experts[e].down, packed(stored.find(m.down, m.index), {0, m.down.rows()}, {0, m.gate.rows()},
                                                   {ModelInput::kHidden, l, e}));
      }
    }
    expect_same_panels(weights.head_vD,
                       packed({stored.head()}, {0, config.vocab_size}, {0, config.hidden_size}, {ModelInput::kHead}));
  }
}

TEST(ConvertByImportance, SaysWhatItWasCalibratedWith) {
  const ModelConfig config = whole_block_config(1);
  const RandomModel original(config);
  const TempFolder folder;
  ThreadPool pool(1);
  Importance importance;
  importance.source = "a text";
  convert_model(
      pool, original.path(), config, kAllInt4, folder / "converted", [](auto, auto) {}, {}, importance);
  const std::map<std::string, std::string> expected = {{"calibrated_with", "a text"}, {"format", "pt"}};
  EXPECT_EQ(TensorFile(folder / "converted/model.safetensors").metadata(), expected);
  convert_model(pool, original.path(), config, kAllInt4, folder / "other", [](auto, auto) {});
  EXPECT_EQ(TensorFile(folder / "other/model.safetensors").metadata(), kDefaultMetadata);
}

}  // namespace
}  // namespace foe

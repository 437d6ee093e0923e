// Training has its own forward pass, because it must keep what the backward pass needs. What it saves is an ordinary
// model folder, and the engine's forward pass gives that model's logits, bit by bit.
#include <numeric>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "model/forward.h"
#include "train/checkpoint.h"
#include "train/model.h"
#include "train/tiny_model.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

// The logits of training and of inference for some sequences of the same length.
void expect_equal_logits(const ModelConfig& config, const train::Span& span, DType precision = DType::kF32) {
  const train::Layout layout(config, {});
  const AlignedBuffer<float> params = train::tiny_params<float>(layout, 5);
  const std::vector<std::int32_t> tokens = train::tiny_tokens(span.tokens(), config.vocab_size, 1);
  const std::size_t V = config.vocab_size;

  ThreadPool pool(1);
  train::PackedWeights<float> packed(layout, precision);
  packed.pack(pool, params.data());
  train::Activations<float> activations(layout, span.sequences, span.length);
  const train::Model<float> trained{layout, params.data(), packed};
  train::forward(trained, std::span<const std::int32_t>(tokens), span, activations);
  std::vector<float> expected(tokens.size() * V);
  train::all_logits(trained, activations, expected.data());

  TempFolder tokenizer, folder;
  tokenizer.write("tokenizer.json", "{}");
  train::save_model(folder / "model", layout, params.span(), DType::kF32, tokenizer.path());
  const auto comm = make_self_comm();
  const WeightFormat format = precision == DType::kBF16 ? WeightFormat::kBF16xBF16 : WeightFormat::kF32;
  const Model model = load_model(folder / "model", default_plan(config), *comm, FormatChoice::all(format));
  RankGrid grid(model.placement, *comm);
  const int blocks = (span.length + kKvBlock - 1) / kKvBlock;
  const KvShape kv_shape =
      precision == DType::kBF16 ? model.kv_shape(KvType::kBF16, AttentionType::kBF16) : model.kv_shape(KvType::kF32);
  KvCache kv(config.num_layers(), span.sequences * blocks, kv_shape);
  Activations a(model, grid.across_groups(), span.tokens(), span.tokens());
  Batch batch;
  for (int s = 0; s < span.sequences; ++s) {
    std::vector<std::int32_t> own(blocks);
    std::iota(own.begin(), own.end(), s * blocks);
    batch.add_sequence({tokens.data() + s * span.length, static_cast<std::size_t>(span.length)}, 0, own,
                       Batch::Sample::kAll);
  }
  const std::span<const float> logits = forward(model, batch, kv, a, grid, pool).whole_SV;
  ASSERT_EQ(logits.size(), expected.size());
  for (std::size_t i = 0; i < logits.size(); ++i) ASSERT_EQ(logits[i], expected[i]) << i;
}

class TrainingAgreement : public testing::TestWithParam<train::TinyCase> {};

TEST_P(TrainingAgreement, TheEngineGivesTheLogitsOfTraining) {
  expect_equal_logits(train::tiny_config(GetParam()), {2, 30});
}

// Shapes that fill and that break tiles, panels and blocks, and more positions than two spans of attention.
ModelConfig wide_config(const train::TinyCase& tiny) {
  ModelConfig config = train::tiny_config(tiny);
  config.hidden_size = 72;
  config.vocab_size = 301;
  config.max_position_embeddings = 512;
  set(config, &AttentionConfig::key_width, 10);
  set(config, &ExpertsConfig::width, 26);
  return config;
}

TEST_P(TrainingAgreement, AlsoOfWideModelsAndLongSequences) {
  expect_equal_logits(wide_config(GetParam()), {2, 270});
}

// Training with precision = "bf16" is --dtype bf16xbf16 --kv-dtype bf16 --attention bf16.
TEST_P(TrainingAgreement, InBf16TheEngineGivesTheLogitsOfTraining) {
  expect_equal_logits(wide_config(GetParam()), {2, 140}, DType::kBF16);
}

INSTANTIATE_TEST_SUITE_P(Variants, TrainingAgreement, testing::ValuesIn(train::tiny_cases()),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace foe

// Training has its own forward pass, because it must keep what the backward pass needs. What it saves is an ordinary
// model folder, and the engine's forward pass gives that model's logits.
#include <cmath>

#include <gtest/gtest.h>

#include "model/forward.h"
#include "train/checkpoint.h"
#include "train/model.h"
#include "train/tiny_model.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

class TrainingAgreement : public testing::TestWithParam<train::TinyCase> {};

TEST_P(TrainingAgreement, TheEngineGivesTheLogitsOfTraining) {
  const ModelConfig config = train::tiny_config(GetParam());
  const train::Layout layout(config, {});
  const AlignedBuffer<float> params = train::tiny_params<float>(layout, 5);
  const train::Span span{2, 30};
  const std::vector<std::int32_t> tokens = train::tiny_tokens(span.tokens(), config.vocab_size, 1);
  const std::size_t V = config.vocab_size;

  ThreadPool pool(1);
  train::PackedWeights<float> packed(layout);
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
  const Model model = load_model(folder / "model", default_plan(config), *comm);
  RankGrid grid(model.placement, *comm);
  KvCache kv(config.num_layers(), 4, model.kv_shape(KvType::kF32));
  Activations a(model, grid.across_groups(), span.tokens(), span.tokens());
  Batch batch;
  for (int s = 0; s < span.sequences; ++s)
    batch.add_sequence({tokens.data() + s * span.length, static_cast<std::size_t>(span.length)}, 0,
                       std::vector<std::int32_t>{2 * s, 2 * s + 1}, Batch::Sample::kAll);
  const std::span<const float> logits = forward(model, batch, kv, a, grid, pool).whole_SV;

  ASSERT_EQ(logits.size(), expected.size());
  float largest = 0;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  // Two f32 passes, each off by what tests/train/float_test.cc derives for some 1500 rounded operations in a row.
  const double tolerance = 2 * 10 * std::sqrt(1500.0) * 0x1.0p-24 * largest;
  for (std::size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], tolerance) << i;
}

INSTANTIATE_TEST_SUITE_P(Variants, TrainingAgreement, testing::ValuesIn(train::tiny_cases()),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace foe

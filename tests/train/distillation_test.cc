// Runs that begin with a model folder, and learn from one.
#include "train/distillation.h"

#include <atomic>
#include <cmath>
#include <thread>

#include <gmock/gmock.h>

#include "base/error.h"
#include "tiny_model.h"
#include "tiny_run.h"
#include "train/checkpoint.h"
#include "train/rows.h"
#include "train/run.h"
#include "train/trainer.h"

namespace foe::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::string edited_toml(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

// A run of six steps that begins with the model in `first`, and with a teacher learns from it.
std::string healing(const std::string& first, const std::string& teacher = "") {
  std::string text = kTinyToml;
  text.erase(text.find("[model]"), text.find("[train]") - text.find("[model]"));
  const std::string folders = "init_from = \"" + first + "\"\n" +
                              (teacher.empty() ? "" : "distill_from = \"" + teacher + "\"\ndistill_weight = 0.25\n");
  return edited_toml(edited_toml(edited_toml(text, "steps = 40", "steps = 6\n" + folders), "warmup_steps = 4\n", ""),
                     "decay_steps = 10", "decay_steps = 2");
}

// A model folder in f32 with random parameters.
void write_model(const std::string& path, const TrainConfig& config, std::uint64_t seed) {
  const Layout layout(config.model);
  const AlignedBuffer<float> params = tiny_params<float>(layout, seed);
  save_model(path, layout, params.span(), DType::kF32, config.tokenizer);
}

// Folders with a federation and an ordinary model of the same sizes.
struct Models {
  Models() {
    const TrainConfig foe = tiny_run(dir),
                      moe = tiny_run(dir, edited_toml(edited_toml(kTinyToml, "\"federated\"", "\"shared\""),
                                                      "expert_groups = 2", "expert_groups = 1"));
    write_model(first, foe, 1);
    write_model(teacher, moe, 2);
  }
  TemporaryDir dir;
  std::string first = dir / "first", teacher = dir / "teacher";
};

std::string checkpoint_of(const TrainConfig& config) {
  return read_all(config.run_dir + "/checkpoint.safetensors");
}

TEST(DistilledRow, IsTheMixedLossAndItsGradient) {
  const Layout layout(tiny_config(tiny_cases()[0]));
  PackedWeights<double> weights(layout);
  Activations<double> activations(layout, 1, 1);
  const std::vector<double> z = {0.5, -1, 2, 0, 1, 3, -2, 0.25, 1.5, 0, -0.5, 1, 2},
                            t = {1, 0, 0, 2, -1, 1, 0, 3, 0, 1, 2, -3, 1};
  const auto log_softmax = [](const std::vector<double>& x, std::size_t i) {
    double sum = 0;
    for (const double v : x) sum += std::exp(v);
    return x[i] - std::log(sum);
  };
  constexpr double kWeight = 0.3, kScale = 2, kStep = 1e-5;
  constexpr int kTarget = 4;
  const auto divergence = [&](const std::vector<double>& x) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      sum += std::exp(log_softmax(t, i)) * (log_softmax(t, i) - log_softmax(x, i));
    return sum;
  };
  const auto loss = [&](const std::vector<double>& x) {
    return (1 - kWeight) * -log_softmax(x, kTarget) + kWeight * divergence(x);
  };
  Distillation<double> distillation({layout, nullptr, weights}, activations, kWeight);
  ASSERT_EQ(distillation.row_V.size(), z.size());
  std::vector<double> gradient = z, p = t;
  const double nats = distilled_row_backward(gradient.data(), p.data(), kTarget, kScale, distillation);
  EXPECT_NEAR(nats, -log_softmax(z, kTarget), 1e-13);
  EXPECT_NEAR(distillation.divergence, divergence(z), 1e-13);
  for (std::size_t i = 0; i < z.size(); ++i) {
    std::vector<double> above = z, below = z;
    above[i] += kStep;
    below[i] -= kStep;
    // The error of the difference is at most h^2 / 6 times a third derivative below 1, and rounding over h.
    EXPECT_NEAR(gradient[i], kScale * (loss(above) - loss(below)) / (2 * kStep), 1e-9);
  }
}

TEST(DistilledRow, IsTheCrossEntropyWithoutWeight) {
  const Layout layout(tiny_config(tiny_cases()[0]));
  PackedWeights<float> weights(layout);
  Activations<float> activations(layout, 1, 1);
  Distillation<float> distillation({layout, nullptr, weights}, activations, 0);
  std::vector<float> a = {0.5f, -1, 2, 0, 1, 3, -2, 0.25f, 1.5f, 0, -0.5f, 1, 2}, b = a,
                     t = {1, 0, 0, 2, -1, 1, 0, 3, 0, 1, 2, -3, 1};
  const float nats = distilled_row_backward(a.data(), t.data(), 4, 0.1f, distillation);
  EXPECT_EQ(nats, cross_entropy_row_backward(b.data(), 13, 4, 0.1f));
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_FLOAT_EQ(a[i], b[i]);
}

TEST(InitFrom, BeginsWithTheParametersOfTheFolder) {
  const Models models;
  const TrainConfig config = tiny_run(models.dir, healing(models.first, models.first));
  const TokenData data = load_token_data(config.tokens, config.sequence_length);
  ThreadPool pool(1);
  const auto comm = make_self_comm();
  Trainer trainer(config, data, pool, *comm);
  const AlignedBuffer<float> expected = tiny_params<float>(trainer.layout(), 1);
  for (const TensorSlot& slot : trainer.layout().tensors)
    for (std::size_t i = slot.offset; i < slot.offset + slot.size; ++i) ASSERT_EQ(trainer.params()[i], expected[i]);
  // The model is its own teacher: in the first step it has nothing to learn from it.
  EXPECT_EQ(trainer.step().divergence, 0);
  EXPECT_GT(trainer.step().divergence, 0);
}

TEST(Distillation, BitsDoNotDependOnThreadsRanksOrInterruptions) {
  const Models models;
  const std::string text = healing(models.first, models.teacher);
  const TrainConfig alone = tiny_run(models.dir, text);
  ASSERT_TRUE(run_training(alone, kQuiet));
  const std::string expected = checkpoint_of(alone);

  TrainConfig threads = alone;
  threads.run_dir = models.dir / "threads";
  ASSERT_TRUE(run_training(threads, {2, nullptr, false, true}));
  EXPECT_EQ(checkpoint_of(threads), expected);

  TrainConfig stopped = alone;
  stopped.run_dir = models.dir / "stopped";
  const std::atomic<bool> stop{true};
  int runs = 1;
  for (; !run_training(stopped, {1, &stop, false, true}); ++runs) ASSERT_LT(runs, 10);
  EXPECT_EQ(runs, 6);
  EXPECT_EQ(checkpoint_of(stopped), expected);

  TrainConfig ranks = alone;
  ranks.run_dir = models.dir / "ranks";
  std::vector<std::thread> all;
  for (auto& comm : make_local_comms(2))
    all.emplace_back([&ranks, own = std::move(comm)]() mutable { run_training(ranks, kQuiet, *own), own.reset(); });
  for (std::thread& thread : all) thread.join();
  EXPECT_EQ(checkpoint_of(ranks), expected);

  TrainConfig untaught = tiny_run(models.dir, healing(models.first));
  untaught.run_dir = models.dir / "untaught";
  ASSERT_TRUE(run_training(untaught, kQuiet));
  EXPECT_NE(checkpoint_of(untaught), expected);
  EXPECT_THAT(read_all(alone.run_dir + "/metrics.jsonl"), HasSubstr("\"divergence\":"));
  EXPECT_THAT(read_all(untaught.run_dir + "/metrics.jsonl"), testing::Not(HasSubstr("divergence")));
}

TEST(Distillation, ACheckpointIsOfItsModels) {
  const Models models;
  TrainConfig config = tiny_run(models.dir, healing(models.first, models.teacher));
  const std::atomic<bool> stop{true};
  ASSERT_FALSE(run_training(config, {1, &stop, false, true}));
  config = tiny_run(models.dir, healing(models.first, models.first));
  EXPECT_THAT([&] { run_training(config, kQuiet); }, ThrowsMessage<Error>(HasSubstr("train.distill_from is weights")));
}

TEST(InitFrom, RefusesWhatDoesNotFit) {
  const Models models;
  const auto refused = [&](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { parse_train_config(text, "tiny.toml"); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  const std::string text = healing(models.first, models.teacher);
  refused(text + "\n[model]\nvocab_size = 61\n", "model: expected no such table beside train.init_from");
  refused(edited_toml(text, "sequence_length = 24", "sequence_length = 25"),
          "train.sequence_length: expected at most the context of the model in train.init_from, 24, got 25");
  refused(edited_toml(text, "distill_weight = 0.25", "distill_weight = 1.5"),
          "train.distill_weight: expected a number from 0");
  refused(healing("/nowhere/model"), "/nowhere/model");
  refused(edited_toml(healing(models.first), "[run]", "distill_weight = 0.25\n[run]"),
          "train.distill_weight: expected train.distill_from beside it");
  // A teacher with another vocabulary.
  TrainConfig other = tiny_run(models.dir, edited_toml(kTinyToml, "vocab_size = 61", "vocab_size = 62"));
  write_model(models.dir / "other", other, 3);
  const TrainConfig config = tiny_run(models.dir, healing(models.first, models.dir / "other"));
  EXPECT_THAT([&] { run_training(config, kQuiet); },
              ThrowsMessage<Error>(
                  HasSubstr("expected a teacher with the vocabulary of the model in training, 61 tokens, got 62")));
}

}  // namespace
}  // namespace foe::train

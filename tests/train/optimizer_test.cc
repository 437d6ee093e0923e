#include "train/optimizer.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tiny_model.h"
#include "train/exchange.h"
#include "train/flops.h"

namespace foe::train {
namespace {

TEST(LearningRate, RisesStaysAndFalls) {
  TrainConfig c;
  c.steps = 100;
  c.warmup_steps = 10;
  c.decay_steps = 20;
  c.learning_rate = 2;
  c.final_learning_rate = 0.25;
  EXPECT_DOUBLE_EQ(learning_rate(c, 0), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(c, 9), 2);
  EXPECT_DOUBLE_EQ(learning_rate(c, 79), 2);
  EXPECT_DOUBLE_EQ(learning_rate(c, 80), 2 * (0.25 + 0.75 * 20 / 21));
  EXPECT_DOUBLE_EQ(learning_rate(c, 99), 2 * (0.25 + 0.75 / 21));
}

// Three steps of every parameter against the definition, in double.
TEST(AdamW, FollowsItsDefinition) {
  const Layout layout(tiny_config(tiny_cases()[1]));
  TrainConfig c;
  c.steps = 10;
  c.learning_rate = 0.01;
  c.weight_decay = 0.5;
  c.gradient_clip = 3;
  const auto comm = make_self_comm();
  const Split split(2, layout.dims.streams, comm->size(), 1);
  Exchange exchange(layout, split, *comm);
  AdamW adam(exchange.own_pieces(), exchange.parts().moments(0), c);
  ThreadPool pool(2);
  auto params = tiny_params<float>(layout, 1);
  std::vector<double> p(params.data(), params.data() + layout.size), m(layout.size), v(layout.size);
  std::vector<AlignedBuffer<float>> shards(2);
  for (auto& shard : shards) shard = AlignedBuffer<float>::zeroed(layout.size);

  for (int step = 0; step < 3; ++step) {
    double squares = 0;
    for (const TensorSlot& tensor : layout.tensors)
      for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
        for (std::uint64_t s = 0; s < 2; ++s) {
          shards[s][i] = static_cast<float>(random_normal(10 * step + s, i));
        }
        const double g = static_cast<double>(shards[0][i] + shards[1][i]);
        squares += g * g;
      }
    exchange.begin(shards);
    exchange.finish(pool);
    const double norm = std::sqrt(tree_sum(adam.squares(pool, shards[0].data())));
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);  // layout.size roundings in double, and some to spare
    for (const TensorSlot& tensor : layout.tensors)
      for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
        const double g = shards[0][i] * c.gradient_clip / norm;
        m[i] = c.beta1 * m[i] + (1 - c.beta1) * g;
        v[i] = c.beta2 * v[i] + (1 - c.beta2) * g * g;
        const double mean = m[i] / (1 - std::pow(c.beta1, step + 1)), square = v[i] / (1 - std::pow(c.beta2, step + 1));
        if (tensor.decay) p[i] *= 1 - c.learning_rate * c.weight_decay;
        p[i] -= c.learning_rate * mean / (std::sqrt(square) + c.adam_eps);
      }
    adam.update(pool, step, norm, shards[0].data(), params.data());
  }
  // About 20 roundings a step: of p (|p| < 4), and of an update of at most the learning rate (here |m^| <= 2 sqrt(v^)).
  // The first moment may cancel, which costs what its terms weigh, not more.
  for (const TensorSlot& tensor : layout.tensors)
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i)
      ASSERT_NEAR(params[i], p[i], 3 * 20 * 0x1.0p-24 * (std::abs(p[i]) + 10 * c.learning_rate)) << tensor.name;
}

TEST(Flops, CountsTheModelInTheFormula) {
  // D = 8, N = 8, M = 4, C = 4, E = 16, K = 2, F = 6, V = 13, L = 3, 5 tokens:
  // layer = 8 * 64 + 32 * 8 + 32 * 6 + 8 * 16 + 2 * 3 * 8 * 6 = 1376
  EXPECT_DOUBLE_EQ(training_flops_per_token(Dims(tiny_config(tiny_cases()[0])), 5), 6 * (3 * 1376 + 8 * 13));
}

}  // namespace
}  // namespace foe::train

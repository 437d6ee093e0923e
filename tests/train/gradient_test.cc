// Every parameter's gradient against central differences, in double.
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "tiny_model.h"
#include "train/distillation.h"

namespace foe::train {
namespace {

// Weights of the losses: large, so that a wrong gradient of either router loss is seen beside the cross entropy.
constexpr RouterLosses kGradientLosses{0.5, 0.05};
constexpr double kDistillWeight = 0.7;

struct Problem {
  Problem(const ModelConfig& config, Span s, std::uint64_t seed)
      : layout(config),
        span(s),
        params(tiny_params<double>(layout, seed)),
        weights(layout),
        activations(layout, span.sequences, span.length),
        tokens(tiny_tokens(span.tokens(), config.vocab_size - 2, seed + 1)),  // two ids never occur
        targets(tiny_tokens(span.tokens(), config.vocab_size, seed + 2)) {
    targets[span.tokens() / 2] = -1;  // one position without a target
  }

  double loss() {
    weights.pack(pool, params.data());
    const RouterLosses router = forward(model(), std::span<const std::int32_t>(tokens), span, activations);
    const double nats =
        teacher ? distilled_nats() : head_loss(model(), std::span<const std::int32_t>(targets), activations);
    return nats / span.tokens() + kGradientLosses.balance * router.balance + kGradientLosses.z * router.z;
  }

  // What a teacher makes of the cross entropy. Each pass leaves the teacher's activations as they are.
  double distilled_nats() {
    auto unused = AlignedBuffer<double>::zeroed(layout.size);
    Distillation<double> distillation(teacher->model(), teacher->activations, kDistillWeight);
    const double nats =
        head_backward(model(), std::span<const std::int32_t>(targets), 1.0, activations, unused.data(), &distillation);
    return (1 - kDistillWeight) * nats + kDistillWeight * distillation.divergence;
  }

  AlignedBuffer<double> gradient() {
    auto gradients = AlignedBuffer<double>::zeroed(layout.size);
    loss();
    std::optional<Distillation<double>> distillation;
    if (teacher) distillation.emplace(teacher->model(), teacher->activations, kDistillWeight);
    head_backward(model(), std::span<const std::int32_t>(targets), 1.0 / span.tokens(), activations, gradients.data(),
                  distillation ? &*distillation : nullptr);
    backward(model(), std::span<const std::int32_t>(tokens), kGradientLosses, activations, gradients.data());
    return gradients;
  }

  std::vector<std::int32_t> chosen_experts() const {
    std::vector<std::int32_t> all;
    for (const auto& layer : activations.layers)
      all.insert(all.end(), layer.routing.expert_TK.begin(), layer.routing.expert_TK.end());
    return all;
  }

  Model<double> model() const { return {layout, params.data(), weights}; }

  ThreadPool pool{1};
  Layout layout;
  Span span;
  AlignedBuffer<double> params;
  PackedWeights<double> weights;
  Activations<double> activations;
  std::vector<std::int32_t> tokens, targets;
  Problem* teacher = nullptr;  // after its loss(), with the same tokens
};

// The error of D(h) = (f(p + h) - f(p - h)) / 2h is that of the formula and that of f.
//   Formula: D(h) = f' + h^2 f'''/6 + O(h^4), so D(2h) - D(h) = 3 times the error of D(h) + O(h^4); it is allowed in
//   full. f: a chain of n rounded operations has a relative error of at most n u / (1 - n u), u = 2^-53. Its longest
//   chain passes through each layer's inner products and sums, fewer than 100 terms each, in fewer than 10 products a
//   layer and 3 layers, and through sums over tokens and the vocabulary: n < 5000. Both values are wrong by that,
//   divided by 2h.
// h is a power of two, so that p + h and p - h differ by exactly 2h to within an ulp of p (2^-53 * 4 / 2^-16: below the
// rest).
constexpr double kStep = 0x1.0p-16;

double rounding_error(double loss) {
  return 5000 * 0x1.0p-53 * std::abs(loss) / kStep;
}

void check_all_gradients(Problem& s, int& zero_gradients) {
  const AlignedBuffer<double> analytic = s.gradient();
  const double loss = s.loss();
  const std::vector<std::int32_t> routing = s.chosen_experts();
  for (const TensorSlot& tensor : s.layout.tensors) {
    double largest = 0, worst = 0;
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i) {
      const double at = s.params[i];
      const auto difference = [&](double h) {
        s.params[i] = at + h;
        const double above = s.loss();
        EXPECT_EQ(s.chosen_experts(), routing) << "the step is wider than a routing margin";
        s.params[i] = at - h;
        const double below = s.loss();
        EXPECT_EQ(s.chosen_experts(), routing) << "the step is wider than a routing margin";
        s.params[i] = at;
        return (above - below) / (2 * h);
      };
      const double d1 = difference(kStep), d2 = difference(2 * kStep);
      ASSERT_NEAR(analytic[i], d1, std::abs(d2 - d1) + rounding_error(loss)) << tensor.name << "[" << i - tensor.offset;
      if (d1 == 0 && d2 == 0) {  // the loss does not read this parameter at all
        ASSERT_EQ(analytic[i], 0.0) << tensor.name;
        ++zero_gradients;
      }
      largest = std::max(largest, std::abs(d1));
      worst = std::max(worst, std::abs(analytic[i] - d1));
    }
    // The comparison means something only where the gradient stands out of its tolerance.
    EXPECT_TRUE(largest == 0 || largest > 100 * rounding_error(loss)) << tensor.name << ": " << largest;
  }
}

class Gradient : public testing::TestWithParam<TinyCase> {};

TEST_P(Gradient, MatchesCentralDifferences) {
  Problem s(tiny_config(GetParam()), {2, 5}, 7);
  int zeros = 0;
  ASSERT_NO_FATAL_FAILURE(check_all_gradients(s, zeros));
  // Some expert was not chosen by any token, so all of its three matrices must have no gradient.
  EXPECT_GE(zeros, 3 * s.layout.dims.hidden * s.layout.dims.width);
}

INSTANTIATE_TEST_SUITE_P(All, Gradient, testing::ValuesIn(tiny_cases()),
                         [](const auto& instance) { return instance.param.name; });

// Longer than one block of queries, and not a multiple of it.
TEST(Gradient, AcrossQueryBlocks) {
  ModelConfig config = tiny_config(tiny_cases()[5]);
  set_layers(config, 2);
  set(config, &ExpertsConfig::count, 4);
  set(config, &ExpertsConfig::width, 2);
  Problem s(config, {1, 2 * kQueryBlock + 5}, 3);
  int zeros = 0;
  check_all_gradients(s, zeros);
}

// An ordinary model teaches a federation.
TEST(Gradient, OfDistillation) {
  Problem teacher(tiny_config(tiny_cases()[0]), {2, 5}, 11), s(tiny_config(tiny_cases()[4]), {2, 5}, 7);
  teacher.tokens = s.tokens;
  teacher.loss();
  s.teacher = &teacher;
  int zeros = 0;
  check_all_gradients(s, zeros);
}

TEST(Gradient, SharedWithOneGroupIsFederatedWithOneGroup) {
  TinyCase shared{"", 1, Residual::kShared}, federated{"", 1, Residual::kFederated};
  Problem a(tiny_config(shared), {2, 5}, 7), b(tiny_config(federated), {2, 5}, 7);
  const auto ga = a.gradient(), gb = b.gradient();
  for (std::size_t i = 0; i < ga.size(); ++i) ASSERT_EQ(ga[i], gb[i]);
}

}  // namespace
}  // namespace foe::train

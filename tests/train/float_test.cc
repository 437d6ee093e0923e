// The f32 passes against the double ones, which the gradient check holds to the equations.
#include <cmath>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "tiny_model.h"

namespace foe::train {
namespace {

// Shapes that fill and that break tiles, panels and blocks.
ModelConfig wide_config(const TinyCase& c) {
  ModelConfig m = tiny_config(c);
  m.hidden_size = 72;
  set(m, &AttentionConfig::key_width, 10);
  m.vocab_size = 301;
  set(m, &ExpertsConfig::width, 26);
  return m;
}

constexpr Span kSpan{3, 50};
constexpr RouterLosses kLossWeights{0.05, 0.01};

template <typename T>
struct Result {
  std::vector<T> logits, gradients;
  std::vector<std::int32_t> experts;
  double nats = 0;
};

template <typename T>
Result<T> run(const Layout& layout, const AlignedBuffer<float>& params32, DType precision = DType::kF32) {
  ThreadPool pool(1);
  AlignedBuffer<T> params(layout.size);
  std::copy_n(params32.data(), layout.size, params.data());
  PackedWeights<T> weights(layout, precision);
  weights.pack(pool, params.data());
  Activations<T> a(layout, kSpan.sequences, kSpan.length);
  const Model<T> model{layout, params.data(), weights};
  const auto tokens = tiny_tokens(kSpan.tokens(), layout.dims.vocab, 1);
  const auto targets = tiny_tokens(kSpan.tokens(), layout.dims.vocab, 2);
  Result<T> result;
  result.logits.resize(static_cast<std::size_t>(kSpan.tokens()) * layout.dims.vocab);
  result.gradients.resize(layout.size);
  forward(model, std::span<const std::int32_t>(tokens), kSpan, a);
  all_logits(model, a, result.logits.data());
  for (const auto& layer : a.layers)
    result.experts.insert(result.experts.end(), layer.routing.expert_TK.begin(), layer.routing.expert_TK.end());
  result.nats = head_backward(model, std::span<const std::int32_t>(targets), static_cast<T>(1.0 / kSpan.tokens()), a,
                              result.gradients.data());
  backward(model, std::span<const std::int32_t>(tokens), kLossWeights, a, result.gradients.data());
  return result;
}

class Float : public testing::TestWithParam<TinyCase> {};

// Forward, one token's logits come through n rounded operations in a row: in each of 3 layers inner products over D, C,
// up to T, N C, D and F terms (72 + 10 + 50 + 80 + 72 + 26 = 310) and two norms (2 * 72), then a norm and D: n < 1500,
// and the gradient's chain is three times as long. Errors that do not conspire add up as sqrt(n) u; a factor of 10 for
// how much a layer amplifies what it is given (weights here are N(0, 0.02 * 6): norms keep it near 1). Measured against
// the largest value of the tensor, as an error is passed on from the largest terms.
constexpr double kU = 0x1.0p-24;
const double kLogitTolerance = 10 * std::sqrt(1500.0) * kU;
const double kGradientTolerance = 10 * std::sqrt(4500.0) * kU;

AlignedBuffer<float> small_params(const Layout& layout) {
  auto params = tiny_params<float>(layout, 5);
  for (const TensorSlot& tensor : layout.tensors)
    if (tensor.init_std != 0)
      for (std::size_t i = 0; i < tensor.size; ++i) params[tensor.offset + i] *= 0.3f;
  return params;
}

void expect_near(const Layout& layout, const Result<float>& f, const Result<double>& d, double logit_tolerance,
                 double gradient_tolerance) {
  double largest = 0;
  for (const double x : d.logits) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < d.logits.size(); ++i)
    ASSERT_NEAR(f.logits[i], d.logits[i], logit_tolerance * largest) << i;
  for (const TensorSlot& tensor : layout.tensors) {
    largest = 0;
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i)
      largest = std::max(largest, std::abs(d.gradients[i]));
    for (std::size_t i = tensor.offset; i < tensor.offset + tensor.size; ++i)
      ASSERT_NEAR(f.gradients[i], d.gradients[i], gradient_tolerance * largest) << tensor.name;
  }
}

TEST_P(Float, AgreesWithDouble) {
  const Layout layout(wide_config(GetParam()), {});
  const auto params = small_params(layout);
  const Result<float> f = run<float>(layout, params);
  const Result<double> d = run<double>(layout, params);
  ASSERT_EQ(f.experts, d.experts) << "a routing margin is below f32's resolution: choose another seed";
  expect_near(layout, f, d, kLogitTolerance, kGradientTolerance);
}

// With precision bf16, a product rounds both of its operands by at most u = 2^-9 of each. On its way to the logits a
// token passes four such products in each of 3 layers, and the head: n = 26 roundings, and three times as many on the
// way to a gradient. They add up as above. A rounded score could change the selected experts, so all are selected.
constexpr double kU16 = 0x1.0p-9;
const double kRoundedLogitTolerance = 10 * std::sqrt(26.0) * kU16;
const double kRoundedGradientTolerance = 10 * std::sqrt(78.0) * kU16;

TEST_P(Float, InBf16AgreesWithDouble) {
  ModelConfig config = wide_config(GetParam());
  set(config, &ExpertsConfig::count, 4);
  set(config, &ExpertsConfig::per_token, 4);
  const Layout layout(config, {});
  const auto params = small_params(layout);
  expect_near(layout, run<float>(layout, params, DType::kBF16), run<double>(layout, params), kRoundedLogitTolerance,
              kRoundedGradientTolerance);
}

INSTANTIATE_TEST_SUITE_P(All, Float, testing::ValuesIn(tiny_cases()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace foe::train

// How far quantised weights take the logits from those of f32: as far as the rounding of single products says.
#include <cmath>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "kernels/quantised_values.h"
#include "random_model.h"
#include "runner.h"

namespace foe {
namespace {

// The distance of normally distributed numbers from what `round` makes of them, relative to their length.
template <typename Round>
double relative_error(int n, Round&& round) {
  std::vector<float> x(n), rounded(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(random_normal(1, i));
  round(x, rounded);
  return distance(x, rounded) / distance(x, std::vector<float>(n));
}

// Of a product with weights in this format, from the roundings of weights and of activations, which are independent.
double error_of_product(WeightFormat format, int depth) {
  constexpr int kRows = 1000;
  const double of_weights =
      relative_error(kRows * depth, [&](const std::vector<float>& x, std::vector<float>& rounded) {
        for (int row = 0; row < kRows; ++row)
          for (int k = 0; k < depth; k += kCodeBlock) {
            const int at = row * depth + k, n = std::min(kCodeBlock, depth - k);
            const WeightBlock block = quantise_block(format, x.data() + at, n);
            CodedFloats values;
            for (int i = 0; i < kCodeBlock; ++i) values[i] = weight_value(format, block, i);
            if (format == WeightFormat::kInt8) values = rotated(values);
            std::copy_n(values.begin(), n, rounded.begin() + at);
          }
      });
  const double of_rows = relative_error(kRows * depth, [&](const std::vector<float>& x, std::vector<float>& rounded) {
    const std::size_t stride = quantised_row_bytes(format, depth);
    AlignedBuffer<std::byte> bytes(kRows * stride);
    const QuantisedRows rows{bytes.data(), stride};
    ThreadPool one(1);
    quantise_rows(one, format, x.data(), depth, kRows, depth, rows);
    for (int i = 0; i < kRows; ++i)
      for (int k = 0; k < depth; k += kCodeBlock) {
        CodedFloats values;
        for (int j = 0; j < kCodeBlock; ++j) values[j] = static_cast<float>(quantised_value(rows, i, k + j));
        if (format == WeightFormat::kInt8)
          for (float& value : values = rotated(values)) value /= kCodeBlock;
        std::copy_n(values.begin(), std::min(kCodeBlock, depth - k), rounded.begin() + i * depth + k);
      }
  });
  return std::hypot(of_weights, of_rows);
}

// Against f32: the head's own error is always there. Before it, each of a layer's seven products adds a part that is
// independent and at most as large relative to the whole; and an expert is the product of two projections of its input,
// so that a layer may double the relative error which it finds. Norms of queries and keys keep scores near 1, which
// softmax does not amplify, and all experts are selected: another choice would not be a rounding.
TEST(QuantisedWeights, LogitsAreAsFarFromF32AsTheirFormatSays) {
  for (const bool federated : {false, true})
    for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
      SCOPED_TRACE(testing::Message() << to_string(format) << (federated ? ", federated" : ""));
      ModelConfig c = federated ? small_federated(2) : small_config();
      set(c, &ExpertsConfig::count, 4);
      set(c, &ExpertsConfig::per_token, 4);
      set(c, &AttentionConfig::qk_norm, QkNorm::kHead);
      const RandomModel folder(c);
      const auto comm = make_self_comm();
      const std::vector<std::int32_t> tokens = random_tokens(200, c.vocab_size, 3);
      const Plan plan = default_plan(c);
      Runner exact(load_model(folder.path(), plan, *comm), *comm, 1);
      Runner rounded(load_model(folder.path(), plan, *comm, FormatChoice::all(format)), *comm, 1);
      const std::vector<float> expected = in_chunks(exact, tokens, 200), logits = in_chunks(rounded, tokens, 200);
      const double error = distance(logits, expected) / distance(expected, std::vector<float>(expected.size()));
      const double one = error_of_product(format, c.hidden_size);
      EXPECT_GT(error, 0.9 * one);
      double parts = 0;
      for (int l = 0; l < c.num_layers(); ++l) parts = 4 * parts + 7;
      EXPECT_LT(error, one * std::sqrt(1 + parts));
    }
}

}  // namespace
}  // namespace foe

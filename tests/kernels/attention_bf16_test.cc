// Attention in bf16 against its order written down as plain loops, bit for bit.
#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "attention_layer.h"
#include "base/error.h"
#include "base/sanitized.h"
#include "bf16_order.h"
#include "bf16_weight.h"

namespace foe {
namespace {

float rounded(float x) {
  return to_float(to_bf16(x));
}

float weight(float y) {
  return rounded(unrounded_weight(y));
}

// e^x as merges of spans take it (kernels/math-inl.h).
float exponential(float x) {
  if (!(x >= -87.0f)) return 0;
  if (x > 88.0f) return std::numeric_limits<float>::infinity();
  const float n = (x * 1.44269504088896341f + 0x1.8p23f) - 0x1.8p23f;
  const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x)), r2 = r * r;
  const auto line = [&](float a, float b) { return std::fma(a, r, b); };
  const float high = std::fma(line(1.0f / 5040, 1.0f / 720), r2, line(1.0f / 120, 1.0f / 24));
  const float low = std::fma(line(1.0f / 6, 0.5f), r2, line(1.0f, 1.0f));
  return std::fma(high, r2 * r2, low) * std::ldexp(1.0f, static_cast<int>(n));
}

// The tangent that a soft-cap takes (kernels/math-inl.h).
float tangent(float x) {
  const float size = std::abs(x), x2 = flushed(x * x);
  if (!(size < 0.55f)) return std::copysign(1.0f - 2.0f / (exponential(size + size) + 1.0f), x);
  float p = std::fma(-0.00627423951f, x2, 0.021071679f);
  for (const float next : {-0.0538523099f, 0.133325861f, -0.333333176f}) p = std::fma(p, x2, next);
  return std::copysign(std::fma(flushed(x * x2), p, x), x);
}

// One query's outputs, and the logarithm of its sum: spans from zero, merged in ascending order into what a sink
// begins.
std::vector<float> attend_plainly(const Layer& layer, const Sequence& s, int position, int head, float& log_sum) {
  const int C = layer.shape.key_width, W = layer.shape.value_width, m = layer.heads.kv, n = layer.heads.query;
  const int kv_head = head / (n / m), window = layer.rule.window;
  const float* q = s.q_SnC.data() + (position * n + head) * C;
  const auto key = [&](int j, int c) { return rounded(s.k_SmC[(j * m + kv_head) * C + c]); };
  const auto value = [&](int j, int c) { return rounded(s.v_SmW[(j * m + kv_head) * W + c]); };
  constexpr double kBase = 1.4426950408889634;
  const double cap = layer.rule.softcap, natural = layer.rule.scale > 0 ? layer.rule.scale : 1 / std::sqrt(C);
  const auto squash = static_cast<float>(natural / cap);
  const auto scale = static_cast<float>(cap > 0                ? kBase * cap
                                        : layer.rule.scale > 0 ? kBase * natural
                                                               : kBase / std::sqrt(static_cast<double>(C)));
  float largest = -std::numeric_limits<float>::infinity(), sum = 0;
  if (layer.rule.sinks) largest = static_cast<float>(layer.sinks_n[head] * kBase), sum = 1;
  std::vector<float> out(W);
  for (int first = 0; first <= position; first += kAttentionSpan) {
    const int count = std::min(kAttentionSpan, position + 1 - first);
    const int hidden = window > 0 ? std::max(0, position - window + 1 - first) : 0;
    if (hidden >= count) continue;
    std::vector<float> w(count);
    for (int j = 0; j < count; ++j) {
      w[j] = dot_in_bf16_order(
          0, C, [&](int c) { return rounded(q[c]); }, [&](int c) { return key(first + j, c); });
      if (cap > 0) w[j] = tangent(flushed(w[j] * squash));
      if (j < hidden) w[j] = -std::numeric_limits<float>::infinity();
    }
    const float here = flushed(*std::max_element(w.begin(), w.end()) * scale);
    for (float& x : w) x = weight(std::fma(x, scale, -here));
    const auto weights = [&](int j) { return w[j]; };
    const float both = std::max(largest, here), keep = exponential((largest - both) * 0.693147181f),
                take = exponential((here - both) * 0.693147181f);
    largest = both;
    sum = sum * keep + dot_in_bf16_order(0, count, weights, [](int) { return 1.0f; }) * take;
    for (int c = 0; c < W; ++c) {
      const float product = dot_in_bf16_order(0, count, weights, [&](int j) { return value(first + j, c); });
      out[c] = flushed(std::fma(product, take, flushed(out[c] * keep)));
    }
  }
  for (float& x : out) x = flushed(x / sum) + 0.0f;
  log_sum = flushed(static_cast<float>(largest / kBase)) + std::log(sum);
  return out;
}

// Zeros of different signs differ, too.
std::vector<std::uint32_t> bits_of(const std::vector<float>& x) {
  std::vector<std::uint32_t> bits;
  for (const float value : x) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

void expect_plain_bits(Layer& layer, int length) {
  const int C = layer.shape.key_width, n = layer.heads.query;
  std::vector<float> expected, log_sums(length * n);
  for (int position = 0; position < length; ++position)
    for (int head = 0; head < n; ++head) {
      const std::vector<float> out =
          attend_plainly(layer, layer.sequences[0], position, head, log_sums[position * n + head]);
      expected.insert(expected.end(), out.begin(), out.end());
    }
  ThreadPool pool(2);
  for_each_target_of(kRounded, [&] {
    layer.run_whole(pool);
    ASSERT_EQ(bits_of(layer.sequences[0].out_SnW), bits_of(expected)) << n << " heads of " << C << ", all at once";
    ASSERT_EQ(bits_of(layer.log_sum_Tn), bits_of(log_sums)) << n << " heads of " << C << ", all at once";
    layer.clear();
    layer.run_in_chunks(pool, 1);
    ASSERT_EQ(bits_of(layer.sequences[0].out_SnW), bits_of(expected)) << n << " heads of " << C << ", one by one";
  });
}

TEST(AttentionInBf16, HasTheBitsOfItsDefinition) {
  const int length = kSanitized ? kAttentionSpan + 5 : 2 * kAttentionSpan + 45;
  for (const int C : {1, 3, 16, 17, 31, 32, 64, 80, 128})
    for (const Heads heads : {Heads{1, 1}, Heads{4, 1}, Heads{6, 2}}) {
      Layer layer(heads, C, kRounded, {length}, C);
      expect_plain_bits(layer, length);
      if (testing::Test::HasFailure()) return;
    }
}

TEST(AttentionInBf16, HasTheBitsOfItsDefinitionUnderEveryRule) {
  const int length = kSanitized ? kAttentionSpan + 5 : 2 * kAttentionSpan + 45;
  for (const Rule& rule : {Rule{.scale = 0.3}, Rule{.softcap = 2}, Rule{.scale = 0.5, .softcap = 1}, Rule{.window = 1},
                           Rule{.window = 100}, Rule{.window = 128}, Rule{.window = 150}, Rule{.sinks = true},
                           Rule{.scale = 0.4, .softcap = 3, .window = 70, .sinks = true}})
    for (const Widths widths : {Widths(32), Widths(24, 40), Widths(70, 17)})
      for (const Heads heads : {Heads{1, 1}, Heads{4, 1}}) {
        SCOPED_TRACE(testing::Message() << "scale " << rule.scale << ", soft-cap " << rule.softcap << ", window "
                                        << rule.window << ", sinks " << rule.sinks << ", values of " << widths.value);
        Layer layer(heads, widths, kRounded, {length}, 7, rule);
        expect_plain_bits(layer, length);
        if (testing::Test::HasFailure()) return;
      }
}

// Products, scores and weights around the smallest normal number, and scores so far apart that most weights vanish.
TEST(AttentionInBf16, HasTheBitsOfItsDefinitionAtItsEnds) {
  constexpr int kLength = kAttentionSpan + 40;
  for (const float scale : {0x1p-126f, 0x1p-64f, 0x1p-60f, 60.0f}) {
    Layer layer({4, 1}, 24, kRounded, {kLength}, 9);
    Sequence& s = layer.sequences[0];
    for (float& q : s.q_SnC) q *= scale;
    if (scale < 1)
      for (std::size_t i = 0; i < s.v_SmW.size(); ++i) s.v_SmW[i] *= i % 3 == 0 ? scale * 0x1p-62f : 0x1p-120f;
    expect_plain_bits(layer, kLength);
  }
}

// Nothing that is not a number is taken for a weight of zero.
TEST(AttentionInBf16, NotANumberShows) {
  constexpr int kLength = kAttentionSpan + 40, kC = 32, kBad = 50;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(1);
  for (const bool in_key : {true, false}) {
    Layer layer({4, 1}, kC, kRounded, {kLength}, 3);
    Sequence& s = layer.sequences[0];
    (in_key ? s.k_SmC[kBad * kC + 5] : s.q_SnC[kBad * 4 * kC + 5]) = nan;
    for_each_target_of(kRounded, [&] {
      layer.run_whole(pool);
      for (int position = 0; position < kLength; ++position) {
        const bool expected = in_key ? position >= kBad : position == kBad;
        ASSERT_EQ(std::isnan(s.out_SnW[position * 4 * kC]), expected) << "position " << position;
      }
    });
  }
}

// The mode of subnormal numbers is the caller's again.
TEST(AttentionInBf16, LeavesSubnormalNumbersToOthers) {
  ThreadPool pool(1);
  Layer layer({4, 1}, 32, kRounded, {40}, 3);
  layer.run_whole(pool);
  volatile float least = std::numeric_limits<float>::min();
  EXPECT_GT(least * 0.5f, 0);
}

TEST(AttentionInBf16, NeedsKeysAndValuesInBf16) {
  EXPECT_EQ(parse_attention_type("f32", KvType::kInt8), AttentionType::kF32);
  EXPECT_EQ(parse_attention_type("bf16", KvType::kBF16), AttentionType::kBF16);
  const auto message = [](const char* name, KvType kv_type) {
    try {
      parse_attention_type(name, kv_type);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message("int8", KvType::kBF16), "--attention: expected f32 or bf16, got 'int8'");
  EXPECT_EQ(message("bf16", KvType::kF32),
            "--attention bf16 multiplies keys and values in bf16: expected --kv-dtype bf16, got --kv-dtype f32");
}

}  // namespace
}  // namespace foe

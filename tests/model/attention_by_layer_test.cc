// What a model says of attention, layer by layer, and of networks, against the published formulas in double. That
// batches, threads, plans and ranks do not change its bits is tested with the other models, in forward_test.cc and
// expert_parallel_test.cc.
#include <functional>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"
#include "reference_model.h"
#include "runner.h"

namespace foe {
namespace {

constexpr int kPromptTokens = 40;

// Two layers. All experts are selected, so that a rounding does not change which.
ModelConfig base_config(bool federated) {
  ModelConfig c = federated ? small_federated(2) : small_config();
  set_layers(c, 2);
  if (!federated) make_dense(c);
  if (federated) set(c, &ExpertsConfig::count, 4);
  return c;
}

struct Case {
  std::string name;
  std::function<void(ModelConfig&)> change;
  bool same_widths = true;  // of all tensors
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

template <typename T>
std::function<void(ModelConfig&)> in_all(T AttentionConfig::*field, std::type_identity_t<T> value) {
  return [=](ModelConfig& c) { set(c, field, value); };
}
template <typename T>
std::function<void(ModelConfig&)> in_second(T AttentionConfig::*field, std::type_identity_t<T> value) {
  return [=](ModelConfig& c) { c.attention(1).*field = value; };
}

using A = AttentionConfig;
const Case kCases[] = {
    {"window_1", in_all(&A::window, 1)},
    {"window_7", in_all(&A::window, 7)},
    {"window_in_second", in_second(&A::window, 11)},
    {"scale", in_all(&A::scale, 0.11)},
    {"scale_in_second", in_second(&A::scale, 0.5)},
    {"softcap", in_all(&A::softcap, 1.5)},
    {"softcap_in_second", in_second(&A::softcap, 3)},
    {"partial_rope", in_all(&A::rotary_share, 0.5)},
    {"partial_rope_rounded_down", in_all(&A::rotary_share, 0.35)},  // 4.2 of 12
    {"no_rope_in_second", in_second(&A::rotary_share, 0)},
    {"interleaved", in_all(&A::interleaved, true)},
    {"theta_in_second", in_second(&A::rope_theta, 100)},
    {"factor_in_second", in_second(&A::rope_factor, 8)},
    {"biases_of_inputs", in_all(&A::qkv_bias, true)},
    {"bias_of_output_in_first", [](ModelConfig& c) { c.attention(0).output_bias = true; }},
    {"bias_of_output_in_second", in_second(&A::output_bias, true)},
    {"sinks_in_second", in_second(&A::sinks, true)},
    {"norm_after_rope", [](ModelConfig& c) { set(c, &A::qk_norm, QkNorm::kHead), set(c, &A::norm_after_rope, true); },
     false},
    {"full_norm_after_rope_in_second",
     [](ModelConfig& c) { set(c, &A::qk_norm, QkNorm::kFull), c.attention(1).norm_after_rope = true; }, false},
    {"narrow_values", in_all(&A::value_width, 5), false},
    {"wide_values", in_all(&A::value_width, 20), false},
    {"every_parameter",
     [](ModelConfig& c) {
       set(c, &A::value_width, 20);
       set(c, &A::qk_norm, QkNorm::kHead);
       for (const int l : {0, 1}) {
         A& a = c.attention(l);
         a.qkv_bias = a.output_bias = true;
         a.sinks = l == 1;
         a.window = 9 + 8 * l;
         a.scale = 0.3 - 0.1 * l;
         a.softcap = 2 + l;
         a.rotary_share = 0.5 + 0.5 * l;
         a.interleaved = l == 0;
         a.rope_theta = 50 + 50 * l;
         a.rope_factor = 1 + l;
       }
     },
     false},
    {"biases_and_clipping_of_networks",
     [](ModelConfig& c) {
       for_each_experts(c, [](ExpertsConfig& e) {
         e.bias = true;
         e.gate = {1.702, 1, 1};
         if (e.router) e.router->bias = true;
       });
     }},
    {"values_under_a_full_norm",
     [](ModelConfig& c) {
       set(c, &A::value_width, 7);
       set(c, &A::qk_norm, QkNorm::kFull);
     },
     false},
};

class AttentionByLayer : public testing::TestWithParam<std::tuple<Case, bool>> {};

// A deviation is that of independent roundings. Those of a row are partly the same, and there are thousands of logits:
// eight deviations are as far as they may be.
TEST_P(AttentionByLayer, IsThatOfTheFormulas) {
  const auto& [by, federated] = GetParam();
  ModelConfig config = base_config(federated);
  by.change(config);
  ASSERT_NO_THROW(validate(config));
  const RandomModel folder(config);
  const auto comm = make_self_comm();
  Runner runner(load_model(folder.path(), default_plan(config), *comm), *comm, 2);
  const std::vector<std::int32_t> tokens = random_tokens(kPromptTokens, config.vocab_size, 4);
  const std::vector<float> logits = in_chunks(runner, tokens, kPromptTokens);
  const int V = config.vocab_size;
  ASSERT_EQ(logits.size(), static_cast<std::size_t>(kPromptTokens) * V);
  // Returns how many logits are not those of a configuration.
  const auto differences = [&](const ModelConfig& c) {
    const Matrix expected = ReferenceModel(folder.path(), c).logits(tokens);
    int count = 0;
    double largest = 0, deviation = 0;
    for (int t = 0; t < kPromptTokens; ++t)
      for (int i = 0; i < V; ++i) {
        const Number& e = expected[t][i];
        count += std::abs(logits[t * V + i] - e.value) > 8 * std::sqrt(e.variance);
        largest = std::max(largest, std::abs(e.value));
        deviation = std::max(deviation, std::sqrt(e.variance));
      }
    EXPECT_LT(8 * deviation, 1e-2 * largest) << "the tolerance would hide errors";
    return count;
  };
  EXPECT_EQ(differences(config), 0);
  if (!by.same_widths) return;
  EXPECT_GT(differences(base_config(federated)), V) << "the parameter changes nothing";
}

INSTANTIATE_TEST_SUITE_P(Parameters, AttentionByLayer, testing::Combine(testing::ValuesIn(kCases), testing::Bool()),
                         [](const auto& test) {
                           return std::get<Case>(test.param).name + (std::get<bool>(test.param) ? "_federated" : "");
                         });

std::vector<float> logits_of(const RandomModel& folder, const ModelConfig& config,
                             const std::vector<std::int32_t>& tokens, int chunk, int threads = 1) {
  const auto comm = make_self_comm();
  Runner runner(load_model(folder.path(), default_plan(config), *comm), *comm, threads);
  return in_chunks(runner, tokens, chunk);
}

// In all layers or in one: what a model says in as many words is what it says without them.
TEST(AttentionDefaults, WrittenOutAreTheSameBits) {
  for (const bool federated : {false, true}) {
    const ModelConfig plain = base_config(federated);
    const RandomModel folder(plain);
    const std::vector<std::int32_t> tokens = random_tokens(300, plain.vocab_size, 4);
    const std::vector<float> expected = logits_of(folder, plain, tokens, 300);
    const std::function<void(A&)> written[] = {
        [](A& a) { a.value_width = a.key_width; },
        [](A& a) { a.scale = 1 / std::sqrt(a.key_width); },
        [](A& a) { a.window = 300; },
        [](A& a) { a.window = 1 << 20; },
    };
    for (const auto& write : written)
      for (const bool all : {true, false}) {
        ModelConfig config = plain;
        write(config.attention(1));
        if (all) write(config.attention(0));
        EXPECT_EQ(logits_of(folder, config, tokens, 300), expected) << &write - written;
      }
  }
}

// The context is many windows, and several spans, long.
TEST(AttentionWindows, AreTheSameBitsFarBehindTheBeginning) {
  ModelConfig config = base_config(false);
  config.max_position_embeddings = 1024;
  config.attention(0).window = 33;
  config.attention(1).window = 200;
  const RandomModel folder(config);
  const std::vector<std::int32_t> tokens = random_tokens(400, config.vocab_size, 4);
  std::vector<std::int32_t> others = tokens;
  for (int i = 0; i < 100; ++i) others[i] = (others[i] + 1) % config.vocab_size;
  const std::vector<float> whole = logits_of(folder, config, tokens, 400);
  for (const int chunk : {1, 50, 399}) EXPECT_EQ(logits_of(folder, config, tokens, chunk, 3), whole) << chunk;
  // Two layers see 33 + 200 - 2 positions back: the last 69 rows nothing of the first 100.
  const std::vector<float> of_others = logits_of(folder, config, others, 400);
  const auto rows = [&](const std::vector<float>& logits, int first) {
    return std::vector<float>(logits.begin() + first * config.vocab_size, logits.end());
  };
  EXPECT_EQ(rows(of_others, 331), rows(whole, 331));
  EXPECT_NE(rows(of_others, 330), rows(whole, 330));
}

}  // namespace
}  // namespace foe

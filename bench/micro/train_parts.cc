// What the parts of a training step cost on one thread, in processor time:
//     build/bench/train_parts models/moe-8m/train.toml models/foe-8m/train.toml
// The batch is one shard of the configuration, of random tokens. Parts with a function of their own are timed by
// themselves, over all layers; the rest of a pass is what is left of it. Each number is the least of several.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "train/config.h"
#include "train/model.h"

namespace foe::train {
namespace {

constexpr int kTimes = 7;

double milliseconds(const std::function<void()>& run) {
  double least = 1e30;
  for (int i = 0; i < kTimes; ++i) {
    const auto now = [] {
      timespec t{};
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
      return 1e3 * static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_nsec);
    };
    const double start = now();
    run();
    least = std::min(least, now() - start);
  }
  return least;
}

void measure(const std::string& path) {
  const TrainConfig config = load_train_config(path);
  const Layout layout(config.model, config.init);
  const Dims& d = layout.dims;
  const Span span{config.batch_sequences / config.shards, config.sequence_length};
  AlignedBuffer<float> params(layout.size), gradients = AlignedBuffer<float>::zeroed(layout.size);
  initialise(layout, config.seed, params.data());
  ThreadPool pool(1);
  PackedWeights<float> weights(layout, config.precision);
  Activations<float> a(layout, span.sequences, span.length);
  const Model<float> model{layout, params.data(), weights};
  std::vector<std::int32_t> tokens(span.tokens());
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(random_bits(1, i) % static_cast<std::uint64_t>(d.vocab));
  const std::span<const std::int32_t> ids = tokens;
  const auto of_layers = [&](const std::function<void(int)>& part) {
    return milliseconds([&] {
      for (int l = 0; l < d.layers; ++l) part(l);
    });
  };
  const auto print = [](const char* name, double ms) { std::printf("  %-24s %8.2f ms\n", name, ms); };
  const auto rest_of = [&](const char* name, double all, std::initializer_list<double> parts) {
    for (const double part : parts) all -= part;
    print(name, all);
  };

  std::printf("%s: %d tokens, %d layers\n", path.c_str(), span.tokens(), d.layers);
  print("pack weights", milliseconds([&] { weights.pack(pool, params.data()); }));
  const double whole = milliseconds([&] { forward(model, ids, span, a); });
  const double attention = of_layers([&](int l) {
    LayerActivations<float>& act = a.layers[l];
    attention_forward(d, span, config.precision, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(),
                      a.attention);
  });
  const double experts = of_layers([&](int l) {
    LayerActivations<float>& act = a.layers[l];
    experts_forward(layout.config, d, span.tokens(), weights.layers[l], act.routing, act.norm2_TD.data(),
                    act.gate_up_R2F.data(), act.moe_STD.data(), a.experts, a.products);
  });
  print("forward", whole);
  print("  attention", attention);
  print("  experts", experts);
  rest_of("  rest", whole, {attention, experts});
  print("head, both passes", milliseconds([&] { head_backward(model, ids, 1e-3f, a, gradients.data()); }));

  const double back = milliseconds([&] { backward(model, ids, {1e-2, 1e-3}, a, gradients.data()); });
  const double back_attention = of_layers([&](int l) {
    const LayerActivations<float>& act = a.layers[l];
    attention_backward(d, span, config.precision, act.qkv_TW.data(), act.o_TNC.data(), act.log_sum_TN.data(),
                       a.d_o_TNC.data(), a.d_qkv_TW.data(), a.attention, a.products);
  });
  const double back_experts = of_layers([&](int l) {
    const LayerActivations<float>& act = a.layers[l];
    experts_backward(d, span.tokens(), config.precision, weights.layers[l], layout.layers[l], act.routing,
                     act.norm2_TD.data(), act.gate_up_R2F.data(), a.d_moe_STD.data(), a.d_norm_STD.data(),
                     a.d_weight_TK.data(), gradients.data(), a.experts, a.products);
  });
  print("backward", back);
  print("  attention", back_attention);
  print("  experts", back_experts);
  rest_of("  rest", back, {back_attention, back_experts});
}

}  // namespace
}  // namespace foe::train

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) foe::train::measure(argv[i]);
  return argc > 1 ? 0 : 2;
}

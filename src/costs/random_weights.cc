#include "costs/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "weights/output_blocks.h"

namespace foe {
namespace {

constexpr std::size_t kPool = 1 << 20;  // values in the pool

std::size_t element_bytes(WeightFormat format) {
  return format == WeightFormat::kF32 ? sizeof(float) : quantised(format) ? 1 : sizeof(BF16);
}

// Sets the scale of all blocks to one that gives random codes a standard deviation near 1. In int4 the choices of
// factors stay random.
void write_scales(PackedMatrix& matrix) {
  constexpr float kScale8 = 1 / 73.9f, kScale4 = 1 / 54.8f;  // the deviations of all bytes, and of kInt4Products
  const BF16 half = to_bf16(kScale4);
  for (std::size_t at = 0; at < matrix.own.size(); at += block_bytes(matrix.format))
    for (int r = 0; r < kPanel; ++r)
      if (matrix.format == WeightFormat::kInt8)
        std::memcpy(matrix.own.data() + at + r * sizeof kScale8, &kScale8, sizeof kScale8);
      else
        std::memcpy(matrix.own.data() + at + r * sizeof half, &half, sizeof half);
}

}  // namespace

RandomMatrices::RandomMatrices(WeightFormat format, std::uint64_t seed)
    : format_(format), pool_(kPool * element_bytes(format)) {
  for (std::size_t i = 0; i < kPool; ++i) {
    const auto write = [&](const auto& value) { std::memcpy(pool_.data() + i * sizeof value, &value, sizeof value); };
    const auto value = static_cast<float>(random_normal(seed, i));
    if (format == WeightFormat::kF32)
      write(value);
    else if (!quantised(format))
      write(to_bf16(value));
    else
      write(static_cast<std::uint8_t>(random_bits(seed, i)));
  }
}

PackedMatrix RandomMatrices::next(int rows, int depth) {
  PackedMatrix matrix = empty_packed(rows, depth, format_);
  fill(matrix.own.span());
  if (quantised(format_)) write_scales(matrix);
  return matrix;
}

void RandomMatrices::fill(std::span<std::byte> out) {
  const std::size_t size = element_bytes(format_);
  while (!out.empty()) {
    const std::size_t run = std::min(out.size() / size, kPool - at_);
    std::memcpy(out.data(), pool_.data() + at_ * size, run * size);
    out = out.subspan(run * size);
    at_ = (at_ + run + 7919) % kPool;  // a prime, so that equal matrices do not get equal values
  }
}

Weights random_weights(const ModelConfig& c, const Share& share, WeightFormat format, std::uint64_t seed) {
  RandomMatrices every_rank(WeightFormat::kF32, seed);
  // The values have deviation 1: the norms before a matrix scale its inputs to 1 / sqrt(its depth) instead.
  RandomMatrices own(format, seed + 1 + static_cast<std::uint64_t>(share.experts.begin));
  const int D = c.hidden_size, C = c.heads().key_width, per_kv = c.heads().per_kv_head();
  const int m = share.kv_heads.size() / share.streams(), f = share.expert_width.size();
  const float unit = 1.0f / std::sqrt(static_cast<float>(D));
  Weights w;
  w.own_embedding = AlignedBuffer<std::byte>(static_cast<std::size_t>(c.vocab_size) * D * sizeof(float));
  every_rank.fill(w.own_embedding.span());
  w.embedding_VD = {DType::kF32, w.own_embedding.data(), D * sizeof(float), c.vocab_size, D};
  for (int l = 0; l < c.num_layers(); ++l) {
    LayerWeights layer;
    layer.attention_norm_D.assign(D, unit);
    layer.expert_norm_D.assign(D, unit);
    if (c.heads().qk_norm != QkNorm::kNone) {
      const bool full = c.heads().qk_norm == QkNorm::kFull;
      layer.q_norm.assign(full ? share.kv_heads.size() * per_kv * C : C, 1.0f);
      layer.k_norm.assign(full ? share.kv_heads.size() * C : C, 1.0f);
    }
    for (int g = 0; g < share.streams(); ++g) {
      const int first = share.kv_heads.begin + g * m;
      layer.streams.push_back({own.next(m * per_kv * C, D), own.next(m * C, D), own.next(m * C, D),
                               own.next(D, packed_depth(output_blocks(c, format, {first, first + m})))});
    }
    const ExpertTable table = expert_table(c, l);
    if (!c.dense()) layer.router_ED = every_rank.next(table.columns(), D);
    if (!c.dense() && c.experts(l).router->selection_bias) layer.selection_bias_E.assign(table.scored(), 0.0f);
    layer.constants_AD.assign(static_cast<std::size_t>(table.constant) * D, 1.0f);
    for (int e = share.experts.begin; e < share.experts.end; ++e)
      layer.experts.push_back({own.next(2 * kPanel * ((f + kPanel - 1) / kPanel), D), own.next(D, f)});
    w.layers.push_back(std::move(layer));
  }
  w.final_norm_D.assign(D, unit);
  w.head_vD = own.next(share.vocab.size(), D);
  return w;
}

}  // namespace foe

#include "weights/random_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"

namespace foe {
namespace {

// Copies of one pool of random values, each from another place: gigabytes in a second.
class Source {
 public:
  Source(DType type, std::uint64_t seed) : type_(type), pool_(kPool * size_of(type)) {
    for (std::size_t i = 0; i < kPool; ++i) {
      const auto value = static_cast<float>(random_normal(seed, i));
      if (type == DType::kF32) {
        std::memcpy(pool_.data() + i * sizeof value, &value, sizeof value);
      } else {
        const BF16 half = to_bf16(value);
        std::memcpy(pool_.data() + i * sizeof half, &half, sizeof half);
      }
    }
  }

  void fill(std::byte* out, std::size_t elements) {
    const std::size_t size = size_of(type_);
    while (elements > 0) {
      const std::size_t run = std::min(elements, kPool - at_);
      std::memcpy(out, pool_.data() + at_ * size, run * size);
      out += run * size;
      elements -= run;
      at_ = (at_ + run + 7919) % kPool;  // a prime, so that equal matrices do not get equal values
    }
  }

  DType type() const { return type_; }

 private:
  static constexpr std::size_t kPool = 1 << 20;
  DType type_;
  AlignedBuffer<std::byte> pool_;
  std::size_t at_ = 0;
};

// Random codes, with the scale that gives them a deviation near 1.
void fill_codes(PackedMatrix& matrix, std::uint64_t seed) {
  constexpr float kDeviation = 72;
  const BF16 scale = to_bf16(1 / kDeviation);
  const std::size_t block = block_bytes(matrix.format), scales = scale_bytes(matrix.format);
  for (std::size_t at = 0; at < matrix.own.size(); at += block) {
    std::byte* out = matrix.own.data() + at;
    for (int row = 0; row < kPanel; ++row) std::memcpy(out + row * sizeof scale, &scale, sizeof scale);
    for (std::size_t i = scales; i < block; i += sizeof(std::uint64_t)) {
      const std::uint64_t codes = random_bits(seed, at + i);
      std::memcpy(out + i, &codes, sizeof codes);
    }
  }
}

}  // namespace

PackedMatrix random_matrix(int rows, int depth, WeightFormat format, std::uint64_t seed) {
  PackedMatrix matrix = empty_packed(rows, depth, format);
  if (quantised(format)) {
    fill_codes(matrix, seed);
  } else {
    const DType type = format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16;
    Source(type, seed).fill(matrix.own.data(), matrix.own.size() / size_of(type));
  }
  return matrix;
}

Weights random_weights(const ModelConfig& c, const Share& share, WeightFormat format, std::uint64_t seed) {
  Source every_rank(DType::kF32, seed);
  // The values have deviation 1: the norms before a matrix scale its inputs to 1 / sqrt(its depth) instead.
  std::uint64_t own_seed = seed + 1 + static_cast<std::uint64_t>(share.experts.begin);
  Source floats(format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16, own_seed);
  const int D = c.hidden_size, C = c.head_dim, per_kv = c.num_attention_heads / c.num_key_value_heads;
  const int m = share.kv_heads.size() / share.streams(), f = share.expert_width.size();
  const auto own = [&](int rows, int depth) {
    PackedMatrix matrix = empty_packed(rows, depth, format);
    if (quantised(format))
      fill_codes(matrix, ++own_seed);
    else
      floats.fill(matrix.own.data(), matrix.own.size() / size_of(floats.type()));
    return matrix;
  };
  const auto router = [&] {
    PackedMatrix matrix = empty_packed(c.num_experts, c.hidden_size, WeightFormat::kF32);
    every_rank.fill(matrix.own.data(), matrix.own.size() / sizeof(float));
    return matrix;
  };
  const float unit = 1.0f / std::sqrt(static_cast<float>(D));
  Weights w;
  w.own_embedding = AlignedBuffer<std::byte>(static_cast<std::size_t>(c.vocab_size) * D * sizeof(float));
  every_rank.fill(w.own_embedding.data(), static_cast<std::size_t>(c.vocab_size) * D);
  w.embedding_VD = {DType::kF32, w.own_embedding.data(), D * sizeof(float), c.vocab_size, D};
  for (int l = 0; l < c.num_hidden_layers; ++l) {
    LayerWeights layer;
    layer.attention_norm_D.assign(D, unit);
    layer.expert_norm_D.assign(D, unit);
    if (c.qk_norm != QkNorm::kNone) {
      const bool full = c.qk_norm == QkNorm::kFull;
      layer.q_norm.assign(full ? share.kv_heads.size() * per_kv * C : C, 1.0f);
      layer.k_norm.assign(full ? share.kv_heads.size() * C : C, 1.0f);
    }
    for (int g = 0; g < share.streams(); ++g)
      layer.streams.push_back({own(m * per_kv * C, D), own(m * C, D), own(m * C, D), own(D, m * per_kv * C)});
    if (!c.dense()) layer.router_ED = router();
    for (int e = share.experts.begin; e < share.experts.end; ++e)
      layer.experts.push_back({own(2 * kPanel * ((f + kPanel - 1) / kPanel), D), own(D, f)});
    w.layers.push_back(std::move(layer));
  }
  w.final_norm_D.assign(D, unit);
  w.head_vD = own(share.vocab.size(), D);
  return w;
}

}  // namespace foe

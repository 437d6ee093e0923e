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

 private:
  static constexpr std::size_t kPool = 1 << 20;
  DType type_;
  AlignedBuffer<std::byte> pool_;
  std::size_t at_ = 0;
};

}  // namespace

Weights random_weights(const ModelConfig& c, const Share& share, DType type, std::uint64_t seed) {
  Source every_rank(DType::kF32, seed);
  // The values have deviation 1: the norms before a matrix scale its inputs to 1 / sqrt(its depth) instead.
  Source own(type, seed + 1 + static_cast<std::uint64_t>(share.experts.begin));
  const int D = c.hidden_size, C = c.head_dim, per_kv = c.num_attention_heads / c.num_key_value_heads;
  const int m = share.kv_heads.size() / share.streams(), f = share.expert_width.size();
  const auto packed = [](Source& source, int rows, int depth, DType matrix_type) {
    PackedMatrix matrix = empty_packed(rows, depth, matrix_type);
    source.fill(matrix.data.data(), matrix.data.size() / size_of(matrix_type));
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
      layer.streams.push_back({packed(own, m * per_kv * C, D, type), packed(own, m * C, D, type),
                               packed(own, m * C, D, type), packed(own, D, m * per_kv * C, type)});
    if (!c.dense()) layer.router_ED = packed(every_rank, c.num_experts, D, DType::kF32);
    for (int e = share.experts.begin; e < share.experts.end; ++e)
      layer.experts.push_back(
          {packed(own, 2 * kPanel * ((f + kPanel - 1) / kPanel), D, type), packed(own, D, f, type)});
    w.layers.push_back(std::move(layer));
  }
  w.final_norm_D.assign(D, unit);
  w.head_vD = packed(own, share.vocab.size(), D, type);
  return w;
}

}  // namespace foe

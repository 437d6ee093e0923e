#include "bench/random_weights.h"

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

// Sets d of all blocks to one that gives random codes a deviation near 1 or, as s and t are random, a little more.
void write_parts(PackedMatrix& matrix) {
  constexpr F16 kScale8{0x22ee};                     // 1 / 73.9
  constexpr F16 kScale4{0x1400}, kMinimum4{0x2000};  // 2^-10 and 2^-7; bytes s and t are used as they are
  constexpr float kScale6 = 0x1p-10f;
  constexpr F16 kScale4_1{0x32f1}, kMinimum4_1{0x3e82};  // 1 / 4.61 and 7.5 times that
  for (std::size_t at = 0; at < matrix.own.size(); at += block_bytes(matrix.format)) {
    std::byte* const head = matrix.own.data() + at;
    const auto fill = [&](const auto& value, int first, int count) {
      for (int i = first; i < first + count; ++i) std::memcpy(head + i * sizeof value, &value, sizeof value);
    };
    const int scales = kCodeBlock / part_depth(matrix.format) * kPanel;
    if (matrix.format == WeightFormat::kQ8_0) fill(kScale8, 0, scales);
    if (matrix.format == WeightFormat::kQ4_1) fill(kScale4_1, 0, scales), fill(kMinimum4_1, scales, scales);
    if (matrix.format == WeightFormat::kQ4_K) fill(kScale4, 0, kPanel), fill(kMinimum4, kPanel, kPanel);
    if (matrix.format == WeightFormat::kQ6_K) fill(kScale6, 0, kPanel);
  }
}

// Sets the scale of all blocks to one that gives weights a standard deviation near 1. Those of int8 are rotated, and
// have one of 1 / sqrt(kCodeBlock) then. In int4 the choices of factors stay random.
void write_scales(PackedMatrix& matrix) {
  if (in_parts(matrix.format)) return write_parts(matrix);
  constexpr float kScale8 = 0.0884f / 73.9f, kScale4 = 1 / 54.8f;  // the deviations of all bytes, and of kInt4Products
  const BF16 half = to_bf16(kScale4);
  for (std::size_t at = 0; at < matrix.own.size(); at += block_bytes(matrix.format))
    for (int r = 0; r < kPanel; ++r)
      if (matrix.format == WeightFormat::kInt8)
        std::memcpy(matrix.own.data() + at + r * sizeof kScale8, &kScale8, sizeof kScale8);
      else
        std::memcpy(matrix.own.data() + at + r * sizeof half, &half, sizeof half);
}

// Matrices have values of deviation 1: the norms before them scale their inputs to 1 / sqrt(their depth) instead.
float value_of(const ModelTensor& row) {
  switch (row.role) {
    case TensorRole::kAttentionNorm:
    case TensorRole::kExpertNorm:
    case TensorRole::kFinalNorm:
      return 1.0f / std::sqrt(static_cast<float>(row.rows()));
    default:
      return row.initial == InitialValues::kZeros ? 0.0f : 1.0f;
  }
}

StreamWeights random_stream(RandomMatrices& own, const TensorTable& table, const ModelConfig& c, const Share& share,
                            WeightFormat format, int layer, int stream) {
  Share heads = share;
  const int m = share.kv_heads.size() / share.streams(), first = share.kv_heads.begin + stream * m;
  heads.kv_heads = {first, first + m};
  const auto rows = [&](TensorRole role) {
    const TensorPart part = part_of(table.at(role, layer), c, heads);
    return own.next(part.rows.size(), part.columns.size());
  };
  return {rows(TensorRole::kQProj), rows(TensorRole::kKProj), rows(TensorRole::kVProj),
          own.next(c.hidden_size, packed_depth(output_blocks(c, format, heads.kv_heads)))};
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
  RandomMatrices own(format, seed + 1 + static_cast<std::uint64_t>(share.experts(0).begin + share.stage));
  const TensorTable table(c);
  const auto floats = [&](TensorRole role, int l) {
    const ModelTensor* row = table.find(role, l);
    return row ? std::vector<float>(part_of(*row, c, share).size(), value_of(*row)) : std::vector<float>{};
  };
  Weights w;
  w.formats = {format, format, format};
  std::vector<std::vector<ExpertWeights>> experts(c.num_layers());
  if (share.runs(0)) {
    const ModelTensor& embedding = table.at(TensorRole::kEmbedding);
    w.own_embedding = AlignedBuffer<std::byte>(embedding.size() * sizeof(float));
    every_rank.fill(w.own_embedding.span());
    w.embedding_VD = {DType::kF32, w.own_embedding.data(), embedding.columns() * sizeof(float), embedding.rows(),
                      embedding.columns()};
  }
  for (int l = 0; l < c.num_layers(); ++l) {
    LayerWeights layer;
    if (!share.runs(l)) {
      w.layers.push_back(std::move(layer));
      continue;
    }
    for_each_vector(layer, [&](TensorRole role, std::vector<float>& values) { values = floats(role, l); });
    for (int g = 0; g < share.streams(); ++g)
      layer.streams.push_back(random_stream(own, table, c, share, format, l, g));
    int router_rows = 0;
    for (const TensorRole role : kRouterRoles)
      if (const ModelTensor* row = table.find(role, l)) router_rows += row->rows();
    if (router_rows > 0) layer.router_ED = every_rank.next(router_rows, c.hidden_size);
    for (int e = share.experts(l).begin; e < share.experts(l).end; ++e) {
      const TensorPart down = part_of(expert_matrices(table, c, l, e).down, c, share);
      const int panels = (down.columns.size() + kPanel - 1) / kPanel;
      experts[l].push_back(
          {own.next(2 * kPanel * panels, down.rows.size()), own.next(down.rows.size(), down.columns.size())});
      if (!c.experts(l).bias) continue;
      experts[l].back().gate_up_bias.resize(2 * kPanel * panels);
      experts[l].back().down_bias_D.resize(down.rows.size());
    }
    w.layers.push_back(std::move(layer));
  }
  w.experts = std::make_unique<ResidentExperts>(std::move(experts));
  w.final_norm_D = floats(TensorRole::kFinalNorm, -1);
  w.head_vD = own.next(share.vocab.size(), c.hidden_size);
  return w;
}

}  // namespace foe

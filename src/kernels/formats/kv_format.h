// How keys and values are stored: in blocks of 16 positions, for each of them and each KV head.
//
// A block of one KV head holds the keys transposed, K [C][16], so that scores run over keys in vector lanes, then the
// values V [16][Cp], with Cp = C rounded up to 16, so that outputs run over the head's width. With kBF16 both come in
// pairs of what a product sums over, as kernels/products/bf16_dot-inl.h and tiles take them: K [C/2, rounded up][16][2
// c] and V [Cp/16][8][16 columns][2 positions]. The second of a pair that is not there yet, or never, is zero.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/thread_pool.h"
#include "core/batch.h"

namespace foe {

// kBF16 rounds each element to the nearest bf16, ties to even. kInt8 has one f32 scale for the key of a position and
// head and one for its value, and an element is a signed byte: the nearest multiple of the scale, the largest being 127
// of them (kernels/products/int8-inl.h). A position is rounded by itself, so appending changes nothing that is there.
enum class KvType { kF32, kBF16, kInt8 };

const char* to_string(KvType type);
// "f32", "bf16" or "int8"; anything else is an Error.
KvType parse_kv_type(std::string_view name);

// What attention multiplies. kF32: queries and weights as they are, with keys and values widened. kBF16: queries and
// weights, too, are rounded to the nearest bf16, ties to even, and products are taken in the order of tiles
// (kernels/products/bf16_dot-inl.h), with or without them.
enum class AttentionType { kF32, kBF16 };

const char* to_string(AttentionType type);
// "f32" or "bf16"; anything else is an Error, and so is kBF16 over keys and values in another type than bf16.
AttentionType parse_attention_type(std::string_view name, KvType kv_type);

struct KvShape {
  int kv_heads = 0;  // m, this rank's share
  int head_dim = 0;  // C
  KvType type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;

  int padded_dim() const { return (head_dim + 15) / 16 * 16; }
  std::size_t element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kBF16 ? 2 : 1; }

  // A block of one head: with kInt8 the scales of 16 keys and of 16 values, then K, then V.
  std::size_t scale_bytes() const { return type == KvType::kInt8 ? 2 * kKvBlock * sizeof(float) : 0; }
  int key_rows() const { return type == KvType::kBF16 ? (head_dim + 1) / 2 * 2 : head_dim; }
  std::size_t values_at() const { return scale_bytes() + element_bytes() * kKvBlock * key_rows(); }
  std::size_t head_bytes() const { return values_at() + element_bytes() * kKvBlock * padded_dim(); }
  // Of all heads.
  std::size_t block_bytes() const { return head_bytes() * kv_heads; }
};

// Writes k_TmC and v_TmC of the batch's tokens into the layer's blocks, heads by threads.
void write_kv(ThreadPool& pool, const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmC,
              std::byte* layer_kv);

}  // namespace foe

// How keys and values are stored in KV blocks of 16 positions.
//
// A block has a part for each KV head. It holds the keys transposed, K [C][16], so that vector lanes run over keys in
// scores, and then the values V [16][Wp], where Wp is their width W rounded up to 16, so that vector lanes run over
// that width in outputs. With kBF16 both come in pairs along the dimension that a product sums over, as
// kernels/products/bf16_dot-inl.h and tile registers take them: K [C/2, rounded up][16][2 c] and V [Wp/16][8][16
// columns][2 positions]. If the second of a pair does not exist, or not yet, it is zero.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/formats/wire_format.h"

namespace foe {

// The type in which the KV cache stores keys and values. kBF16 rounds each element to the nearest bf16, ties to even.
// kInt8 has an f32 scale for the key of each position and head, and one for the value; an element is a signed byte, the
// nearest multiple of the scale (kernels/products/int8-inl.h). Each position is rounded by itself, so appending a
// position changes nothing that is there.
enum class KvType { kF32, kBF16, kInt8 };

const char* to_string(KvType type);
// Reads "f32", "bf16" or "int8". Throws Error for anything else.
KvType parse_kv_type(std::string_view name);

// The type in which attention multiplies. With kF32, keys and values are widened, and queries and weights stay f32.
// With kBF16, queries and weights are rounded to the nearest bf16, ties to even, and products have the order of tile
// registers (kernels/products/bf16_dot-inl.h), whether or not the processor has them.
enum class AttentionType { kF32, kBF16 };

const char* to_string(AttentionType type);
// Reads "f32" or "bf16". Throws Error for anything else, and for "bf16" if keys and values have another type.
AttentionType parse_attention_type(std::string_view name, KvType kv_type);

// The shape of one rank's KV blocks.
struct KvShape {
  int kv_heads = 0;     // m, this rank's share
  int key_width = 0;    // C, of queries too
  int value_width = 0;  // W, of outputs too
  KvType type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;

  int padded_values() const { return (value_width + 15) / 16 * 16; }
  std::size_t element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kBF16 ? 2 : 1; }

  // The part of a KV head in a block: with kInt8 the scales of 16 keys and of 16 values, then K, then V.
  std::size_t scale_bytes() const { return type == KvType::kInt8 ? 2 * kKvBlock * sizeof(float) : 0; }
  int key_rows() const { return type == KvType::kBF16 ? (key_width + 1) / 2 * 2 : key_width; }
  std::size_t values_at() const { return scale_bytes() + element_bytes() * kKvBlock * key_rows(); }
  std::size_t head_bytes() const { return values_at() + element_bytes() * kKvBlock * padded_values(); }
  // The bytes of a block, with all KV heads.
  std::size_t block_bytes() const { return head_bytes() * kv_heads; }

  // How the keys and values of a position travel to a rank that writes them to its cache, too: in the fewest bytes of
  // which it makes the same block. (The scales of kInt8 are found from floats.)
  Wire wire() const { return type == KvType::kBF16 ? Wire::kBF16 : Wire::kF32; }
  std::size_t key_wire_bytes() const { return wire_bytes(wire(), static_cast<std::size_t>(kv_heads) * key_width); }
  std::size_t position_wire_bytes() const {
    return key_wire_bytes() + wire_bytes(wire(), static_cast<std::size_t>(kv_heads) * value_width);
  }
};

// Writes k_TmC and v_TmW of the batch's tokens into the layer's blocks. Threads share the heads.
void write_kv(ThreadPool& pool, const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmW,
              std::byte* layer_kv);

}  // namespace foe

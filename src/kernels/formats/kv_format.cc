#include "kernels/formats/kv_format.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/formats/kv_format.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/int8-inl.h"

// Where one key or value is written.
#ifndef FOE_KERNELS_KV_FORMAT_ROW
#define FOE_KERNELS_KV_FORMAT_ROW
namespace foe {
struct KvRow {
  std::byte* elements;
  std::size_t step;  // elements from one element of the head to the next
  float* scale;      // with kInt8
};
}  // namespace foe
#endif

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

void write_int8(const float* x, int width, const KvRow& to) {
  *to.scale = int8_scale(x, width);
  const V16 inverse = set16(1 / *to.scale);
  auto* out = reinterpret_cast<std::int8_t*>(to.elements);
  for_each16(width, [&](int c, auto load, auto) {
    HWY_ALIGN std::int8_t codes[kLanes16];
    store_int8(load(x + c), inverse, codes);
    for (int i = 0; i < std::min(kLanes16, width - c); ++i) out[(c + i) * to.step] = codes[i];
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(write_int8);

void write_row(KvType type, const float* x, int width, const KvRow& to) {
  if (type == KvType::kInt8) {
    HWY_DYNAMIC_DISPATCH(write_int8)(x, width, to);
  } else {
    auto* out = reinterpret_cast<float*>(to.elements);
    for (int c = 0; c < width; ++c) out[c * to.step] = x[c];
  }
}

// Writes the key at a position of a block, whose keys are pairs of c: [C/2][16][2].
void write_bf16_key(const float* x_C, int key_width, int slot, BF16* keys) {
  BF16* to = keys + 2 * slot;
  for (int c = 0; c < key_width; c += 2, to += 2 * kKvBlock) {
    to[0] = to_bf16(x_C[c]);
    to[1] = c + 1 < key_width ? to_bf16(x_C[c + 1]) : BF16{0};
  }
}

// Writes the value at a position of a block, whose values are pairs of positions: [Wp/16][8][16][2]. At an even
// position, it also writes zero at the next.
void write_bf16_value(const float* x_W, int value_width, int slot, BF16* values) {
  constexpr int kPanel = kKvBlock * kKvBlock;
  for (int c = 0; c < value_width; ++c) {
    BF16* pair = values + c / kKvBlock * kPanel + (slot / 2 * kKvBlock + c % kKvBlock) * 2;
    pair[slot % 2] = to_bf16(x_W[c]);
    if (slot % 2 == 0) pair[1] = BF16{0};
  }
}

// Prefetches a block's keys. The key of one position has an element in most cache lines of these, which have left the
// caches since the step before.
void prefetch_keys(const KvShape& shape, const std::byte* head) {
  constexpr std::size_t kLine = 64;
  for (std::size_t at = shape.scale_bytes(); at < shape.values_at(); at += kLine) __builtin_prefetch(head + at, 1);
}

}  // namespace

const char* to_string(KvType type) {
  constexpr const char* kNames[] = {"f32", "bf16", "int8"};
  return kNames[static_cast<int>(type)];
}

KvType parse_kv_type(std::string_view name) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8})
    if (name == to_string(type)) return type;
  fail("expected f32, bf16 or int8 as the type of the KV cache, got '{}'", name);
}

const char* to_string(AttentionType type) {
  return type == AttentionType::kF32 ? "f32" : "bf16";
}

AttentionType parse_attention_type(std::string_view name, KvType kv_type) {
  if (name == to_string(AttentionType::kF32)) return AttentionType::kF32;
  if (name != to_string(AttentionType::kBF16)) fail("--attention: expected f32 or bf16, got '{}'", name);
  if (kv_type != KvType::kBF16)
    fail("--attention bf16 multiplies keys and values in bf16: expected --kv-dtype bf16, got --kv-dtype {}",
         to_string(kv_type));
  return AttentionType::kBF16;
}

void write_kv(ThreadPool& pool, const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmW,
              std::byte* layer_kv) {
  const std::size_t m_heads = shape.kv_heads, C = shape.key_width, W = shape.value_width;
  const auto block_of = [&](int s, int t, std::size_t m) {
    const std::int32_t block = batch.block_table[batch.table_begin[s] + batch.positions[t] / kKvBlock];
    return layer_kv + block * shape.block_bytes() + m * shape.head_bytes();
  };
  const auto write_head = [&](std::size_t m) {
    for (int s = 0; s < batch.num_sequences(); ++s) {
      const int begin = batch.sequence_begin[s], end = batch.sequence_begin[s + 1];
      if (s + 1 < batch.num_sequences() && end < batch.sequence_begin[s + 2])
        prefetch_keys(shape, block_of(s + 1, end, m));
      for (int t = begin; t < end; ++t) {
        const int slot = batch.positions[t] % kKvBlock;
        std::byte* head = block_of(s, t, m);
        float* scales = reinterpret_cast<float*>(head) + slot;
        std::byte *keys = head + shape.scale_bytes(), *values = head + shape.values_at();
        const float *k_C = k_TmC + (t * m_heads + m) * C, *v_W = v_TmW + (t * m_heads + m) * W;
        if (shape.type == KvType::kBF16) {
          write_bf16_key(k_C, shape.key_width, slot, reinterpret_cast<BF16*>(keys));
          write_bf16_value(v_W, shape.value_width, slot, reinterpret_cast<BF16*>(values));
          continue;
        }
        keys += slot * shape.element_bytes();
        values += slot * shape.padded_values() * shape.element_bytes();
        write_row(shape.type, k_C, shape.key_width, {keys, kKvBlock, scales});
        write_row(shape.type, v_W, shape.value_width, {values, 1, scales + kKvBlock});
      }
    }
  };
  constexpr std::size_t kWorthThreads = 2048;  // elements; handing out fewer takes longer than writing them
  if (batch.num_tokens() * m_heads * (C + W) / 2 < kWorthThreads)
    for (int m = 0; m < shape.kv_heads; ++m) write_head(m);
  else
    pool.parallel_for(shape.kv_heads, write_head);
}

}  // namespace foe
#endif

#include "kernels/kv_format.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/kv_format.cc"
#include <hwy/foreach_target.h>

#include "kernels/int8-inl.h"

// Where one key or value goes.
#ifndef FOE_KERNELS_KV_FORMAT_ROW
#define FOE_KERNELS_KV_FORMAT_ROW
namespace foe {
struct KvRow {
  std::byte* elements;
  std::size_t step;  // elements from one to the next
  float* scale;      // of kInt8
};
}  // namespace foe
#endif

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

void write_int8(const float* x_C, int head_dim, const KvRow& to) {
  *to.scale = int8_scale(x_C, head_dim);
  const V16 inverse = set16(1 / *to.scale);
  auto* out = reinterpret_cast<std::int8_t*>(to.elements);
  for_each16(head_dim, [&](int c, auto load, auto) {
    HWY_ALIGN std::int8_t x[kLanes16];
    store_int8(load(x_C + c), inverse, x);
    for (int i = 0; i < std::min(kLanes16, head_dim - c); ++i) out[(c + i) * to.step] = x[i];
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(write_int8);

void write_row(KvType type, const float* x_C, int head_dim, const KvRow& to) {
  if (type == KvType::kInt8) {
    HWY_DYNAMIC_DISPATCH(write_int8)(x_C, head_dim, to);
  } else if (type == KvType::kBF16) {
    auto* out = reinterpret_cast<BF16*>(to.elements);
    for (int c = 0; c < head_dim; ++c) out[c * to.step] = to_bf16(x_C[c]);
  } else {
    auto* out = reinterpret_cast<float*>(to.elements);
    for (int c = 0; c < head_dim; ++c) out[c * to.step] = x_C[c];
  }
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

void write_kv(const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmC, std::byte* layer_kv) {
  const std::size_t C = shape.head_dim, width = shape.kv_heads * C, padded = shape.padded_dim();
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const std::int32_t* blocks = batch.block_table.data() + batch.table_begin[s];
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t) {
      const int position = batch.positions[t], slot = position % kKvBlock;
      std::byte* head = layer_kv + blocks[position / kKvBlock] * shape.block_bytes();
      for (int m = 0; m < shape.kv_heads; ++m, head += shape.head_bytes()) {
        float* scales = reinterpret_cast<float*>(head) + slot;
        std::byte* keys = head + shape.scale_bytes() + slot * shape.element_bytes();
        std::byte* values = head + shape.values_at() + slot * padded * shape.element_bytes();
        write_row(shape.type, k_TmC + t * width + m * C, shape.head_dim, {keys, kKvBlock, scales});
        write_row(shape.type, v_TmC + t * width + m * C, shape.head_dim, {values, 1, scales + kKvBlock});
      }
    }
  }
}

}  // namespace foe
#endif

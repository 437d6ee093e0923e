#include "kernels/formats/wire_format.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/formats/wire_format.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/int8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

using D16 = hn::Rebind<std::uint16_t, DF>;
using DI = hn::RebindToSigned<DF>;

void encode_bf16_kernel(const float* x, std::size_t n, std::byte* out) {
  const hn::RebindToUnsigned<DF> du;
  auto* to = reinterpret_cast<std::uint16_t*>(out);
  std::size_t i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes) {
    const auto value = hn::LoadU(DF(), x + i);
    const auto bits = hn::BitCast(du, value);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
    const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));  // a NaN must not round to infinity
    const auto half = hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), quiet, rounded));
    hn::StoreU(hn::DemoteTo(D16(), hn::BitCast(DI(), half)), D16(), to + i);
  }
  for (; i < n; ++i) {
    const BF16 half = to_bf16(x[i]);
    std::memcpy(out + i * sizeof half, &half, sizeof half);
  }
}

void decode_bf16_kernel(const std::byte* in, std::size_t n, float* out) {
  const hn::RebindToUnsigned<DF> du;
  const auto* from = reinterpret_cast<const std::uint16_t*>(in);
  std::size_t i = 0;
  for (; i + kVecLanes <= n; i += kVecLanes)
    hn::StoreU(hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(D16(), from + i)))), DF(), out + i);
  for (; i < n; ++i) {
    BF16 half;
    std::memcpy(&half, in + i * sizeof half, sizeof half);
    out[i] = to_float(half);
  }
}

// Encodes a whole block.
void encode_block(const float* x, std::byte* out) {
  const float scale = int8_scale(x, kWireBlock);
  std::memcpy(out, &scale, sizeof scale);
  auto* bytes = reinterpret_cast<std::int8_t*>(out + sizeof scale);
  const V16 inverse = set16(1 / scale);
  for (std::size_t i = 0; i < kWireBlock; i += kLanes16) store_int8(load16(x + i), inverse, bytes + i);
}

void decode_block(const std::byte* in, float* out) {
  float scale;
  std::memcpy(&scale, in, sizeof scale);
  const auto* bytes = reinterpret_cast<const std::int8_t*>(in + sizeof scale);
  const V16 factor = set16(scale);
  for (std::size_t i = 0; i < kWireBlock; i += kLanes16) store16(mul(load16(bytes + i), factor), out + i);
}

constexpr std::size_t kBlockBytes = sizeof(float) + kWireBlock;

void encode_int8_kernel(const float* x, std::size_t n, std::byte* out) {
  for (; n >= kWireBlock; n -= kWireBlock, x += kWireBlock, out += kBlockBytes) encode_block(x, out);
  if (n == 0) return;
  float block[kWireBlock] = {};
  std::byte bytes[kBlockBytes];
  std::copy_n(x, n, block);
  encode_block(block, bytes);
  std::copy_n(bytes, sizeof(float) + n, out);
}

void decode_int8_kernel(const std::byte* in, std::size_t n, float* out) {
  for (; n >= kWireBlock; n -= kWireBlock, in += kBlockBytes, out += kWireBlock) decode_block(in, out);
  if (n == 0) return;
  float block[kWireBlock];
  std::byte bytes[kBlockBytes] = {};
  std::copy_n(in, sizeof(float) + n, bytes);
  decode_block(bytes, block);
  std::copy_n(block, n, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(encode_bf16_kernel);
HWY_EXPORT(decode_bf16_kernel);
HWY_EXPORT(encode_int8_kernel);
HWY_EXPORT(decode_int8_kernel);

constexpr Wire kWires[] = {Wire::kF32, Wire::kBF16, Wire::kInt8};

}  // namespace

const char* to_string(Wire wire) {
  constexpr const char* kNames[] = {"f32", "bf16", "int8"};
  return kNames[static_cast<int>(wire)];
}

Wire parse_wire(std::string_view name) {
  for (const Wire wire : kWires)
    if (name == to_string(wire)) return wire;
  fail("expected f32, bf16 or int8 as the wire format, got '{}'", name);
}

std::size_t wire_bytes(Wire wire, std::size_t n) {
  switch (wire) {
    case Wire::kF32:
      return n * sizeof(float);
    case Wire::kBF16:
      return n * sizeof(BF16);
    case Wire::kInt8:
      return n + (n + kWireBlock - 1) / kWireBlock * sizeof(float);
  }
  FOE_CHECK(false, "wire {}", static_cast<int>(wire));
}

void encode(Wire wire, const float* x, std::size_t n, std::byte* out) {
  if (n == 0) return;
  if (wire == Wire::kF32)
    std::memcpy(out, x, n * sizeof(float));
  else if (wire == Wire::kBF16)
    HWY_DYNAMIC_DISPATCH(encode_bf16_kernel)(x, n, out);
  else
    HWY_DYNAMIC_DISPATCH(encode_int8_kernel)(x, n, out);
}

void decode(Wire wire, const std::byte* in, std::size_t n, float* out) {
  if (n == 0) return;
  if (wire == Wire::kF32)
    std::memcpy(out, in, n * sizeof(float));
  else if (wire == Wire::kBF16)
    HWY_DYNAMIC_DISPATCH(decode_bf16_kernel)(in, n, out);
  else
    HWY_DYNAMIC_DISPATCH(decode_int8_kernel)(in, n, out);
}

}  // namespace foe
#endif

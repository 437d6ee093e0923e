#include "weights/finite.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

constexpr std::uint32_t kInfinity = 0x7f800000;  // the bits of NaNs are larger
constexpr std::uint32_t kPastBf16 = 0x7f7f8000;  // from here on floats round to an infinity of bf16
constexpr std::size_t kTogether = 1024;          // elements that are checked before the result is looked at
constexpr std::int64_t kTaskElements = 1 << 18;

// Whether the bits of any element, without the sign, are at least `limit`.
template <typename Bits>
bool any_past(const std::byte* from, std::size_t count, Bits limit) {
  constexpr Bits kAllButSign = static_cast<Bits>(~Bits{0}) / 2;
  Bits piece[kTogether];
  for (std::size_t at = 0; at < count; at += kTogether) {
    const std::size_t n = std::min(kTogether, count - at);
    std::memcpy(piece, from + at * sizeof(Bits), n * sizeof(Bits));
    bool past = false;
    for (std::size_t i = 0; i < n; ++i) past |= (piece[i] & kAllButSign) >= limit;
    if (past) return true;
  }
  return false;
}

// Whether an element of the row has such bits as f32, or would have in bf16.
bool any_past(const StoredMatrix& m, int row, std::uint32_t limit) {
  const std::byte* from = m.data + row * m.row_bytes;
  const auto count = static_cast<std::size_t>(m.depth);
  if (m.type == DType::kF32) return any_past<std::uint32_t>(from, count, limit);
  if (m.type == DType::kBF16) return any_past<std::uint16_t>(from, count, static_cast<std::uint16_t>(limit >> 16));
  std::vector<float> values(count);
  m.read_row(row, values.data());
  return any_past<std::uint32_t>(reinterpret_cast<const std::byte*>(values.data()), count, limit);
}

// Returns the first row with such an element, or -1.
int first_row_past(ThreadPool& pool, const StoredMatrix& m, std::uint32_t limit) {
  if (m.rows == 0 || m.depth == 0) return -1;
  const int together = static_cast<int>(std::clamp<std::int64_t>(kTaskElements / m.depth, 1, m.rows));
  std::atomic<int> first{m.rows};
  pool.parallel_for((m.rows + together - 1) / together, [&](std::size_t task) {
    const int begin = static_cast<int>(task) * together, end = std::min(m.rows, begin + together);
    for (int row = begin; row < end && row < first.load(std::memory_order_relaxed); ++row) {
      if (!any_past(m, row, limit)) continue;
      for (int seen = first.load(); row < seen && !first.compare_exchange_weak(seen, row);) {
      }
      break;
    }
  });
  return first.load() < m.rows ? first.load() : -1;
}

}  // namespace

StoredMatrix finite_part(ThreadPool& pool, const Tensor& tensor, int row, int rows, int column, int columns,
                         WeightFormat format) {
  const StoredMatrix part = matrix(tensor).slice(row, rows, column, columns);
  const bool becomes_bf16 = format == WeightFormat::kBF16 || format == WeightFormat::kBF16xBF16;
  const std::uint32_t limit = part.type != DType::kBF16 && becomes_bf16 ? kPastBf16 : kInfinity;
  const int bad = first_row_past(pool, part, limit);
  if (bad < 0) return part;
  std::vector<float> values(columns);
  part.read_row(bad, values.data());
  int k = 0;
  while ((std::bit_cast<std::uint32_t>(values[k]) & 0x7fffffffu) < limit) ++k;
  fail(
      "{}: expected weights that are finite{}, got {} in row {}, column {}: the file is damaged, or its training"
      " diverged",
      tensor.name, limit == kPastBf16 ? " in bf16" : "", values[k], row + bad, column + k);
}

void require_finite(ThreadPool& pool, const Tensor& tensor) {
  Tensor flat = tensor;
  if (flat.shape.size() != 2) flat.shape = {1, tensor.size()};
  finite_part(pool, flat, 0, static_cast<int>(flat.shape[0]), 0, static_cast<int>(flat.shape[1]), WeightFormat::kF32);
}

}  // namespace foe

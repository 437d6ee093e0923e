#include <cstring>

#include "base/check.h"
#include "kernels/gemm.h"

namespace foe {
namespace {

float read_element(DType type, const std::byte* p) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  BF16 value;
  std::memcpy(&value, p, sizeof value);
  return to_float(value);
}

void write_element(DType type, std::byte* p, float value) {
  if (type == DType::kF32) {
    std::memcpy(p, &value, sizeof value);
  } else {
    const BF16 half = to_bf16(value);
    std::memcpy(p, &half, sizeof half);
  }
}

// Row `from` of `source` becomes row `to` of the packed matrix.
void pack_row(const StoredMatrix& source, int from, PackedMatrix& packed, int to) {
  const std::size_t element = size_of(packed.type);
  const std::size_t step = kPanel * element;
  const std::byte* in = source.data + from * source.row_bytes;
  std::byte* out = packed.data.data() + (to / kPanel) * packed.depth * step + (to % kPanel) * element;
  for (int k = 0; k < packed.depth; ++k, in += size_of(source.type), out += step) {
    if (source.type == packed.type)
      std::memcpy(out, in, element);
    else
      write_element(packed.type, out, read_element(source.type, in));
  }
}

}  // namespace

PackedMatrix empty_packed(int rows, int depth, DType type) {
  PackedMatrix packed{type, rows, depth, {}};
  packed.data =
      AlignedBuffer<std::byte>::zeroed(static_cast<std::size_t>(packed.panels()) * kPanel * depth * size_of(type));
  return packed;
}

StoredMatrix StoredMatrix::slice(int row, int row_count, int column, int column_count) const {
  FOE_CHECK(row >= 0 && row_count >= 0 && row + row_count <= rows && column >= 0 && column_count >= 0 &&
                column + column_count <= depth,
            "rows {}+{} of {}, columns {}+{} of {}", row, row_count, rows, column, column_count, depth);
  return {type, data + row * row_bytes + column * size_of(type), row_bytes, row_count, column_count};
}

void StoredMatrix::read_row(int row, float* out) const {
  FOE_CHECK(0 <= row && row < rows, "row {} of {}", row, rows);
  const std::byte* in = data + row * row_bytes;
  for (int k = 0; k < depth; ++k) out[k] = read_element(type, in + k * size_of(type));
}

PackedMatrix pack(std::span<const StoredMatrix> parts, DType type) {
  int rows = 0;
  for (const StoredMatrix& part : parts) {
    FOE_CHECK(part.depth == parts[0].depth, "depths {} and {}", part.depth, parts[0].depth);
    rows += part.rows;
  }
  PackedMatrix packed = empty_packed(rows, parts[0].depth, type);
  int to = 0;
  for (const StoredMatrix& part : parts)
    for (int from = 0; from < part.rows; ++from) pack_row(part, from, packed, to++);
  return packed;
}

PackedMatrix pack_gate_up(const StoredMatrix& gate, const StoredMatrix& up, DType type) {
  FOE_CHECK(gate.rows == up.rows && gate.depth == up.depth, "gate [{}, {}], up [{}, {}]", gate.rows, gate.depth,
            up.rows, up.depth);
  const int panels = (gate.rows + kPanel - 1) / kPanel;
  PackedMatrix packed = empty_packed(2 * panels * kPanel, gate.depth, type);
  for (int f = 0; f < gate.rows; ++f) {
    const int to = (f / kPanel) * 2 * kPanel + f % kPanel;
    pack_row(gate, f, packed, to);
    pack_row(up, f, packed, to + kPanel);
  }
  return packed;
}

}  // namespace foe

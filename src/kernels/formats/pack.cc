#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/huge_pages.h"
#include "kernels/formats/pack_parts.h"
#include "kernels/formats/stored_blocks.h"
#include "kernels/products/gemm.h"

namespace foe {
namespace {

// Write a row of a block where weight_format.h says.
void place_int8(const WeightBlock& row, int r, std::byte* block) {
  std::memcpy(block + r * sizeof row.scale, &row.scale, sizeof row.scale);
  std::byte* out = block + head_bytes(WeightFormat::kInt8);
  for (int k = 0; k < kCodeBlock; k += 4) std::memcpy(out + (k / 4 * kPanel + r) * 4, row.codes.data() + k, 4);
}

void place_int4(const WeightBlock& row, int r, std::byte* block) {
  const BF16 scale = to_bf16(row.scale);
  unsigned choices = 0;
  for (int k = 0; k < kCodeBlock; k += kInt4Part) choices |= (row.codes[k] / 16u) << (2 * (k / kInt4Part));
  const auto half = static_cast<std::uint16_t>(choices);
  std::memcpy(block + r * sizeof scale, &scale, sizeof scale);
  std::memcpy(block + kPanel * sizeof scale + r * sizeof half, &half, sizeof half);
  std::byte* out = block + head_bytes(WeightFormat::kInt4);
  for (int k = 0; k < kCodeBlock; ++k)
    out[(k / 8 * kPanel + r) * 4 + k % 4] |= static_cast<std::byte>(row.codes[k] % 16 << (k / 4 % 2 * 4));
}

void pack_codes(std::span<const float> row, const float* importance, const PackedMatrix& packed, std::byte* data,
                int to) {
  std::byte* block = data + (to / kPanel) * packed.panel_stride;
  for (std::size_t k = 0; k < row.size(); k += kCodeBlock, block += block_bytes(packed.format)) {
    const auto weights = row.subspan(k, std::min<std::size_t>(kCodeBlock, row.size() - k));
    const WeightBlock coded = quantise_block(packed.format, weights.data(), static_cast<int>(weights.size()),
                                             importance ? importance + k : nullptr);
    (packed.format == WeightFormat::kInt8 ? place_int8 : place_int4)(coded, to % kPanel, block);
  }
}

// Packs row `from` of `source` as row `to` of the packed matrix, whose data is `data` and whose format has codes.
void pack_row(const StoredMatrix& source, int from, const float* importance, const PackedMatrix& packed,
              std::byte* data, int to) {
  if (in_parts(packed.format))
    return place_parts(source, from, to % kPanel, data + (to / kPanel) * packed.panel_stride);
  std::vector<float> row(source.depth);
  source.read_row(from, row.data());
  pack_codes(row, importance, packed, data, to);
}

// The rows of a panel that are to be packed: of which matrix, and which of its rows.
using SourceRow = std::pair<const StoredMatrix*, int>;

// Packs them as the rows of a panel of numbers, [k / kBlock][row][k % kBlock]: row by row first, because writing a
// panel from its beginning to its end takes less time than scattering its rows.
template <typename Element, int kBlock>
void pack_numbers(std::span<const SourceRow> rows, int depth, std::byte* panel) {
  constexpr int kApart = AlignedBuffer<Element>::kAlignment / sizeof(Element);  // rows of 2^n would share a cache set
  const std::size_t stride = depth + kApart;
  std::vector<float> row(depth);
  std::vector<Element> lines(kPanel * stride);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    rows[r].first->read_row(rows[r].second, row.data());
    std::transform(row.begin(), row.end(), lines.begin() + r * stride, [](float x) {
      if constexpr (std::is_same_v<Element, BF16>)
        return to_bf16(x);
      else
        return x;
    });
  }
  auto* out = reinterpret_cast<Element*>(panel);
  for (int k = 0; k < depth; k += kBlock)
    for (int r = 0; r < kPanel; ++r)
      for (int i = 0; i < kBlock; ++i) *out++ = lines[r * stride + k + i];
}

// Packs them as the rows of the packed matrix from `first` on, which begins a panel.
void pack_panel(std::span<const SourceRow> rows, const ColumnErrors& errors, const PackedMatrix& packed,
                std::byte* data, int first) {
  std::byte* panel = data + first / kPanel * packed.panel_stride;
  switch (packed.format) {
    case WeightFormat::kF32:
      return pack_numbers<float, 1>(rows, packed.depth, panel);
    case WeightFormat::kBF16:
      return pack_numbers<BF16, 1>(rows, packed.depth, panel);
    case WeightFormat::kBF16xBF16:
      return pack_numbers<BF16, 2>(rows, packed.depth, panel);
    default:
      break;
  }
  const int count = static_cast<int>(rows.size());
  if (packed.format != WeightFormat::kInt4 || !errors.correlations) {
    for (int r = 0; r < count; ++r)
      pack_row(*rows[r].first, rows[r].second, errors.importance, packed, data, first + r);
    return;
  }
  const std::size_t depth = packed.depth, blocks = (depth + kCodeBlock - 1) / kCodeBlock;
  std::vector<float> w(count * depth);
  for (int r = 0; r < count; ++r) rows[r].first->read_row(rows[r].second, w.data() + r * depth);
  std::vector<WeightBlock> coded(count * blocks);
  quantise_with_feedback(w.data(), count, packed.depth, errors, coded.data());
  for (int r = 0; r < count; ++r)
    for (std::size_t b = 0; b < blocks; ++b)
      place_int4(coded[r * blocks + b], r, panel + b * block_bytes(packed.format));
}

PackedMatrix without_data(int rows, int depth, WeightFormat format) {
  return {format, rows, depth, nullptr, panel_bytes(format, depth), {}};
}

// Gives the matrix memory of zeros, in `space` or, if that is null, its own.
std::byte* give_data(PackedMatrix& packed, PackingSpace* space) {
  if (!space) packed.own = large_zeroed_buffer<std::byte>(packed.bytes());
  std::byte* data = space ? space->take(packed.bytes()) : packed.own.data();
  packed.data = data;
  return data;
}

}  // namespace

std::byte* PackingSpace::take(std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{64} << 20, kLine = AlignedBuffer<std::byte>::kAlignment;
  const std::size_t size = (bytes + kLine - 1) / kLine * kLine;
  if (pieces_.empty() || pieces_.back().size() - used_ < size) {
    pieces_.push_back(large_buffer<std::byte>(std::max(size, kPiece)));
    used_ = 0;
  }
  std::byte* data = pieces_.back().data() + used_;
  used_ += size;
  std::fill_n(data, size, std::byte{0});
  return data;
}

PackedMatrix empty_packed(int rows, int depth, WeightFormat format) {
  PackedMatrix packed = without_data(rows, depth, format);
  give_data(packed, nullptr);
  return packed;
}

PackedMatrix PackedMatrix::view(int row, int row_count, int column, int column_count) const {
  const int block = block_depth(format);
  FOE_CHECK(row >= 0 && row_count >= 0 && row + row_count <= rows && row % kPanel == 0 && column >= 0 &&
                column_count >= 0 && column + column_count <= depth && column % block == 0 &&
                (column_count % block == 0 || column + column_count == depth),
            "rows {}+{} of {}, columns {}+{} of {} in blocks of {}", row, row_count, rows, column, column_count, depth,
            block);
  const std::byte* first = data + row / kPanel * panel_stride + column / block * block_bytes(format);
  return {format, row_count, column_count, first, panel_stride, {}};
}

StoredMatrix StoredMatrix::slice(int row, int row_count, int column, int column_count) const {
  FOE_CHECK(row >= 0 && row_count >= 0 && row + row_count <= rows && column >= 0 && column_count >= 0 &&
                column + column_count <= depth,
            "rows {}+{} of {}, columns {}+{} of {}", row, row_count, rows, column, column_count, depth);
  const DTypeInfo& block = info_of(type);
  const int first = skip + column;
  return {type,         data + row * row_bytes + first / block.elements * block.bytes,
          row_bytes,    row_count,
          column_count, first % block.elements};
}

void StoredMatrix::read_row(int row, float* out) const {
  FOE_CHECK(0 <= row && row < rows, "row {} of {}", row, rows);
  const std::byte* in = data + row * row_bytes;
  const int block = info_of(type).elements, blocks = (skip + depth + block - 1) / block;
  if (blocks * block == depth) return decode(type, in, depth, out);
  std::vector<float> whole(blocks * block);
  decode(type, in, blocks * block, whole.data());
  std::copy_n(whole.data() + skip, depth, out);
}

PackedMatrix pack(ThreadPool& pool, std::span<const StoredMatrix> parts, WeightFormat format, PackingSpace* space,
                  const ColumnErrors& errors) {
  std::vector<SourceRow> rows;
  for (const StoredMatrix& part : parts) {
    FOE_CHECK(part.depth == parts[0].depth, "depths {} and {}", part.depth, parts[0].depth);
    FOE_CHECK(!in_parts(format) || keeps_parts(part) == format, "{} as {}", to_string(part.type), to_string(format));
    for (int row = 0; row < part.rows; ++row) rows.emplace_back(&part, row);
  }
  PackedMatrix packed = without_data(static_cast<int>(rows.size()), parts[0].depth, format);
  std::byte* data = give_data(packed, space);
  pool.parallel_for(packed.panels(), [&](std::size_t panel) {
    const std::size_t first = panel * kPanel;
    const auto here = std::span(rows).subspan(first, std::min<std::size_t>(kPanel, rows.size() - first));
    pack_panel(here, errors, packed, data, static_cast<int>(first));
  });
  return packed;
}

PackedMatrix pack_gate_up(ThreadPool& pool, const StoredMatrix& gate, const StoredMatrix& up, WeightFormat format,
                          PackingSpace* space, const ColumnErrors& errors) {
  FOE_CHECK(gate.rows == up.rows && gate.depth == up.depth, "gate [{}, {}], up [{}, {}]", gate.rows, gate.depth,
            up.rows, up.depth);
  FOE_CHECK(!in_parts(format) || (keeps_parts(gate) == format && keeps_parts(up) == format), "{} and {} as {}",
            to_string(gate.type), to_string(up.type), to_string(format));
  const int panels = (gate.rows + kPanel - 1) / kPanel;
  PackedMatrix packed = without_data(2 * panels * kPanel, gate.depth, format);
  std::byte* data = give_data(packed, space);
  pool.parallel_for(2 * panels, [&](std::size_t panel) {
    std::vector<SourceRow> rows;
    const int first = static_cast<int>(panel) / 2 * kPanel;
    for (int f = first; f < std::min(first + kPanel, gate.rows); ++f)
      rows.emplace_back(panel % 2 == 0 ? &gate : &up, f);
    pack_panel(rows, errors, packed, data, static_cast<int>(panel) * kPanel);
  });
  return packed;
}

std::vector<float> pack_gate_up_bias(std::span<const float> gate, std::span<const float> up) {
  FOE_CHECK(gate.size() == up.size(), "{} and {} biases", gate.size(), up.size());
  std::vector<float> packed(2 * ((gate.size() + kPanel - 1) / kPanel * kPanel));
  for (std::size_t f = 0; f < gate.size(); ++f) {
    const std::size_t at = f / kPanel * 2 * kPanel + f % kPanel;
    packed[at] = gate[f];
    packed[at + kPanel] = up[f];
  }
  return packed;
}

}  // namespace foe

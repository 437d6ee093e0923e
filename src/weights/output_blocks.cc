#include "weights/output_blocks.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "core/sum_blocks.h"

namespace foe {

std::vector<OutputBlock> output_blocks(const ModelConfig& config, WeightFormat format, Range kv_heads) {
  const int width = config.heads().per_kv_head() * config.heads().head_value_width();
  const SumBlocks heads = head_blocks(config);
  const Range local = heads.within(kv_heads);
  std::vector<OutputBlock> blocks;
  for (int b = local.begin, at = 0; b < local.end; at += blocks.back().depth, ++b) {
    const Range own = heads.cover({b, b + 1});
    const int first = own.begin - kv_heads.begin, columns = own.size() * width;
    blocks.push_back({{first, first + own.size()}, first * width, columns, at, padded_depth(format, columns)});
  }
  return blocks;
}

int packed_depth(std::span<const OutputBlock> blocks) {
  return blocks.empty() ? 0 : blocks.back().at + blocks.back().depth;
}

PackedMatrix pack_output(ThreadPool& pool, const StoredMatrix& o, std::span<const OutputBlock> blocks,
                         WeightFormat format, PackingSpace* space, const ColumnErrors& errors) {
  const int depth = packed_depth(blocks);
  if (depth == o.depth) return pack(pool, {&o, 1}, format, space, errors);  // there is nothing to fill up
  PackedMatrix packed = empty_packed(space ? 0 : o.rows, depth, format);
  packed.rows = o.rows;
  std::byte* const data = space ? space->take(packed.bytes()) : packed.own.data();
  packed.data = data;
  for (const OutputBlock& block : blocks) {
    const StoredMatrix columns = o.slice(0, o.rows, block.column, block.columns);
    const PackedMatrix part = pack(pool, {&columns, 1}, format, nullptr, errors.from(block.column));
    const std::size_t at = panel_bytes(format, block.at);
    for (int p = 0; p < packed.panels(); ++p)
      std::memcpy(data + p * packed.panel_stride + at, part.data + p * part.panel_stride, part.panel_stride);
  }
  return packed;
}

}  // namespace foe

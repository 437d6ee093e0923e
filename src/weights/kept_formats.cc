#include "weights/kept_formats.h"

#include <algorithm>
#include <set>

#include "weights/output_blocks.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

struct PartFormats {
  WeightFormat format;
  const KeptFormats& kept;
};
PartFormats of_part(const WeightFormats& formats, TensorFormat part) {
  if (part == TensorFormat::kAttention) return {formats.attention, formats.kept_attention};
  if (part == TensorFormat::kExperts) return {formats.experts, formats.kept_experts};
  return {formats.head, formats.kept_head};
}

// Returns the columns of a matrix, counted in the tensor that has them, which are packed by themselves: the blocks of
// attention's sum (output_blocks.h), or all.
std::vector<Range> packed_columns(const ModelConfig& config, const ModelTensor& row, const StoredTensor& found) {
  if (row.split != TensorSplit::kHeadColumns) return {{found.column, found.column + row.columns()}};
  std::vector<Range> all;
  for (const OutputBlock& block : output_blocks(config, WeightFormat::kF32, {0, config.heads().kv_heads}))
    all.push_back({found.column + block.column, found.column + block.column + block.columns});
  return all;
}

// Returns the format that has the numbers of a matrix, if there is one for all of its columns.
std::optional<WeightFormat> format_with_parts(const StoredTensors& stored, const ModelConfig& config,
                                              const ModelTensor& row, int index) {
  const StoredTensor found = stored_matrix(stored, row, index);
  const StoredMatrix whole = matrix(found.tensor);
  std::optional<WeightFormat> format;
  for (const Range columns : packed_columns(config, row, found)) {
    format = keeps_parts(whole.slice(0, whole.rows, columns.begin, columns.size()));
    if (!format) break;
  }
  return format;
}

// Gate of up, and up of gate; the row itself, if it is neither.
const ModelTensor& partner(const TensorTable& table, const ModelTensor& row) {
  using enum TensorRole;
  for (const auto& [gate, up] : {std::pair{kGateProj, kUpProj}, {kSharedGateProj, kSharedUpProj}}) {
    if (row.role == gate) return table.at(up, row.layer);
    if (row.role == up) return table.at(gate, row.layer);
  }
  return row;
}

std::optional<WeightFormat> kept_format(const StoredTensors& stored, const ModelConfig& config, const ModelTensor& row,
                                        int index) {
  if (!stored.folder().gguf()) return std::nullopt;
  const auto format = format_with_parts(stored, config, row, index);
  const ModelTensor& other = partner(stored.table(), row);
  return &other == &row || format_with_parts(stored, config, other, index) == format ? format : std::nullopt;
}

// Calls f(row, index) for each matrix of a part that the file has.
template <typename F>
void for_each_matrix(const TensorTable& table, TensorFormat part, F&& f) {
  for (const ModelTensor& row : table.rows())
    if (row.format == part)
      for (int index = 0; index < (part == TensorFormat::kHead ? 1 : row.count); ++index) f(row, index);
}

KeptFormats kept_of_part(const StoredTensors& stored, const ModelConfig& config, TensorFormat part,
                         WeightFormat otherwise) {
  std::set<WeightFormat> formats;
  double all = 0, elements = 0;
  for_each_matrix(stored.table(), part, [&](const ModelTensor& row, int index) {
    const WeightFormat format = kept_format(stored, config, row, index).value_or(otherwise);
    formats.insert(format);
    const auto size = static_cast<double>(row.size());
    all += size * bits(format);
    elements += size;
  });
  if (std::ranges::none_of(formats, in_parts)) return {};
  return {{formats.begin(), formats.end()}, all / elements};
}

}  // namespace

StoredTensor stored_matrix(const StoredTensors& stored, const ModelTensor& row, int index) {
  return row.role == TensorRole::kHead ? StoredTensor{stored.head(), 0} : stored.find(row, index);
}

void keep_formats(const StoredTensors& stored, const ModelConfig& config, const FormatChoice& choice,
                  WeightFormats& formats) {
  if (!stored.folder().gguf()) return;
  if (!choice.attention)
    formats.kept_attention = kept_of_part(stored, config, TensorFormat::kAttention, formats.attention);
  if (!choice.experts) formats.kept_experts = kept_of_part(stored, config, TensorFormat::kExperts, formats.experts);
  if (!choice.head) formats.kept_head = kept_of_part(stored, config, TensorFormat::kHead, formats.head);
}

WeightFormat format_in_memory(const StoredTensors& stored, const ModelConfig& config, const WeightFormats& formats,
                              const ModelTensor& row, int index) {
  const auto [format, kept] = of_part(formats, row.format);
  return kept.formats.empty() ? format : kept_format(stored, config, row, index).value_or(format);
}

double matrix_bytes(const StoredTensors& stored, const ModelConfig& config, const WeightFormats& formats,
                    const Share& share) {
  double bytes = 0;
  for (const ModelTensor& row : stored.table().rows()) {
    const TensorPart part = part_of(row, config, share);
    const bool router = std::ranges::find(kRouterRoles, row.role) != std::end(kRouterRoles);
    const bool vector_or_embedding = row.format == TensorFormat::kFile || row.format == TensorFormat::kF32;
    if (part.size() == 0 || (vector_or_embedding && !router)) continue;
    const WeightFormat format = router ? WeightFormat::kF32 : format_in_memory(stored, config, formats, row);
    const int depth = row.split == TensorSplit::kHeadColumns
                          ? packed_depth(output_blocks(config, format, share.kv_heads))
                          : padded_depth(format, part.columns.size());
    bytes += static_cast<double>(part.count) * part.rows.size() * depth * bits(format) / 8;
  }
  return bytes;
}

}  // namespace foe

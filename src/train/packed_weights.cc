#include "train/packed_weights.h"

#include "base/huge_pages.h"
#include "core/sum_blocks.h"

namespace foe::train {

// Reserves the memory of an operand, and sets all of it but the pointers.
template <typename T>
void PackedWeights<T>::reserve(Operand<T>& operand, Packing packing) {
  int rows = 0;
  for (const Source& source : packing.sources) rows += source.rows;
  const int depth = packing.transposed ? packing.columns : rows, width = packing.transposed ? rows : packing.columns;
  if (packing.rounded) {
    operand.pairs = {nullptr, depth, width, static_cast<std::size_t>(pair_blocks(depth)) * kPairTile};
    packing.at = reserved_pairs_;
    reserved_pairs_ += pair_panels_size(depth, width);
  } else {
    operand.panels = {nullptr, depth, width};
    packing.at = reserved_;
    reserved_ += panels_size(depth, width);
  }
  packing.operand = &operand;
  packings_.push_back(std::move(packing));
}

template <typename T>
void PackedWeights<T>::reserve(Linear<T>& linear, const std::vector<Source>& sources, int columns, bool rounded) {
  for (const bool forward : {true, false})
    reserve(forward ? linear.forward : linear.backward, {.sources = sources,
                                                         .stride = columns,
                                                         .column = 0,
                                                         .columns = columns,
                                                         .transposed = forward,
                                                         .rounded = rounded,
                                                         .at = 0,
                                                         .operand = nullptr});
}

template <typename T>
PackedWeights<T>::PackedWeights(const Layout& layout, DType product_precision, const Dims& own)
    : precision(product_precision), layers(layout.layers.size()) {
  FOE_CHECK(precision == DType::kF32 || (precision == DType::kBF16 && std::is_same_v<T, float>), "weights in {}",
            to_string(precision));
  const Dims& d = own;
  const bool rounded = precision == DType::kBF16;
  std::vector<int> blocks = head_blocks(layout.config).begin;
  if (d.streams < d.all_streams)
    blocks = {blocks.begin() + d.first_stream, blocks.begin() + d.first_stream + d.streams + 1};
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerOffsets& at = layout.layers[l];
    LayerWeights<T>& layer = layers[l];
    const int q_rows = d.stream_heads() * d.head_dim, kv_rows = d.stream_kv_heads() * d.head_dim;
    const auto rows_of = [&](std::size_t matrix, int stream, int rows) {
      return Source{matrix + static_cast<std::size_t>(d.first_stream + stream) * rows * d.hidden, rows};
    };
    layer.qkv.resize(d.streams);
    for (int s = 0; s < d.streams; ++s)
      reserve(layer.qkv[s], {rows_of(at.q, s, q_rows), rows_of(at.k, s, kv_rows), rows_of(at.v, s, kv_rows)}, d.hidden,
              rounded);
    // Each stream has columns of its own, row-major.
    const auto reserve_o = [&](Operand<T>& operand, int begin, int end, bool forward) {
      const int stream = begin / q_rows;
      reserve(operand, {.sources = {{at.o + static_cast<std::size_t>(stream) * d.hidden * q_rows, d.hidden}},
                        .stride = q_rows,
                        .column = begin - stream * q_rows,
                        .columns = end - begin,
                        .transposed = forward,
                        .rounded = rounded,
                        .at = 0,
                        .operand = nullptr});
    };
    const int width = d.heads / d.kv_heads * d.head_dim;  // of the heads that share a KV head
    layer.o_forward.resize(blocks.size() - 1);
    for (std::size_t b = 0; b + 1 < blocks.size(); ++b)
      reserve_o(layer.o_forward[b], blocks[b] * width, blocks[b + 1] * width, true);
    layer.o_backward.resize(d.streams);
    for (int s = 0; s < d.streams; ++s)
      reserve_o(layer.o_backward[s], (d.first_stream + s) * q_rows, (d.first_stream + s + 1) * q_rows, false);
    reserve(layer.router, {{at.router, d.experts}}, d.hidden, false);
    layer.gate_up.resize(d.experts);
    layer.down.resize(d.experts);
    for (int e = d.own_experts().begin; e < d.own_experts().end; ++e) {
      reserve(layer.gate_up[e], {{at.gate_up[e], 2 * d.width}}, d.hidden, rounded);
      reserve(layer.down[e], {{at.down[e], d.hidden}}, d.width, rounded);
    }
  }
  reserve(head, {{layout.head, d.vocab}}, d.hidden, rounded);

  buffer_ = large_zeroed_buffer<T>(reserved_);
  pairs_ = large_zeroed_buffer<BF16>(reserved_pairs_);
  for (const Packing& packing : packings_)
    if (packing.rounded)
      packing.operand->pairs.data = pairs_.data() + packing.at;
    else
      packing.operand->panels.data = buffer_.data() + packing.at;
}

template <typename T>
void PackedWeights<T>::pack(const Packing& packing, const T* params) {
  const auto stride = static_cast<std::size_t>(packing.stride);
  if (packing.rounded) {
    if constexpr (std::is_same_v<T, float>) {
      std::vector<const float*> rows;
      for (const Source& source : packing.sources)
        for (int i = 0; i < source.rows; ++i) rows.push_back(params + source.offset + i * stride + packing.column);
      const auto pack_them = packing.transposed ? pack_pairs_transposed : pack_pairs;
      pack_them(rows, packing.columns, pairs_.data() + packing.at, packing.operand->pairs.panel_stride);
    }
    return;
  }
  const int depth = packing.operand->panels.depth;
  T* panels = buffer_.data() + packing.at;
  int row = 0;
  for (const Source& source : packing.sources) {
    const Rows<const T> x{params + source.offset + packing.column, stride};
    if (packing.transposed)
      fill_panels_transposed(x, source.rows, packing.columns, panels, depth, 0, row);
    else
      fill_panels(x, source.rows, packing.columns, panels, depth, row, 0);
    row += source.rows;
  }
}

template <typename T>
void PackedWeights<T>::pack(ThreadPool& pool, const T* params) {
  pool.parallel_for(packings_.size(), [&](std::size_t i) { pack(packings_[i], params); });
}

template class PackedWeights<float>;
template class PackedWeights<double>;

}  // namespace foe::train

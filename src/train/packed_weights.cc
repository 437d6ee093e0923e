#include "train/packed_weights.h"

#include "base/huge_pages.h"
#include "train/products.h"

namespace foe::train {

template <typename T>
PackedWeights<T>::PackedWeights(const Layout& layout) : layers(layout.layers.size()) {
  const Dims& d = layout.dims;
  std::vector<std::pair<Linear<T>*, std::size_t>> reserved;
  const auto reserve = [&](Linear<T>& linear, std::vector<Source> sources, int columns) {
    int rows = 0;
    for (const Source& source : sources) rows += source.rows;
    const std::size_t forward = reserved_, backward = forward + panels_size(columns, rows);
    reserved_ = backward + panels_size(rows, columns);
    int row = 0;
    for (const Source& source : sources) {
      blocks_.push_back({source.offset, source.rows, columns, forward, backward, row, rows});
      row += source.rows;
    }
    linear.forward = {nullptr, columns, rows};
    linear.backward = {nullptr, rows, columns};
    reserved.emplace_back(&linear, forward);
  };

  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerOffsets& at = layout.layers[l];
    LayerWeights<T>& layer = layers[l];
    const int q_rows = d.stream_heads() * d.head_dim, kv_rows = d.stream_kv_heads() * d.head_dim;
    const auto rows_of = [&](std::size_t matrix, int stream, int rows) {
      return Source{matrix + static_cast<std::size_t>(stream) * rows * d.hidden, rows};
    };
    layer.qkv.resize(d.streams);
    for (int s = 0; s < d.streams; ++s)
      reserve(layer.qkv[s], {rows_of(at.q, s, q_rows), rows_of(at.k, s, kv_rows), rows_of(at.v, s, kv_rows)}, d.hidden);
    layer.o.resize(d.streams);
    for (int s = 0; s < d.streams; ++s)
      reserve(layer.o[s], {{at.o + static_cast<std::size_t>(s) * d.hidden * q_rows, d.hidden}}, q_rows);
    reserve(layer.router, {{at.router, d.experts}}, d.hidden);
    layer.gate_up.resize(d.experts);
    layer.down.resize(d.experts);
    for (int e = 0; e < d.experts; ++e) {
      reserve(layer.gate_up[e], {{at.gate_up[e], 2 * d.width}}, d.hidden);
      reserve(layer.down[e], {{at.down[e], d.hidden}}, d.width);
    }
  }
  reserve(head, {{layout.head, d.vocab}}, d.hidden);

  buffer_ = large_zeroed_buffer<T>(reserved_);
  for (auto& [linear, forward] : reserved) {
    linear->forward.data = buffer_.data() + forward;
    linear->backward.data = linear->forward.data + panels_size(linear->forward.depth, linear->forward.width);
  }
}

template <typename T>
void PackedWeights<T>::pack(ThreadPool& pool, const T* params) {
  pool.parallel_for(blocks_.size(), [&](std::size_t i) {
    const Block& block = blocks_[i];
    const Rows<const T> source{params + block.offset, static_cast<std::size_t>(block.columns)};
    fill_panels_transposed(source, block.rows, block.columns, buffer_.data() + block.forward, block.columns, 0,
                           block.row);
    fill_panels(source, block.rows, block.columns, buffer_.data() + block.backward, block.total_rows, block.row, 0);
  });
}

template class PackedWeights<float>;
template class PackedWeights<double>;

}  // namespace foe::train

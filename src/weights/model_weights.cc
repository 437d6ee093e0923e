#include "weights/model_weights.h"

#include <algorithm>
#include <span>

#include "base/huge_pages.h"
#include "weights/finite.h"
#include "weights/kept_formats.h"
#include "weights/output_blocks.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

// Some rows and columns of a matrix in a file.
struct Part {
  std::string name;
  int matrices, index, rows, depth;  // if it is packed: it is matrix `index` of `matrices`, each [rows, depth]
  Range row_part, column_part;       // the part of that matrix
};

class Loader {
 public:
  Loader(ThreadPool& pool, const TensorFolder& folder, const ModelConfig& config, const Share& share,
         const FormatChoice& choice, PackingSpace& space)
      : pool_(pool),
        space_(space),
        stored_(folder, config),
        config_(config),
        share_(share),
        in_file_(stored_formats(stored_, config)),
        formats_(formats_in_memory(folder, in_file_, choice)) {
    check_tensors(stored_, in_file_);
    keep_formats(stored_, config, choice, formats_);
  }

  StoredMatrix embedding() const {
    const Tensor tensor = stored_.find(table().at(TensorRole::kEmbedding)).tensor;
    require_finite(pool_, tensor);
    return matrix(tensor);
  }

  LayerWeights layer(int l) const {
    LayerWeights w;
    if (!share_.runs(l)) return w;
    for_each_vector(w, [&](TensorRole role, std::vector<float>& values) { values = floats(role, l); });
    for (int g = 0; g < share_.streams(); ++g) w.streams.push_back(stream(l, g));
    w.router_ED = router(l);
    return w;
  }

  // The experts of a layer; `below` has those of the layers below it, and gets those of a layer that only other ranks
  // run if this one has experts of that layer.
  std::vector<ExpertWeights> experts(int l, std::vector<std::vector<ExpertWeights>>& below) const {
    const ExpertTable table = expert_table(config_, l);
    const int owner = config_.experts(l).of_layer;
    if (owner >= 0 && !share_.runs(owner) && below[owner].empty()) {
      Share as_owner = share_;
      as_owner.stage_layers = {owner, owner + 1};
      as_owner.layers[owner] = share_.layers[l];
      for (int e = share_.experts(l).begin; e < share_.experts(l).end; ++e)
        below[owner].push_back(table.kind_of(e) == ExpertKind::kShared ? ExpertWeights{} : expert(owner, e, as_owner));
    }
    std::vector<ExpertWeights> experts;
    for (int e = share_.experts(l).begin; e < share_.experts(l).end; ++e)
      if (owner == -1 || table.kind_of(e) == ExpertKind::kShared) {
        experts.push_back(expert(l, e, share_));
      } else {
        const ExpertWeights& own = below[owner][e - share_.experts(l).begin];
        experts.push_back({whole(own.gate_up), whole(own.down), own.gate_up_bias, own.down_bias_D});
      }
    return experts;
  }

  const WeightFormats& formats() const { return formats_; }

  // Makes the store of the experts of all layers.
  std::unique_ptr<ExpertStore> store(std::vector<std::vector<ExpertWeights>> layers) const {
    if (in_file_.experts.packed) return std::make_unique<MappedExperts>(std::move(layers));
    return std::make_unique<ResidentExperts>(std::move(layers));
  }

  PackedMatrix head() const {
    const ModelTensor& head = table().at(TensorRole::kHead);
    if (!in_file_.head.packed)
      return packed(stored_.head(), share_.vocab.begin, share_.vocab.size(), 0, head.columns(), in_memory(head));
    return packed_part({packed_stem(head), 1, 0, head.rows(), head.columns(), share_.vocab, {0, head.columns()}},
                       formats_.head);
  }

  // This rank's part of a vector, or of rows of a matrix; nothing if the model has no such tensor.
  std::vector<float> floats(TensorRole role, int layer = -1) const {
    const ModelTensor* row = table().find(role, layer);
    return row ? floats(*row, 0, share_) : std::vector<float>{};
  }
  // The same of one of a row's tensors, as a rank with this share has it.
  std::vector<float> floats(const ModelTensor& row, int index, const Share& share) const {
    const Tensor tensor = stored_.find(row, index).tensor;
    require_finite(pool_, tensor);
    TensorPart part = part_of(row, config_, share);
    part.count = 1;
    std::vector<float> values(part.size());
    read_floats(tensor, std::int64_t{part.rows.begin} * row.columns(), values);
    if (row.initial == InitialValues::kOnes)
      for (float& weight : values) weight += static_cast<float>(config_.norm_offset);
    return values;
  }

 private:
  PackedMatrix packed(const Tensor& tensor, int row, int rows, int column, int columns, WeightFormat format) const {
    const StoredMatrix part = finite_part(pool_, tensor, row, rows, column, columns, format);
    return pack(pool_, {&part, 1}, format, &space_);
  }
  const TensorTable& table() const { return stored_.table(); }
  WeightFormat in_memory(const ModelTensor& row, int index = 0) const {
    return format_in_memory(stored_, config_, formats_, row, index);
  }

  // A view of the same weights.
  static PackedMatrix whole(const PackedMatrix& w) { return w.view(0, w.rows, 0, w.depth); }

  // The rows of all columns of the scores (ExpertTable::columns()).
  PackedMatrix router(int l) const {
    std::vector<StoredMatrix> parts;
    for (const TensorRole role : kRouterRoles)
      if (const ModelTensor* row = table().find(role, l))
        parts.push_back(
            finite_part(pool_, stored_.find(*row).tensor, 0, row->rows(), 0, row->columns(), WeightFormat::kF32));
    return parts.empty() ? PackedMatrix{} : pack(pool_, parts, WeightFormat::kF32, &space_);
  }

  PackedMatrix packed_part(const Part& p, WeightFormat format) const {
    return foe::packed_part(packed_tensor(stored_.folder(), p.name, format, p.matrices, p.index, p.rows, p.depth),
                            p.name, p.row_part, p.column_part);
  }

  StreamWeights stream(int l, int g) const {
    const int here = share_.kv_heads.size() / share_.streams(), first = share_.kv_heads.begin + g * here;
    const Range heads{first, first + here};
    return {rows_of_heads(l, TensorRole::kQProj, heads), rows_of_heads(l, TensorRole::kKProj, heads),
            rows_of_heads(l, TensorRole::kVProj, heads), output_of_heads(l, heads)};
  }

  // The KV heads of the packed matrix of attention in which these are: of a group, or all.
  Range heads_of_matrix(Range heads) const {
    const int of_matrix = config_.heads().kv_heads / attention_matrices(config_);
    const int index = config_.federated() ? heads.begin / of_matrix : 0;
    return {index * of_matrix, (index + 1) * of_matrix};
  }

  PackedMatrix rows_of_heads(int l, TensorRole role, Range heads) const {
    const ModelTensor& row = table().at(role, l);
    const int of_head = row.rows() / config_.heads().kv_heads, D = row.columns();
    if (!in_file_.attention.packed)
      return packed(stored_.find(row).tensor, heads.begin * of_head, heads.size() * of_head, 0, D, in_memory(row));
    const Range in = heads_of_matrix(heads), part{heads.begin - in.begin, heads.end - in.begin};
    return packed_part({packed_stem(row),
                        attention_matrices(config_),
                        in.begin / in.size(),
                        in.size() * of_head,
                        D,
                        {part.begin * of_head, part.end * of_head},
                        {0, D}},
                       formats_.attention);
  }

  PackedMatrix output_of_heads(int l, Range heads) const {
    const ModelTensor& row = table().at(TensorRole::kOProj, l);
    const int of_head = row.columns() / config_.heads().kv_heads, D = row.rows();
    const WeightFormat format = in_memory(row);
    const auto blocks_of = [&](Range some) { return output_blocks(config_, format, some); };
    if (!in_file_.attention.packed)
      return pack_output(
          pool_,
          finite_part(pool_, stored_.find(row).tensor, 0, D, heads.begin * of_head, heads.size() * of_head, format),
          blocks_of(heads), format, &space_);
    const Range in = heads_of_matrix(heads);
    const int begin = packed_depth(blocks_of({in.begin, heads.begin})), depth = packed_depth(blocks_of(heads));
    return packed_part({packed_stem(row),
                        attention_matrices(config_),
                        in.begin / in.size(),
                        D,
                        packed_depth(blocks_of(in)),
                        {0, D},
                        {begin, begin + depth}},
                       format);
  }

  ExpertWeights expert(int l, int e, const Share& share) const {
    const ExpertMatrices m = expert_matrices(table(), config_, l, e);
    const int D = m.gate.columns(), F = m.gate.rows();
    const Range width = own_units(F, l, config_, share);
    if (in_file_.experts.packed) {
      const WeightFormat format = formats_.experts;
      // Panels of gate and up alternate.
      const int panels = (width.size() + kPanel - 1) / kPanel, all = (F + kPanel - 1) / kPanel;
      const Range gate_up{2 * width.begin, 2 * width.begin + 2 * kPanel * panels};
      return with_biases(
          m, share,
          {packed_part({packed_stem(m.gate, m.index), 1, 0, 2 * kPanel * all, D, gate_up, {0, D}}, format),
           packed_part({packed_stem(m.down, m.index), 1, 0, D, F, {0, D}, width}, format)});
    }
    const Tensor gate = stored_.find(m.gate, m.index).tensor, up = stored_.find(m.up, m.index).tensor;
    const WeightFormat format = in_memory(m.gate, m.index), of_down = in_memory(m.down, m.index);
    const auto units = [&](const Tensor& tensor) {
      return finite_part(pool_, tensor, width.begin, width.size(), 0, D, format);
    };
    const StoredTensor down = stored_.find(m.down, m.index);
    return with_biases(m, share,
                       {pack_gate_up(pool_, units(gate), units(up), format, &space_),
                        packed(down.tensor, 0, D, down.column + width.begin, width.size(), of_down)});
  }

  ExpertWeights with_biases(const ExpertMatrices& m, const Share& share, ExpertWeights expert) const {
    if (!m.down_bias) return expert;
    expert.gate_up_bias = pack_gate_up_bias(floats(*m.gate_bias, m.index, share), floats(*m.up_bias, m.index, share));
    expert.down_bias_D = floats(*m.down_bias, m.index, share);
    return expert;
  }

  ThreadPool& pool_;
  PackingSpace& space_;
  StoredTensors stored_;
  const ModelConfig& config_;
  const Share& share_;
  StoredFormats in_file_;
  WeightFormats formats_;
};

// Calls f(matrix) for each that is not an expert's.
template <typename F>
void for_each_matrix(const Weights& w, F&& f) {
  for (const LayerWeights& layer : w.layers) {
    f(layer.router_ED);
    for (const StreamWeights& s : layer.streams)
      for (const PackedMatrix* m : {&s.q, &s.k, &s.v, &s.o}) f(*m);
  }
  f(w.head_vD);
}

// Asks for huge pages where matrices of this rank lie next to each other in a mapped file. (Linux has them for files on
// ext4 since 6.16, if they are asked for before the system has read the file.)
void prefer_huge_pages_of_files(const Weights& w, const std::vector<std::vector<ExpertWeights>>& experts) {
  std::vector<std::span<const std::byte>> ranges;
  const auto add = [&](const PackedMatrix& m) {
    if (m.bytes() > 0 && m.panel_stride == panel_bytes(m.format, m.depth)) ranges.push_back({m.data, m.bytes()});
  };
  for_each_matrix(w, add);
  for (const std::vector<ExpertWeights>& layer : experts)
    for (const ExpertWeights& e : layer)
      for (const PackedMatrix* m : {&e.gate_up, &e.down}) add(*m);
  std::ranges::sort(ranges, {}, [](const auto& range) { return range.data(); });
  for (std::size_t i = 0, next; i < ranges.size(); i = next) {
    const std::byte* end = ranges[i].data();
    for (next = i; next < ranges.size() && ranges[next].data() == end; ++next) end += ranges[next].size();
    prefer_huge_pages(const_cast<std::byte*>(ranges[i].data()), end - ranges[i].data());
  }
}

}  // namespace

std::size_t Weights::packed_bytes() const {
  std::size_t bytes = experts ? experts->bytes() : 0;
  for_each_matrix(*this, [&](const PackedMatrix& m) { bytes += m.bytes(); });
  return bytes;
}

Weights load_weights(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config, const Share& share,
                     const FormatChoice& formats) {
  Weights w;
  w.folder = std::make_unique<TensorFolder>(model_dir);
  const Loader loader(pool, *w.folder, config, share, formats, w.packed);
  if (share.runs(0)) w.embedding_VD = loader.embedding();
  w.formats = loader.formats();
  std::vector<std::vector<ExpertWeights>> experts;
  for (int l = 0; l < config.num_layers(); ++l) {
    w.layers.push_back(loader.layer(l));
    experts.push_back(loader.experts(l, experts));
    w.folder->drop_pages();  // what has been packed is not read again
  }
  if (share.runs(config.num_layers() - 1)) {
    w.final_norm_D = loader.floats(TensorRole::kFinalNorm);
    w.head_vD = loader.head();
  }
  w.folder->drop_pages();
  prefer_huge_pages_of_files(w, experts);
  w.experts = loader.store(std::move(experts));
  return w;
}

}  // namespace foe

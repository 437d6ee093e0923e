#include "weights/model_weights.h"

#include <algorithm>
#include <span>

#include "base/huge_pages.h"
#include "weights/finite.h"
#include "weights/layer_tensors.h"
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
        folder_(folder),
        config_(config),
        share_(share),
        in_file_(stored_formats(folder, config)),
        formats_(formats_in_memory(folder, in_file_, choice)) {}

  LayerWeights layer(int l) const {
    const LayerTensors t = layer_tensors(folder_, config_, l);
    LayerWeights w;
    w.attention_norm_D = floats(t.input_norm);
    w.expert_norm_D = floats(t.post_attention_norm);
    const int per_kv = config_.heads().per_kv_head(), C = config_.heads().key_width;
    if (config_.heads().qk_norm == QkNorm::kHead) {
      w.q_norm = floats(*t.q_norm);
      w.k_norm = floats(*t.k_norm);
    } else if (config_.heads().qk_norm == QkNorm::kFull) {
      w.q_norm = floats(*t.q_norm, share_.kv_heads.begin * per_kv * C, share_.kv_heads.size() * per_kv * C);
      w.k_norm = floats(*t.k_norm, share_.kv_heads.begin * C, share_.kv_heads.size() * C);
    }
    for (int g = 0; g < share_.streams(); ++g) w.streams.push_back(stream(l, g));
    if (t.router) w.router_ED = router(t);
    if (t.selection_bias) w.selection_bias_E = floats(*t.selection_bias);
    if (t.constants) w.constants_AD = floats(*t.constants);
    return w;
  }

  // The experts of a layer; `below` has those of the layers below it.
  std::vector<ExpertWeights> experts(int l, const std::vector<LayerWeights>& below) const {
    const ExpertTable table = expert_table(config_, l);
    const int owner = config_.experts(l).of_layer;
    std::vector<ExpertWeights> experts;
    for (int e = share_.experts.begin; e < share_.experts.end; ++e)
      if (owner == -1 || table.kind_of(e) == ExpertKind::kShared) {
        experts.push_back(expert(l, e));
      } else {
        const ExpertWeights& own = below[owner].experts[e - share_.experts.begin];
        experts.push_back({whole(own.gate_up), whole(own.down)});
      }
    return experts;
  }

  PackedMatrix head() const {
    const int V = config_.vocab_size, D = config_.hidden_size;
    if (in_file_.head.packed) return packed_part({kHeadName, 1, 0, V, D, share_.vocab, {0, D}}, formats_.head);
    return packed(head_tensor(folder_, config_), share_.vocab.begin, share_.vocab.size(), 0, D, formats_.head);
  }

  std::vector<float> floats(const Tensor& tensor, int first, int count) const {
    require_finite(pool_, tensor);
    std::vector<float> values(count);
    read_floats(tensor, first, values);
    return values;
  }
  std::vector<float> floats(const Tensor& tensor) const { return floats(tensor, 0, static_cast<int>(tensor.size())); }

 private:
  PackedMatrix packed(const Tensor& tensor, int row, int rows, int column, int columns, WeightFormat format) const {
    const StoredMatrix part = finite_part(pool_, tensor, row, rows, column, columns, format);
    return pack(pool_, {&part, 1}, format, &space_);
  }
  PackedMatrix packed(const Tensor& tensor, WeightFormat format) const {
    return packed(tensor, 0, static_cast<int>(tensor.shape[0]), 0, static_cast<int>(tensor.shape[1]), format);
  }

  // A view of the same weights.
  static PackedMatrix whole(const PackedMatrix& w) { return w.view(0, w.rows, 0, w.depth); }

  // The rows of all columns of the scores (ExpertTable::columns()).
  PackedMatrix router(const LayerTensors& t) const {
    std::vector<StoredMatrix> parts;
    for (const std::optional<Tensor>* part : {&t.router, &t.constant_gates, &t.shared_gate})
      if (*part) {
        const int rows = static_cast<int>((*part)->shape[0]), depth = static_cast<int>((*part)->shape[1]);
        parts.push_back(finite_part(pool_, **part, 0, rows, 0, depth, WeightFormat::kF32));
      }
    return pack(pool_, parts, WeightFormat::kF32, &space_);
  }

  PackedMatrix packed_part(const Part& p, WeightFormat format) const {
    return foe::packed_part(packed_tensor(folder_, p.name, format, p.matrices, p.index, p.rows, p.depth), p.name,
                            p.row_part, p.column_part);
  }

  StreamWeights stream(int l, int g) const {
    const WeightFormat format = formats_.attention;
    const int per_kv = config_.heads().per_kv_head(), C = config_.heads().key_width;
    const int D = config_.hidden_size, matrices = attention_matrices(config_);
    const int index = config_.federated() ? share_.groups.begin + g : 0, heads = config_.heads().kv_heads / matrices;
    const int here = share_.kv_heads.size() / share_.streams(), first = share_.kv_heads.begin + g * here;
    const std::string prefix = layer_prefix(config_, l) + "self_attn.";
    const auto blocks_of = [&](int begin, int end) { return output_blocks(config_, format, {begin, end}); };
    const std::vector<OutputBlock> o_blocks = blocks_of(first, first + here);
    if (in_file_.attention.packed) {
      const Range m{(first - index * heads) * C, (first - index * heads + here) * C},
          n{m.begin * per_kv, m.end * per_kv};
      const auto rows = [&](const char* name, int in_matrix, Range part) {
        return packed_part({prefix + name, matrices, index, in_matrix, D, part, {0, D}}, format);
      };
      const int o_begin = packed_depth(blocks_of(index * heads, first));
      return {rows("q_proj", heads * per_kv * C, n), rows("k_proj", heads * C, m), rows("v_proj", heads * C, m),
              packed_part({prefix + "o_proj",
                           matrices,
                           index,
                           D,
                           packed_depth(blocks_of(index * heads, (index + 1) * heads)),
                           {0, D},
                           {o_begin, o_begin + packed_depth(o_blocks)}},
                          format)};
    }
    const AttentionTensors t = attention_tensors(folder_, config_, l);
    const int begin = first * C, count = here * C;
    const StoredMatrix o = finite_part(pool_, t.o, 0, D, begin * per_kv, count * per_kv, format);
    return {packed(t.q, begin * per_kv, count * per_kv, 0, D, format), packed(t.k, begin, count, 0, D, format),
            packed(t.v, begin, count, 0, D, format), pack_output(pool_, o, o_blocks, format, &space_)};
  }

  ExpertWeights expert(int l, int e) const {
    const WeightFormat format = formats_.experts;
    const int D = config_.hidden_size, F = config_.experts(l).width;
    const Range width = share_.expert_width;
    if (in_file_.experts.packed) {
      const std::string prefix = packed_expert_name(config_, l, e);
      // Panels of gate and up alternate.
      const int panels = (width.size() + kPanel - 1) / kPanel, all = (F + kPanel - 1) / kPanel;
      const Range gate_up{2 * width.begin, 2 * width.begin + 2 * kPanel * panels};
      return {packed_part({prefix + "gate_up_proj", 1, 0, 2 * kPanel * all, D, gate_up, {0, D}}, format),
              packed_part({prefix + "down_proj", 1, 0, D, F, {0, D}, width}, format)};
    }
    const ExpertTensors t = expert_tensors(folder_, config_, l, e);
    return {pack_gate_up(pool_, finite_part(pool_, t.gate, width.begin, width.size(), 0, D, format),
                         finite_part(pool_, t.up, width.begin, width.size(), 0, D, format), format, &space_),
            packed(t.down, 0, D, t.down_column + width.begin, width.size(), format)};
  }

  ThreadPool& pool_;
  PackingSpace& space_;
  const TensorFolder& folder_;
  const ModelConfig& config_;
  const Share& share_;
  StoredFormats in_file_;
  WeightFormats formats_;
};

template <typename F>
void for_each_matrix(const Weights& w, F&& f) {
  for (const LayerWeights& layer : w.layers) {
    f(layer.router_ED);
    for (const StreamWeights& s : layer.streams)
      for (const PackedMatrix* m : {&s.q, &s.k, &s.v, &s.o}) f(*m);
    for (const ExpertWeights& e : layer.experts)
      for (const PackedMatrix* m : {&e.gate_up, &e.down}) f(*m);
  }
  f(w.head_vD);
}

// Asks for huge pages where matrices of this rank lie next to each other in a mapped file. (Linux has them for files on
// ext4 since 6.16, if they are asked for before the system has read the file.)
void prefer_huge_pages_of_files(const Weights& w) {
  std::vector<std::span<const std::byte>> ranges;
  for_each_matrix(w, [&](const PackedMatrix& m) {
    if (m.bytes() > 0 && m.panel_stride == panel_bytes(m.format, m.depth)) ranges.push_back({m.data, m.bytes()});
  });
  std::ranges::sort(ranges, {}, [](const auto& range) { return range.data(); });
  for (std::size_t i = 0, next; i < ranges.size(); i = next) {
    const std::byte* end = ranges[i].data();
    for (next = i; next < ranges.size() && ranges[next].data() == end; ++next) end += ranges[next].size();
    prefer_huge_pages(const_cast<std::byte*>(ranges[i].data()), end - ranges[i].data());
  }
}

}  // namespace

std::size_t Weights::packed_bytes() const {
  std::size_t bytes = 0;
  for_each_matrix(*this, [&](const PackedMatrix& m) { bytes += m.bytes(); });
  return bytes;
}

WeightFormats formats_of(const Weights& w) {
  WeightFormats formats{.head = w.head_vD.format};
  if (w.layers.empty()) return formats;
  if (!w.layers[0].streams.empty()) formats.attention = w.layers[0].streams[0].q.format;
  if (!w.layers[0].experts.empty()) formats.experts = w.layers[0].experts[0].down.format;
  return formats;
}

Weights load_weights(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config, const Share& share,
                     const FormatChoice& formats) {
  Weights w;
  w.folder = std::make_unique<TensorFolder>(model_dir);
  const Loader loader(pool, *w.folder, config, share, formats, w.packed);
  const EndTensors ends = end_tensors(*w.folder, config);
  require_finite(pool, ends.embed);
  w.embedding_VD = matrix(ends.embed);
  for (int l = 0; l < config.num_layers(); ++l) {
    w.layers.push_back(loader.layer(l));
    w.layers[l].experts = loader.experts(l, w.layers);
    w.folder->drop_pages();  // what has been packed is not read again
  }
  w.final_norm_D = loader.floats(ends.norm);
  w.head_vD = loader.head();
  w.folder->drop_pages();
  prefer_huge_pages_of_files(w);
  return w;
}

}  // namespace foe

#include "weights/model_weights.h"

#include "weights/layer_tensors.h"

namespace foe {
namespace {

StoredMatrix matrix(const Tensor& tensor) {
  const int rows = static_cast<int>(tensor.shape[0]), depth = static_cast<int>(tensor.shape[1]);
  return {tensor.dtype, tensor.bytes.data(), static_cast<std::size_t>(depth) * size_of(tensor.dtype), rows, depth};
}

std::vector<float> floats(const Tensor& tensor, int first, int count) {
  std::vector<float> values(count);
  read_floats(tensor, first, values);
  return values;
}

std::vector<float> floats(const Tensor& tensor) {
  return floats(tensor, 0, static_cast<int>(tensor.size()));
}

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const ModelConfig& config, const Share& share, std::optional<DType> dtype)
      : checkpoint_(checkpoint), config_(config), share_(share), dtype_(dtype) {}

  LayerWeights layer(int l) const {
    const LayerTensors t = layer_tensors(checkpoint_, config_, l);
    LayerWeights w;
    w.attention_norm_D = floats(t.input_norm);
    w.expert_norm_D = floats(t.post_attention_norm);
    const int per_kv = config_.num_attention_heads / config_.num_key_value_heads, C = config_.head_dim;
    if (config_.qk_norm == QkNorm::kHead) {
      w.q_norm = floats(*t.q_norm);
      w.k_norm = floats(*t.k_norm);
    } else if (config_.qk_norm == QkNorm::kFull) {
      w.q_norm = floats(*t.q_norm, share_.kv_heads.begin * per_kv * C, share_.kv_heads.size() * per_kv * C);
      w.k_norm = floats(*t.k_norm, share_.kv_heads.begin * C, share_.kv_heads.size() * C);
    }
    for (int g = 0; g < share_.streams(); ++g) w.streams.push_back(stream(t, g));
    if (t.router) w.router_ED = packed(matrix(*t.router), DType::kF32);
    for (int e = share_.experts.begin; e < share_.experts.end; ++e) w.experts.push_back(expert(l, e));
    return w;
  }

  PackedMatrix packed(const StoredMatrix& stored) const { return packed(stored, dtype_.value_or(stored.type)); }

 private:
  static PackedMatrix packed(const StoredMatrix& stored, DType type) { return pack({&stored, 1}, type); }

  StreamWeights stream(const LayerTensors& t, int g) const {
    const int per_kv = config_.num_attention_heads / config_.num_key_value_heads, C = config_.head_dim;
    const int heads = share_.kv_heads.size() / share_.streams();
    const int first = (share_.kv_heads.begin + g * heads) * C, count = heads * C, D = config_.hidden_size;
    return {packed(matrix(t.q).slice(first * per_kv, count * per_kv, 0, D)),
            packed(matrix(t.k).slice(first, count, 0, D)), packed(matrix(t.v).slice(first, count, 0, D)),
            packed(matrix(t.o).slice(0, D, first * per_kv, count * per_kv))};
  }

  ExpertWeights expert(int l, int e) const {
    const ExpertTensors t = expert_tensors(checkpoint_, config_, l, e);
    const int begin = share_.expert_width.begin, width = share_.expert_width.size(), D = config_.hidden_size;
    return {pack_gate_up(matrix(t.gate).slice(begin, width, 0, D), matrix(t.up).slice(begin, width, 0, D),
                         dtype_.value_or(t.gate.dtype)),
            packed(matrix(t.down).slice(0, D, begin, width))};
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const Share& share_;
  std::optional<DType> dtype_;
};

}  // namespace

std::size_t Weights::packed_bytes() const {
  std::size_t bytes = head_vD.bytes();
  for (const LayerWeights& layer : layers) {
    bytes += layer.router_ED.bytes();
    for (const StreamWeights& s : layer.streams) bytes += s.q.bytes() + s.k.bytes() + s.v.bytes() + s.o.bytes();
    for (const ExpertWeights& e : layer.experts) bytes += e.gate_up.bytes() + e.down.bytes();
  }
  return bytes;
}

Weights load_weights(const std::string& model_dir, const ModelConfig& config, const Share& share,
                     std::optional<DType> dtype) {
  Weights w;
  w.checkpoint = std::make_unique<Checkpoint>(model_dir);
  const Loader loader(*w.checkpoint, config, share, dtype);
  const EndTensors ends = end_tensors(*w.checkpoint, config);
  w.embedding_VD = matrix(ends.embed);
  for (int l = 0; l < config.num_hidden_layers; ++l) w.layers.push_back(loader.layer(l));
  w.final_norm_D = floats(ends.norm);
  w.head_vD = loader.packed(matrix(ends.lm_head).slice(share.vocab.begin, share.vocab.size(), 0, config.hidden_size));
  return w;
}

}  // namespace foe

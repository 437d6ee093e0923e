#include "weights/convert.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "weights/finite.h"
#include "weights/layer_tensors.h"
#include "weights/model_folder.h"
#include "weights/output_blocks.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

class Converter {
 public:
  Converter(ThreadPool& pool, const TensorFolder& folder, const ModelConfig& config, const WeightFormats& formats)
      : pool_(pool), folder_(folder), config_(config), formats_(formats) {}

  std::vector<TensorSource> sources() {
    const EndTensors ends = end_tensors(folder_, config_);
    copy("model.embed_tokens.weight", ends.embed);
    copy("model.norm.weight", ends.norm);
    for (int l = 0; l < config_.num_layers(); ++l) layer(l);
    add_columns(kHeadName, formats_.head, head_tensor(folder_, config_), 0, config_.hidden_size);
    return std::move(sources_);
  }

 private:
  void copy(std::string name, const Tensor& tensor) {
    require_finite(pool_, tensor);
    sources_.push_back(
        byte_source(std::move(name), tensor.dtype == DType::kF32 ? "F32" : "BF16", tensor.shape, tensor.bytes));
  }

  // Adds a packed tensor. `make` returns each of its matrices when it is written.
  void add(const std::string& name, WeightFormat format, int matrices, int rows, int depth,
           std::function<PackedMatrix(int)> make) {
    const int panels = (rows + kPanel - 1) / kPanel;
    TensorSource source{packed_name(name, format),
                        find_stored_type("U8"),
                        {matrices, panels, static_cast<std::int64_t>(panel_bytes(format, depth))},
                        {}};
    source.write = [matrices, make = std::move(make)](const TensorSource::Sink& sink) {
      for (int i = 0; i < matrices; ++i) sink(make(i).own.span());
    };
    sources_.push_back(std::move(source));
  }

  void layer(int l) {
    const LayerTensors t = layer_tensors(folder_, config_, l);
    const std::string prefix = layer_prefix(config_, l);
    copy(prefix + "input_layernorm.weight", t.input_norm);
    copy(prefix + "post_attention_layernorm.weight", t.post_attention_norm);
    if (t.q_norm) copy(prefix + "self_attn.q_norm.weight", *t.q_norm);
    if (t.k_norm) copy(prefix + "self_attn.k_norm.weight", *t.k_norm);
    if (t.router) copy(prefix + "mlp.gate.weight", *t.router);
    if (t.selection_bias) copy(prefix + "mlp.gate.e_score_correction_bias", *t.selection_bias);
    if (t.constant_gates) copy(prefix + "mlp.constant_experts.gates", *t.constant_gates);
    if (t.constants) copy(prefix + "mlp.constant_experts.vectors", *t.constants);
    if (t.shared_gate) copy(prefix + "mlp.shared_expert_gate.weight", *t.shared_gate);
    const AttentionTensors a = attention_tensors(folder_, config_, l);
    rows_of_groups(prefix + "self_attn.q_proj", a.q);
    rows_of_groups(prefix + "self_attn.k_proj", a.k);
    rows_of_groups(prefix + "self_attn.v_proj", a.v);
    columns_of_groups(prefix + "self_attn.o_proj", a.o);
    const ExpertTable table = expert_table(config_, l);
    for (int e = 0; e < table.with_rows(); ++e)
      if (config_.experts(l).of_layer == -1 || table.kind_of(e) == ExpertKind::kShared) expert(l, e);
  }

  void rows_of_groups(const std::string& name, const Tensor& tensor) {
    const int groups = attention_matrices(config_), rows = static_cast<int>(tensor.shape[0]) / groups;
    const int depth = static_cast<int>(tensor.shape[1]);
    add(name, formats_.attention, groups, rows, depth, [=, this](int g) {
      const StoredMatrix part = finite_part(pool_, tensor, g * rows, rows, 0, depth, formats_.attention);
      return pack(pool_, {&part, 1}, formats_.attention);
    });
  }

  void columns_of_groups(const std::string& name, const Tensor& tensor) {
    const int groups = attention_matrices(config_), rows = static_cast<int>(tensor.shape[0]);
    const int depth = static_cast<int>(tensor.shape[1]) / groups, heads = config_.heads().kv_heads / groups;
    const auto blocks = [=, this](int g) {
      return output_blocks(config_, formats_.attention, {g * heads, (g + 1) * heads});
    };
    add(name, formats_.attention, groups, rows, packed_depth(blocks(0)), [=, this](int g) {
      const StoredMatrix part = finite_part(pool_, tensor, 0, rows, g * depth, depth, formats_.attention);
      return pack_output(pool_, part, blocks(g), formats_.attention);
    });
  }

  // Adds all rows of a tensor, and `depth` of its columns from `column` on.
  void add_columns(const std::string& name, WeightFormat format, const Tensor& tensor, int column, int depth) {
    const int rows = static_cast<int>(tensor.shape[0]);
    add(name, format, 1, rows, depth, [=, this](int) {
      const StoredMatrix part = finite_part(pool_, tensor, 0, rows, column, depth, format);
      return pack(pool_, {&part, 1}, format);
    });
  }

  void expert(int l, int e) {
    const ExpertTensors t = expert_tensors(folder_, config_, l, e);
    const int D = config_.hidden_size, F = config_.experts(l).width;
    const WeightFormat format = formats_.experts;
    const std::string name = packed_expert_name(config_, l, e);
    add(name + "gate_up_proj", format, 1, 2 * kPanel * ((F + kPanel - 1) / kPanel), D, [=, this](int) {
      return pack_gate_up(pool_, finite_part(pool_, t.gate, 0, F, 0, D, format),
                          finite_part(pool_, t.up, 0, F, 0, D, format), format);
    });
    add_columns(name + "down_proj", format, t.down, t.down_column, F);
  }

  ThreadPool& pool_;
  const TensorFolder& folder_;
  const ModelConfig& config_;
  WeightFormats formats_;
  std::vector<TensorSource> sources_;
};

}  // namespace

void convert_model(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config,
                   const FormatChoice& formats, const std::string& out,
                   const std::function<void(std::size_t, std::size_t)>& progress) {
  const TensorFolder folder(model_dir);
  const StoredFormats stored = stored_formats(folder, config);
  if (stored.attention.packed || stored.experts.packed || stored.head.packed)
    fail("{}: expected a model that has not been converted, got one with attention in {}, experts in {}, head in {}",
         model_dir, to_string(stored.attention.format), to_string(stored.experts.format),
         to_string(stored.head.format));
  Converter converter(pool, folder, config, formats_in_memory(folder, stored, formats));
  std::vector<TensorSource> sources = converter.sources();  // they call it
  std::size_t total = 0, written = 0;
  for (TensorSource& source : sources) {
    std::int64_t bytes = source.type->bits / 8;
    for (const std::int64_t size : source.shape) bytes *= size;
    total += bytes;
    source.write = [&written, &total, &progress, write = std::move(source.write)](const TensorSource::Sink& sink) {
      write([&](std::span<const std::byte> piece) {
        sink(piece);
        progress(written += piece.size(), total);
      });
    };
  }
  NewFolder new_folder(out);
  write_model_folder(new_folder.partial(), config, std::move(sources), model_dir);
  new_folder.commit();
}

}  // namespace foe

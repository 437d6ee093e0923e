#include "weights/convert.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "weights/finite.h"
#include "weights/output_blocks.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

class Converter {
 public:
  Converter(ThreadPool& pool, const StoredTensors& stored, const ModelConfig& config, const WeightFormats& formats,
            const Importance& importance)
      : pool_(pool), stored_(stored), config_(config), formats_(formats), importance_(importance) {}

  std::vector<TensorSource> sources() {
    for (const ModelTensor& row : table().rows()) add(row);
    for (int l = 0; l < config_.num_layers(); ++l)
      for (int e = 0; e < expert_table(config_, l).with_rows(); ++e) add_expert(l, e);
    return std::move(sources_);
  }

 private:
  const TensorTable& table() const { return stored_.table(); }

  void add(const ModelTensor& row) {
    switch (row.format) {
      case TensorFormat::kFile:
      case TensorFormat::kF32:
        for (int index = 0; index < row.count; ++index) copy(row, index);
        return;
      case TensorFormat::kAttention:
        return row.split == TensorSplit::kHeadRows ? rows_of_groups(row) : columns_of_groups(row);
      case TensorFormat::kHead:  // if it is the embedding, too
        return head(row);
      case TensorFormat::kExperts:
        return;  // expert by expert
    }
  }

  void copy(const ModelTensor& row, int index) {
    const Tensor tensor = stored_.find(row, index).tensor;
    require_finite(pool_, tensor);
    // The embedding of a GGUF file may be large: it is rounded as matrices are.
    const bool rounded = row.format == TensorFormat::kFile && in_blocks(tensor.dtype);
    sources_.push_back(weight_source(name_of(row, index), tensor, rounded ? DType::kBF16 : DType::kF32));
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

  void rows_of_groups(const ModelTensor& row) {
    const Tensor tensor = stored_.find(row).tensor;
    const int groups = attention_matrices(config_), rows = row.rows() / groups, depth = row.columns();
    add(packed_stem(row), formats_.attention, groups, rows, depth, [=, this](int g) {
      const StoredMatrix part = finite_part(pool_, tensor, g * rows, rows, 0, depth, formats_.attention);
      return pack(pool_, {&part, 1}, formats_.attention, nullptr,
                  importance_.find({ModelInput::kAttention, row.layer, g}));
    });
  }

  void columns_of_groups(const ModelTensor& row) {
    const Tensor tensor = stored_.find(row).tensor;
    const int groups = attention_matrices(config_), rows = row.rows(), depth = row.columns() / groups;
    const int heads = config_.heads().kv_heads / groups;
    const auto blocks = [=, this](int g) {
      return output_blocks(config_, formats_.attention, {g * heads, (g + 1) * heads});
    };
    add(packed_stem(row), formats_.attention, groups, rows, packed_depth(blocks(0)), [=, this](int g) {
      const StoredMatrix part = finite_part(pool_, tensor, 0, rows, g * depth, depth, formats_.attention);
      return pack_output(pool_, part, blocks(g), formats_.attention, nullptr,
                         importance_.find({ModelInput::kAttended, row.layer}, g * depth));
    });
  }

  void head(const ModelTensor& row) {
    const Tensor tensor = stored_.head();
    add(packed_stem(row), formats_.head, 1, row.rows(), row.columns(), [=, this](int) {
      const StoredMatrix part = finite_part(pool_, tensor, 0, row.rows(), 0, row.columns(), formats_.head);
      return pack(pool_, {&part, 1}, formats_.head, nullptr, importance_.find({ModelInput::kHead}));
    });
  }

  void add_expert(int layer, int id) {
    const ExpertMatrices m = expert_matrices(table(), config_, layer, id);
    if (m.gate.count == 0) return;  // it is another layer's
    const int D = m.gate.columns(), F = m.gate.rows();
    const WeightFormat format = formats_.experts;
    // They may be copies, which are made when they are written.
    add(packed_stem(m.gate, m.index), format, 1, 2 * kPanel * ((F + kPanel - 1) / kPanel), D, [=, this](int) {
      const Tensor gate = stored_.find(m.gate, m.index).tensor, up = stored_.find(m.up, m.index).tensor;
      return pack_gate_up(pool_, finite_part(pool_, gate, 0, F, 0, D, format),
                          finite_part(pool_, up, 0, F, 0, D, format), format, nullptr,
                          importance_.find({ModelInput::kExpert, layer, id}));
    });
    add(packed_stem(m.down, m.index), format, 1, D, F, [=, this](int) {
      const StoredTensor down = stored_.find(m.down, m.index);
      const StoredMatrix part = finite_part(pool_, down.tensor, 0, D, down.column, F, format);
      return pack(pool_, {&part, 1}, format, nullptr, importance_.find({ModelInput::kHidden, layer, id}));
    });
  }

  ThreadPool& pool_;
  const StoredTensors& stored_;
  const ModelConfig& config_;
  WeightFormats formats_;
  const Importance& importance_;
  std::vector<TensorSource> sources_;
};

}  // namespace

void convert_model(ThreadPool& pool, const std::string& model_dir, const ModelConfig& config,
                   const FormatChoice& formats, const std::string& out, const WriteProgress& progress,
                   const std::map<std::string, std::string>& files, const Importance& importance) {
  const TensorFolder folder(model_dir);
  const StoredTensors stored(folder, config);
  const StoredFormats in_file = stored_formats(stored, config);
  if (in_file.attention.packed || in_file.experts.packed || in_file.head.packed)
    fail("{}: expected a model that has not been converted, got one with attention in {}, experts in {}, head in {}",
         model_dir, to_string(in_file.attention.format), to_string(in_file.experts.format),
         to_string(in_file.head.format));
  check_tensors(stored, in_file);
  Converter converter(pool, stored, config, formats_in_memory(folder, in_file, formats), importance);
  // The sources call the converter.
  std::map<std::string, std::string> metadata = kDefaultMetadata;
  if (!importance.source.empty()) metadata["calibrated_with"] = importance.source;
  write_new_model_folder(out, config, converter.sources(), model_dir, progress, files, metadata);
}

}  // namespace foe

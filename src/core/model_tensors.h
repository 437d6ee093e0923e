// The tensors of a model, as one table. Whatever loads, writes, splits or counts tensors goes by it, so a tensor more
// is a row more. weights/stored_tensors.h finds them in a folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/share.h"

namespace foe {

enum class TensorRole {
  kEmbedding,
  kFinalNorm,
  kHead,
  // of attention
  kAttentionNorm,
  kQProj,
  kKProj,
  kVProj,
  kOProj,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kQNorm,
  kKNorm,
  kSinks,
  kAttentionOutputNorm,  // of what attention adds to the residual
  // of experts
  kExpertNorm,
  kRouter,
  kRouterBias,
  kSelectionBias,
  kConstantGates,  // two scores of each constant expert
  kConstants,      // their vectors
  kSharedGate,     // the score of the shared experts
  kGateProj,
  kUpProj,
  kDownProj,
  kGateBias,
  kUpBias,
  kDownBias,
  kSharedGateProj,
  kSharedUpProj,
  kSharedDownProj,
  kExpertOutputNorm,
};

// The rows of the router's product, in the order of its columns (ExpertTable::columns()).
inline constexpr TensorRole kRouterRoles[] = {TensorRole::kRouter, TensorRole::kConstantGates, TensorRole::kSharedGate};

// Which part of a tensor a rank has (core/share.h).
enum class TensorSplit {
  kWhole,          // all of it
  kHeadRows,       // the rows of its KV heads, or of their query heads
  kHeadColumns,    // the columns of its heads
  kExpertRows,     // of each of its experts, the rows of its hidden units
  kExpertColumns,  // of each of its experts, the columns of its hidden units
  kExpertWhole,    // all of each of its experts
  kVocabulary,     // the rows of its part of the vocabulary
};

// What decides a tensor's format in memory (weights/weight_formats.h).
enum class TensorFormat {
  kFile,  // it is read where it stands in the file
  kF32,   // always f32
  kAttention,
  kExperts,
  kHead,
};

// What a tensor has before any training.
enum class InitialValues { kRandom, kOnes, kZeros };

// A row of the table: the tensors with one role in one layer. Their shapes are [out, in], row-major, as in torch's
// nn.Linear; the letters are those of core/model_config.h.
struct ModelTensor {
  TensorRole role;
  int layer = -1;  // -1: of the model
  int count = 1;   // how many a model folder has: one for each expert, otherwise 1. 0: they are another layer's (of
                   // which ExpertsConfig tells) or, of the head, the embedding
  int used = 1;    // how many of them a token uses; 0 for the head that is the embedding
  std::vector<std::int64_t> shape = {};
  TensorSplit split = TensorSplit::kWhole;
  TensorFormat format = TensorFormat::kF32;
  InitialValues initial = InitialValues::kRandom;
  std::string name = {};       // as foe and OLMoE have it; {} is the index of one of `count`
  std::string slices_of = {};  // if not empty, the folder has one tensor of this name for all: they follow each other
                               // along the hidden width

  std::int64_t size() const;  // elements of one of them
  int rows() const { return static_cast<int>(shape[0]); }
  int columns() const { return shape.size() < 2 ? 1 : static_cast<int>(shape[1]); }
};

// Returns the name of one of a row's tensors.
std::string name_of(const ModelTensor& tensor, int index);
// Returns the shape of the tensor ModelTensor::slices_of.
std::vector<std::int64_t> shape_of_all(const ModelTensor& tensor);

class TensorTable {
 public:
  // All rows of the model: the embedding, the layers with their blocks in order, the last norm, the head. `config` need
  // not be valid, so that the table has what nothing computes yet.
  explicit TensorTable(const ModelConfig& config);

  std::span<const ModelTensor> rows() const { return rows_; }
  // The row with this role in a layer, or (-1) in the model itself; null if there is none.
  const ModelTensor* find(TensorRole role, int layer = -1) const;
  // The same where there is one.
  const ModelTensor& at(TensorRole role, int layer = -1) const;

 private:
  std::vector<ModelTensor> rows_;
  std::vector<std::size_t> first_L_;  // each layer's first row; behind the last layer, the first row that is in none
};

// The matrices of an expert with rows, by its id (core/expert_table.h): it has the index-th of each row.
struct ExpertMatrices {
  const ModelTensor &gate, &up, &down;
  int index;
  const ModelTensor *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;  // all three or none
};
ExpertMatrices expert_matrices(const TensorTable& table, const ModelConfig& config, int layer, int id);

// Returns which of the hidden units of a layer's experts of this width a rank has. Shared experts of a width of their
// own are never cut.
Range own_units(int width, int layer, const ModelConfig& config, const Share& share);

// What a rank has of a row: this part of each of `count` tensors.
struct TensorPart {
  Range rows, columns;  // of a vector: columns are [0, 1)
  int count = 1;

  std::int64_t size() const { return std::int64_t{count} * rows.size() * columns.size(); }
};
TensorPart part_of(const ModelTensor& tensor, const ModelConfig& config, const Share& share);

// Calls f(row, index) for each of all rows' tensors, in the order of the parameters in training: expert by expert.
template <typename F>
void for_each_tensor(const TensorTable& table, F&& f) {
  const std::span<const ModelTensor> rows = table.rows();
  for (std::size_t i = 0, end; i < rows.size(); i = end) {
    end = i + 1;
    if (rows[i].format == TensorFormat::kExperts)
      while (end < rows.size() && rows[end].format == TensorFormat::kExperts && rows[end].count == rows[i].count) ++end;
    for (int index = 0; index < rows[i].count; ++index)
      for (std::size_t j = i; j < end; ++j) f(rows[j], index);
  }
}

// Return the number of all parameters in the model folder, and of those that one token uses: without the experts that
// it does not select. The whole embedding counts in both, as in the figures that models are published with. Both
// require a validated config.
std::int64_t parameter_count(const ModelConfig& config);
std::int64_t active_parameter_count(const ModelConfig& config);

const char* to_string(TensorSplit value);
const char* to_string(TensorFormat value);

}  // namespace foe

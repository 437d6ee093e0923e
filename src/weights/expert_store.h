// Where a rank's experts with rows are, and how they come to the product that multiplies with them. The product takes a
// layer's experts in waves: those that are in memory at the same time. If all of them are, there is one wave.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/share.h"
#include "kernels/products/gemm.h"

namespace foe {

struct ExpertWeights {
  PackedMatrix gate_up;  // pack_gate_up() of gate and up, [f, D] each
  PackedMatrix down;     // [D, f]
  // If the model has them: pack_gate_up_bias(), and the bias of down. They are always in memory, also where the
  // matrices are not.
  std::vector<float> gate_up_bias = {}, down_bias_D = {};
};

// Experts of a layer that can be multiplied with until they are released. They are counted from the rank's first one
// (Share::experts) on.
struct ExpertWave {
  Range experts;                           // of these, the wave has the weights of all that have rows
  std::span<const ExpertWeights> weights;  // of all local experts; those that are not in the wave have only shapes
};

// One thread at a time uses a store, and holds one wave at most.
class ExpertStore {
 public:
  ExpertStore() = default;
  ExpertStore(const ExpertStore&) = delete;
  ExpertStore& operator=(const ExpertStore&) = delete;
  virtual ~ExpertStore() = default;

  // Returns the layer's next wave, which begins with expert `first`. Expert e has the rows [rows_begin[e],
  // rows_begin[e + 1]), as Routing::expert_begin says: weights of experts without rows are not fetched. The layer is
  // done when a wave ends with its last expert. Throws Error if weights cannot be read.
  ExpertWave acquire(int layer, std::span<const std::int32_t> rows_begin, int first = 0);
  // Gives back the wave that was acquired.
  void release(int layer);
  // Says that a step will acquire these experts soon. It changes nothing but speed.
  virtual void expect(int layer, std::span<const int> experts) = 0;
  // The bytes of all matrices.
  virtual std::size_t bytes() const = 0;

 private:
  virtual ExpertWave fetch(int layer, std::span<const std::int32_t> rows_begin, int first) = 0;
  virtual void give_back(int layer) = 0;

  int held_ = -1;  // the layer whose wave is held; -1: none
};

// Experts that are in memory as long as the store. Their matrices own their weights, or are views of what outlives it.
class ResidentExperts : public ExpertStore {
 public:
  // `layers` has the local experts of each layer.
  explicit ResidentExperts(std::vector<std::vector<ExpertWeights>> layers) : layers_(std::move(layers)) {}

  void expect(int, std::span<const int>) override {}
  std::size_t bytes() const override;

 protected:
  const ExpertWeights& expert(int layer, int e) const { return layers_[layer][e]; }

 private:
  ExpertWave fetch(int layer, std::span<const std::int32_t> rows_begin, int first) override;
  void give_back(int) override {}

  std::vector<std::vector<ExpertWeights>> layers_;
};

// Experts that are views of a mapped file. The system reads pages when they are first used, and may drop them if memory
// runs out; it is asked to read those that are expected.
class MappedExperts final : public ResidentExperts {
 public:
  using ResidentExperts::ResidentExperts;

  void expect(int layer, std::span<const int> experts) override;
};

}  // namespace foe

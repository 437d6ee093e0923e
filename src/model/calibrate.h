// Measures how much the errors of weights count: runs a model over a text, and takes the second moments of what its
// matrices multiply.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "model/input_observer.h"
#include "model/model.h"
#include "weights/importance.h"

namespace foe {

// So many rows an expert should have; those that it lacks are made up.
inline constexpr int kFewRows = 64;
// Texts are run in windows of so many tokens, or the model's context if that is shorter.
inline constexpr int kCalibrationWindow = 512;
// Correlations are measured of so many channels side by side, as memory and time grow with their square and third
// power.
inline constexpr int kCorrelatedChannels = 2048;

// Adds up x x^T and the squares of what it sees, row after row: the bits do not depend on threads or instruction sets.
class InputMoments final : public InputObserver {
 public:
  // The pool is that of the forward pass. Both must outlive this.
  InputMoments(const ModelConfig& config, ThreadPool& pool) : config_(config), pool_(pool) {}

  void see(const InputPlace& place, const SeenRows& rows) override;

  // Returns what was found in the rows that were seen so far. Experts that are another layer's have the rows of all
  // layers together. Rows that an expert lacks to kFewRows count as if they had come: for gate and up with the means of
  // all rows of the layer's experts, channel by channel, and for down, whose channels are the expert's own, with the
  // mean of its layer in all channels. So an expert without rows is like the others of its layer. Correlations of what
  // gate and up multiply are those of all rows of the layer's experts, and no others are across blocks of heads
  // (core/sum_blocks.h). Throws Error if a sum is not finite.
  Importance importance() const;

 private:
  struct Squares {
    std::vector<double> sums;
    double rows = 0;

    void add(const Squares& other);
    // Adds the rows that an expert lacks, which are like those of its layer in each channel or in the mean of all.
    void fill_up(const Squares& layer, int depth, bool same_channels);
  };
  // Sums of x x^T over blocks of channels, which begin at begin[i] and end at begin[i + 1].
  struct Grams {
    std::vector<int> begin;
    std::vector<std::vector<float>> sums;
    double rows = 0;
  };
  InputPlace owner_of(const InputPlace& place) const;
  std::vector<int> blocks_of(const InputPlace& place, int depth) const;
  void add_grams(const InputPlace& place, const SeenRows& rows);
  std::map<InputPlace, Squares> filled_up() const;

  const ModelConfig& config_;
  ThreadPool& pool_;
  std::map<InputPlace, Squares> squares_;
  std::map<InputPlace, Grams> grams_;
};

struct CalibrationText {
  std::vector<std::int32_t> tokens;
  std::optional<std::int32_t> first;  // the token that begins every window, such as BOS
  int most_tokens = 0;                // how many are run at most; at least one window is
};

// Runs whole windows of the text, evenly spread if it has more of them than are to be run. The model must be on one
// rank. `progress` is called with the tokens that are done and their total. Throws Error if the text has fewer tokens
// than one window, or the model's activations are not finite.
Importance calibrate(const Model& model, ThreadPool& pool, const CalibrationText& text,
                     const std::function<void(std::size_t done, std::size_t total)>& progress);

}  // namespace foe

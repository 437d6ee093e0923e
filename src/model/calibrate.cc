#include "model/calibrate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "core/expert_table.h"
#include "core/sum_blocks.h"
#include "kernels/products/sgemm.h"
#include "model/forward.h"

namespace foe {
namespace {

constexpr int kColumns = 256;  // whose squares a thread adds up together
constexpr int kGramRows = 64;  // rows of x x^T that it does

bool of_expert(const InputPlace& place) {
  return place.input == ModelInput::kExpert || place.input == ModelInput::kHidden;
}

// Runs one window from position 0 on.
void run_window(const Model& model, std::span<const std::int32_t> tokens, KvCache& kv, Activations& a, RankGrid& grid,
                ThreadPool& pool, InputObserver& observer) {
  std::vector<std::int32_t> blocks(kv.blocks());
  std::iota(blocks.begin(), blocks.end(), 0);
  for (std::size_t at = 0; at < tokens.size(); at += a.max_tokens) {
    const std::size_t count = std::min<std::size_t>(a.max_tokens, tokens.size() - at);
    Batch batch;  // all rows are sampled, so that those of the last layer and of the head are seen
    batch.add_sequence(tokens.subspan(at, count), static_cast<int>(at), blocks, Batch::Sample::kAll, 0,
                       static_cast<int>(tokens.size()));
    forward(model, batch, kv, a, grid, pool, &observer);
  }
}

}  // namespace

// The place with the layer whose experts these are (ExpertsConfig::of_layer).
InputPlace InputMoments::owner_of(const InputPlace& place) const {
  if (!of_expert(place)) return place;
  const int owner = config_.experts(place.layer).of_layer;
  const bool own = owner == -1 || expert_table(config_, place.layer).kind_of(place.index) == ExpertKind::kShared;
  return {place.input, own ? place.layer : owner, place.index};
}

std::vector<int> InputMoments::blocks_of(const InputPlace& place, int depth) const {
  std::vector<int> wide = {0, depth};
  if (place.input == ModelInput::kAttended) {
    const AttentionConfig& heads = config_.heads();
    wide = head_blocks(config_).begin;
    for (int& head : wide) head *= heads.per_kv_head() * heads.head_value_width();
  }
  std::vector<int> begin;
  for (std::size_t b = 0; b + 1 < wide.size(); ++b)
    for (int at = wide[b]; at < wide[b + 1]; at += kCorrelatedChannels) begin.push_back(at);
  begin.push_back(depth);
  return begin;
}

void InputMoments::see(const InputPlace& place, const SeenRows& rows) {
  Squares& squares = squares_[owner_of(place)];
  squares.sums.resize(rows.depth);
  squares.rows += rows.count;
  pool_.parallel_for((rows.depth + kColumns - 1) / kColumns, [&](std::size_t task) {
    const int begin = static_cast<int>(task) * kColumns, end = std::min(rows.depth, begin + kColumns);
    for (int i = 0; i < rows.count; ++i) {
      const float* x = rows.x + (rows.rows ? rows.rows[i] : i) * rows.stride;
      for (int k = begin; k < end; ++k) squares.sums[k] += static_cast<double>(x[k]) * x[k];
    }
  });
  add_grams(Importance::correlated(owner_of(place)), rows);
}

void InputMoments::add_grams(const InputPlace& place, const SeenRows& rows) {
  Grams& grams = grams_[place];
  if (grams.begin.empty()) {
    grams.begin = blocks_of(place, rows.depth);
    for (std::size_t b = 0; b + 1 < grams.begin.size(); ++b) {
      const std::size_t n = grams.begin[b + 1] - grams.begin[b];
      grams.sums.emplace_back(n * n);
    }
  }
  grams.rows += rows.count;
  for (std::size_t b = 0; b < grams.sums.size(); ++b) {
    const int n = grams.begin[b + 1] - grams.begin[b];
    const Rows<const float> x{rows.x + grams.begin[b], rows.stride, rows.rows};
    pool_.parallel_for((n + kGramRows - 1) / kGramRows, [&](std::size_t task) {
      const int first = static_cast<int>(task) * kGramRows, end = std::min(n, first + kGramRows);
      SgemmScratch scratch;
      sgemm_transposed(
          rows.count, {x.data + first, x.stride, x.rows}, end - first, x, end,
          {grams.sums[b].data() + static_cast<std::size_t>(first) * n, static_cast<std::size_t>(n), nullptr},
          Into::kAdd, scratch);
    });
  }
}

std::map<InputPlace, InputMoments::Squares> InputMoments::filled_up() const {
  std::map<InputPlace, Squares> own = squares_, layers;  // the second: of all experts of a layer together, at 0
  for (const auto& [place, squares] : squares_) {
    if (!std::ranges::all_of(squares.sums, [](double sum) { return std::isfinite(static_cast<float>(sum)); }))
      fail(
          "expected activations that are finite, got others in layer {}: the weights and this text lead past the"
          " largest float",
          place.layer);
    if (of_expert(place)) layers[{place.input, place.layer}].add(squares);
  }
  for (const auto& [place, layer] : layers)
    for (int e = 0; e < expert_table(config_, place.layer).with_rows(); ++e) {
      const InputPlace expert{place.input, place.layer, e};
      const bool reads = place.input == ModelInput::kExpert;
      if (owner_of(expert) == expert)
        own[expert].fill_up(layer, reads ? config_.hidden_size : expert_width(config_, place.layer, e), reads);
    }
  return own;
}

Importance InputMoments::importance() const {
  Importance result;
  for (const auto& [place, squares] : filled_up())
    for (const double sum : squares.sums) result.channels[place].push_back(static_cast<float>(sum / squares.rows));
  struct Task {
    Correlations::Block* to;
    const float* gram;
    int begin, end;
    double rows;
  };
  std::vector<Task> tasks;
  for (const auto& [place, grams] : grams_) {
    std::vector<Correlations::Block>& blocks = result.correlations[place].blocks;
    blocks.resize(grams.sums.size());
    for (std::size_t b = 0; b < blocks.size(); ++b)
      tasks.push_back({&blocks[b], grams.sums[b].data(), grams.begin[b], grams.begin[b + 1], grams.rows});
  }
  pool_.parallel_for(tasks.size(), [&](std::size_t i) {
    *tasks[i].to = correlate(tasks[i].gram, tasks[i].begin, tasks[i].end, tasks[i].rows);
  });
  return result;
}

void InputMoments::Squares::add(const Squares& other) {
  sums.resize(std::max(sums.size(), other.sums.size()));
  for (std::size_t k = 0; k < other.sums.size(); ++k) sums[k] += other.sums[k];
  rows += other.rows;
}

void InputMoments::Squares::fill_up(const Squares& layer, int depth, bool same_channels) {
  const double missing = std::max(0.0, kFewRows - rows);
  const double all = std::accumulate(layer.sums.begin(), layer.sums.end(), 0.0);
  const double mean = all / (layer.rows * static_cast<double>(layer.sums.size()));
  sums.resize(depth);
  for (int k = 0; k < depth; ++k) sums[k] += missing * (same_channels ? layer.sums[k] / layer.rows : mean);
  rows += missing;
}

Importance calibrate(const Model& model, ThreadPool& pool, const CalibrationText& text,
                     const std::function<void(std::size_t, std::size_t)>& progress) {
  constexpr int kChunk = 256;  // tokens of a step: few, as all of them have logits
  const int window = std::min(kCalibrationWindow, model.config.max_position_embeddings);
  const int of_text = window - (text.first ? 1 : 0);
  const std::size_t there = text.tokens.size() / of_text;
  const std::size_t windows = std::min<std::size_t>(there, std::max(1, text.most_tokens / window));
  if (windows == 0) fail("expected a text of at least {} tokens, got {}", of_text, text.tokens.size());
  const std::unique_ptr<Communicator> alone = make_self_comm();
  RankGrid grid(model.placement, *alone);
  KvCache kv(model.config.num_layers(), (window + kKvBlock - 1) / kKvBlock, model.kv_shape(KvType::kF32));
  Activations a(model, grid.across_groups(), std::min(kChunk, window), std::min(kChunk, window));
  InputMoments moments(model.config, pool);
  for (std::size_t i = 0; i < windows; ++i) {
    const auto begin = text.tokens.begin() + static_cast<std::ptrdiff_t>(i * there / windows) * of_text;
    std::vector<std::int32_t> tokens(begin, begin + of_text);
    if (text.first) tokens.insert(tokens.begin(), *text.first);
    run_window(model, tokens, kv, a, grid, pool, moments);
    progress((i + 1) * window, windows * window);
  }
  return moments.importance();
}

}  // namespace foe

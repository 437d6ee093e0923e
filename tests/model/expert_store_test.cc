// The product of experts with a store that brings them in waves, as one must that has not enough memory for all.
#include "weights/expert_store.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"
#include "runner.h"
#include "weights/experts_of.h"

namespace foe {
namespace {

// Copies the experts that have rows, `most` at a time, out of weights that nobody else sees, and overwrites the copies
// when they are released.
class CopiedExperts final : public ExpertStore {
 public:
  CopiedExperts(std::unique_ptr<ExpertStore> all, int most) : all_(std::move(all)), most_(most) {}

  void expect(int, std::span<const int>) override {}
  std::size_t bytes() const override { return all_->bytes(); }
  std::int64_t copied() const { return copied_; }

 private:
  ExpertWave fetch(int layer, std::span<const std::int32_t> rows_begin, int first) override {
    const std::span<const ExpertWeights> all = all_->acquire(layer, rows_begin).weights;
    all_->release(layer);
    wave_.clear();
    for (const ExpertWeights& e : all)
      wave_.push_back({shape_of(e.gate_up), shape_of(e.down), e.gate_up_bias, e.down_bias_D});
    int e = first;
    for (int held = 0; e < static_cast<int>(rows_begin.size()) - 1; ++e) {
      if (rows_begin[e + 1] == rows_begin[e]) continue;
      if (held++ == most_) break;
      wave_[e].gate_up = copy_of(all[e].gate_up);
      wave_[e].down = copy_of(all[e].down);
      ++copied_;
    }
    return {{first, e}, wave_};
  }
  void give_back(int) override {
    for (ExpertWeights& e : wave_)
      for (PackedMatrix* m : {&e.gate_up, &e.down}) std::fill_n(m->own.data(), m->own.size(), std::byte{0xff});
  }

  static PackedMatrix shape_of(const PackedMatrix& w) {
    return {w.format, w.rows, w.depth, nullptr, panel_bytes(w.format, w.depth), {}};
  }
  static PackedMatrix copy_of(const PackedMatrix& w) {
    PackedMatrix copy = empty_packed(w.rows, w.depth, w.format);
    for (int p = 0; p < w.panels(); ++p)
      std::memcpy(copy.own.data() + p * copy.panel_stride, w.data + p * w.panel_stride, copy.panel_stride);
    return copy;
  }

  std::unique_ptr<ExpertStore> all_;
  const int most_;
  std::int64_t copied_ = 0;
  std::vector<ExpertWeights> wave_;
};

struct Outcome {
  std::vector<float> logits;
  std::int64_t touched = 0;  // experts that had rows, over all layers and steps
  std::int64_t copied = 0;
};

// Runs a prompt in steps; with `most` experts in memory, or 0: with all of them.
Outcome run_stored(const std::string& path, Plan plan, const FormatChoice& formats, int ranks, int most) {
  Outcome result;
  std::mutex mutex;
  run_ranks(ranks, 60, [&](Communicator& comm) {
    Model model = load_model(path, plan, comm, formats);
    CopiedExperts* copied = nullptr;
    if (most > 0) {
      auto store = std::make_unique<CopiedExperts>(std::move(model.weights.experts), most);
      copied = store.get();
      model.weights.experts = std::move(store);
    }
    Runner runner(std::move(model), comm, 2);
    const std::vector<std::int32_t> tokens = random_tokens(41, 70, 3);
    std::vector<float> logits;
    std::int64_t touched = 0;
    for (std::size_t at = 0, next; at < tokens.size(); at = next) {
      next = std::min<std::size_t>(tokens.size(), at == 0 ? 38 : at + 1);
      Batch batch;
      batch.add_sequence(std::span(tokens).subspan(at, next - at), static_cast<int>(at), blocks_of(0, 41),
                         Batch::Sample::kAll);
      const auto before = runner.a.stats.load.rows_LE;
      const std::vector<float> part = runner.run(batch);
      logits.insert(logits.end(), part.begin(), part.end());
      for (std::size_t l = 0; l < before.size(); ++l)
        for (std::size_t e = 0; e < before[l].size(); ++e) touched += runner.a.stats.load.rows_LE[l][e] > before[l][e];
    }
    const std::lock_guard lock(mutex);
    result.touched += touched;
    if (copied) result.copied += copied->copied();
    if (comm.rank() == 0) result.logits = std::move(logits);
  });
  return result;
}

TEST(ExpertStore, WavesGiveTheSameBitsAndHaveWhatTheRoutingSelects) {
  const FormatChoice formats[] = {
      {}, FormatChoice::all(WeightFormat::kBF16xBF16), FormatChoice::all(WeightFormat::kInt8)};
  ModelConfig dense = small_config(), shared = small_config();
  make_dense(dense);
  set(dense, &ExpertsConfig::width, 256);  // two blocks, one for each rank
  set(shared, &ExpertsConfig::shared, 2);
  for (const auto& [config, plan, ranks] :
       {std::tuple{small_config(), Plan::kTp, 1}, std::tuple{small_config(), Plan::kEp, 2},
        std::tuple{small_federated(4), Plan::kFoe, 2}, std::tuple{shared, Plan::kTp, 1},
        std::tuple{dense, Plan::kTp, 2}}) {
    const RandomModel folder(config);
    for (const FormatChoice& choice : formats) {
      const Outcome all = run_stored(folder.path(), plan, choice, ranks, 0);
      for (const int most : {1, 3, 100}) {
        SCOPED_TRACE(fmt::format("plan {} on {} ranks, {} experts at a time", to_string(plan), ranks, most));
        const Outcome some = run_stored(folder.path(), plan, choice, ranks, most);
        EXPECT_EQ(some.logits, all.logits);
        EXPECT_EQ(some.copied, some.touched);
        EXPECT_GT(some.copied, 0);
      }
    }
  }
}

TEST(ExpertStoreDeathTest, OneWaveIsHeldAndReleased) {
  const RandomModel folder(small_config());
  const auto comm = make_self_comm();
  const Model model = load_model(folder.path(), Plan::kTp, *comm);
  ExpertStore& store = *model.weights.experts;
  const std::vector<std::int32_t> rows_begin(17);
  EXPECT_DEATH(store.release(0), "layer 0 is released");
  const ExpertWave wave = store.acquire(1, rows_begin, 4);
  EXPECT_EQ(wave.experts.begin, 4);
  EXPECT_EQ(wave.experts.end, 16);
  EXPECT_EQ(wave.weights.size(), 16u);
  EXPECT_DEATH(store.release(0), "layer 0 is released, and layer 1 held");
  EXPECT_DEATH(store.acquire(2, rows_begin), "layer 2 is acquired while layer 1 is held");
  store.release(1);
  EXPECT_DEATH(store.release(1), "layer 1 is released");
}

}  // namespace
}  // namespace foe

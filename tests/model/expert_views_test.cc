// Experts are views of networks: slices of a wide one, or those of another layer, compute what experts with tensors of
// their own do.
#include <cstring>
#include <deque>
#include <functional>

#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"
#include "runner.h"
#include "weights/experts_of.h"
#include "weights/tensor_folder.h"

namespace foe {
namespace {

// Writes model folders from the tensors of another.
class Rewriter {
 public:
  explicit Rewriter(const std::string& model_dir) : from_(model_dir) {}

  const TensorFolder& from() const { return from_; }
  void add(const std::string& name, std::vector<std::int64_t> shape, std::vector<float> values) {
    sources_.push_back(float_source(name, DType::kF32, std::move(shape), values_.emplace_back(std::move(values))));
  }
  void copy(const std::string& name, const std::string& as) {
    const Tensor t = *from_.find(name);
    add(as, t.shape, floats(t));
  }
  // All tensors but those that `changed` takes care of.
  void copy_others(const std::function<bool(const std::string& name)>& changed) {
    for (const TensorFile& file : from_.files())
      for (const TensorInfo& info : file.tensors())
        if (!changed(info.name)) copy(info.name, info.name);
  }
  void write(const TempFolder& folder, const ModelConfig& config) {
    folder.write("config.json", model_config_json(config));
    write_tensor_file(folder / "model.safetensors", std::move(sources_));
  }
  static std::vector<float> floats(const Tensor& t) {
    std::vector<float> values(t.size());
    read_floats(t, 0, values);
    return values;
  }

 private:
  TensorFolder from_;
  std::deque<std::vector<float>> values_;
  std::vector<TensorSource> sources_;
};

std::vector<float> logits_of_views(Model model, Communicator& comm) {
  const std::vector<std::int32_t> tokens = random_tokens(40, model.config.vocab_size, 3);
  Runner runner(std::move(model), comm, 2);
  return in_chunks(runner, tokens, 40);
}

// The slices of the wide network "mlp.", and of "mlp.shared_experts.", written out as experts that the router scores.
TEST(ExpertViews, SlicesAreExpertsOfTheirOwn) {
  ModelConfig sliced = small_config();
  set(sliced, &ExpertsConfig::storage, ExpertStorage::kSlices);
  const RandomModel folder(sliced);
  const int D = sliced.hidden_size, F = sliced.experts(0).width, E = sliced.experts(0).count;
  Rewriter rewriter(folder.path());
  for (int l = 0; l < sliced.num_layers(); ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".mlp.";
    for (const char* name : {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}) {
      const std::vector<float> all = Rewriter::floats(*rewriter.from().find(p + name));
      const bool down = std::strcmp(name, "down_proj.weight") == 0;
      for (int e = 0; e < E; ++e) {
        std::vector<float> own(F * D);
        for (int row = 0; row < (down ? D : F); ++row)
          for (int i = 0; i < (down ? F : D); ++i)
            own[row * (down ? F : D) + i] = down ? all[row * E * F + e * F + i] : all[(e * F + row) * D + i];
        rewriter.add(p + "experts." + std::to_string(e) + "." + name,
                     down ? std::vector<std::int64_t>{D, F} : std::vector<std::int64_t>{F, D}, std::move(own));
      }
    }
  }
  rewriter.copy_others(
      [](const std::string& name) { return name.ends_with("_proj.weight") && name.find(".mlp.") != name.npos; });
  const TempFolder own;
  rewriter.write(own, small_config());
  const auto comm = make_self_comm();
  EXPECT_EQ(logits_of_views(load_model(folder.path(), Plan::kTp, *comm), *comm),
            logits_of_views(load_model(own.path(), Plan::kTp, *comm), *comm));
}

TEST(ExpertViews, ALayerMayUseTheExpertsOfAnother) {
  const RandomModel folder(small_config());
  const auto comm = make_self_comm();
  const std::string first = "model.layers.0.mlp.experts.", last = "model.layers.2.mlp.experts.";
  const auto is_of_last = [&](const std::string& name) { return name.starts_with(last); };
  const TempFolder without, copied;
  Rewriter rewriter(folder.path());
  rewriter.copy_others(is_of_last);
  rewriter.write(without, small_config());
  Rewriter copier(without.path());
  for (int e = 0; e < 16; ++e)
    for (const char* name : {".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"})
      copier.copy(first + std::to_string(e) + name, last + std::to_string(e) + name);
  copier.copy_others([](const std::string&) { return false; });
  copier.write(copied, small_config());

  ModelConfig reusing = small_config();
  reusing.experts(2).of_layer = 0;
  Placement placement = make_placement(reusing, Plan::kTp, 1);
  ThreadPool pool(1);
  Weights weights = load_weights(pool, without.path(), reusing, placement.ranks[0], {});
  for (int e = 0; e < 16; ++e) EXPECT_EQ(experts_of(weights, 2)[e].down.data, experts_of(weights, 0)[e].down.data);
  EXPECT_EQ(logits_of_views(make_model(reusing, std::move(placement), 0, std::move(weights)), *comm),
            logits_of_views(load_model(copied.path(), Plan::kTp, *comm), *comm));
}

}  // namespace
}  // namespace foe

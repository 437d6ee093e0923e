// Weights of GGUF files that keep their format: which ones do, and that panels have the very numbers of the file.
#include "weights/kept_formats.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/configs.h"
#include "experts_of.h"
#include "gguf_bytes.h"
#include "weights/config_json.h"
#include "weights/format_notes.h"
#include "weights/model_weights.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using enum WeightFormat;

struct Opened {
  std::string path;
  ModelConfig config = load_model_config(path);
  TensorFolder folder{path};
  StoredTensors stored{folder, config};

  explicit Opened(const std::string& name) : path(golden_gguf(name)) {}
  WeightFormats formats(const FormatChoice& choice = {}) const {
    WeightFormats formats = formats_in_memory(folder, stored_formats(stored, config), choice);
    keep_formats(stored, config, choice, formats);
    return formats;
  }
  WeightFormat of(const WeightFormats& formats, TensorRole role) const {
    return format_in_memory(stored, config, formats, stored.table().at(role, role == TensorRole::kHead ? -1 : 0));
  }
  Weights load(const FormatChoice& choice = {}) const {
    ThreadPool pool(2);
    return load_weights(pool, path, config, whole_share(config), choice);
  }
  // Whether a loaded matrix has the very panels of a tensor.
  void expect_kept(const PackedMatrix& w, const Tensor& tensor) const {
    ThreadPool pool(1);
    const StoredMatrix whole = matrix(tensor);
    const PackedMatrix expected = pack(pool, {&whole, 1}, *keeps_parts(whole));
    ASSERT_EQ(w.format, expected.format);
    ASSERT_EQ(w.bytes(), expected.bytes());
    EXPECT_EQ(std::memcmp(w.data, expected.data, w.bytes()), 0);
  }
};

// The file mixes types: q in Q4_K, k in Q5_K, v in Q6_K, output in Q8_0, gate in Q4_K, up in Q5_K, all else in Q6_K.
TEST(KeptFormats, AreThoseOfEachTensor) {
  const Opened model("llama_k");
  const WeightFormats formats = model.formats();
  EXPECT_EQ(model.of(formats, TensorRole::kQProj), kQ4_K);
  EXPECT_EQ(model.of(formats, TensorRole::kKProj), kBF16);  // Q5_K has no panels
  EXPECT_EQ(model.of(formats, TensorRole::kVProj), kQ6_K);
  EXPECT_EQ(model.of(formats, TensorRole::kOProj), kQ8_0);     // a block of a sum is 64 columns of two heads
  EXPECT_EQ(model.of(formats, TensorRole::kGateProj), kBF16);  // up is of another type
  EXPECT_EQ(model.of(formats, TensorRole::kUpProj), kBF16);
  EXPECT_EQ(model.of(formats, TensorRole::kDownProj), kQ6_K);
  EXPECT_EQ(model.of(formats, TensorRole::kHead), kQ6_K);
  EXPECT_THAT(formats.kept_attention.formats, ElementsAre(kBF16, kQ8_0, kQ4_K, kQ6_K));
  EXPECT_EQ(names(formats.attention, formats.kept_attention), "bf16+q8_0+q4_k+q6_k");
  EXPECT_EQ(names(formats.head, formats.kept_head), "q6_k");
  EXPECT_EQ(bits(formats.head, formats.kept_head), 6.75);
  EXPECT_THAT(format_notes(model.stored, model.config, formats),
              ElementsAre(HasSubstr("q4_k, q6_k, q8_0 keep their numbers"), HasSubstr("q4_k, q5_k are decoded")));

  const Weights w = model.load();
  const TensorTable& table = model.stored.table();
  const auto tensor = [&](TensorRole role) { return model.stored.find(table.at(role, 0)).tensor; };
  model.expect_kept(w.layers[0].streams[0].q, tensor(TensorRole::kQProj));
  model.expect_kept(w.layers[0].streams[0].v, tensor(TensorRole::kVProj));
  model.expect_kept(experts_of(w, 0)[0].down, tensor(TensorRole::kDownProj));
  model.expect_kept(w.head_vD, model.stored.head());
  EXPECT_EQ(w.layers[0].streams[0].k.format, kBF16);
  // Whole blocks everywhere: what is predicted is what is there.
  EXPECT_EQ(matrix_bytes(model.stored, model.config, formats, whole_share(model.config)),
            static_cast<double>(w.packed_bytes()));
}

TEST(KeptFormats, AreNotKeptIfAnotherOneIsAskedFor) {
  const Opened model("llama_k");
  const WeightFormats all = model.formats(FormatChoice::all(kF32));
  EXPECT_EQ(all, (WeightFormats{kF32, kF32, kF32}));
  EXPECT_THAT(format_notes(model.stored, model.config, all), ElementsAre());
  FormatChoice head;
  head.head = kInt8;
  const WeightFormats some = model.formats(head);
  EXPECT_EQ(model.of(some, TensorRole::kHead), kInt8);
  EXPECT_EQ(model.of(some, TensorRole::kQProj), kQ4_K);
}

// Rows of 64 columns are half a block of panels.
TEST(KeptFormats, Q8_0HasRowsOfAnyNumberOfParts) {
  const Opened model("qwen3");
  const Weights w = model.load();
  model.expect_kept(w.layers[0].streams[0].q, model.stored.find(model.stored.table().at(TensorRole::kQProj, 0)).tensor);
  EXPECT_EQ(experts_of(w, 0)[0].gate_up.format, kQ8_0);
  EXPECT_EQ(w.head_vD.format, kQ8_0);
  EXPECT_EQ(matrix_bytes(model.stored, model.config, w.formats, whole_share(model.config)),
            static_cast<double>(w.packed_bytes()));
}

// k is in Q4_0, and attention's output in Q4_1, with blocks of a sum of 32 columns.
TEST(KeptFormats, Q4_0HasThePanelsOfQ4_1) {
  const Opened model("llama_types");
  const Weights w = model.load();
  model.expect_kept(w.layers[0].streams[0].k, model.stored.find(model.stored.table().at(TensorRole::kKProj, 0)).tensor);
  EXPECT_EQ(w.layers[0].streams[0].k.format, kQ4_1);
  EXPECT_EQ(w.layers[0].streams[0].o.format, kQ4_1);
  EXPECT_EQ(matrix_bytes(model.stored, model.config, w.formats, whole_share(model.config)),
            static_cast<double>(w.packed_bytes()));
}

TEST(KeptFormats, AreAFilesAndNotAChoice) {
  EXPECT_THAT([] { parse_format_choice("--quantize", "head=q6_k"); },
              testing::ThrowsMessage<Error>(HasSubstr("got 'q6_k', to which nothing is rounded")));
}

}  // namespace
}  // namespace foe

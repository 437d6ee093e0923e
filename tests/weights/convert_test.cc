#include "weights/convert.h"

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "experts_of.h"
#include "file_memory.h"
#include "model/random_model.h"
#include "weights/config_json.h"
#include "weights/model_folder.h"
#include "weights/model_weights.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

using testing::HasSubstr;

constexpr FormatChoice kInt4 = {WeightFormat::kInt4, WeightFormat::kInt4, WeightFormat::kInt4};

ModelConfig federated_in(int groups) {
  ModelConfig c = whole_block_config(2);
  c.expert_groups = groups;
  c.residual = Residual::kFederated;
  return c;
}

void convert(const std::string& from, const ModelConfig& config, const FormatChoice& formats, const std::string& to) {
  ThreadPool pool(2);
  std::size_t last = 0, all = 1;
  convert_model(pool, from, config, formats, to, [&](std::size_t written, std::size_t total) {
    EXPECT_GT(written, last);
    last = written;
    all = total;
  });
  EXPECT_EQ(last, all);
}

Weights load(const std::string& path, const ModelConfig& config, const Share& share, const FormatChoice& formats = {}) {
  ThreadPool pool(1);
  return load_weights(pool, path, config, share, formats);
}

struct Converted {
  ModelConfig config;
  RandomModel original{config};
  TempFolder folder;
  std::string path = folder / "converted";

  explicit Converted(const ModelConfig& c = whole_block_config(2)) : config(c) {
    convert(original.path(), config, kInt4, path);
  }
};

void expect_equal(const PackedMatrix& a, const PackedMatrix& b) {
  ASSERT_EQ(a.format, b.format);
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.depth, b.depth);
  for (int p = 0; p < a.panels(); ++p)
    ASSERT_EQ(std::memcmp(a.data + p * a.panel_stride, b.data + p * b.panel_stride, panel_bytes(a.format, a.depth)), 0);
}

void expect_equal(const Weights& a, const Weights& b) {
  expect_equal(a.head_vD, b.head_vD);
  ASSERT_EQ(a.final_norm_D, b.final_norm_D);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    const LayerWeights &x = a.layers[l], &y = b.layers[l];
    ASSERT_EQ(x.attention_norm_D, y.attention_norm_D);
    ASSERT_EQ(x.expert_norm_D, y.expert_norm_D);
    ASSERT_EQ(x.streams.size(), y.streams.size());
    expect_equal(x.router_ED, y.router_ED);
    ASSERT_EQ(x.router_bias_E, y.router_bias_E);
    for (std::size_t g = 0; g < x.streams.size(); ++g) {
      expect_equal(x.streams[g].q, y.streams[g].q);
      expect_equal(x.streams[g].k, y.streams[g].k);
      expect_equal(x.streams[g].v, y.streams[g].v);
      expect_equal(x.streams[g].o, y.streams[g].o);
    }
    const auto experts = experts_of(a, static_cast<int>(l)), others = experts_of(b, static_cast<int>(l));
    ASSERT_EQ(experts.size(), others.size());
    for (std::size_t e = 0; e < experts.size(); ++e) {
      expect_equal(experts[e].gate_up, others[e].gate_up);
      expect_equal(experts[e].down, others[e].down);
      ASSERT_EQ(experts[e].gate_up_bias, others[e].gate_up_bias);
      ASSERT_EQ(experts[e].down_bias_D, others[e].down_bias_D);
    }
  }
}

// All of a rank's matrices, but for the ends of where they stand side by side, and nothing of the other rank's.
TEST(Convert, AsksForHugePagesBehindWhatARankMaps) {
  const std::string original = std::string(FOE_SOURCE_DIR) + "/models/foe-8m";
  const ModelConfig config = load_model_config(original);
  const TempFolder folder;
  convert(original, config, FormatChoice::all(WeightFormat::kBF16), folder / "converted");
  const ModelConfig read = load_model_config(folder / "converted");
  Share half = whole_share(config);
  set(half, &ExpertsShare::experts, {0, config.experts(0).count / 2});
  half.groups = half.kv_heads = {0, config.expert_groups / 2};
  {
    const Weights whole = load(folder / "converted", read, whole_share(config));
    EXPECT_LE(huge_pages_asked(folder / "converted"), whole.packed_bytes());
    EXPECT_GE(huge_pages_asked(folder / "converted") + (4 << 20), whole.packed_bytes());
  }
  const Weights part = load(folder / "converted", read, half);
  EXPECT_LE(huge_pages_asked(folder / "converted"), part.packed_bytes());
}

TEST(LoadWeights, KeepsNoPagesOfWhatItPacked) {
  const std::string folder = std::string(FOE_SOURCE_DIR) + "/models/foe-8m";
  const ModelConfig config = load_model_config(folder);
  load(folder, config, whole_share(config));  // code and tables that loading needs are in memory from here on
  const std::size_t before = file_memory();
  const Weights weights = load(folder, config, whole_share(config));
  EXPECT_GT(weights.packed_bytes(), std::size_t{8} << 20);
  EXPECT_LE(file_memory(), before + (std::size_t{2} << 20));
}

// Converted once or quantised at load: the same bytes, in every format, whole and for a rank's share.
TEST(Convert, MapsWhatLoadingWouldPack) {
  for (const ModelConfig& config : {whole_block_config(2), federated_in(4)})
    for (const FormatChoice& formats :
         {FormatChoice::all(WeightFormat::kBF16), FormatChoice::all(WeightFormat::kBF16xBF16),
          FormatChoice::all(WeightFormat::kInt8), kInt4, FormatChoice{WeightFormat::kInt8, WeightFormat::kInt4, {}}}) {
      const RandomModel original(config);
      const TempFolder folder;
      convert(original.path(), config, formats, folder / "converted");
      const ModelConfig read = load_model_config(folder / "converted");
      EXPECT_EQ(model_config_json(read), model_config_json(load_model_config(original.path())));
      Share half = whole_share(config);  // plan foe's or ep's on the second of two ranks
      set(half, &ExpertsShare::experts, {config.experts(0).count / 2, config.experts(0).count});
      if (config.federated()) half.groups = half.kv_heads = {2, 4};
      for (const Share& share : {whole_share(config), half}) {
        const Weights mapped = load(folder / "converted", read, share);
        expect_equal(mapped, load(original.path(), config, share, formats));
        EXPECT_EQ(experts_of(mapped, 0)[0].down.own.size(), 0u);  // a view of the file
      }
    }
}

TEST(Convert, KeepsBiases) {
  ModelConfig config = whole_block_config(2);
  set(config, &ExpertsConfig::bias, true);
  set(config, &RouterConfig::bias, true);
  const Converted model(config);
  Share half = whole_share(config);
  set(half, &ExpertsShare::experts, {config.experts(0).count / 2, config.experts(0).count});
  const Weights mapped = load(model.path, model.config, half);
  ASSERT_EQ(mapped.layers[0].router_bias_E.size(), 16u);
  ASSERT_EQ(experts_of(mapped, 0)[0].down_bias_D.size(), 128u);
  expect_equal(mapped, load(model.original.path(), config, half, kInt4));
}

// Plan tp's share of heads, and of a dense model's width, is cut out of the panels. Two query heads of 16 for each KV
// head are not whole blocks, and those of 64 are.
TEST(Convert, SharesOfHeadsAndWidthAreViews) {
  for (const int head_dim : {16, 64}) {
    ModelConfig dense = whole_block_config(2);
    make_dense(dense);
    set(dense, &AttentionConfig::key_width, head_dim);
    set(dense, &ExpertsConfig::width, 200);
    set(dense, &ExpertsConfig::bias, true);
    const Converted model(dense);
    const ModelConfig& config = model.config;
    Share half = whole_share(config);
    half.kv_heads = {2, 4};
    set(half, &ExpertsShare::width, {128, 200});
    half.vocab = {32, 70};
    expect_equal(load(model.path, config, half), load(model.original.path(), config, half, kInt4));
    set(half, &ExpertsShare::width, {48, 200});
    EXPECT_THAT(error_of([&] { load(model.path, config, half); }),
                HasSubstr("mlp.down_proj: rows 0 to 128, columns 48 to 200 of a matrix that is packed in panels of "
                          "16 rows and blocks of " +
                          std::to_string(block_depth(WeightFormat::kInt4)) + " columns"));
  }
}

// As on a rank of plan tp that has no heads.
TEST(Convert, SharesOfNothing) {
  const Converted model;
  const ModelConfig& config = model.config;
  Share none = whole_share(config);
  none.kv_heads = {4, 4};
  set(none, &ExpertsShare::width, {128, 128});
  none.vocab = {70, 70};
  const Weights w = load(model.path, config, none);
  EXPECT_EQ(w.layers[0].streams[0].q.rows, 0);
  EXPECT_EQ(w.layers[0].streams[0].o.depth, 0);
  EXPECT_EQ(experts_of(w, 0)[0].down.depth, 0);
  EXPECT_EQ(w.head_vD.rows, 0);
}

// What belongs to text comes along.
TEST(Convert, KeepsTokenizerAndChatTemplate) {
  const ModelConfig config = whole_block_config(2);
  const RandomModel original(config);
  const TempFolder folder;
  const std::vector<std::string> names = {"tokenizer.json",        "tokenizer.model",         "hy.tiktoken",
                                          "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
  for (const std::string& name : names) std::ofstream(original.path() + "/" + name) << "{\"" << name << "\": 1}";
  convert(original.path(), config, kInt4, folder / "converted");
  for (const std::string& name : names) EXPECT_EQ(folder.read("converted/" + name), "{\"" + name + "\": 1}");
}

TEST(Convert, RefusesWhatIsConvertedAndOtherFormats) {
  const Converted model;
  const ModelConfig& config = model.config;
  EXPECT_THAT(error_of([&] { convert(model.path, config, kInt4, model.folder / "again"); }),
              HasSubstr("expected a model that has not been converted, got one with attention in int4"));
  EXPECT_FALSE(std::filesystem::exists(model.folder / "again"));
  EXPECT_THAT(error_of([&] {
                load(model.path, config, whole_share(config), {{}, WeightFormat::kInt8, {}});
              }),
              HasSubstr("experts are packed as int4 in the file and cannot become int8"));
}

// What stands in a file is checked before it is read.
TEST(Convert, RefusesPanelsOfAnotherShape) {
  const Converted model;
  const ModelConfig& config = model.config;
  ModelConfig other = config;
  other.vocab_size = 90;
  EXPECT_THAT(error_of([&] { load(model.path, other, whole_share(other)); }), HasSubstr("expected shape [90, 128]"));
  other = config;
  set(other, &ExpertsConfig::width, 160);
  EXPECT_THAT(error_of([&] { load(model.path, other, whole_share(other)); }),
              HasSubstr("gate_up_proj.panels.int4x128: expected shape [1, 20, 1088], got [1, 16, 1088]"));
}

TEST(Convert, RefusesPanelsThatAreMissingOrOfNoModel) {
  const Converted model;
  ModelConfig one_layer = model.config;
  set_layers(one_layer, 1);
  EXPECT_THAT(error_of([&] { load(model.path, one_layer, whole_share(one_layer)); }),
              HasSubstr("expected no tensors but those that config.json describes, got model.layers.1."));
  const std::string file = "converted/model.safetensors", name = "model.layers.1.mlp.experts.3.down_proj.panels";
  std::string bytes = model.folder.read(file);
  bytes[bytes.find(name) + name.find(".3.") + 1] = 'x';
  model.folder.write(file, bytes);
  EXPECT_THAT(error_of([&] { load(model.path, model.config, whole_share(model.config)); }),
              HasSubstr("expected a tensor " + name + ".int4x128, got no such tensor"));
}

TEST(Convert, RefusesLayoutsItDoesNotKnow) {
  const Converted model;
  const ModelConfig& config = model.config;
  const std::string file = "converted/model.safetensors", known = "int4x128", other = "int4x999";
  std::string bytes = model.folder.read(file);
  for (std::size_t at = 0; (at = bytes.find(known, at)) != std::string::npos; ++at)
    bytes.replace(at, known.size(), other);
  model.folder.write(file, bytes);
  EXPECT_THAT(error_of([&] { load(model.path, config, whole_share(config)); }),
              HasSubstr("expected a layout that this version of foe has, got "
                        "model.layers.0.self_attn.q_proj.panels.int4x999: convert the original model again"));
}

// Killed in the middle: nothing stands at the new folder's name, and the next try takes over what is beside it.
TEST(Convert, MayBeKilledAndRunAgain) {
  const ModelConfig config = whole_block_config(2);
  const RandomModel original(config);
  const TempFolder folder;
  const std::string out = folder / "converted/";
  const pid_t child = fork();
  if (child == 0) {
    ThreadPool pool(1);
    convert_model(pool, original.path(), config, kInt4, out, [](std::size_t, std::size_t) { raise(SIGKILL); });
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_FALSE(std::filesystem::exists(folder / "converted"));
  EXPECT_TRUE(std::filesystem::exists(folder / "converted.partial/model.safetensors.tmp"));
  folder.write("converted.partial/chat_template.jinja", "of another model");
  convert(original.path(), config, kInt4, out);
  EXPECT_FALSE(std::filesystem::exists(folder / "converted.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder / "converted/chat_template.jinja"));
  load(folder / "converted", config, whole_share(config));
}

TEST(NewFolder, IsNeverTwoProcessesAndReplacesNothing) {
  const TempFolder folder;
  {
    const NewFolder one(folder / "out");
    EXPECT_THAT(error_of([&] { NewFolder(folder / "out"); }),
                HasSubstr("out.partial: expected a folder of its own, but another process is writing it"));
    EXPECT_TRUE(std::filesystem::exists(one.partial()));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial"));
  std::filesystem::create_symlink("nowhere", folder / "link");
  EXPECT_THAT(error_of([&] { NewFolder(folder / "link"); }),
              HasSubstr("link: expected a folder that is not there yet"));
  std::filesystem::create_directory(folder / "taken");
  EXPECT_THAT(error_of([&] { NewFolder(folder / "taken/"); }), HasSubstr("expected a folder that is not there yet"));
}

TEST(FormatChoice, ParsesFormatsAndParts) {
  const FormatChoice all = parse_format_choice("--quantize", "int4");
  EXPECT_EQ(all.attention, WeightFormat::kInt4);
  EXPECT_EQ(all.head, WeightFormat::kInt4);
  const FormatChoice parts = parse_format_choice("--quantize", "experts=int4,head=bf16");
  EXPECT_EQ(parts.attention, std::nullopt);
  EXPECT_EQ(parts.experts, WeightFormat::kInt4);
  EXPECT_EQ(parts.head, WeightFormat::kBF16);
  const FormatChoice both = parse_format_choice("--quantize", "int4,head=int8");
  EXPECT_EQ(both.experts, WeightFormat::kInt4);
  EXPECT_EQ(both.head, WeightFormat::kInt8);
  EXPECT_THAT(error_of([] { parse_format_choice("--quantize", "int5"); }),
              HasSubstr("--quantize: expected f32, bf16, bf16xbf16, int8 or int4, got 'int5'"));
  EXPECT_THAT(error_of([] { parse_format_choice("--quantize", ""); }), HasSubstr("got ''"));
  EXPECT_THAT(error_of([] { parse_format_choice("--quantize", "int4,int8"); }),
              HasSubstr("expected a format, or attention=, experts= or head= with one, got 'int8'"));
  EXPECT_THAT(error_of([] { parse_format_choice("--quantize", "router=int8"); }), HasSubstr("got 'router=int8'"));
  EXPECT_THAT(error_of([] { parse_format_choice("--quantize", "experts="); }), HasSubstr("got ''"));
}

}  // namespace
}  // namespace foe

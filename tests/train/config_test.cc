// Every way a configuration can be wrong, and what the message says then.
#include "train/config.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "core/model_tensors.h"
#include "tiny_run.h"

namespace foe::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// The tiny configuration with one piece of text in place of another.
std::string edited(const std::string& from, const std::string& to) {
  std::string toml = kTinyToml;
  EXPECT_NE(toml.find(from), std::string::npos) << from;
  return toml.replace(toml.find(from), from.size(), to);
}

struct Wrong {
  std::string from, to, message;
};

void PrintTo(const Wrong& wrong, std::ostream* out) {
  *out << wrong.to;
}

class WrongConfig : public testing::TestWithParam<Wrong> {};

TEST_P(WrongConfig, SaysWhatWasExpected) {
  const Wrong& wrong = GetParam();
  EXPECT_THAT([&] { parse_train_config(edited(wrong.from, wrong.to), "tiny.toml"); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr("tiny.toml"), HasSubstr(wrong.message))));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongConfig,
    testing::Values(
        Wrong{"[run]", "[run", "line"},
        Wrong{"[run]", "[walk]", "unknown table or key \"walk\"; expected [model], [data], [train], [run]"},
        Wrong{"[model]", "data = 3\n[model]", "data: expected a table, got 3"},
        Wrong{"steps = 40", "stepz = 40", "train.steps: expected a value, found none"},
        Wrong{"seed = 3", "seeds = 3", "unknown key \"seeds\"; expected adam_eps"},
        Wrong{"steps = 40", "steps = 0", "train.steps: expected an integer from 1 to 2147483647, got 0"},
        Wrong{"steps = 40", "steps = \"40\"", "train.steps: expected an integer from 1 to 2147483647, got '40'"},
        Wrong{"steps = 40", "steps = 4.5", "train.steps: expected an integer from 1 to 2147483647, got 4.5"},
        Wrong{"steps = 40", "steps = 99999999999", "got 99999999999"},
        Wrong{"warmup_steps = 4", "warmup_steps = 41", "train.warmup_steps: expected an integer from 0 to 40, got 41"},
        Wrong{"learning_rate = 1e-2", "learning_rate = -1",
              "train.learning_rate: expected a number from 0 to 10, got -1"},
        Wrong{"learning_rate = 1e-2", "learning_rate = nan",
              "train.learning_rate: expected a number from 0 to 10, got nan"},
        Wrong{"learning_rate = 1e-2", "learning_rate = true", "expected a number from 0 to 10, got true"},
        Wrong{"batch_sequences = 4", "batch_sequences = 5",
              "train.batch_sequences: expected a multiple of train.shards = 2, got 5"},
        Wrong{"sequence_length = 24\nbatch_sequences = 4", "sequence_length = 65536\nbatch_sequences = 128",
              "train.batch_sequences * train.sequence_length: expected at most 4194304, got 8388608"},
        Wrong{"tie_word_embeddings = true", "tie_word_embeddings = 1",
              "model.tie_word_embeddings: expected true or false, got 1"},
        Wrong{"residual = \"federated\"", "residual = \"none\"",
              "model.residual: expected one of \"shared\", \"federated\", got \"none\""},
        Wrong{"residual = \"federated\"", "residual = 2", "model.residual: expected a string, got 2"},
        Wrong{"qk_norm = \"head\"", "max_position_embeddings = 8",
              "model.max_position_embeddings: expected an integer from 24 to 2147483647, got 8"},
        Wrong{"qk_norm = \"head\"", "layers = 3", "model.layers: expected a list of objects, got 3"},
        Wrong{"qk_norm = \"head\"", "layers = [{ repeat = 3 }]",
              "model.num_hidden_layers: expected 3, as there are in layers, got 2"},
        Wrong{"expert_groups = 2", "expert_groups = 3", "model.expert_groups: expected a divisor of"},
        Wrong{"seed = 3", "seed = 3\nprecision = \"f16\"",
              "train.precision: expected one of \"f32\", \"bf16\", got \"f16\""},
        Wrong{"save_dtype = \"f32\"", "save_dtype = \"f16\"",
              "run.save_dtype: expected one of \"bf16\", \"f32\", got \"f16\""},
        Wrong{"log_every = 1", "log_every = 0", "run.log_every: expected an integer from 1"}));

TEST(TrainConfig, ReadsWhatItIsGiven) {
  const TrainConfig c = parse_train_config(kTinyToml, "tiny.toml");
  EXPECT_EQ(c.model.hidden_size, 32);
  EXPECT_EQ(c.model.heads().qk_norm, QkNorm::kHead);
  EXPECT_EQ(c.model.max_position_embeddings, 24);
  EXPECT_EQ(c.batch_tokens(), 96);
  EXPECT_EQ(c.save_dtype, DType::kF32);
  EXPECT_EQ(c.identity.at("train.learning_rate"), "0.01");
  EXPECT_EQ(c.identity.at("train.beta2"), "0.95");  // defaults count as well
  EXPECT_EQ(c.identity.count("run.log_every"), 0u);
}

TEST(TrainConfig, LayersAreThoseOfConfigJson) {
  const TrainConfig c =
      parse_train_config(edited("qk_norm = \"head\"",
                                "layers = [{}, { blocks = [{ attention = {}, parallel = true }, "
                                "{ experts = { router = { across_groups = true } }, residual_factor = 0.5 }] }]"),
                         "tiny.toml");
  ASSERT_EQ(c.model.num_layers(), 2);
  EXPECT_FALSE(c.model.layers[0].blocks[0].parallel);
  EXPECT_TRUE(c.model.layers[1].blocks[0].parallel);
  EXPECT_EQ(c.model.layers[1].blocks[1].residual_factor, 0.5);
  EXPECT_TRUE(c.model.experts(1).router->across_groups);
  EXPECT_EQ(c.identity.count("model.layers"), 1u);
  const TrainConfig every = parse_train_config(edited("qk_norm = \"head\"", "group_sync_every = 2"), "tiny.toml");
  EXPECT_EQ(every.model.group_sync_every, 2);
  // Checkpoints of models without these keys are still theirs.
  const TrainConfig plain = parse_train_config(kTinyToml, "tiny.toml");
  EXPECT_EQ(plain.identity.count("model.layers") + plain.identity.count("model.group_sync_every"), 0u);
}

TEST(TrainConfig, ShippedConfigurationsDifferOnlyInTheirGroups) {
  TrainConfig foe = load_train_config(FOE_SOURCE_DIR "/models/foe-8m/train.toml");
  const TrainConfig moe = load_train_config(FOE_SOURCE_DIR "/models/moe-8m/train.toml");
  EXPECT_TRUE(foe.model.federated());
  EXPECT_FALSE(moe.model.federated());
  EXPECT_EQ(parameter_count(foe.model), parameter_count(moe.model));
  for (const char* key : {"model.expert_groups", "model.residual", "model.group_sync"})
    foe.identity[key] = moe.identity.at(key);
  EXPECT_EQ(foe.identity, moe.identity);
}

// Such a key once overran the stack. What only looks like one is none.
TEST(TrainConfig, RefusesDeeplyNestedKeys) {
  std::string dots;
  for (int i = 0; i < 200'000; ++i) dots += "a.";
  const auto refused = ThrowsMessage<Error>(HasSubstr("expected a key of at most 9 parts, got a longer one"));
  for (const std::string& key : {"[" + dots + "a]", dots + "a = 1", "x = {" + dots + "a = 1}", "[[" + dots + "a]]",
                                 "x = [\"\"\"b\"\"\"\", {" + dots + "a = 1}]", "\"x\\\"\" = 1\n" + dots + "a = 1",
                                 "x = 'y\\'\n" + dots + "a = 1"})
    EXPECT_THAT([&] { parse_train_config(key + "\n" + kTinyToml, "tiny.toml"); }, refused) << key.substr(0, 20);
  EXPECT_THAT([&] { parse_train_config("\n\n" + dots + "a = 1", "tiny.toml"); },
              ThrowsMessage<Error>(HasSubstr("tiny.toml: line 3: ")));
  const TrainConfig c =
      parse_train_config("# " + dots + "\n" + kTinyToml + "dir = \"" + dots + "\"\n[data]\ntokens = '''\n" + dots +
                             "'''\ntokenizer = '" + dots + "'\n",
                         "tiny.toml");
  EXPECT_EQ(c.run_dir, dots);
  EXPECT_EQ(c.tokens, dots);
  EXPECT_EQ(c.tokenizer, dots);
}

TEST(TrainConfig, MissingFile) {
  EXPECT_THAT([] { load_train_config("/nowhere/train.toml"); }, ThrowsMessage<Error>(HasSubstr("/nowhere/train.toml")));
}

}  // namespace
}  // namespace foe::train
